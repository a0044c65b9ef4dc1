"""`edgeelad score` on a pool: killed anywhere it resumes to the same bytes, in shards too; errors are one line."""

import fcntl
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fixtures.packages import make_package
from fixtures.poisoned import open_poisoned
from fixtures.students import MAX_CONTEXT, StudentFolders, make_sum

import edgeelad
from edgeelad.config import PoolConfig
from edgeelad.engine import workers
from edgeelad.engine.graph_files import NO_LANES
from edgeelad.engine.options import EngineOptions, num_cores
from edgeelad.engine.workers import SetAside
from edgeelad.errors import MissingExtraError, ModelError, PoolError, RunError, UsageError
from edgeelad.pool import open_pool
from edgeelad.progress import Silent
from edgeelad.record_files import RecordFile
from edgeelad.scoring import files as score_files
from edgeelad.scoring import score as scoring
from edgeelad.scoring.ahead import BlocksAhead, Scored
from edgeelad.scoring.files import ScoreSettings, aside_path, meta_path, open_score_files, write_settings
from edgeelad.scoring.score import score_pool
from edgeelad.scoring.shards import Shard, block_size, merge_shards
from edgeelad.uncertainty import COLD_START, RiskModel

NUM = 199
BLOCK = block_size(NUM)
SETTINGS: dict[str, Any] = {"strategy": "elad", "max_tokens": 16, "branches": 2, "explanations": 2}


def write_pool(path: Path, num: int = NUM, too_long: tuple[int, ...] = ()) -> Path:
    rows = []
    for number in range(num):
        question, _, answer = make_sum(number % 10, number // 10 % 10)
        text = question.text if number not in too_long else "Why? " * MAX_CONTEXT
        rows.append({"id": f"q{number}", "question": text, "answer": answer})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def at(path: Path, **settings: Any) -> PoolConfig:
    return PoolConfig(path=str(path), **settings)


@pytest.fixture(scope="module")
def model(students: StudentFolders) -> Path:
    return students.trained_onnx()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of some blocks; three of its questions do not fit the student, the last of them among these."""
    return write_pool(tmp_path_factory.mktemp("pool") / "pool.jsonl", too_long=(2, 70, NUM - 1))


@pytest.fixture(scope="module")
def whole(model: Path, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of that pool, made at once."""
    out = tmp_path_factory.mktemp("whole") / "scores.jsonl"
    summary = score_pool(model, at(pool), out, Silent(), options=EngineOptions(1), **SETTINGS)
    assert (summary["questions"], summary["set_aside"], summary["new_questions"]) == (NUM - 3, 3, NUM - 3)
    return out


def same(out: Path, whole: Path) -> bool:
    return all(path(out).read_bytes() == path(whole).read_bytes() for path in (Path, aside_path, meta_path))


def test_rows_are_in_the_order_of_the_pool_whatever_the_workers(
    model: Path, pool: Path, whole: Path, tmp_path: Path
) -> None:
    ids = [json.loads(line)["id"] for line in whole.read_text(encoding="utf-8").splitlines()]
    assert ids == [f"q{number}" for number in range(NUM) if number not in (2, 70, NUM - 1)]
    aside = [json.loads(line) for line in aside_path(whole).read_text(encoding="utf-8").splitlines()]
    reason = "prompt longer than the student's context"
    assert aside == [{"id": f"q{number}", "reason": reason} for number in (2, 70, NUM - 1)]
    out = tmp_path / "deeper" / "scores.jsonl"
    summary = score_pool(model, at(pool), out, Silent(), options=EngineOptions(3), **SETTINGS)
    assert same(out, whole)
    assert summary["workers"] == 3
    assert summary["tokens"]["prompt"] > 0
    assert summary["tokens"]["explanation"] > 0
    assert summary["tokens"]["branch"] > 0
    assert summary["tokens"]["probe"] == 0
    assert summary["questions_per_min"] > 0
    assert all(peak is None or peak > 1 << 20 for peak in summary["peak_memory_bytes"].values())


def test_a_finished_file_is_left_alone(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_scores(whole, tmp_path)
    said = Told()
    before = out.stat().st_mtime_ns
    summary = score_pool(model, at(pool), out, said, **SETTINGS)
    assert (summary["questions"], summary["set_aside"], summary["new_questions"]) == (NUM - 3, 3, 0)
    assert said.lines == [f"{out} is complete: {NUM - 3} scored, 3 set aside"]
    assert out.stat().st_mtime_ns == before


def test_a_pool_without_answers_is_warned_of_once(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"question": "What is 1 + 2?"}\n', encoding="utf-8")
    score_pool(model, at(pool), tmp_path / "a.jsonl", Silent(), **SETTINGS)
    assert caplog.text.count("the answer type is unknown without answers") == 1
    with pytest.raises(UsageError, match="other questions"):
        score_pool(model, at(pool, kind="number"), tmp_path / "a.jsonl", Silent(), **SETTINGS)
    assert caplog.text.count("the answer type is unknown without answers") == 1


class Told(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def copy_scores(whole: Path, folder: Path, num_bytes: int | None = None) -> Path:
    """A copy of some scores, or of their first bytes."""
    out = folder / "scores.jsonl"
    for path in (Path, meta_path, aside_path):
        shutil.copy(path(whole), path(out))
    if num_bytes is not None:
        os.truncate(out, num_bytes)
    return out


def line_ends(path: Path) -> list[int]:
    data = path.read_bytes()
    return [place + 1 for place in range(len(data)) if data[place] == ord("\n")]


@pytest.mark.parametrize("torn", ["end", "middle", "but the newline", "nothing left", "block", "a bad byte"])
def test_a_torn_file_is_repaired(model: Path, pool: Path, whole: Path, tmp_path: Path, torn: str) -> None:
    ends = line_ends(whole)
    size = {
        "end": ends[80],
        "middle": (ends[100] + ends[101]) // 2,
        "but the newline": ends[100] - 1,
        "nothing left": 0,
        "block": ends[BLOCK - 2],  # one of that block is set aside
        "a bad byte": ends[100],
    }[torn]
    out = copy_scores(whole, tmp_path, size)
    if torn == "a bad byte":
        with out.open("ab") as file:
            file.write(b"\0\xff\n")
    summary = score_pool(model, at(pool), out, Silent(), options=EngineOptions(2), **SETTINGS)
    assert same(out, whole)
    kept = sum(end <= size for end in ends)
    assert summary["resumed_from"] == kept
    assert summary["new_questions"] == NUM - 3 - kept


def test_a_torn_list_of_what_was_set_aside_is_repaired(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_scores(whole, tmp_path, line_ends(whole)[5])
    with aside_path(out).open("ab") as file:
        file.write(b'{"id": "q1')
    score_pool(model, at(pool), out, Silent(), options=EngineOptions(2), **SETTINGS)
    assert same(out, whole)


def test_a_file_of_other_rows_is_not_touched(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_scores(whole, tmp_path)
    lines = out.read_bytes().splitlines(keepends=True)
    for changed, said in (
        ([lines[1], *lines[2:]], r"row 1 is of question q1, which is not the pool's next"),
        ([*lines[:5], *lines[6:]], "row 6 is of question q7"),
        ([*lines, lines[0]], "is of question q0"),
        ([*lines[:5], b"torn", *lines[6:]], r"scores.jsonl:6: damaged row"),
    ):
        out.write_bytes(b"".join(changed))
        with pytest.raises(RunError, match=said):
            score_pool(model, at(pool), out, Silent(), **SETTINGS)
        assert out.read_bytes() == b"".join(changed)


def test_risk_is_scored_with_the_model_of_a_run(model: Path, tmp_path: Path) -> None:
    pool, out = write_pool(tmp_path / "pool.jsonl", 12), tmp_path / "scores.jsonl"
    cold = tmp_path / "cold.jsonl"
    score_pool(model, at(pool), cold, Silent(), strategy="risk", max_tokens=16)
    fitted = RecordFile(tmp_path / "risk.json", RiskModel)
    fitted.write(replace(COLD_START, intercept=COLD_START.intercept + 1.0, num_checked=50, num_wrong=9))
    for _ in range(2):  # the second time, there is nothing left to do
        score_pool(model, at(pool), out, Silent(), strategy="risk", max_tokens=16, risk_model=fitted.path)
    pairs = zip(*([json.loads(line) for line in path.read_text().splitlines()] for path in (cold, out)), strict=True)
    for before, after in pairs:
        assert (before["score"], after["score"]) == (before["risk"], after["risk"])
        odds = [math.log(row["risk"] / (1 - row["risk"])) for row in (before, after)]
        assert odds[1] - odds[0] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(UsageError, match="another risk model"):
        score_pool(model, at(pool), out, Silent(), strategy="risk", max_tokens=16)
    fitted.write(replace(COLD_START, coefficients=(1.0, 2.0)))
    with pytest.raises(RunError, match=r"risk.json: has 2 coefficients and not \d+: another version"):
        score_pool(model, at(pool), out, Silent(), strategy="risk", max_tokens=16, risk_model=fitted.path)
    with pytest.raises(UsageError, match="no such file; name a run"):
        score_pool(model, at(pool), out, Silent(), strategy="risk", risk_model=tmp_path / "none.json")


def test_other_settings_are_refused(
    model: Path, pool: Path, whole: Path, students: StudentFolders, tmp_path: Path
) -> None:
    out = copy_scores(whole, tmp_path)

    def refused(said: str, model: Path = model, pool: Path = pool, shard: Shard | None = None, **changed: Any) -> None:
        with pytest.raises(UsageError, match=said):
            score_pool(model, at(pool), out, Silent(), shard=shard, **{**SETTINGS, **changed})
        assert same(out, whole)

    refused("started with seed 0 and not 1; use the same settings", seed=1)
    refused("strategy elad and not elad-mc", strategy="elad-mc")
    refused("branches 2 and not 3", branches=3)
    refused("max_tokens 16 and not 17", max_tokens=17)
    refused("precision fp32 and not int8", options=EngineOptions(precision="int8"))
    refused("shard 1 and not 2, num_shards 1 and not 2", shard=Shard(2, 2))
    refused("another student", model=students.onnx())
    refused("other questions", pool=write_pool(tmp_path / "other.jsonl", NUM, too_long=(3,)))
    meta = json.loads(meta_path(out).read_text(encoding="utf-8"))
    meta["settings"]["edgeelad"] = "0.0.1"
    meta_path(out).write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"started with edgeelad 0\.0\.1 and not {re.escape(edgeelad.__version__)};"):
        score_pool(model, at(pool), out, Silent(), **SETTINGS)
    meta_path(out).unlink()
    with pytest.raises(UsageError, match=r"scores.jsonl.meta.json is missing"):
        score_pool(model, at(pool), out, Silent(), **SETTINGS)
    meta_path(out).write_text('{"settings": {"more": 1}}', encoding="utf-8")
    with pytest.raises(UsageError, match="not what this edgeelad writes"):
        score_pool(model, at(pool), out, Silent(), **SETTINGS)


def test_a_pool_that_shrinks_meanwhile_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, read, out = write_pool(tmp_path / "pool.jsonl", 20), scoring.open_pool, tmp_path / "scores.jsonl"

    def shrinking(config: PoolConfig, *, is_known: bool = False, **named: Any) -> Any:
        return read(config.model_copy(update={"limit": 15 if is_known else None}), **named)

    monkeypatch.setattr(scoring, "open_pool", shrinking)
    with pytest.raises(PoolError, match="became shorter during scoring"):
        score_pool(model, at(pool), out, Silent(), **SETTINGS)
    monkeypatch.undo()
    summary = score_pool(model, at(pool), out, Silent(), **SETTINGS)
    assert (summary["questions"], summary["resumed_from"]) == (20, 15)


def test_a_pool_that_is_edited_meanwhile_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, read, out = write_pool(tmp_path / "pool.jsonl", 40), scoring.open_pool, tmp_path / "scores.jsonl"
    lines = pool.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = lines[20].replace("?", "??")

    def edited(config: PoolConfig, *, is_known: bool = False, **named: Any) -> Any:
        pool.write_text("".join([*lines[:20], changed if is_known else lines[20], *lines[21:]]), encoding="utf-8")
        return read(config, is_known=is_known, **named)

    score_pool(model, at(pool), tmp_path / "whole.jsonl", Silent(), **SETTINGS)
    monkeypatch.setattr(scoring, "open_pool", edited)
    said = r"pool.jsonl: it changed during scoring \(question 21\); restore it, then run the command again"
    for _ in range(2):  # a second try does not take the first for complete
        with pytest.raises(PoolError, match=said):
            score_pool(model, at(pool), out, Silent(), **SETTINGS)
    with pytest.raises(PoolError, match=said):
        score_pool(model, at(pool), tmp_path / "2.jsonl", Silent(), shard=Shard(2, 3), **SETTINGS)
    assert not (tmp_path / "2.jsonl").exists()
    # a shard's own questions only must be the same
    score_pool(model, at(pool), tmp_path / "1.jsonl", Silent(), shard=Shard(1, 3), **SETTINGS)
    score_pool(model, at(pool), tmp_path / "3.jsonl", Silent(), shard=Shard(3, 3), **SETTINGS)
    monkeypatch.undo()
    pool.write_text("".join(lines), encoding="utf-8")
    score_pool(model, at(pool), out, Silent(), **SETTINGS)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_second_process_is_refused(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_scores(whole, tmp_path, 100)
    with out.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another edgeelad process is writing it"):
            score_pool(model, at(pool), out, Silent(), **SETTINGS)
        with pytest.raises(RunError, match="another edgeelad process is writing it"):
            merge_shards([out], tmp_path / "merged.jsonl")
    assert out.stat().st_size == 100


def test_nothing_is_left_if_nothing_was_scored(model: Path, pool: Path, tmp_path: Path) -> None:
    torn = shutil.copytree(model, tmp_path / "torn")
    graph = torn / "engine_lanes.graph"
    graph.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"engine_lanes.graph: damaged, or no ONNX graph"):
        score_pool(torn, at(pool), tmp_path / "out" / "scores.jsonl", Silent(), **SETTINGS)
    assert list((tmp_path / "out").iterdir()) == []


def score_settings(**changes: Any) -> ScoreSettings:
    given = {"strategy": "risk", "branches": 3, "explanations": 3, "max_tokens": 16, "precision": "fp32", "seed": 0}
    return ScoreSettings(**{"edgeelad": "1", "model": "m", "pool": "p", "num_questions": 32, **given, **changes})


def test_files_are_deleted_before_they_are_unlocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, deleted, unlink = tmp_path / "scores.jsonl", [], Path.unlink

    def unlink_locked(path: Path, missing_ok: bool = False) -> None:
        with out.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        deleted.append(path)
        unlink(path, missing_ok)

    def fail() -> None:
        with open_score_files(out, score_settings()):
            monkeypatch.setattr(Path, "unlink", unlink_locked)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert deleted == [meta_path(out), out]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_deleted_while_it_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lock, locked = tmp_path / "scores.jsonl", score_files.lock_scores, []

    def lock_late(path: Path, descriptor: int) -> None:
        locked.append(descriptor)
        if len(locked) == 1:
            path.unlink()
        lock(path, descriptor)

    monkeypatch.setattr(score_files, "lock_scores", lock_late)
    with open_score_files(out, score_settings()) as files:
        files.add(b'{"id": "q0"}\n')
    assert len(locked) == 2
    assert out.read_bytes() == b'{"id": "q0"}\n'


@pytest.mark.parametrize("num_shards", [3, 7])
def test_merged_shards_are_the_whole(model: Path, pool: Path, whole: Path, tmp_path: Path, num_shards: int) -> None:
    shards = [tmp_path / f"{number}.jsonl" for number in range(1, num_shards + 1)]
    for number, out in enumerate(shards, start=1):
        score_pool(
            model, at(pool), out, Silent(), options=EngineOptions(1), shard=Shard(number, num_shards), **SETTINGS
        )
    random.Random(num_shards).shuffle(shards)
    merged = tmp_path / "deeper" / "scores.jsonl"
    assert merge_shards(shards, merged) == {"questions": NUM - 3, "set_aside": 3}
    assert same(merged, whole)
    # it is what the whole run would go on with
    assert score_pool(model, at(pool), merged, Silent(), **SETTINGS)["new_questions"] == 0


@pytest.mark.parametrize(("num_questions", "total"), [(0, 3), (1, 3), (64, 2), (65, 2), (1000, 7), (10**6, 8)])
def test_shards_are_disjoint_and_cover_the_pool(num_questions: int, total: int) -> None:
    parts = [Shard(number, total).places(num_questions) for number in range(1, total + 1)]
    assert parts[0].start == 0
    assert parts[-1].stop == num_questions
    assert all(one.stop == other.start for one, other in itertools.pairwise(parts))
    assert max(map(len, parts)) - min(map(len, parts)) < 2 * block_size(num_questions)


def test_shards_that_do_not_make_a_whole(model: Path, pool: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    for number, out in ((1, first), (2, second)):
        score_pool(model, at(pool), out, Silent(), options=EngineOptions(1), shard=Shard(number, 2), **SETTINGS)
    other = tmp_path / "other.jsonl"
    score_pool(model, at(pool), other, Silent(), options=EngineOptions(1), shard=Shard(2, 2), **{**SETTINGS, "seed": 1})
    copy = copy_scores(second, tmp_path)
    out = tmp_path / "merged.jsonl"

    def refused(said: str, *paths: Path, error: type[Exception] = UsageError, out: Path = out) -> None:
        with pytest.raises(error, match=said):
            merge_shards(paths, out)
        assert not (tmp_path / "merged.jsonl").exists()

    refused("shards missing of 2: 2", first)
    refused("named twice", first, second, first)
    refused("are both shard 2/2", first, second, copy)
    refused("do not belong together: seed 1 and not 0", first, other)
    refused("no such file", first, tmp_path / "none.jsonl")
    refused("exists already", first, second, out=copy)
    ends = line_ends(second)
    os.truncate(second, ends[-2])
    refused(rf"shard 2/2 has {len(ends)} of its {len(ends) + 1} questions", first, second, error=RunError)
    os.truncate(second, ends[-2] - 5)
    refused("its last row is truncated", first, second, error=RunError)
    meta_path(second).unlink()
    refused("2.jsonl.meta.json is missing", first, second)


def write_shard(out: Path, ids: range, **changes: Any) -> Path:
    write_settings(out, score_settings(num_shards=2, **changes))
    out.write_text("".join(json.dumps({"id": f"q{number}"}) + "\n" for number in ids), encoding="utf-8")
    return out


def test_shards_that_repeat_a_question_are_refused(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1.jsonl", range(16), shard=1)
    second = write_shard(tmp_path / "2.jsonl", range(15, 31), shard=2)
    merged = tmp_path / "merged.jsonl"
    with pytest.raises(RunError, match=r"2.jsonl: question q15 occurs twice in the shards; score this shard again"):
        merge_shards([second, first], merged)
    write_shard(second, range(16, 31), shard=2)
    aside_path(second).write_text('{"id": "q16", "reason": "too long"}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"2.jsonl.set_aside.jsonl: question q16 occurs twice"):
        merge_shards([first, second], merged)
    assert not merged.exists()


def test_merging_removes_the_list_of_an_earlier_file(tmp_path: Path) -> None:
    shards = [write_shard(tmp_path / f"{n}.jsonl", range(16 * n - 16, 16 * n), shard=n) for n in (1, 2)]
    merged = tmp_path / "merged.jsonl"
    aside_path(merged).write_text('{"id": "old", "reason": "too long"}\n', encoding="utf-8")
    assert merge_shards(shards, merged) == {"questions": 32, "set_aside": 0}
    assert not aside_path(merged).exists()


def test_questions_that_kill_are_set_aside(
    model: Path, pool: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, poison = workers.student_opener, frozenset({"q100", f"q{NUM - 2}"})
    monkeypatch.setattr(workers, "student_opener", lambda *given: partial(open_poisoned, opener(*given), poison))
    said = Told()
    out = tmp_path / "scores.jsonl"
    summary = score_pool(model, at(pool), out, said, options=EngineOptions(2), **SETTINGS)
    assert (summary["questions"], summary["set_aside"], summary["replaced_workers"]) == (NUM - 5, 5, 6)
    kept = [line for line in whole.read_bytes().splitlines() if json.loads(line)["id"] not in poison]
    assert out.read_bytes().splitlines() == kept
    aside = {row["id"]: row["reason"] for row in map(json.loads, aside_path(out).read_text().splitlines())}
    assert list(aside) == ["q2", "q70", "q100", f"q{NUM - 2}", f"q{NUM - 1}"]
    assert "3 worker processes died of it (killed by signal 9" in aside["q100"]
    assert sum("a worker process died" in warning for warning in said.warnings) == 6
    # it is done with: no further worker is spent on these
    assert score_pool(model, at(pool), out, said, **SETTINGS)["replaced_workers"] == 0


@pytest.mark.parametrize("damage", ["none", "half", "newline", "another", "not json"])
def test_blocks_ahead_are_scored_once(model: Path, pool: Path, whole: Path, tmp_path: Path, damage: str) -> None:
    rows = whole.read_bytes().splitlines(keepends=True)
    questions = list(open_pool(at(pool)))
    block = questions[64:80]  # it holds q70, which is set aside
    assert len(block) == BLOCK
    lines = {json.loads(row)["id"]: row for row in rows}
    changed = lines["q75"].replace(b'"score": ', b'"score": 1')
    found = lines | {"q75": changed}
    out = copy_scores(whole, tmp_path, line_ends(whole)[19])
    os.truncate(aside_path(out), line_ends(aside_path(out))[0])
    ahead = BlocksAhead(out)
    ahead.keep(block, [Scored(found[q.id], None) if q.id in found else SetAside(q, "too long") for q in block])
    (kept,) = (tmp_path / "scores.jsonl.ahead").iterdir()
    if damage == "half":
        os.truncate(kept, kept.stat().st_size // 2)
    elif damage == "newline":
        os.truncate(kept, kept.stat().st_size - 1)
    elif damage == "another":
        kept.write_bytes(kept.read_bytes().replace(b'"q64"', b'"q63"'))
    elif damage == "not json":
        kept.write_bytes(kept.read_bytes().replace(b'"q64"', b'"q64'))
    summary = score_pool(model, at(pool), out, Silent(), options=EngineOptions(2), **SETTINGS)
    assert not kept.parent.exists()
    if damage != "none":
        assert same(out, whole)
        assert summary["new_questions"] == NUM - 3 - 20
        return
    assert out.read_bytes() == b"".join(changed if row == lines["q75"] else row for row in rows)
    assert json.loads(aside_path(out).read_text(encoding="utf-8").splitlines()[1])["reason"] == "too long"
    assert summary["resumed_from"] == 20 + BLOCK - 1
    assert summary["new_questions"] == NUM - 3 - 20 - (BLOCK - 1)


def test_blocks_ahead_of_other_settings_are_not_used(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_scores(whole, tmp_path, 0)
    aside_path(out).unlink()
    block = list(open_pool(at(pool)))[16:32]
    BlocksAhead(out).keep(block, [Scored(b'{"id": "%s"}\n' % q.id.encode(), None) for q in block])
    with pytest.raises(UsageError, match="started with seed 0 and not 1"):
        score_pool(model, at(pool), out, Silent(), seed=1, **SETTINGS)


RUN_PATCHED = """
import os, signal, sys
from edgeelad.scoring import files as score_files
from edgeelad.cli import main

class Torn:
    def __init__(self, left, how):
        self.left, self.how = left, how

    def __getattr__(self, name):
        return getattr(os, name)

    def write(self, descriptor, data):
        written = os.write(descriptor, data[: self.left])
        self.left -= written
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL) if self.how == "kill" else os.killpg(0, signal.SIGINT)
        return written

if __name__ == "__main__":
    score_files.os = Torn(int(sys.argv.pop(1)), sys.argv.pop(1))
    main()
"""


def arguments(model: Path, pool: Path, out: Path) -> list[str]:
    given = {"model": model, "pool": pool, "out": out, "strategy": "elad"}
    given |= {"max-tokens": 16, "branches": 2, "explanations": 2}
    return ["score", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def stop_after(num_bytes: int, how: str, given: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line until it has written so many bytes of results."""
    script = folder / "run.py"
    script.write_text(RUN_PATCHED, encoding="utf-8")
    command = [sys.executable, str(script), str(num_bytes), how, *given]
    return subprocess.run(command, capture_output=True, text=True, start_new_session=True, timeout=120)


def test_killed_anywhere_it_resumes_to_the_same_bytes(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    rng, size = random.Random(5), whole.stat().st_size
    out = tmp_path / "scores.jsonl"
    given = arguments(model, pool, out)
    for last in (size // 4, size // 2):
        done = stop_after(rng.randrange(1, last), "kill", given, tmp_path)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert 0 < out.stat().st_size < size
    done = run_cli(*given, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert same(out, whole)
    assert 0 < json.loads(done.stdout)["resumed_from"] < NUM - 3


def test_ctrl_c_keeps_everything_and_says_how_to_resume(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "it's here.jsonl"
    given = arguments(model, pool, out)
    done = stop_after(whole.stat().st_size // 2, "interrupt", [*given, "--quiet"], tmp_path)
    assert done.returncode == 130
    line = done.stderr.strip()
    assert line.startswith("edgeelad: interrupted; everything scored so far is kept; resume with: edgeelad score ")
    assert "Traceback" not in line
    again = line.partition("resume with: edgeelad ")[2]
    done = subprocess.run(f"{sys.executable} -m edgeelad {again}", shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same(out, whole)


def test_a_full_disk_loses_nothing(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    given = arguments(model, pool, out)
    limited = (
        "import resource, sys; from edgeelad.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({whole.stat().st_size // 2}, resource.RLIM_INFINITY)); main()"
    )
    done = subprocess.run([sys.executable, "-c", limited, *given, "--quiet"], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"edgeelad: {out}: cannot be written: File too large; free some space")
    assert out.read_bytes() == whole.read_bytes()[: line_ends(out)[-1]]  # whole rows, and many of them
    assert len(line_ends(out)) > NUM // 3
    assert run_cli(*given, "--quiet").returncode == 0
    assert same(out, whole)


def run_cli(*given: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgeelad", *map(str, given)], capture_output=True, text=True)


def refused(code: int, *given: object) -> str:
    """Run it, check that it is refused in one line, and give that line."""
    done = run_cli(*given)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("edgeelad: ")
    return line


def test_wrong_usage_is_one_line(model: Path, pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    given = [*arguments(model, pool, out), "--quiet"]
    many = num_cores() + 1
    assert f"too many workers: {many} with 1 thread each, but this process may use {num_cores()} core" in refused(
        2, *given, "--workers", many
    )
    assert f"too many workers: 1 with {many} threads each" in refused(2, *given, "--workers", 1, "--threads", many)
    for part in ("9/8", "0/8", "1", "a/b", "1/0"):
        assert f"--shard {part}: not a shard" in refused(2, *given, "--shard", part)
    assert "--kv-memory much: not a size" in refused(2, *given, "--kv-memory", "much")
    assert "--model is missing" in refused(2, "score", "--pool", pool, "--out", out)
    assert "--pool is missing" in refused(2, "score", "--model", model, "--out", out)
    assert "--merge takes the files of all shards" in refused(2, *given, "--merge", pool)
    assert "name the questions with --pool" in refused(2, *given, pool)
    assert "no such file" in refused(1, *arguments(model, tmp_path / "none.jsonl", out), "--quiet")
    assert run_cli(*given, "--workers", 0).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_students_that_cannot_be_used_are_one_line(model: Path, pool: Path, tmp_path: Path) -> None:
    torn = shutil.copytree(model, tmp_path / "torn")
    weights = torn / "model.onnx_data"
    os.truncate(weights, weights.stat().st_size - 1)
    line = refused(1, *arguments(torn, pool, tmp_path / "scores.jsonl"), "--quiet")
    assert "ONNX Runtime" in line
    assert "cannot load it" in line
    other = shutil.copytree(model, tmp_path / "other")
    shutil.copy(other / "model.onnx", other / "engine_lanes.graph")
    assert "engine_lanes.graph" in refused(1, *arguments(other, pool, tmp_path / "scores.jsonl"), "--quiet")
    short = shutil.copytree(model, tmp_path / "short")
    config = (short / "config.json").read_text(encoding="utf-8")
    changed = re.sub(r'"max_position_embeddings": \d+', '"max_position_embeddings": 16', config)
    assert changed != config
    (short / "config.json").write_text(changed, encoding="utf-8")
    done = run_cli(*arguments(short, pool, tmp_path / "scores.jsonl"), "--quiet")
    assert done.returncode == 1
    said = f"none of the {NUM} questions can be scored: prompt longer than the student's context; "
    assert said in done.stderr
    assert len((tmp_path / "scores.jsonl.set_aside.jsonl").read_text(encoding="utf-8").splitlines()) == NUM


def test_kv_memory_changes_no_row(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    assert run_cli(*arguments(model, pool, out), "--kv-memory", "1MB", "--workers", 1).returncode == 0
    assert same(out, whole)


@pytest.mark.parametrize(("num", "size"), [(0, 16), (1, 16), (1024, 16), (1025, 17), (4096, 64), (10**6, 64)])
def test_blocks_are_smaller_in_small_pools(num: int, size: int) -> None:
    assert block_size(num) == size


def test_evaluation_leaves_out_what_does_not_fit(model: Path, pool: Path) -> None:
    done = run_cli("eval", "--model", model, "--data", pool, "--max-tokens", 24, "--kv-memory", "2MB", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["num_questions"], figures["num_too_long"], figures["num_lost"]) == (NUM - 3, 3, 0)
    assert 0 < figures["num_correct"] < NUM
    assert "3 questions are left out: q2: prompt longer than the student's context" in " ".join(done.stderr.split())
    short = run_cli("eval", "--model", model, "--data", pool, "--limit", 2, "--quiet", "--workers", 1)
    assert short.stdout.endswith("2 questions\n")
    assert "--workers" in refused(2, "eval", "--model", model, "--data", pool, "--workers", num_cores() + 1)


# --- what a package says of its student -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(students: StudentFolders) -> Path:
    """A package of a student that answers with numbers, in explanations of at most 24 tokens."""
    return make_package(students)


def test_a_package_says_what_its_answers_are_and_how_long(package: Path, tmp_path: Path) -> None:
    unlabeled = tmp_path / "unlabeled.jsonl"
    unlabeled.write_text('{"question": "What is 1 + 2?"}\n', encoding="utf-8")
    out = tmp_path / "scores.jsonl"
    done = run_cli(
        "score", "--model", package, "--pool", unlabeled, "--out", out, "--quiet", "--strategy", "elad", "--branches", 2
    )
    assert (done.returncode, done.stderr) == (0, "")  # not a word of answers read as text
    assert json.loads(meta_path(out).read_text(encoding="utf-8"))["settings"]["max_tokens"] == 24
    summary = score_pool(package, at(unlabeled, kind="number"), out, Silent(), strategy="elad", branches=2)
    assert summary["new_questions"] == 0  # the same questions, kinds included
    with pytest.raises(UsageError, match="max_tokens 24 and not 16"):
        score_pool(package, at(unlabeled), out, Silent(), strategy="elad", branches=2, max_tokens=16)


def test_questions_of_another_type_are_not_evaluated(package: Path, pool: Path, tmp_path: Path) -> None:
    assert json.loads(run_cli("eval", "--model", package, "--data", pool, "--json").stdout)["num_correct"] > 0
    other = tmp_path / "other.jsonl"
    rows = [{"question": f"Is {n} even?", "answer": n % 2 == 0} for n in range(3)] + [{"question": "1?", "answer": 1}]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    line = refused(1, "eval", "--model", package, "--data", other, "--quiet")
    said = "3 of 4 answers are of type boolean, and the student's are of type number; evaluate it on questions"
    assert f"{other}: {said}" in line
    progress = Silent()
    score_pool(package, at(other), tmp_path / "scores.jsonl", progress, strategy="random")
    assert progress.warnings[0] == f"{package}: {NO_LANES}"
    assert [said.partition(";")[0] in warning for warning in progress.warnings[1:]] == [True]
    kind = ("--kind", "text", "--quiet")
    assert run_cli("eval", "--model", package, "--data", other, *kind).returncode == 0  # as the user says


def test_fields_are_named_on_the_command_line(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    row = {"story": "Tom has 1.", "ask": "He gets 2. How many?", "right": 3, "source": "x"}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    named = ("--question-field", "story", "--question-field", "ask", "--answer-field", "right")
    done = run_cli("eval", "--model", package, "--data", path, *named, "--quiet")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: {path}: fields not used: source; if they belong to the question")
    out = tmp_path / "scores.jsonl"
    template = ("--question-template", r"{story}\n\n{ask}", "--answer-field", "right")
    given = ("score", "--model", package, "--pool", path, "--out", out, "--strategy", "random", "--json")
    assert json.loads(run_cli(*given, *named).stdout)["questions"] == 1
    assert json.loads(run_cli(*given, *template).stdout)["new_questions"] == 0  # the same question
    assert "exclude each other" in refused(2, *given, "--quiet", *named, *template[:2])
    assert "field 'stroy': missing; the row has story, ask, right" in refused(
        1, *given, "--quiet", "--question-field", "stroy"
    )


def as_rows(table: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file of scores as they are in JSON lines."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(table).to_pylist()
    return [row | {"traces": [list(trace.values()) for trace in row["traces"]]} for row in rows]


def in_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


KILL_IN_TABLE = """
import os, signal, sys
import pyarrow.parquet
from edgeelad.cli import main

class Killed(pyarrow.parquet.ParquetWriter):
    def write_batch(self, batch):
        super().write_batch(batch.slice(0, 50))
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    pyarrow.parquet.ParquetWriter = Killed
    main()
"""


def test_scores_as_parquet(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "scores.parquet"
    given = arguments(model, pool, out)
    done = stop_after(whole.stat().st_size // 2, "kill", given, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    (tmp_path / "kill.py").write_text(KILL_IN_TABLE, encoding="utf-8")
    killed = subprocess.run([sys.executable, str(tmp_path / "kill.py"), *given], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    said = Told()
    summary = score_pool(model, at(pool), out, said, **SETTINGS)
    assert (summary["questions"], summary["set_aside"], summary["new_questions"]) == (NUM - 3, 3, 0)
    assert as_rows(out) == in_lines(whole)
    assert aside_path(out).read_bytes() == aside_path(whole).read_bytes()
    kinds = ("", ".meta.json", ".set_aside.jsonl")
    assert {path.name for path in tmp_path.glob("*scores*")} == {out.name + kind for kind in kinds}

    # it is complete, and with other settings refused
    before = out.stat().st_mtime_ns
    summary = score_pool(model, at(pool), out, said, **SETTINGS)
    assert (summary["questions"], summary["set_aside"], summary["resumed_from"]) == (NUM - 3, 3, NUM - 3)
    assert said.lines == [f"{out} is complete: {NUM - 3} scored, 3 set aside"] * 2
    with pytest.raises(UsageError, match="started with seed 0 and not 1"):
        score_pool(model, at(pool), out, said, seed=1, **SETTINGS)
    assert out.stat().st_mtime_ns == before


def test_a_parquet_file_of_others_is_not_touched(model: Path, pool: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "mine.parquet"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"mine\.parquet: not written by this `edgeelad score`"):
        score_pool(model, at(pool), out, Silent(), **SETTINGS)
    assert out.read_bytes() == b"mine"


def test_parquet_needs_pyarrow(model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"writing .*scores\.parquet needs pyarrow"):
        score_pool(model, at(pool), tmp_path / "scores.parquet", Silent(), **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_parquet_shards_are_merged(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    shards = [tmp_path / "1.parquet", tmp_path / "2.jsonl", tmp_path / "3.parquet"]
    for number in (1, 2, 3):
        shard = Shard(number, 3)
        score_pool(model, at(pool), shards[number - 1], Silent(), options=EngineOptions(1), shard=shard, **SETTINGS)
    with pytest.raises(UsageError, match=r"1\.parquet is a parquet file; name a file that ends in"):
        merge_shards(shards, tmp_path / "merged.jsonl")
    shards[0].rename(tmp_path / "1")
    shutil.copy(shards[1], tmp_path / "1.parquet.jsonl")
    with pytest.raises(RunError, match=r"1\.parquet: not complete"):
        merge_shards(shards, tmp_path / "merged.parquet")
    (tmp_path / "1").rename(shards[0])
    assert merge_shards(shards, tmp_path / "merged.parquet") == {"questions": NUM - 3, "set_aside": 3}
    assert as_rows(tmp_path / "merged.parquet") == in_lines(whole)
    assert aside_path(tmp_path / "merged.parquet").read_bytes() == aside_path(whole).read_bytes()


def test_a_pool_on_an_object_store(model: Path, pool: Path, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("upath")
    import fsspec

    system = fsspec.filesystem("memory")
    rows = pool.read_bytes().splitlines(keepends=True)
    system.pipe({"/scored/pool/1.jsonl": b"".join(rows[:90]), "/scored/pool/2.jsonl": b"".join(rows[90:])})
    config = PoolConfig(path="memory://scored/pool")
    score_pool(model, config, tmp_path / "scores.jsonl", Silent(), options=EngineOptions(2), **SETTINGS)
    assert same(tmp_path / "scores.jsonl", whole)
    system.rm("/scored", recursive=True)
