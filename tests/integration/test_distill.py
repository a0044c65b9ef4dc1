"""A whole run in small: from pool to package, over HTTP, through ONNX; its files, its figures, its package."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixtures.small_run import NUM_POOL, SmallRun

from edgeelad.cli.commands import cli
from edgeelad.cli.distill import scoring_sentence
from edgeelad.config import load_config
from edgeelad.engine.student import Student
from edgeelad.errors import BudgetError
from edgeelad.files import read_json, read_jsonl, write_jsonl
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.server import TeacherServer
from edgeelad.quickstart.solver import solve
from edgeelad.records import Question, ReasoningTree, Score, TeacherUsage
from edgeelad.run.config_file import read_config
from edgeelad.run.folder import RunFolder
from edgeelad.run.scores import ScoreRow, make_row
from edgeelad.run.teaching import teaching_totals
from edgeelad.stages.open_run import open_run
from edgeelad.stages.own import draw_own
from edgeelad.stages.revise import revise
from edgeelad.stages.score import score
from edgeelad.teacher.plan.own_examples import MAX_SAMPLED
from edgeelad.teacher.revision.verify import find_flaw
from edgeelad.text import explanation
from edgeelad.text.answers import agree
from edgeelad.uncertainty.risk import COLD_START, features


@pytest.fixture(scope="module")
def finished(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distill") / "run"
    with TeacherServer() as server:
        summary = distill(small_run.config(out, server.url), Silent())
        assert summary.teacher.requests == server.billed.requests
        assert summary.teacher.prompt_tokens == server.billed.prompt_tokens
        assert summary.teacher.completion_tokens == server.billed.completion_tokens
    return out


def test_the_run_folder_holds_every_file(finished: Path) -> None:
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert {"config.toml", "state.json", "ledger.sqlite", "metrics.jsonl", "audit.jsonl", "summary.json"} <= names
    *_, last = read_jsonl(finished / "metrics.jsonl")
    graph = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}[last["shipping"]]
    assert {"report.html", "package/manifest.json", f"package/onnx/{graph}"} <= names
    for name in ("risk.json", "scores.jsonl", "selected.jsonl", "plan.jsonl", "annotations.jsonl", "metrics.json"):
        assert {f"rounds/01/{name}", f"rounds/02/{name}"} <= names
    assert {"rounds/01/onnx/model.onnx", "rounds/02/onnx/model.onnx"} <= names
    assert not [name for name in names if ".tmp" in name]


def test_the_summary_agrees_with_the_rounds(finished: Path) -> None:
    summary, rounds = read_json(finished / "summary.json"), list(read_jsonl(finished / "metrics.jsonl"))
    assert summary["stopped_because"] == "max_rounds"
    assert [row["round"] for row in rounds] == [0, 1, 2]
    assert summary["annotated"] + summary["set_aside"] == 24
    assert summary["accuracy"] == rounds[-1]["accuracy"]
    assert summary["base_accuracy"] == rounds[0]["accuracy"]
    assert summary["pool"] == NUM_POOL
    assert summary["certificate"]["num_audited"] == 12
    assert summary["certificate"]["look"] == 2
    assert set(summary["seconds"]) >= {"score", "select", "revise", "fine-tune", "export", "evaluate", "package"}


def test_nothing_is_selected_twice_and_nothing_that_is_audited(finished: Path) -> None:
    selected = [row["id"] for n in ("01", "02") for row in read_jsonl(finished / "rounds" / n / "selected.jsonl")]
    audited = {row["id"] for row in read_jsonl(finished / "audit.jsonl")}
    scored = {row["id"] for row in read_jsonl(finished / "rounds" / "01" / "scores.jsonl")}
    assert len(selected) == len(set(selected)) == 24
    assert not audited & scored
    assert len(scored) == NUM_POOL - len(audited)


def test_every_accepted_chain_is_true(finished: Path, small_run: SmallRun) -> None:
    texts = {row["id"]: row["question"] for row in read_jsonl(small_run.folder / "pool.jsonl")}
    rows = [row for n in ("01", "02") for row in read_jsonl(finished / "rounds" / n / "annotations.jsonl")]
    usable = [row for row in rows if row["status"] != "set_aside"]
    assert usable
    for row in usable:
        assert row["answer"] == str(solve(texts[row["question_id"]]).answer)
        assert row["rung"] in ("L1", "L2", "L3", "L4", "L5")
        assert find_flaw(row["steps"], row["answer"], row["answer"], "number") is None


def test_every_question_has_a_plan_that_was_followed(finished: Path) -> None:
    for number in (1, 2):
        here = RunFolder(finished).round(number)
        plans = {plan.question_id: plan for plan in here.plan.read()}
        assert list(plans) == [row.id for row in here.selected.read()]
        for item in here.annotations.read():
            plan = plans[item.question_id]
            assert plan.unit == "tokens", "the quickstart has no prices"
            assert plan.way in ("answer", "check", "rationale"), "its pool has no answers"
            assert [call.prompt for call in item.calls][:1] == [plan.way]
            assert item.usage == sum((call.usage for call in item.calls), TeacherUsage())


def test_what_the_mode_saved_is_told(finished: Path) -> None:
    totals = teaching_totals(RunFolder(finished))
    assert totals is not None
    assert sum(way.num for way in totals.ways) == 24
    spent = [item.usage for n in (1, 2) for item in RunFolder(finished).round(n).annotations.read()]
    assert totals.paid == sum(usage.prompt_tokens + 4 * usage.completion_tokens for usage in spent)
    assert totals.sentence.startswith("The teacher settled ")
    assert totals.sentence in (finished / "report.html").read_text(encoding="utf-8")


def test_scores_have_a_list_of_answers_for_each_prefix(finished: Path) -> None:
    for row in read_jsonl(finished / "rounds" / "01" / "scores.jsonl"):
        assert len(row["branch_answers"]) == len(row["steps"]) + 1
        assert len(row["step_scores"]) == len(row["steps"])
        assert row["strategy"] == "elad"
        assert row["num_tokens"] > 0


def test_scores_have_a_risk_and_the_figures_of_each_step(finished: Path) -> None:
    assert RunFolder(finished).round(1).risk.read().is_cold
    for row in RunFolder(finished).round(1).scores.read():
        assert [trace.num_tokens > 0 for trace in row.traces] == [True] * (len(row.steps) + 1)
        assert row.risk == pytest.approx(COLD_START.probability(features(row.traces, row.steps, row.answer, "number")))
        mean = sum(t.mean_entropy * t.num_tokens for t in row.traces) / sum(t.num_tokens for t in row.traces)
        assert mean == pytest.approx(row.mean_entropy, rel=1e-4, abs=1e-6)


def test_the_summary_says_what_scoring_took(finished: Path) -> None:
    summary = RunFolder(finished).summary.read()
    rows = [row for number in (1, 2) for row in RunFolder(finished).round(number).scores.read()]
    assert summary.student_tokens == sum(row.num_tokens for row in rows)
    assert summary.elad_tokens == pytest.approx(summary.student_tokens, rel=0.3)  # it was elad
    assert scoring_sentence(summary) == f"Chosen by elad: scoring took {summary.student_tokens:,} student tokens."
    cheap = replace(summary, strategy="risk", student_tokens=summary.elad_tokens // 4)
    assert scoring_sentence(cheap).endswith(f", 75% fewer than elad would have (about {summary.elad_tokens:,}).")
    assert scoring_sentence(replace(summary, elad_tokens=0)) == ""


def test_branches_are_sampled_for_the_riskiest_only(finished: Path, small_run: SmallRun, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))
    run = open_run(read_config(folder), folder, Silent())
    shutil.rmtree(folder.round(1).path)
    folder.digests.file.path.unlink()
    scoring = run.config.scoring.model_copy(update={"max_branched": 10})
    score(replace(run, config=run.config.model_copy(update={"scoring": scoring})), 1)
    rows = list(folder.round(1).scores.read())
    whole = {row.id: row for row in RunFolder(finished).round(1).scores.read()}
    assert [row.id for row in rows] == list(whole)
    branched = [row for row in rows if row.branch_answers]
    assert len(branched) == 10
    assert min(row.risk or 0 for row in branched) >= max(row.risk or 0 for row in rows if not row.branch_answers)
    for row in branched:
        assert replace(row, num_tokens=0) == replace(whole[row.id], num_tokens=0)
    assert {row.score for row in rows if not row.branch_answers} == {0.0}
    assert {row.strategy for row in rows} == {"elad"}


@pytest.mark.parametrize(("max_branched", "killed_in"), [(None, "scores"), (30, "greedy"), (30, "scores")])
def test_scoring_goes_on_where_it_was_killed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_branched: int | None, killed_in: str
) -> None:
    folder = RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))
    here, run = folder.round(1), open_run(read_config(folder), folder, Silent())
    scoring = run.config.scoring.model_copy(update={"batch_size": 8, "max_branched": max_branched})
    run = replace(run, config=run.config.model_copy(update={"scoring": scoring}))
    made: list[str] = []
    last = 1000

    def killed_after_some(tree: ReasoningTree, scored: Score) -> ScoreRow:
        if len(made) == last:
            raise KeyboardInterrupt
        made.append(tree.question.id)
        return make_row(tree, scored)

    monkeypatch.setattr("edgeelad.stages.score.make_row", killed_after_some)

    def start_anew() -> None:
        shutil.rmtree(here.path)
        folder.digests.file.path.unlink(missing_ok=True)
        made.clear()

    start_anew()
    score(run, 1)
    whole, num_made = here.scores.path.read_bytes(), len(made)
    assert num_made == NUM_POOL - 12 + (max_branched or 0)

    start_anew()
    last = 13 if killed_in == "greedy" or max_branched is None else NUM_POOL - 12 + 13
    with pytest.raises(KeyboardInterrupt):
        score(run, 1)
    begun = (here.greedy if killed_in == "greedy" else here.scores).begun
    with begun.open("ab") as file:
        file.write(b'{"id": "torn", "strat')
    assert not here.scores.exists()
    last = 1000
    score(run, 1)
    assert here.scores.path.read_bytes() == whole
    assert not begun.exists()
    # none was made twice, but for the branched one whose turn had not come
    assert num_made <= len(made) <= num_made + (max_branched is not None and killed_in == "scores")


def test_the_package_answers_as_the_run_measured(finished: Path, small_run: SmallRun) -> None:
    test = [Question(r["id"], r["question"], answer=r["answer"]) for r in read_jsonl(small_run.folder / "test.jsonl")]
    with Student.open(finished / "package") as student:
        trees = student.explain(test, 48)
    correct = sum(agree(tree.answer, question.answer) for tree, question in zip(trees, test, strict=True))
    assert correct / len(test) == pytest.approx(read_json(finished / "summary.json")["package_accuracy"])


def test_the_commands_run_on_what_it_made(finished: Path, small_run: SmallRun, tmp_path: Path) -> None:
    package = finished / "package"

    def edgeelad(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "edgeelad", *arguments], capture_output=True, text=True)

    asked = edgeelad("run", str(package), "Tom has 3 apples and gets 4 more. How many apples does Tom have?", "--json")
    assert asked.returncode == 0, asked.stderr
    assert set(json.loads(asked.stdout)) >= {"question", "steps", "answer", "text"}
    measured = edgeelad("eval", "--model", str(package), "--data", str(small_run.folder / "test.jsonl"), "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["accuracy"] == read_json(finished / "summary.json")["package_accuracy"]
    scores = tmp_path / "scores.jsonl"
    pool = str(small_run.folder / "pool.jsonl")
    scored = edgeelad(
        "score", "--model", str(package), "--pool", pool, "--out", str(scores), "--json", "--max-tokens", "48"
    )
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["questions"] == NUM_POOL == sum(1 for _ in read_jsonl(scores))
    assert edgeelad("verify", str(package)).returncode == 0
    again = edgeelad("distill", "--resume", str(finished), "--quiet", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["annotated"] == read_json(finished / "summary.json")["annotated"]


def test_a_spent_budget_trains_on_what_was_bought_and_goes_on_with_a_larger_one(
    small_run: SmallRun, tmp_path: Path
) -> None:
    # a selection that needs no student, and a mode that asks about every question
    settings = ("teacher.max_concurrency=1", "selection.strategy=random", "teacher.mode=revise")
    with TeacherServer() as server:
        # spent before the audit is answered and anything is annotated
        config = small_run.config(tmp_path / "run", server.url, *settings, "teacher.max_requests=10")
        with pytest.raises(BudgetError, match=r"nothing is packaged: teacher\.max_requests = 10"):
            distill(config, Silent())
        nothing = RunFolder(tmp_path / "run").summary.read()
        assert (nothing.stopped_because, nothing.annotated, nothing.rounds) == ("budget", 0, 0)
        assert nothing.teacher.requests == server.billed.requests == 10
        assert not (tmp_path / "run" / "package").exists()
        assert len(list(read_jsonl(tmp_path / "run" / "audit.jsonl"))) == 10
        config = small_run.config(tmp_path / "run", server.url, *settings, "teacher.max_requests=45")
        first = distill(config, Silent())
        assert first.stopped_because == "budget"
        assert 0 < first.annotated < 24
        assert server.billed.requests == first.teacher.requests <= 45
        more = small_run.config(tmp_path / "run", server.url, *settings)
        second = distill(more, Silent())
        assert second.stopped_because == "max_rounds"
        assert second.annotated > first.annotated
        assert server.billed.requests == second.teacher.requests
        assert len(list(read_jsonl(tmp_path / "run" / "audit.jsonl"))) == 12
        assert second.certificate.num_audited == 12


def test_a_dry_run_sends_nothing_and_a_replay_pays_nothing(small_run: SmallRun, finished: Path, tmp_path: Path) -> None:
    bought = {path.name: path for path in finished.iterdir()}["ledger.sqlite"]
    with TeacherServer() as server:
        config = small_run.write_config(tmp_path / "dry", server.url)
        command = [sys.executable, "-m", "edgeelad", "distill", str(config), "--dry-run", "--quiet", "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert server.billed.requests == 0
        assert not (tmp_path / "dry").exists()
    assert figures["round"]["num_questions"] == 12
    assert figures["round"]["low"]["requests"] <= figures["round"]["expected"]["requests"]
    assert figures["round"]["expected"]["requests"] <= figures["round"]["high"]["requests"]
    spent = read_json(finished / "rounds" / "01" / "metrics.json")["teacher"]
    assert spent["requests"] <= figures["audit"]["requests"] + figures["round"]["high"]["requests"]

    # the teacher of the finished run is gone; its ledger alone answers
    url = load_config(finished / "config.toml").teacher.url
    assert url is not None
    replayed = distill(small_run.config(tmp_path / "replay", url, f"run.ledger={bought}", "run.replay=true"), Silent())
    assert replayed.teacher.requests == 0
    for number in ("01", "02"):
        assert list(read_jsonl(tmp_path / "replay" / "rounds" / number / "annotations.jsonl")) == list(
            read_jsonl(finished / "rounds" / number / "annotations.jsonl")
        )


def test_whole_explanations_are_bought_without_the_students(
    small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_here(*_: object, **__: object) -> None:
        raise AssertionError("the student's reasoning is not looked at")

    monkeypatch.setattr("edgeelad.stages.revise.round_trees", not_here)
    settings = ("teacher.mode=rationale", "selection.strategy=random", "selection.num_rounds=1")
    with TeacherServer() as server:
        summary = distill(small_run.config(tmp_path / "run", server.url, *settings), Silent())
    annotations = list(RunFolder(tmp_path / "run").round(1).annotations.read())
    assert summary.annotated == len(annotations) == 12
    assert {(item.status, item.rung) for item in annotations} == {("rationale", "L5")}


def said_again(tree: ReasoningTree, steps: tuple[str, ...], reference: str) -> list[tuple[str, ...]]:
    """All that was sampled."""
    assert tree.question.answer == reference
    return [explanation.split(branch.text).steps for group in tree.branches for branch in group]


def test_what_the_student_explains_rightly_is_taught_for_nothing(
    small_run: SmallRun, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a student of some seconds gets hardly anything right: in half of the pool its answers are made the right ones, as
    # text, of which no arithmetic is checked
    said = {row["id"]: row["answer"] for row in read_jsonl(finished / "rounds" / "01" / "scores.jsonl")}
    rows = list(read_jsonl(small_run.folder / "pool.jsonl"))
    right = {row["id"]: str(solve(row["question"]).answer) for row in rows}
    answers = right | {id_: answer for id_, answer in list(said.items())[::2] if answer is not None}
    write_jsonl(tmp_path / "pool.jsonl", ({**row, "answer": answers[row["id"]]} for row in rows))
    settings = [f"pool.path={tmp_path / 'pool.jsonl'}", "pool.kind=text", "selection.strategy=risk"]
    # it is believed, however few it gets right, and whatever it says when it explains them again
    monkeypatch.setattr("edgeelad.teacher.plan.own_examples.MAX_SHARE", 1.0)
    monkeypatch.setattr("edgeelad.teacher.plan.own_examples.wordings", said_again)
    started: list[str] = []
    progress = Silent()
    progress.start = lambda stage, total=None: started.append(stage)  # type: ignore[method-assign]
    with TeacherServer() as server:
        config = small_run.config(
            tmp_path / "run", server.url, *settings, "selection.num_rounds=1", "scoring.batch_size=4"
        )
        training = config.training.model_copy(update={"max_steps": None, "min_steps": 12, "epochs": 0.1})
        config = config.model_copy(update={"training": training})
        distill(config, progress)
    folder = RunFolder(tmp_path / "run")
    here = folder.round(1)
    asked, audited = {row.id for row in here.selected.read()}, {row.id for row in folder.audit.read()}
    explained = {row.id: row for row in here.scores.read() if row.answer == answers[row.id] and row.id not in asked}
    own = {row.id: row for row in here.own.read()}
    assert own
    assert set(own) <= set(explained)
    assert not set(own) & (asked | audited)
    num_verified = sum(item.is_usable for item in here.annotations.read())
    num_sampled = math.ceil(1.5 * 12 * config.training.examples_per_step / (40 + num_verified))
    assert 1 < num_sampled < MAX_SAMPLED
    for id_, row in own.items():
        assert (row.steps, row.answer) == (explained[id_].steps, answers[id_])
        assert len(row.others) == num_sampled
    assert len({steps for row in own.values() for steps in row.others}) > len(own)
    assert len(own) <= config.training.own_examples * num_verified
    num = 40 + num_verified + len(own)
    assert f"Round 1: fine-tuning on {num} examples ({len(own)} the student's own)" in started
    record = here.training.read()
    assert record.num_own == len(own)
    # the others are seen as often as without them
    assert record.num_steps == math.ceil(12 * num / (num - len(own)))
    assert f"({len(own)} the student's own)" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    # it is not counted as annotated, and not asked to answer again
    assert folder.summary.read().annotated == num_verified
    assert not set(own) & {row.id for row in here.answers.read()}

    # what was verified is put in other words, too
    reworded = {row.id: row for row in here.reworded.read()}
    assert reworded
    for item in filter(lambda item: item.is_usable, here.annotations.read()):
        row = reworded[item.question_id]
        assert (row.steps, row.answer, len(row.others)) == (item.steps, item.answer, num_sampled)
    num_others = num_sampled * (num_verified + len(own))

    # other tools can be given all that the student was trained on
    for with_own, num_rows in (([], num_verified), (["--with-own"], num_verified + len(own) + num_others)):
        out = tmp_path / "sft.jsonl"
        command = ["annotations", "export", str(folder.path), "--out", str(out), "--format", "prompt-completion"]
        done = CliRunner().invoke(cli, [*command, *with_own], standalone_mode=False)
        assert done.exit_code == 0, done.output
        exported = list(read_jsonl(out))
        assert len(exported) == num_rows
    last = list(own.values())[-1]
    text = next(row["question"] for row in rows if row["id"] == last.id)
    assert exported[-1] == {"prompt": text, "completion": explanation.join(last.others[-1], last.answer)}

    # killed before they were written, a run draws the same, in worker processes, too
    drawn = (here.own.path.read_bytes(), here.reworded.path.read_bytes())
    here.own.path.unlink()
    shutil.rmtree(here.student)
    in_processes = config.scoring.model_copy(update={"num_workers": 2})
    assert min(num_verified, len(own)) > config.scoring.batch_size
    draw_own(open_run(config.model_copy(update={"scoring": in_processes}), folder, Silent()), 1)
    assert (here.own.path.read_bytes(), here.reworded.path.read_bytes()) == drawn

    # or while they are written
    num_read = 0

    def killed_after_some(*given: Any) -> list[tuple[str, ...]]:
        nonlocal num_read
        num_read += 1
        if num_read == num_verified + 3:
            raise KeyboardInterrupt
        return said_again(*given)

    here.own.path.unlink()
    here.reworded.path.unlink()
    monkeypatch.setattr("edgeelad.teacher.plan.own_examples.FIRST_TRIED", 1)
    monkeypatch.setattr("edgeelad.teacher.plan.own_examples.NUM_TRIED", 2)
    monkeypatch.setattr("edgeelad.teacher.plan.own_examples.wordings", killed_after_some)
    with pytest.raises(KeyboardInterrupt):
        draw_own(open_run(config, folder, Silent()), 1)
    assert (here.reworded.exists(), here.own.begun.exists(), here.own.exists()) == (True, True, False)
    draw_own(open_run(config, folder, Silent()), 1)
    assert (here.own.path.read_bytes(), here.reworded.path.read_bytes()) == drawn

    # a batch that the teacher goes on with has it drawn anew; all replies are in the ledger
    here.annotations.path.unlink()
    here.own.begun.touch()
    assert revise(open_run(config, folder, Silent()), 1)
    assert not [file for file in (here.own, here.reworded) if file.exists() or file.begun.exists()]
    draw_own(open_run(config, folder, Silent()), 1)
    assert (here.own.path.read_bytes(), here.reworded.path.read_bytes()) == drawn
