"""A run in which nothing could be taught packages nothing, says why, counts what was paid, and can be resumed."""

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
