"""Killed in every stage, a run ends as one that was never interrupted, and the teacher is paid once."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fixtures.small_run import SIGKILLED, SmallRun, start

from edgeelad.files import read_json, read_jsonl
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.server import TeacherServer

STAGES = [
    (0, "prepare"), (0, "export"), (0, "audit"), (0, "evaluate"), (1, "score"), (1, "select"), (1, "revise"),
    (1, "fine-tune"), (1, "export"), (2, "score"), (2, "revise"), (2, "fine-tune"), (2, "evaluate"), (2, "package"),
]  # fmt: skip


def _replies(ledger: Path) -> dict[str, str]:
    """What the ledger holds, by request key."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT key, content FROM replies").fetchall())


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_the_same_and_pays_once(small_run: SmallRun, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    delays = random.Random(11)
    with TeacherServer() as server:
        expected = distill(small_run.config(whole, server.url), Silent())
        billed_before = server.billed.requests
        config = small_run.write_config(killed, server.url)
        arguments = ["distill", str(config), "--quiet"]
        num_kills = 0
        for round_number, stage in STAGES:
            process = start(*arguments, kill_in=(round_number, stage, delays.uniform(0, 0.15)))
            process.communicate()
            num_kills += process.returncode == SIGKILLED
            if (killed / "config.toml").exists():
                arguments = ["distill", str(killed), "--resume", "--quiet"]
        process = start(*arguments)
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
        billed = server.billed.requests - billed_before
    assert num_kills >= len(STAGES) - 2  # a stage of milliseconds may be over when the one before is killed
    for number in ("01", "02"):
        for name in ("selected.jsonl", "annotations.jsonl", "scores.jsonl"):
            left, right = whole / "rounds" / number / name, killed / "rounds" / number / name
            assert list(read_jsonl(left)) == list(read_jsonl(right)), name
    actual = read_json(killed / "summary.json")
    for name in ("accuracy", "annotated", "set_aside", "stopped_because", "certificate", "package_accuracy"):
        assert actual[name] == expected.to_json()[name], name
    assert _replies(whole / "ledger.sqlite") == _replies(killed / "ledger.sqlite")
    with closing(sqlite3.connect(f"file:{killed / 'ledger.sqlite'}?mode=ro", uri=True)) as connection:
        (in_doubt,) = connection.execute(
            "SELECT count(*) FROM attempts WHERE outcome IN ('open', 'in_doubt')"
        ).fetchone()
    # what the server billed is what the ledger holds, and at most what was in the air when a kill came
    assert billed - in_doubt <= expected.teacher.requests <= billed


def test_two_processes_on_one_run_folder(small_run: SmallRun, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with TeacherServer() as server:
        config = small_run.write_config(out, server.url)
        first = start("distill", str(config), "--quiet")
        try:
            while not (out / "state.json").exists() and first.poll() is None:
                pass
            second = start("distill", str(out), "--resume", "--quiet") if (out / "config.toml").exists() else None
            assert second is not None
            _, stderr = second.communicate()
        finally:
            first.kill()
            first.communicate()
    assert second.returncode == 1
    assert f"another edgeelad process (pid {first.pid}) is working on this run folder" in stderr
    assert len(stderr.splitlines()) == 1
