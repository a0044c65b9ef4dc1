"""`teacher.batch = true`, end to end: audit and revision through the Batch API; killed while a batch is pending."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from fixtures.batch_server import BatchServer
from fixtures.small_run import SmallRun, start

from edgeelad.files import read_jsonl
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.replies import NO_FAULTS, ChatMessage, reply
from edgeelad.quickstart.server import TeacherServer
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import SelfAgreement

# online, the mode "auto" learns within a round, for which batches take too long
ONE_ROUND = ("selection.num_rounds=1", "teacher.mode=revise")
BATCHED = ("teacher.batch=true", "teacher.batch_poll_s=0.02", *ONE_ROUND)


def respond(messages: list[dict[str, str]]) -> str:
    return reply([ChatMessage(message["role"], message["content"]) for message in messages], NO_FAULTS, "")


def answered(ledger: Path) -> dict[str, tuple[int, int]]:
    """What the ledger holds as paid, by the name of the line in a batch's file."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT substr(key, -16) || '-' || id, outcome, prompt_tokens, completion_tokens FROM attempts"
        ).fetchall()
    assert {row[1] for row in rows} <= {"answered", "unbilled"}
    return {row[0]: row[2:] for row in rows if row[1] == "answered"}


def kill_while_pending(server: BatchServer, batch: str, *arguments: str) -> None:
    """Start edgeelad, and kill it when it has asked whether `batch` is done."""
    process = start(*arguments)
    while not server.batches.get(batch, {"polls": 0})["polls"]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()


def test_killed_while_a_batch_is_pending_it_ends_as_an_online_run(small_run: SmallRun, tmp_path: Path) -> None:
    with TeacherServer() as online:
        distill(small_run.config(tmp_path / "online", online.url, *ONE_ROUND), Silent())
    out = tmp_path / "run"
    resume = ("distill", str(out), "--resume", "--quiet")
    with BatchServer(respond, num_polls=1) as server:
        server.held = {"batch-0", "batch-1"}  # the audit's, and the revision's first
        config = small_run.write_config(out, server.url, *BATCHED)
        kill_while_pending(server, "batch-0", "distill", str(config), "--quiet")
        assert not (out / "audit.jsonl").exists()
        server.held = {"batch-1"}
        kill_while_pending(server, "batch-1", *resume)
        assert not (out / "rounds/01/annotations.jsonl").exists()
        server.held = set()
        process = start(*resume, "--json")
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        assert answered(out / "ledger.sqlite") == server.billed
        lines = [line for file in server.files.values() for line in file.splitlines() if b'"method"' in line]
        assert len(lines) == len(server.billed)  # nothing was submitted twice
    summary = json.loads(stdout)
    assert summary["stopped_because"] == "max_rounds"
    assert summary["teacher"]["requests"] == len(server.billed)
    for name in ("audit.jsonl", "rounds/01/selected.jsonl"):
        batched, alone = (
            [{**row, "usage": None} for row in read_jsonl(path / name)] for path in (out, tmp_path / "online")
        )
        assert batched == alone  # but for the tokens, which the two servers count differently
    batched, alone = (list(read_jsonl(path / "rounds/01/annotations.jsonl")) for path in (out, tmp_path / "online"))
    assert [(row["rung"], row["steps"]) for row in batched] == [(row["rung"], row["steps"]) for row in alone]


def test_the_audit_is_one_batch(small_run: SmallRun, tmp_path: Path) -> None:
    with BatchServer(respond, num_polls=0) as server:
        summary = distill(small_run.config(tmp_path / "run", server.url, *BATCHED), Silent())
        first = server.files[server.batches["batch-0"]["input_file_id"]]
    assert len(first.splitlines()) == 12 + 4  # every audited question, and the first of them twice
    assert summary.teacher_self_agreement == SelfAgreement(4, 4)
    assert summary.certificate.num_audited == 12
    assert RunFolder(tmp_path / "run").summary.read() == summary
