"""A run with the key that its teacher demands: the key is in no file and on no stream, however the run goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

from fixtures.small_run import SmallRun, kill_at_stage

from edgeelad.files import read_json
from edgeelad.quickstart.server import RequestRefusedError, TeacherServer

KEY = "sk-right-and-secret-0123456789"
ENVIRONMENT = {**os.environ, "TEST_TEACHER_KEY": KEY}
CRASHING = """
import sys
from edgeelad.teacher import openai_teacher

def parse_first_error(*arguments, **named):
    raise RuntimeError("a mistake of ours")

openai_teacher.parse_first_error = parse_first_error
from edgeelad.cli import main
main()
"""


class RevokingServer(TeacherServer):
    """Demands the key, and once `num_left` requests were let in, refuses it and repeats it, as some providers do."""

    num_left = 10**9

    def check_key(self, authorization: str | None) -> None:
        super().check_key(authorization)
        self.num_left -= 1
        if self.num_left < 0:
            raise RequestRefusedError(401, f"This API key was revoked: {authorization}", code="invalid_api_key")


def edgeelad(*arguments: str, launcher: tuple[str, ...] = ("-m", "edgeelad")) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, "distill", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def leaks(folder: Path) -> list[str]:
    """Files of a run folder that hold the key."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_the_key_is_in_no_file_and_on_no_stream(small_run: SmallRun, tmp_path: Path) -> None:
    out = tmp_path / "run"
    streams = []
    with RevokingServer(api_key=KEY) as server:
        settings = ("teacher.api_key_env=TEST_TEACHER_KEY", "selection.num_rounds=1", "teacher.mode=revise")
        config = small_run.write_config(out, server.url, *settings)

        # the key is revoked in the middle of the audit
        server.num_left = 6
        process = edgeelad(str(config))
        streams += process.communicate()
        assert process.returncode == 1
        assert "Traceback" not in streams[-1]
        assert "This API key was revoked: Bearer [key]" in " ".join(streams[-1].split())
        server.num_left = 10**9

        # killed while the teacher revises: the ledger's write-ahead log stays behind
        process = edgeelad(str(out), "--resume")
        assert kill_at_stage(process, out / "state.json", 1, "revise", 0.3)
        assert (out / "ledger.sqlite-wal").exists()
        assert leaks(tmp_path) == []

        # a mistake of ours, with its traceback
        process = edgeelad(str(out), "--resume", "--quiet", launcher=("-c", CRASHING))
        streams += process.communicate()
        assert process.returncode == 1
        assert "RuntimeError: a mistake of ours" in streams[-1]

        process = edgeelad(str(out), "--resume", "--json")
        streams += process.communicate()
        assert process.returncode == 0, streams[-1]
    assert read_json(out / "summary.json")["stopped_because"] == "max_rounds"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"ledger.sqlite", "report.html", "config.toml", "package/manifest.json", "package/README.md"} <= names
    assert leaks(tmp_path) == []
    assert not [stream for stream in streams if KEY in stream]
