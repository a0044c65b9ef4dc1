"""The evidence's metrics against values worked by hand, and its tasks against their own references."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.students import StudentFolders, questions

HERE = Path(__file__).parents[2] / "benchmarks"
sys.path[:0] = [str(HERE / "evidence"), str(HERE)]
pytest.importorskip("scipy")
from arms import num_rounds, sizes_of, way_of  # noqa: E402
from detection import auroc, average_precision, precision  # noqa: E402
from page import comparison_table, learning_figure, money, money_table, whole_table  # noqa: E402
from run import main  # noqa: E402
from tasks import Task, make_task  # noqa: E402
from teacher import ReferenceTeacher  # noqa: E402
from torch_generator import TorchGenerator  # noqa: E402

from edgeelad.engine.codec import Codec  # noqa: E402
from edgeelad.engine.student import Student  # noqa: E402
from edgeelad.engine.tree import TreeParams  # noqa: E402

del sys.path[:2]


@pytest.fixture(scope="module", params=["words", "varied", "chains"])
def task(request: pytest.FixtureRequest) -> Task:
    return make_task(request.param, 3, None)


def test_the_same_seed_gives_the_same_task() -> None:
    first, again, other = (make_task("chains", seed, None).pool[:5] for seed in (3, 3, 4))
    assert first == again != other


def test_a_large_study_has_a_larger_pool_and_reaches_its_share_in_fewer_rounds() -> None:
    small, large = (make_task(name, 3, None) for name in ("words", "words, large"))
    assert [len(task.pool) // 100 for task in (small, large)] == [8, 19]
    assert large.sizes == sizes_of("words, large") != small.sizes
    assert large.recipe.base_steps > small.recipe.base_steps
    rounds = [
        num_rounds(*arm.split("/"))
        for arm in (
            "words/auto",
            "words/auto, answers",
            "words/auto, answers, asked only",
            "words, large/auto, answers",
        )
    ]
    assert rounds == [3, 4, 4, 3]
    assert {way_of(mode) for mode in ("auto", "auto, answers", "auto, answers, asked only")} == {"auto"}


def test_references_have_no_flaw_and_changed_ones_do(task: Task) -> None:
    for question in task.pool[:60]:
        steps = list(question.explanation or ())
        assert task.first_flaw(question, steps) is None
        last = steps[-1]
        digits = [i for i, char in enumerate(last) if char.isdigit()]
        wrong = last[: digits[-1]] + str((int(last[digits[-1]]) + 1) % 10) + last[digits[-1] + 1 :]
        assert task.first_flaw(question, [*steps[:-1], wrong]) == len(steps) - 1


def test_pools_hold_unlearnable_questions_and_near_duplicates_and_no_test_question(task: Task) -> None:
    ids = {question.id for question in task.pool}
    assert len(ids) == len(task.pool)
    assert task.unlearnable < ids
    assert 0.03 < len(task.unlearnable) / len(ids) < 0.07
    assert sum(id_.startswith("twin") for id_ in ids) > 0.03 * len(ids)
    assert not {question.text for question in task.test} & {question.text for question in task.pool}


def test_the_teacher_corrects_the_first_flaw_and_counts_tokens(task: Task) -> None:
    teacher = ReferenceTeacher({question.id: question for question in task.pool}, task.first_flaw)
    question = next(q for q in task.pool if len(q.explanation or ()) > 2)
    steps = question.explanation or ()
    hidden = replace(question, answer=None, explanation=None)
    found = teacher.find_first_error(hidden, [steps[0], "nonsense", *steps[2:]], question.answer, None)
    assert (found.step, found.corrected) == (1, steps[1])
    whole = teacher.rationale(hidden, None)
    assert (whole.steps, whole.answer) == (steps, question.answer)
    assert whole.usage.completion_tokens > found.usage.completion_tokens > 0
    assert teacher.complete(hidden, steps[:1], question.answer).steps == steps[1:]


def test_auroc_by_hand() -> None:
    assert auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])) == 0.875
    assert auroc(np.array([0.1, 0.2]), np.array([True, True])) == 0.5


def test_precision_by_hand() -> None:
    values, positive = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, True])
    assert precision(values, positive, 2) == 0.75
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])) == pytest.approx(5 / 6)


def test_hidden_reasoning_is_billed_as_completion() -> None:
    row = {"requests": 2, "prompt_tokens": 1_000_000, "completion_tokens": 500_000}
    assert money(row, "1 : 4") == pytest.approx(0.4 + 0.8)
    assert money(row, "reasoning") == pytest.approx(1.1 + 4.4 * 0.5006)


def learned(strategy: str, mode: str, seed: int, accuracy: float) -> dict[str, Any]:
    usage = {"requests": 1, "prompt_tokens": 100, "completion_tokens": 100 if strategy == "whole" else 40}
    key = {"kind": "learning", "task": "words", "seed": seed, "strategy": strategy, "mode": mode}
    last = 1 if strategy == "whole" else num_rounds("words", mode)
    return {**key, **usage, "round": last, "annotated": 300, "accuracy": accuracy}


def test_ways_of_teaching_are_compared_for_one_choice_and_choices_with_the_default() -> None:
    arms = {
        ("random", "rationale"): 0.5,
        ("risk", "rationale"): 0.7,
        ("risk, alone", "rationale"): 0.65,
        ("risk, alone", "auto"): 0.6,
        ("risk", "auto, answers"): 0.72,
        ("risk", "auto, answers, asked only"): 0.68,
        ("whole", "rationale"): 0.75,
    }
    rows: list[dict[str, Any]] = []
    for seed in (0, 1):
        rows.append({"kind": "learning", "task": "words", "seed": seed, "round": 0, "annotated": 0, "accuracy": 0.4})
        for (strategy, mode), accuracy in arms.items():
            last = learned(strategy, mode, seed, accuracy + 0.01 * seed * (strategy == "random"))
            rows += [{**last, "round": number} for number in range(1, last["round"])] + [last]
    found = [line.split(" | ")[1:5] for line in comparison_table(rows)[2:]]
    assert found == [
        ["`risk`, rationale", "`risk`, auto, answers", "2", "-0.020"],
        ["`risk`, auto, answers", "`risk`, auto, answers, asked only", "2", "+0.040"],
        ["`risk, alone`, rationale", "`risk, alone`, auto", "2", "+0.050"],
        ["`risk`, rationale", "`risk, alone`, rationale", "2", "+0.050"],
        ["`risk`, rationale", "`random`, rationale", "2", "+0.195"],
    ]
    before = [row for row in rows if row.get("strategy") != "risk"]
    assert comparison_table(before)[-1].split(" | ")[1:3] == ["`risk, alone`, rationale", "`random`, rationale"]
    shares = {line.split(" | ")[1]: line.split(" | ")[5:] for line in whole_table(rows)[2:]}
    assert shares["`risk`, rationale"] == ["-0.050", "1.00", "0.520 |"]


def test_the_level_of_the_whole_pool_is_on_the_axis_of_the_curves() -> None:
    base = {"kind": "learning", "task": "words", "seed": 0, "round": 0, "annotated": 0, "accuracy": 0.4}
    rows = [{**learned("risk", "rationale", 0, 0.6), "round": number} for number in (1, 2, 3)]
    alone = learning_figure([base, *rows], "annotated")
    assert 'class="d"' not in alone
    svg = learning_figure([base, *rows, learned("whole", "rationale", 0, 0.8)], "annotated")
    level = float(re.search(r'class="d" [^>]*y1="([0-9.]+)"', svg)[1])  # type: ignore[index]
    at = {float(text): float(y) - 4 for y, text in re.findall(r'y="([0-9.]+)" text-anchor="end">([0-9.]+)<', svg)}
    assert level == pytest.approx(at[0.8], abs=0.2)


def test_an_arm_that_spends_too_much_is_read_where_a_quarter_of_the_money_is_spent() -> None:
    key = {"kind": "learning", "task": "words", "seed": 0}
    rows: list[dict[str, Any]] = [{**key, "round": 0, "annotated": 0, "accuracy": 0.4}]
    whole = {"round": 1, "annotated": 900, "accuracy": 0.75, "prompt_tokens": 8000, "completion_tokens": 2000}
    rows.append({**key, "strategy": "whole", "mode": "rationale", **whole})
    for number, (annotated, tokens, accuracy) in enumerate(
        ((60, 800, 0.5), (180, 1600, 0.6), (300, 2400, 0.7), (360, 3200, 0.76)), 1
    ):
        usage = {"prompt_tokens": tokens, "completion_tokens": tokens // 4}
        row = {"round": number, "annotated": annotated, "accuracy": accuracy, **usage}
        rows.append({**key, "strategy": "risk", "mode": "auto, answers", **row})
    found = [line.split(" | ")[4:] for line in whole_table(rows)[2:]]
    # half way between the second round, at a fifth, and the third, at three tenths
    assert found == [["0.650", "-0.100", "0.27", "0.250 |"], ["0.760", "+0.010", "0.40", "0.400 |"]]


def test_the_money_for_the_same_accuracy_is_read_between_two_rounds() -> None:
    base = {"task": "words, large", "seed": 1, "round": 0, "accuracy": 0.5}
    ours = [
        base | {"strategy": "risk", "mode": "auto, answers", "round": n, "accuracy": accuracy, "prompt_tokens": paid}
        for n, accuracy, paid in ((1, 0.6, 100), (2, 0.8, 300), (3, 0.9, 500))
    ]
    theirs = [
        base | {"strategy": strategy, "mode": "rationale", "round": 3, "accuracy": accuracy, "prompt_tokens": 1000}
        for strategy, accuracy in (("risk", 0.7), ("random", 0.95))
    ]
    other_seed = {**theirs[0], "seed": 2, "accuracy": 0.1}
    lines = money_table([base, base | {"seed": 2}, *ours, *theirs, other_seed])[2:]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["1", "`risk`", "0.700", "0.900 for 0.50 ×", "0.20 × |"],
        ["1", "`random`", "0.950", "0.900 for 0.50 ×", "not reached |"],
    ]
    assert money_table([base, *theirs]) == ["No task has both yet."]


def test_a_seed_begun_on_another_device_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(HERE / "evidence"))  # the study is imported when it is run
    base = {"kind": "learning", "task": "words", "seed": 3, "round": 0, "accuracy": 0.4, "device": "elsewhere"}
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(base) + "\n")
    command = ("run.py", "--only", "learning", "--tasks", "words", "--first-seed", "3", "--seeds", "1")
    monkeypatch.setattr(sys, "argv", [*command, "--work", str(tmp_path / "work"), "--out", str(rows)])
    main()
    assert "words, seed 3: begun on another device" in capsys.readouterr().out
    assert [json.loads(line) for line in rows.read_text().splitlines()] == [base]


def test_torch_generates_the_trees_of_the_engine(students: StudentFolders) -> None:
    params = TreeParams(2, 3, 0.7, 0, 1.0, 40, 40, probe=False, seed=1, num_removal_branches=2)
    asked = questions(6)
    with Student.open(students.trained_onnx()) as engine:
        expected = list(engine.generate_trees(asked, params))
    with Student(Codec.load(students.trained()), TorchGenerator(students.trained(), "cpu"), 6) as student:
        found = list(student.generate_trees(asked, params))
    assert [tree.text for tree in found] == [tree.text for tree in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-4)
        assert ours.token_entropies == pytest.approx(theirs.token_entropies, abs=1e-4)
        for name in ("branches", "removals"):
            groups = [[[branch.text for branch in group] for group in getattr(tree, name)] for tree in (ours, theirs)]
            assert groups[0] == groups[1]
        assert any(ours.branches)
