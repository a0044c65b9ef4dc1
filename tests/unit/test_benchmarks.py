"""What the benchmarks of the engine compute besides time: the work they hand out, and the figures they make of it."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.engine.codec import Codec
from edgeelad.records import Question
from edgeelad.text.prompts import PromptFormat

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))
from engines import Engine, Measurement, RunnerError, RunningEngine
from machine import busy_core_seconds, describe_machine
from protocol import Work, batches
from roofline import operations_per_token
from shapes import SHAPES, train_tokenizer
from turns import Results, find_every, find_ratios, question_rates
from workload import Workload, chain_solutions, divide, make_workload, read_questions

del sys.path[:2]

TREES = Workload(
    prompts=tuple((1, 2, 3) for _ in range(6)),
    completions=tuple((4, 5, 6, 7) for _ in range(6)),
    ends=((0, 2, 4), (0, 2), (0,), (0, 4), (0, 2, 4), (0,)),
    num_branches=4,
    num_new=32,
)


def work_of(workload: Workload, tmp_path: Path) -> Work:
    path = tmp_path / "workload.json"
    workload.save(path)
    return Work(settings={}, **json.loads(path.read_text()))


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 5))
def test_items_are_divided_among_parts_of_about_the_same_weight(weights: list[int], num_parts: int) -> None:
    parts = divide(weights, num_parts)
    assert sorted(item for part in parts for item in part) == list(range(len(weights)))
    totals = [sum(weights[item] for item in part) for part in parts]
    assert max(totals) - min(totals) <= max(weights, default=0)


def test_a_runner_s_prefixes_are_the_prompt_with_the_first_steps(tmp_path: Path) -> None:
    prefixes = work_of(TREES, tmp_path).prefixes([1, 3])
    assert [(own.question, own.ids) for own in prefixes] == [
        (1, (1, 2, 3)),
        (1, (1, 2, 3, 4, 5)),
        (3, (1, 2, 3)),
        (3, (1, 2, 3, 4, 5, 6, 7)),
    ]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_samples_of_the_batches_are_together_all_branches(tmp_path: Path, every: int) -> None:
    work = work_of(TREES, tmp_path)
    found = [batches(work, list(range(6)), 5, every, offset) for offset in range(every)]
    rows = [row for sample in found for batch in sample for row in batch]
    assert sorted(rows) == sorted(own.ids for own in work.prefixes(range(6)) for _ in range(4))
    (whole,) = (batches(work, list(range(6)), 5),)
    assert [len(row) for batch in whole for row in batch] == sorted(len(row) for row in rows)
    assert all(len(batch) == 5 for batch in whole[:-1])


def test_a_slow_engine_s_sample_is_about_as_many_batches_as_asked_for() -> None:
    many = Workload(((1,),) * 32, ((),) * 32, ((0,) * 8,) * 32, 4, 32)  # 1,024 rows: 32 batches
    assert find_every(many, range(32), 2) == 16
    assert find_every(many, range(32), 100) == 1
    assert find_every(many, range(4), 2) == 2


def test_ratios_are_taken_round_by_round_and_fp32_is_compared_with_fp32_alone() -> None:
    rates = {"edgeelad-int8": [10.0, 30.0, 20.0], "edgeelad-fp32": [8.0, 8.0, 8.0], "peer": [5.0, 5.0, 2.0]}
    precisions: dict[str, str | None] = {"edgeelad-int8": "int8", "edgeelad-fp32": "fp32", "peer": "int8"}
    assert find_ratios(rates, precisions) == {
        "edgeelad-int8 / edgeelad-fp32": (1.25, 2.5, 3.75),
        "edgeelad-int8 / peer": (2.0, 6.0, 10.0),
    }
    precisions["peer"] = "fp32"
    assert find_ratios(rates, precisions)["edgeelad-fp32 / peer"] == (1.6, 1.6, 4.0)


def test_questions_a_minute_follow_from_the_tokens() -> None:
    measured = {"engine": [Measurement(2.0, 4.0, 0.0, 1000, 1)]}
    assert question_rates(Results(measured, {}, {}), 250.0) == {"engine": [120.0]}
    assert measured["engine"][0].tokens_per_core_s == 250.0


def test_longer_trees_are_chains_of_solutions() -> None:
    questions = [Question(str(number), "?", explanation=(f"step {number}",)) for number in range(4)]
    chained = chain_solutions(questions, 2, 2)
    assert [own.explanation for own in chained] == [("step 0", "step 2"), ("step 1", "step 3")]


def test_the_work_is_every_prefix_of_the_published_solution(tmp_path: Path) -> None:
    pool = tmp_path / "gsm8k.jsonl"
    pool.write_text(json.dumps({"question": "How many?", "answer": "2 + 10 = 12 eggs\n12 / 2 = 6\n#### 6"}) + "\n")
    (question,) = read_questions(pool, 1)
    tokenizer = train_tokenizer(["How many? 2 + 10 = 12 eggs\n12 / 2 = 6\n"] * 3, 400)
    codec = Codec(tokenizer, PromptFormat(), {}, eos_ids=(), max_context=100)
    trees = make_workload(codec, [question], 4, 32)
    whole = tokenizer.encode("2 + 10 = 12 eggs\n12 / 2 = 6\n").ids
    assert list(trees.completions[0]) == whole
    assert [tokenizer.decode(whole[:end]) for end in trees.ends[0]] == [
        "",
        "2 + 10 = 12 eggs\n",
        tokenizer.decode(whole),
    ]
    assert trees.num_tokens(0) == 3 * 4 * 32
    with pytest.raises(SystemExit, match="1 questions where 2 are wanted"):
        read_questions(pool, 2)


def test_the_tokenizer_keeps_digits_apart() -> None:
    tokenizer = train_tokenizer(["1234 1234 1234 apples apples"], 400)
    assert [tokenizer.decode([token]).strip() for token in tokenizer.encode("1234").ids] == ["1", "2", "3", "4"]


def test_the_shapes_have_the_published_numbers_of_parameters() -> None:
    # 134,515,008 parameters in all: https://huggingface.co/HuggingFaceTB/SmolLM2-135M
    shape = SHAPES["smollm2-135m"]
    trees = Workload(((),) * 5, ((),) * 5, ((0,),) * 5, 1, 1)
    products = operations_per_token("smollm2-135m", trees) / 2
    norms = (2 * shape["num_hidden_layers"] + 1) * shape["hidden_size"]
    assert products + norms == 134_515_008


def test_a_runner_that_ends_says_why(tmp_path: Path) -> None:
    engine = Engine("nobody", Path(sys.executable), "no_such_runner.py", {})
    with pytest.raises(RunnerError, match=r"nobody ended: .*no_such_runner\.py"):
        RunningEngine(engine, tmp_path / "workload.json", tmp_path / "log")


def test_the_machine_is_described() -> None:
    assert "cores" in describe_machine()
    before = busy_core_seconds()
    assert sum(range(1_000_000)) > 0
    assert busy_core_seconds() >= before > 0
