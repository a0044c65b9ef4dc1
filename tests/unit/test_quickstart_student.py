import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.errors import TrainingError
from edgeelad.quickstart.problems import SKILLS, generate, make_split
from edgeelad.quickstart.recipe import RECIPE
from edgeelad.quickstart.tokenizer import EOS_TOKEN, make_tokenizer, number_tokens
from edgeelad.records import Question
from edgeelad.text import explanation
from edgeelad.text.prompts import PromptFormat

TINY = replace(RECIPE, hidden_size=32, intermediate_size=64, num_layers=1, base_steps=12, base_batch_size=8)
TOKENIZER = make_tokenizer()


def _texts(problem):
    prompt = PromptFormat().render(Question("q", problem.question))
    return prompt, explanation.join(problem.steps, str(problem.answer))


@given(st.text())
def test_any_text_comes_back_exactly(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


@pytest.mark.parametrize("skill", SKILLS)
def test_problems_come_back_exactly_in_few_tokens(skill):
    rng = np.random.default_rng(0)
    for _ in range(100):
        for text in _texts(generate(skill, rng)):
            ids = TOKENIZER.encode(text).ids
            assert TOKENIZER.decode(ids) == text
            words = sum(len(line.split()) for line in text.split("\n"))
            marks = sum(text.count(mark) for mark in ".?:,\n")
            assert len(ids) <= words + marks, "every word and number is one token"


def test_numbers_are_single_tokens_and_the_tokenizer_is_always_the_same():
    ids = number_tokens(TOKENIZER)
    assert len(set(ids.values())) == len(ids) == 101
    assert make_tokenizer().to_str() == TOKENIZER.to_str()


def test_a_step_ends_where_a_token_ends():
    problem = generate("change", np.random.default_rng(0))
    _, text = _texts(problem)
    for num in range(len(problem.steps) + 1):
        prefix = explanation.join_steps(problem.steps[:num])
        rest = text[len(prefix) :]
        assert TOKENIZER.encode(prefix).ids + TOKENIZER.encode(rest).ids == TOKENIZER.encode(text).ids


def test_transformers_loads_the_tokenizer_and_it_agrees(base_student):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(base_student)
    assert type(loaded).__name__ == "PreTrainedTokenizerFast"
    assert (loaded.eos_token, loaded.bos_token) == (EOS_TOKEN, None)
    for text in _texts(generate("twice", np.random.default_rng(1))):
        assert loaded(text)["input_ids"] == TOKENIZER.encode(text).ids
        assert loaded.decode(loaded(text)["input_ids"]) == text


@pytest.fixture(scope="module")
def losses():
    return []


@pytest.fixture(scope="module")
def base_student(tmp_path_factory, losses):
    from edgeelad.quickstart.student import train_base_student

    out = tmp_path_factory.mktemp("quickstart") / "student"
    examples = make_split(0, 64, 10, 10).seed_examples
    train_base_student(examples, out, seed=0, progress=lambda *told: losses.append(told), recipe=TINY)
    return out


def test_base_student_learns_and_tells_of_it(base_student, losses):
    assert [done for done, _, _ in losses] == list(range(1, 13))
    assert {total for _, total, _ in losses} == {12}
    assert losses[-1][2] < losses[0][2] - 0.5


def test_base_student_loads_and_writes(base_student):
    import torch
    from transformers import AutoModelForCausalLM

    assert {path.name for path in base_student.iterdir()} >= {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    model = AutoModelForCausalLM.from_pretrained(base_student)
    eos = TOKENIZER.token_to_id(EOS_TOKEN)
    assert (model.config.eos_token_id, model.generation_config.eos_token_id) == (eos, eos)
    assert json.loads((base_student / "config.json").read_text())["tie_word_embeddings"] is True
    prompt, _ = _texts(generate("half", np.random.default_rng(2)))
    ids = torch.tensor([TOKENIZER.encode(prompt).ids])
    written = model.generate(ids, max_new_tokens=8)
    assert written.shape[1] > ids.shape[1]


def test_base_student_depends_on_its_seed_alone(base_student, tmp_path):
    import torch
    from safetensors.torch import load_file

    from edgeelad.quickstart.student import train_base_student

    examples = make_split(0, 64, 10, 10).seed_examples
    torch.manual_seed(99)  # what was drawn before does not matter
    train_base_student(examples, tmp_path / "same", seed=0, recipe=TINY)
    train_base_student(examples, tmp_path / "other", seed=1, recipe=TINY)
    first, same, other = (
        load_file(folder / "model.safetensors") for folder in (base_student, tmp_path / "same", tmp_path / "other")
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_numbers_begin_in_order():
    import torch

    from edgeelad.quickstart.student import make_model

    model = make_model(TOKENIZER, RECIPE, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    ids = number_tokens(TOKENIZER)
    vectors = model.get_input_embeddings().weight.detach()[[ids[number] for number in range(101)]]
    near = torch.tensor([torch.cosine_similarity(a, b, dim=0) for a, b in pairwise(vectors)])
    far = torch.cosine_similarity(vectors[3], vectors[28], dim=0)
    assert near.mean() > far


def test_nothing_to_learn_or_too_much_of_it(tmp_path):
    from edgeelad.quickstart.student import train_base_student

    with pytest.raises(TrainingError, match="no examples"):
        train_base_student([], tmp_path / "none", seed=0)
    examples = make_split(0, 5, 10, 10).seed_examples
    with pytest.raises(TrainingError, match="context holds 16"):
        train_base_student(examples, tmp_path / "short", seed=0, recipe=replace(TINY, max_length=16))
