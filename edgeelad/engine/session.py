"""Open ONNX Runtime sessions on the CPU, with the settings that all graphs share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime

from edgeelad.engine.memory import available_memory_bytes
from edgeelad.engine.onnx_file import check_graph
from edgeelad.errors import ModelError

ADVICE = "export the student again with `edgeelad export`"
MIN_ONNXRUNTIME = "1.22"  # older ones lack 8-bit MatMulNBits, and die on a Raspberry Pi 4 (onnxruntime #23957)
ENV_ALLOCATORS = "session.use_env_allocators"
# a device may have less; what a system that does not report its memory is taken to have
MIN_LIMIT_BYTES, DEFAULT_LIMIT_BYTES = 1 << 30, 16 << 30
SETTINGS = {
    "session.load_model_format": "ONNX",  # the format that `check_graph` reads, whatever a file is called
    # spinning threads would take the cores from the other workers and from torch (onnxruntime #13808)
    "session.intra_op.allow_spinning": "0",
}
# of a program that runs one session: a step has hundreds of operators, and waking a thread takes as long as one of them
SPINNING = {"session.intra_op.allow_spinning": "1", "session.force_spinning_stop": "1"}
SPIN_DURATION = "session.intra_op.spin_duration_us"  # ONNX Runtime before 1.26 ignores it, and spins for milliseconds


def open_session(path: Path, num_threads: int, *, spin_us: int = 0) -> Any:
    """Open a graph on the CPU.

    Args:
        path: The graph.
        num_threads: Threads that share an operator.
        spin_us: Microseconds that a thread waits for the next operator of a run before it sleeps; threads always sleep
            between runs.

    Raises:
        ModelError: The file is missing, damaged, or runs or reads what no student needs; or ONNX Runtime is too old.
    """
    check_onnxruntime(onnxruntime.__version__)
    if not path.is_file():
        raise ModelError(f"{path}: missing; {ADVICE}")
    check_graph(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    spinning = SPINNING | {SPIN_DURATION: str(spin_us)} if spin_us else {}
    for name, value in (SETTINGS | spinning).items():
        options.add_session_config_entry(name, value)
    # Shapes change every step: memory patterns would only accumulate (onnxruntime #11627), and no reuse of memory can
    # be planned. Planning it at load takes the square of the number of nodes: six of eight seconds for a graph with
    # trees.
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
        reason = " ".join(str(error).split())[:600]
        raise ModelError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({reason}); {ADVICE}, or update onnxruntime"
        ) from error


def flush_denormals() -> None:
    """Make sessions treat denormal numbers as zero, in a process that does nothing but run them.

    A probability below 1e-38 costs an Intel core a hundred cycles, and the hidden columns of a tree's attention all
    have one. The student's results keep their bits: next to the other terms of a sum such numbers vanish. Call this
    before the first session is opened. ONNX Runtime then changes the thread's floating-point mode for good (onnxruntime
    #5391), which no library may do to somebody else's process.
    """
    SETTINGS["session.set_denormal_as_zero"] = "1"


def limit_memory() -> None:
    """Limit what all later sessions of this process may allocate together to the memory that is free now.

    A stranger's graph can ask for any amount with a line (Expand, Tile, ConstantOfShape): beyond the limit, ONNX
    Runtime refuses instead of taking the whole machine. The sessions then share an arena, which keeps its memory when
    they are closed. Idempotent.
    """
    if ENV_ALLOCATORS in SETTINGS:
        return
    available = available_memory_bytes(with_swap=True)
    limit = max(MIN_LIMIT_BYTES, DEFAULT_LIMIT_BYTES if available is None else available)
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg(limit, -1, -1, -1))
    SETTINGS[ENV_ALLOCATORS] = "1"


@contextmanager
def run_errors(session: Any) -> Iterator[None]:
    """Turn what ONNX Runtime raises while it runs a graph (out of memory, shapes that do not fit) into a ModelError."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        reason = " ".join(str(error).split())[:600]
        raise ModelError(
            f"{session._model_path}: cannot be run ({reason}); free some memory, or export the student again"
        ) from error


def check_onnxruntime(version: str, oldest: str = MIN_ONNXRUNTIME) -> None:
    """Raise ModelError if this version of ONNX Runtime is older than the oldest that runs a student."""
    if _numbers(version) < _numbers(oldest):
        raise ModelError(
            f"ONNX Runtime {version} is too old: this student needs {oldest} or newer; "
            f"install it with: pip install 'onnxruntime>={oldest}'"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
