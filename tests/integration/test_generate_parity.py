"""Generation against torch and against the reference in `engine.plain.reference`; trees in any batch.

The plain generator runs here on Optimum's own graphs; students of `students.onnx` run on the engine.
"""

import itertools
import random
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fixtures.students import FAMILIES, MAX_CONTEXT, SUMS, make_sum, questions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import BranchPoint, Limits, TreeRequest
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.plain import batch as batch_module
from edgeelad.engine.plain import prefill as prefill_module
from edgeelad.engine.plain.batch import BatchGenerator
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.engine.plain.reference import force_one, generate_one
from edgeelad.engine.sampling import SamplingParams, make_seed
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams, answer_stop, greedy_params, step_ends
from edgeelad.errors import PromptTooLongError
from edgeelad.records import Question
from edgeelad.text.explanation import join_steps, split

NUM_TOKENS = 24
SAMPLED = SamplingParams(NUM_TOKENS, temperature=0.9)
TREE = TreeParams(3, 5, 0.9, 0, 1.0, 48, 48, True, 7)
# sums that the trained student knows, and questions that lead it off its path
KNOWN = [make_sum(a, b)[0] for a, b in random.Random(0).sample(SUMS, 14)]
STRANGE = [replace(question, id=f"strange {question.id}") for question in questions(6, seed=1)]
ASKED = [*KNOWN, *STRANGE, Question("long", "What is " + "1 + " * 12 + "1?"), Question("short", "?")]


@contextmanager
def loaded(folder, name="model.onnx"):
    codec = Codec.load(folder)
    yield OnnxGraph(folder / name), codec


def assert_close(found, expected):
    """The same tokens for the same reason, log-probabilities and entropies to 1e-5."""
    assert found.ids == expected.ids
    assert found.finish_reason == expected.finish_reason
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert found.entropies == pytest.approx(expected.entropies, abs=1e-5)


def torch_continuations(folder, prompts, max_new_tokens, eos_ids):
    """What transformers' `generate` writes greedily after each prompt alone, without the end token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(eos_ids),
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        texts.append(tuple(found[:-1] if found and found[-1] in eos_ids else found))
    return texts


def torch_logprobs(folder, prompt, ids):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].double()
    distributions = torch.log_softmax(logits, dim=-1)
    chosen = distributions[torch.arange(len(ids)), torch.tensor(ids)]
    return chosen.tolist(), (-(distributions.exp() * distributions).sum(dim=-1)).tolist()


# --- against torch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_what_torch_generates(students, family, is_tied):
    plain = students.plain(family, is_tied=is_tied)
    with loaded(students.standard(plain)) as (graph, codec):
        prompts = [codec.encode_prompt(question) for question in ASKED]
        prompts[3] = prompts[3][:1]  # as ragged as can be
        limits = Limits(codec.eos_ids, codec.max_context)
        together = BatchGenerator(graph, 8).generate(prompts, SamplingParams(NUM_TOKENS), limits)
        expected = torch_continuations(plain, prompts, NUM_TOKENS, codec.eos_ids)
        assert [sequence.ids for sequence in together] == expected
        assert len(set(expected)) > len(prompts) // 2  # the students do not all write the same
        for index in (0, 3, len(prompts) - 2):
            (alone,) = BatchGenerator(graph).generate([prompts[index]], SamplingParams(NUM_TOKENS), limits)
            assert_close(together[index], alone)
            logprobs, entropies = torch_logprobs(plain, prompts[index], together[index].ids)
            num_tokens = len(together[index].ids)
            assert together[index].logprobs[:num_tokens] == pytest.approx(logprobs, abs=1e-4)
            assert together[index].entropies[:num_tokens] == pytest.approx(entropies, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_context_is_filled_and_not_passed_in_ragged_batches(students, family):
    # short rows go on while long ones fill the context: places in the batch then pass the number of positions
    plain = students.plain(family)
    with loaded(students.standard(plain)) as (graph, codec):
        rng = random.Random(0)
        lengths = (MAX_CONTEXT - 1, MAX_CONTEXT - 2, MAX_CONTEXT - 30, 40, 5, MAX_CONTEXT, MAX_CONTEXT + 3)
        prompts = [[rng.randrange(3, codec.vocab_size) for _ in range(length)] for length in lengths]
        found = BatchGenerator(graph).generate(prompts, SamplingParams(MAX_CONTEXT), Limits(frozenset(), MAX_CONTEXT))
        assert [len(sequence.ids) for sequence in found] == [1, 2, 30, MAX_CONTEXT - 40, MAX_CONTEXT - 5, 0, 0]
        assert {sequence.finish_reason for sequence in found} == {"length"}
        for prompt, sequence in zip(prompts[:5], found[:5], strict=True):
            assert torch_continuations(plain, [prompt], len(sequence.ids), ()) == [sequence.ids]


def test_several_end_tokens_end_a_sequence(students):
    plain = students.plain()
    with loaded(students.standard(plain)) as (graph, codec):
        prompts = [codec.encode_prompt(question) for question in ASKED[:8]]
        free = BatchGenerator(graph).generate(prompts, SamplingParams(NUM_TOKENS), Limits(frozenset(), MAX_CONTEXT))
        eos_ids = frozenset({free[0].ids[4], free[1].ids[7], 2})
        ended = BatchGenerator(graph).generate(prompts, SamplingParams(NUM_TOKENS), Limits(eos_ids, MAX_CONTEXT))
        assert [sequence.ids for sequence in ended] == torch_continuations(plain, prompts, NUM_TOKENS, eos_ids)
        assert "eos" in {sequence.finish_reason for sequence in ended}
        for sequence in ended:
            assert len(sequence.logprobs) == len(sequence.ids) + (sequence.finish_reason == "eos")


def test_the_trained_student_explains_as_torch_does(students):
    plain, folder = students.trained(), students.trained_onnx()
    with Student.open(folder, EngineOptions(batch_size=7)) as student:
        trees = student.explain(ASKED, 48)
        prompts = [student.codec.encode_prompt(question) for question in ASKED]
        for tree, ids in zip(trees, torch_continuations(plain, prompts, 48, student.codec.eos_ids), strict=True):
            text = student.codec.decode(ids)
            assert text.startswith(tree.text)
            assert tree.finish_reason == "stop" or text == tree.text
        right = [tree.answer == make_sum(*map(int, tree.question.id.split("+")))[2] for tree in trees[: len(KNOWN)]]
        assert sum(right) >= 0.8 * len(KNOWN)
        assert {tree.num_steps for tree in trees[: len(KNOWN)]} == {3}


# --- against the definition -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "params", [SAMPLED, SamplingParams(NUM_TOKENS, 1.3, top_k=9), SamplingParams(NUM_TOKENS, 1.0, top_p=0.8)]
)
def test_sampled_sequences_are_those_of_the_definition(students, family, params):
    with loaded(students.standard(students.plain(family))) as (graph, codec):
        prompts = [codec.encode_prompt(question) for question in ASKED[:6]]
        seeds = [make_seed(1, question.id, 0, 0) for question in ASKED[:6]]
        limits = Limits(codec.eos_ids, codec.max_context)
        found = BatchGenerator(graph).generate(prompts, params, limits, seeds)
        for prompt, seed, sequence in zip(prompts, seeds, found, strict=True):
            assert_close(sequence, generate_one(graph, prompt, params, limits, seed))


def make_requests(codec, graph, limits):
    requests = []
    for question in (*KNOWN[:3], *STRANGE[:4]):
        prompt = codec.encode_prompt(question)
        completion, ends = step_ends(codec, generate_one(graph, prompt, SamplingParams(40), limits).ids)
        forced = codec.encode_completion("The answer is")
        points = [
            BranchPoint(end, tuple(make_seed(2, question.id, end, k) for k in range(2)), tuple(forced[: 1 + end % 3]))
            for end in (0, *ends)
        ]
        requests.append(TreeRequest(tuple(prompt), tuple(completion), tuple(points)))
    return requests


def test_branches_and_forced_answers_are_those_of_the_definition(students):
    with loaded(students.standard(students.trained())) as (graph, codec):
        limits = Limits(codec.eos_ids, codec.max_context, answer_stop(codec))
        requests = make_requests(codec, graph, limits)
        params = SamplingParams(16, temperature=0.9)  # too few for a whole explanation
        results = BatchGenerator(graph, 9).generate_trees(requests, params, limits)
        reasons = set()
        for request, result in zip(requests, results, strict=True):
            assert len(result.branches) == len(result.forced) == len(request.points)
            for point, branches, forced in zip(request.points, result.branches, result.forced, strict=True):
                prefix = (*request.prompt_ids, *request.completion_ids[: point.num_tokens])
                for seed, branch in zip(point.seeds, branches, strict=True):
                    assert_close(branch, generate_one(graph, prefix, params, limits, seed))
                    reasons.add(branch.finish_reason)
                expected = force_one(graph, prefix, point.forced_ids)
                assert forced.id == expected.id
                assert forced.entropy == pytest.approx(expected.entropy, abs=1e-5)
        assert reasons == {"eos", "stop", "length"}


def test_a_request_without_points_and_points_without_seeds_or_room(students):
    with loaded(students.standard(students.plain())) as (graph, codec):
        limits = Limits(codec.eos_ids, 20)
        full = TreeRequest(
            (5,) * 12, (6,) * 8, (BranchPoint(8, (1, 2), (7,)), BranchPoint(0), BranchPoint(7, (3,), (7,)))
        )
        nothing, result = BatchGenerator(graph).generate_trees([TreeRequest((5,), (), ()), full], SAMPLED, limits)
        assert nothing.branches == nothing.forced == ()
        assert [len(group) for group in result.branches] == [2, 0, 1]
        assert {branch.finish_reason for branch in result.branches[0]} == {"length"}
        assert result.branches[0][0].ids == ()
        assert len(result.branches[2][0].logprobs) == 1
        assert result.forced == (None, None, None)
        assert BatchGenerator(graph).generate_trees([], SAMPLED, limits) == []
        assert BatchGenerator(graph).generate([], SAMPLED, limits, []) == []


@pytest.mark.parametrize(("module", "name", "size"), [
    (batch_module, "MAX_CACHE_BYTES", 30_000),  # a few hundred tokens: small batches
    (batch_module, "MAX_CACHE_BYTES", 1),  # one row at a time
    (prefill_module, "MAX_LOGIT_BYTES", 40_000),  # a few tokens of a batch at a time
    (prefill_module, "MAX_LOGIT_BYTES", 1),  # token by token
])  # fmt: skip
def test_little_memory_changes_nothing_but_the_batches(students, monkeypatch, module, name, size):
    folder = students.standard(students.trained())
    with Student.open(folder) as student:
        expected = list(student.generate_trees(ASKED[:8], TREE))
    monkeypatch.setattr(module, name, size)
    with Student.open(folder) as student:
        assert_same_trees(list(student.generate_trees(ASKED[:8], TREE)), expected)


def test_the_engine_generates_the_trees_of_the_plain_generator(students):
    with Student.open(students.standard(students.trained())) as student:
        expected = list(student.generate_trees(ASKED, TREE))
    with Student.open(students.trained_onnx()) as student:
        assert_same_trees(student.generate_trees(ASKED, TREE), expected)


# --- trees: the same alone, in any batch, in any order --------------------------------------------------------------


def assert_same_trees(found, expected, tolerance=1e-5):
    """Equal but for the last bits of log-probabilities and entropies."""
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text
        assert one.answer == other.answer
        assert one.finish_reason == other.finish_reason
        assert one.tokens == other.tokens
        assert one.branch_answers == other.branch_answers
        assert [[b.text for b in group] for group in one.branches] == [[b.text for b in g] for g in other.branches]
        assert [probe.answer for probe in one.probes] == [probe.answer for probe in other.probes]
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=tolerance)
        assert one.token_entropies == pytest.approx(other.token_entropies, abs=tolerance)
        assert [p.entropy for p in one.probes] == pytest.approx([p.entropy for p in other.probes], abs=tolerance)
        for group, others in zip(one.branches, other.branches, strict=True):
            assert [b.mean_logprob for b in group] == pytest.approx([b.mean_logprob for b in others], abs=tolerance)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def trees_of_all(students, precision):
    """The trees of ASKED, generated together."""
    with Student.open(students.trained_onnx(), EngineOptions(precision=precision)) as student:
        return {tree.question.id: tree for tree in student.generate_trees(ASKED, TREE)}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.sampled_from(ASKED), min_size=1, max_size=12, unique_by=lambda question: question.id),
    batch_size=st.integers(1, 13),
    kv_bytes=st.sampled_from([None, 1, 200_000, 2_000_000]),
)
def test_a_tree_is_the_same_bits_alone_in_any_batch_in_any_order_and_memory(
    students, precision, trees_of_all, asked, batch_size, kv_bytes
):
    options = EngineOptions(batch_size=batch_size, precision=precision, kv_bytes=kv_bytes)
    with Student.open(students.trained_onnx(), options) as student:
        found = list(student.generate_trees(asked, TREE))
    assert found == [trees_of_all[question.id] for question in asked]


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_trees_of_every_family_are_the_same_bits_alone_and_together(students, family):
    trees = []
    for batch_size in (1, 5, 64):
        with Student.open(students.onnx(family), EngineOptions(precision="int8", batch_size=batch_size)) as student:
            trees.append(list(student.generate_trees(ASKED[:7], TREE)))
    assert trees[0] == trees[1] == trees[2]


def test_a_tree_has_what_was_asked_for(students):
    with Student.open(students.trained_onnx()) as student:
        (tree,) = student.generate_trees(ASKED[:1], TREE)
        assert [len(group) for group in tree.branches] == [5, 3, 3, 3]
        assert len(tree.probes) == tree.num_steps + 1 == 4
        assert tree.steps == split(tree.text).steps
        assert tree.tokens.prompt == len(student.codec.encode_prompt(ASKED[0]))
        assert tree.tokens.explanation == len(tree.token_logprobs) == len(tree.token_entropies)
        assert tree.tokens.branch == sum(branch.num_tokens for group in tree.branches for branch in group)
        assert tree.tokens.probe > 0
        (bare,) = student.generate_trees(ASKED[:1], greedy_params(48))
        assert bare.branches == bare.probes == ()
        assert bare.text == tree.text
        (rooted,) = student.generate_trees(ASKED[:1], TreeParams(0, 4, 0.9, 0, 1.0, 48, 48, False, 7))
        assert [len(group) for group in rooted.branches] == [4, 0, 0, 0]
        # seeds are a branch's own, however many there are
        assert [branch.text for branch in rooted.branches[0]] == [branch.text for branch in tree.branches[0][:4]]
        assert rooted.probes == ()
        (probed,) = student.generate_trees(ASKED[:1], TreeParams(0, 0, 0.9, 0, 1.0, 48, 48, True, 7))
        assert probed.branches == ()
        assert [p.answer for p in probed.probes] == [p.answer for p in tree.probes]


def test_a_branch_without_a_step_continues_from_the_other_steps(students):
    with Student.open(students.trained_onnx()) as student:
        cold = TreeParams(0, 0, 1e-3, 0, 1.0, 48, 48, False, 7, num_removal_branches=2)
        (tree,) = student.generate_trees(ASKED[:1], cold)
        assert tree.branches == ()
        assert [len(group) for group in tree.removals] == [2] * tree.num_steps
        kept = [(ASKED[0], (*tree.steps[:i], *tree.steps[i + 1 :])) for i in range(tree.num_steps)]
        for text, group in zip(student.continue_from(kept, 48), tree.removals, strict=True):
            assert {branch.text for branch in group} == {text}
        assert tree.tokens.branch == sum(branch.num_tokens for group in tree.removals for branch in group)


def test_step_ends_and_symbols_are_those_of_the_tokens(students):
    with Student.open(students.trained_onnx()) as student:
        (tree,) = student.generate_trees(ASKED[:1], greedy_params(48))
        ids = student.codec.encode_completion(tree.text)
        assert len(ids) == len(tree.is_symbol)
        ends = (0, *tree.step_ends)
        lines = [student.codec.decode(ids[start:end]) for start, end in itertools.pairwise(ends)]
        assert [line.strip() for line in lines] == list(tree.steps)
        texts = [student.codec.decode([token]) for token in ids]
        assert [any(c in "0123456789+-*/" for c in text) for text in texts] == list(tree.is_symbol)


def test_probes_after_the_last_step_see_the_answer(students):
    with Student.open(students.trained_onnx()) as student:
        trees = list(student.generate_trees(KNOWN, TREE))
        sure = [tree for tree in trees if tree.answer is not None and len(tree.answer) == 1 and tree.num_steps == 3]
        assert len(sure) >= 4
        assert sum(tree.probes[-1].answer == tree.answer for tree in sure) >= 0.9 * len(sure)


def test_another_seed_gives_other_branches_of_the_same_explanation(students):
    with Student.open(students.trained_onnx()) as student:
        first = list(student.generate_trees(ASKED, TREE))
        other = list(student.generate_trees(ASKED, TreeParams(3, 5, 0.9, 0, 1.0, 48, 48, True, 8)))
        assert [tree.text for tree in first] == [tree.text for tree in other]
        assert [tree.branches for tree in first] != [tree.branches for tree in other]


# --- the rest of the text level -------------------------------------------------------------------------------------


def test_the_stream_joins_to_the_explanation(students):
    for folder in (students.onnx("qwen2"), students.trained_onnx()):
        with Student.open(folder) as student:
            for tree in student.explain(ASKED[:5], NUM_TOKENS):
                pieces = list(student.stream(tree.question, NUM_TOKENS))
                assert "".join(pieces) == tree.text
                assert len(pieces) > 1


def test_continuing_from_its_own_steps_writes_the_rest_of_an_explanation(students):
    with Student.open(students.trained_onnx(), EngineOptions(batch_size=4)) as student:
        trees = student.explain(KNOWN, 48)
        items = [(tree.question, tree.steps[: index % 3]) for index, tree in enumerate(trees)]
        for (_, steps), tree, text in zip(items, trees, student.continue_from(items, 48), strict=True):
            assert join_steps(steps) + text == tree.text
        for item, text in zip(items[:3], student.continue_from(items, 48), strict=False):
            assert student.continue_from([item], 48) == [text]
        assert student.continue_from([], 48) == []
        # what a student was cut off at is no answer
        assert student.continue_from(items, 48, only_finished=True) == student.continue_from(items, 48)
        assert all(student.continue_from(items, 3))
        assert student.continue_from(items, 3, only_finished=True) == [""] * len(items)


def test_steps_that_fill_the_context_are_continued_by_nothing(students):
    with Student.open(students.trained_onnx()) as student:
        steps = ("Add 3 and 4 and 5 and 6.",) * 30
        assert student.continue_from([(ASKED[0], steps), (ASKED[1], ())], 8)[0] == ""


def test_a_prompt_that_leaves_no_room_is_named(students):
    question = Question("endless", "1 + " * MAX_CONTEXT)
    with Student.open(students.onnx()) as student:
        assert student.fits(ASKED[0])
        assert not student.fits(question)
        for action in (
            lambda: student.explain([ASKED[0], question], 4),
            lambda: list(student.stream(question, 4)),
            lambda: student.continue_from([(question, ())], 4),
        ):
            with pytest.raises(PromptTooLongError, match="question endless: its prompt has"):
                action()
