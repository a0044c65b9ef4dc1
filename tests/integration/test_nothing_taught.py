"""A run in which nothing could be taught packages nothing, says why, counts what was paid, and can be resumed."""

import json
import shutil
from pathlib import Path

import pytest
from fixtures.small_run import SmallRun, start

from edgeelad.errors import EdgeeladError
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.replies import Faults
from edgeelad.quickstart.server import TeacherServer
from edgeelad.run.folder import RunFolder
from edgeelad.teacher.ledger.files import ledger_stats

# a selection that needs no student, and few questions
SETTINGS = ("selection.strategy=random", "selection.num_rounds=1", "selection.batch_size=4", "stopping.audit_size=2")


def test_a_completion_cap_that_cuts_every_reply(small_run: SmallRun, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with TeacherServer() as server:
        cut = small_run.config(folder.path, server.url, *SETTINGS, "teacher.max_completion_tokens=2")
        with pytest.raises(EdgeeladError):
            distill(cut, Silent())
        assert not folder.package.exists()
        enough = small_run.config(folder.path, server.url, *SETTINGS)
        summary = distill(enough, Silent())
        assert summary.annotated > 0
        assert summary.certificate is not None
        assert summary.certificate.num_unanswered == 0
        assert folder.package.exists()
        assert summary.teacher.requests == server.billed.requests
        assert summary.unusable_replies > 0


class ThinkingTeacher(TeacherServer):
    """Thinks for 3,000 tokens before it writes anything, or for 20 at low effort."""

    def complete(self, body):
        request, reply = json.loads(body), super().complete(body)
        cap, thought = request["max_tokens"], 20 if request.get("reasoning_effort") == "low" else 3_000
        if cap <= thought:
            reply["choices"][0] |= {"finish_reason": "length", "message": {"role": "assistant", "content": ""}}
        usage = reply["usage"]
        usage["completion_tokens"] = min(cap, usage["completion_tokens"] + thought)
        usage["completion_tokens_details"] = {"reasoning_tokens": min(cap, thought)}
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        return reply


def test_a_teacher_that_only_thinks(small_run: SmallRun, tmp_path: Path) -> None:
    """It ends at the completion cap each time: the run stops early, and a higher cap or less effort finishes it."""
    folder = RunFolder(tmp_path / "run")
    settings = (*SETTINGS, "stopping.audit_size=8", "teacher.max_concurrency=2")
    with ThinkingTeacher() as server:
        config = small_run.write_config(folder.path, server.url, *settings)
        process = start("distill", str(config), "--quiet")
        stdout, stderr = process.communicate()
        assert (process.returncode, stdout) == (1, "")
        assert len(stderr.splitlines()) == 1
        assert "reasoning tokens billed" in stderr
        assert "raise teacher.max_completion_tokens = 512" in stderr
        assert "lower teacher.reasoning_effort" in stderr
        assert not folder.package.exists()
        assert server.billed.requests <= 10
        for remedy in ("teacher.max_completion_tokens=4000", "teacher.reasoning_effort=low"):
            resumed = RunFolder(tmp_path / remedy)
            shutil.copytree(folder.path, resumed.path)
            summary = distill(small_run.config(resumed.path, server.url, *settings, remedy), Silent())
            assert summary.annotated > 0
            assert resumed.package.exists()
            num_sent = server.billed.requests
            again = distill(small_run.config(resumed.path, server.url, *settings, remedy), Silent())
            assert again.teacher == summary.teacher
            assert server.billed.requests == num_sent


def test_the_summary_holds_what_the_ledger_holds(small_run: SmallRun, tmp_path: Path) -> None:
    """No answer of this teacher agrees with another, so no round has figures of its own."""
    folder = RunFolder(tmp_path / "run")
    with TeacherServer(faults=Faults(answer_error=1.0, finding_error=1.0)) as server:
        config = small_run.write_config(folder.path, server.url, *SETTINGS)
        process = start("distill", str(config), "--quiet")
        stdout, stderr = process.communicate()
        assert (process.returncode, stdout) == (1, "")
        assert len(stderr.splitlines()) == 1
        assert "nothing is packaged: the teacher settled none of 4 questions" in stderr
        assert not folder.package.exists()
        assert folder.report.exists()
        summary, stats = folder.summary.read(), ledger_stats(folder.ledger)
        assert summary.teacher.requests == stats.total.requests == server.billed.requests
        assert summary.teacher.requests > folder.round(0).metrics.read().teacher.requests
        assert (summary.rounds, summary.annotated, summary.set_aside) == (0, 0, 4)
