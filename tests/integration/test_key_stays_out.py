"""A run with the key that its teacher demands: the key is in no file and on no stream, however the run goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

from fixtures.small_run import SIGKILLED, SmallRun, Started, start

from edgeelad.files import read_json
from edgeelad.quickstart.server import RequestRefusedError, TeacherServer

KEY = "sk-right-and-secret-0123456789"
ENVIRONMENT = {"TEST_TEACHER_KEY": KEY}
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
    victim: Started | None = None  # killed when it asks in the stage "revise"
    state = Path()

    def check_key(self, authorization: str | None) -> None:
        super().check_key(authorization)
        if self.victim is not None and read_json(self.state)["stage"] == "revise":
            self.victim.kill()
        self.num_left -= 1
        if self.num_left < 0:
            raise RequestRefusedError(401, f"This API key was revoked: {authorization}", code="invalid_api_key")


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
        process = start("distill", str(config), environment=ENVIRONMENT)
        streams += process.communicate()
        assert process.returncode == 1
        assert "Traceback" not in streams[-1]
        assert "This API key was revoked: Bearer [key]" in " ".join(streams[-1].split())
        server.num_left = 10**9

        # killed while the teacher revises: the ledger's write-ahead log stays behind
        server.state = out / "state.json"
        process = server.victim = start("distill", str(out), "--resume", environment=ENVIRONMENT)
        process.communicate()
        server.victim = None
        assert process.returncode == SIGKILLED
        assert (out / "ledger.sqlite-wal").exists()
        assert leaks(tmp_path) == []

        # a mistake of ours, with its traceback
        command = [sys.executable, "-c", CRASHING, "distill", str(out), "--resume", "--quiet"]
        crashed = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
        streams += [crashed.stdout, crashed.stderr]
        assert crashed.returncode == 1
        assert "RuntimeError: a mistake of ours" in streams[-1]

        process = start("distill", str(out), "--resume", "--json", environment=ENVIRONMENT)
        streams += process.communicate()
        assert process.returncode == 0, streams[-1]
    assert read_json(out / "summary.json")["stopped_because"] == "max_rounds"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"ledger.sqlite", "report.html", "config.toml", "package/manifest.json", "package/README.md"} <= names
    assert leaks(tmp_path) == []
    assert not [stream for stream in streams if KEY in stream]
