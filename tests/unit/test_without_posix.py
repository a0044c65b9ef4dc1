"""The light modules on a system without POSIX: they import, and measure and lock with what there is."""

import subprocess
import sys
from pathlib import Path

from unit.test_imports import ALL_MODULES

WITHOUT_POSIX = """
import asyncio, importlib, multiprocessing.context, os, signal, sys, types
import click, jinja2, numpy, onnxruntime, pydantic, rich.progress, tokenizers  # for this system

for module, name in ((signal, "SIGKILL"), (os, "fork"), (os, "sched_getaffinity"), (os, "getuid"), (os, "sysconf")):
    delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # its import raises ImportError
locked = []
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *given: locked.append(given))
system, sys.platform = sys.platform, "win32"
from edgeelad import locks
from edgeelad.engine import memory

memory.Path = lambda path: importlib.import_module("pathlib").Path("none")  # no /proc
assert memory.peak_memory_bytes() is memory.kv_share(1) is None
sys.platform = system
for name in {names!r}:
    importlib.import_module(name)

from pathlib import Path
from edgeelad.engine.options import num_cores
from edgeelad.engine.processes import SIGKILL

assert num_cores(Path("none")) == os.cpu_count()
assert SIGKILL == 9
with open({file!r}, "wb") as file:
    locks.FAR = 1 << 20  # this file system may have no such place
    locks.lock_file(file.fileno())
assert locked
"""


def test_light_modules_need_no_posix(tmp_path: Path) -> None:
    heavy = ("edgeelad.training.", "edgeelad.export.", "edgeelad.quickstart.student", "edgeelad.edge.serve")
    names = [name for name in ALL_MODULES if not name.startswith(heavy)]
    code = WITHOUT_POSIX.format(names=names, file=str(tmp_path / "lock"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
