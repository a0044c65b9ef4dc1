"""A run folder belongs to one process; its state adds up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeelad.errors import RunError
from edgeelad.run.folder import RunFolder

HOLD = """
import sys
from pathlib import Path
from edgeelad.run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"pid {holder.pid}\) is working on this run folder"), folder.lock():
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with folder.lock():
        assert (folder.path / ".lock").read_text(encoding="utf-8").strip() == str(os.getpid())


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "rounds" / ".student.4711.tmp").mkdir(parents=True)
    (tmp_path / "rounds" / ".student.4711.tmp" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".state.json.12.tmp").write_text("{", encoding="utf-8")
    (tmp_path / ".mine.tmp").write_text("not edgeelad's", encoding="utf-8")
    with folder.lock():
        left = {path.name for path in tmp_path.rglob("*")}
    assert left == {"rounds", ".lock", ".mine.tmp"}


def test_seconds_add_up_over_interruptions(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="stop"), folder.stage(1, "score"):
        raise ValueError("stop")
    first = folder.seconds_by_stage()["score"]
    with folder.stage(1, "score"):
        assert folder.read_state().status == "running"
    with folder.stage(2, "score"):
        pass
    assert folder.seconds_by_stage()["score"] >= first
    assert set(folder.seconds_by_stage(2)) == {"score"}
    assert folder.read_state().round == 2
