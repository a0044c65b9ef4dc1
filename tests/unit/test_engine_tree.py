import pytest
from fixtures.students import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgeelad.engine.codec import Codec
from edgeelad.engine.sampling import make_seed
from edgeelad.engine.tree import (
    TreeParams,
    answer_stop,
    forced_ids,
    greedy_params,
    read_answer,
    step_ends,
    tree_request,
)
from edgeelad.records import Question
from edgeelad.text.answers import extract
from edgeelad.text.explanation import join_steps, split
from edgeelad.text.prompts import PromptFormat

unhurried = settings(deadline=None, max_examples=150)
CODEC = Codec(make_tokenizer(), PromptFormat(), {}, eos_ids=[2], max_context=200)
QUESTION = Question("q", "How many?")
PARAMS = TreeParams(3, 4, 0.7, 0, 1.0, 64, 64, True, 11)
LINES = ["2 + 3 = 5", "  indented", "", " ", "The answer is 5", "The answer is", "The answer is:", "The answer isn't 6",
         "The answer is 7 ", "so The answer is 8", "#### 9"]  # fmt: skip
explanations = st.lists(st.sampled_from(LINES), max_size=6).map("\n".join)


def merging_codec() -> Codec:
    """A tokenizer without words: it learns tokens such as ".\\nAdd" across the end of a line."""
    from tokenizers import trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    tokenizer.train_from_iterator(["Start with 3.\nAdd 4.\n3 + 4 = 7.\nThe answer is 7\n"] * 20, trainer)
    return Codec(tokenizer, PromptFormat(), {}, eos_ids=[], max_context=200)


def digit_codec() -> Codec:
    """A tokenizer like Qwen's: digits are tokens by themselves, the space before a number is a token of its own."""
    tokenizer = make_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])  # fmt: skip
    return Codec(tokenizer, PromptFormat(), {}, eos_ids=[], max_context=200)


def test_steps_end_after_their_newlines():
    text = "Start with 3.\nAdd 4.\n3 + 4 = 7.\nThe answer is 7"
    ids = CODEC.encode_completion(text)
    completion, ends = step_ends(CODEC, ids)
    assert [CODEC.decode(completion[:end]) for end in ends] == [
        "Start with 3.\n",
        "Start with 3.\nAdd 4.\n",
        "Start with 3.\nAdd 4.\n3 + 4 = 7.\n",
    ]
    assert completion[: ends[-1]] == ids[: ends[-1]]


@unhurried
@given(explanations)
def test_every_step_has_an_end_and_prefixes_hold_just_their_steps(text):
    completion, ends = step_ends(CODEC, CODEC.encode_completion(text))
    steps = split(text).steps
    assert len(ends) == len(steps)
    assert ends == sorted(set(ends))
    for number, end in enumerate(ends, start=1):
        prefix = CODEC.decode(completion[:end])
        assert split(prefix).steps == steps[:number]
        assert prefix.rstrip(" ").endswith("\n")


def test_a_last_step_without_newline_gets_one():
    ids = CODEC.encode_completion("Start with 3.\nAdd")
    completion, ends = step_ends(CODEC, ids)
    assert completion[: len(ids)] == ids
    assert CODEC.decode(completion) == "Start with 3.\nAdd\n"
    assert ends[-1] == len(completion)


def test_an_explanation_without_steps_has_no_ends():
    assert step_ends(CODEC, [])[1] == []
    assert step_ends(CODEC, CODEC.encode_completion("The answer is 5"))[1] == []
    assert step_ends(CODEC, CODEC.encode_completion("\n\n"))[1] == []


def test_tokens_that_run_over_a_newline_are_taken_apart():
    codec = merging_codec()
    text = "Start with 3.\nAdd 4.\n3 + 4 = 7.\nThe answer is 7\n"
    ids = codec.encode_completion(text)
    assert len(ids) < 10
    completion, ends = step_ends(codec, ids)
    steps = split(text).steps
    assert [codec.decode(completion[:end]) for end in ends] == [join_steps(steps[: n + 1]) for n in range(3)]


def test_a_request_has_a_point_per_prefix_with_its_own_seeds():
    ids = CODEC.encode_completion("Start with 3.\nAdd 4.\nThe answer is 7")
    request = tree_request(CODEC, QUESTION, [5, 6, 7], ids, PARAMS)
    assert request.prompt_ids == (5, 6, 7)
    assert [len(point.seeds) for point in request.points] == [4, 3, 3]
    assert request.points[0].num_tokens == 0
    assert request.points[2].seeds == tuple(make_seed(11, "q", 2, k) for k in range(3))
    assert len({seed for point in request.points for seed in point.seeds}) == 10
    assert all(point.forced_ids for point in request.points)


def test_a_request_ends_with_the_context():
    short = Codec(make_tokenizer(), PromptFormat(), {}, eos_ids=[2], max_context=20)
    ids = CODEC.encode_completion("Start with 3.\nAdd 4.\n3 + 4 = 7.\nThe answer is 7")[:15]
    request = tree_request(short, QUESTION, [5] * 8, ids, PARAMS)
    assert len(request.completion_ids) == 12
    assert len(request.points) == 4
    assert request.points[-1].num_tokens == 12


def test_greedy_params_ask_for_nothing_else():
    assert greedy_params(9).is_greedy
    assert not PARAMS.is_greedy
    assert greedy_params(9).max_explanation_tokens == 9


# --- the stated answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("2 + 3 = 5\nThe answer is 5\n", True),
        ("The answer is 5\nmore", True),
        ("  The answer is 5 \n", True),
        ("The answer is 5", False),  # the line may go on: 5, 50, 5.5
        ("The answer is\n", False),
        ("The answer is: \n", False),
        ("The answer isn't 5\n", False),
        ("so The answer is 5\n", False),
        ("The answer is\nThe answer is no\n", True),
        ("", False),
    ],
)
def test_a_sequence_stops_once_its_answer_line_is_complete(text, stops):
    assert answer_stop(CODEC).check(CODEC.encode_completion(text)) is stops


def test_the_stop_condition_is_checked_at_newlines_only():
    stop = answer_stop(CODEC)
    ids = CODEC.encode_completion("The answer is 5\n")
    assert ids[-1] in stop.tokens
    assert not any(token in stop.tokens for token in ids[:-1])


@unhurried
@given(explanations, st.sampled_from(["eos", "length"]))
def test_stopping_changes_no_answer(text, reason):
    stop = answer_stop(CODEC)
    ids = CODEC.encode_completion(text)
    for end, token in enumerate(ids, start=1):
        if token in stop.tokens and stop.check(ids[:end]):
            # what was written up to here reads the same, whatever would have followed
            assert read_answer(CODEC.decode(ids[:end]), QUESTION, "stop") == read_answer(text, QUESTION, "eos")
            return
    assert read_answer(text, QUESTION, reason) == extract(text, "number", strict=reason == "length")


def test_an_explanation_that_was_cut_counts_only_what_it_states():
    assert read_answer("2 + 3 = 5 apples", QUESTION, "eos") == "5"
    assert read_answer("2 + 3 = 5 apples", QUESTION, "length") is None
    assert read_answer("2 + 3 = 5\nThe answer is 5", QUESTION, "length") == "5"
    assert read_answer("The answer is 5\nThe answer is 6\n", QUESTION, "eos") == "5"


# --- forced answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["number", "choice", "boolean", "text"])
def test_forced_tokens_are_the_answer_prefix_as_completions_have_it(kind):
    forced = forced_ids(CODEC, kind, is_first=True)
    assert CODEC.decode(forced).rstrip() == "The answer is"
    samples = {"number": "7", "choice": "B", "boolean": "yes", "text": "red"}
    line = CODEC.encode_completion(f"The answer is {samples[kind]}")
    assert tuple(line[: len(forced)]) == forced
    assert len(line) > len(forced)


def test_a_space_that_is_its_own_token_is_forced_too():
    codec = digit_codec()
    forced = forced_ids(codec, "number", is_first=False)
    assert codec.decode(forced) == "The answer is "
    assert codec.encode_completion("The answer is 7")[len(forced) :] == codec.encode_completion("7")
    assert CODEC.decode(forced_ids(CODEC, "number", is_first=False)) in ("The answer is", "The answer is ")


def test_answers_that_the_tokenizer_does_not_know_are_all_forced_alike():
    vocabulary = {"<unk>": 0, "The": 1, "answer": 2, "is": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    codec = Codec(tokenizer, PromptFormat(), {}, eos_ids=[], max_context=9)
    assert forced_ids(codec, "choice", is_first=True) == (1, 2, 3, 0)
