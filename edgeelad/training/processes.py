"""Fine-tune in several processes, one per GPU, started by torch's launcher; the caller remains the owner of the run.

Takes and gives what `trainer.fine_tune` does. The processes live no longer than the caller: they are ended on any
error, Ctrl-C included, and end by themselves if the caller is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import edgeelad
from edgeelad.config import TrainingConfig
from edgeelad.engine.options import num_cores
from edgeelad.errors import EdgeeladError, TrainingError
from edgeelad.records import Example
from edgeelad.training.launcher import environment_alone
from edgeelad.training.result import TrainingResult

# seconds that the launcher has to end its processes; it kills them itself after 30
PATIENCE_S = 40.0


def fine_tune(
    base: Path,
    examples: Sequence[Example],
    out: Path,
    config: TrainingConfig,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> TrainingResult:
    """Fine-tune in `config.num_processes` processes; see `edgeelad.training.fine_tune`."""
    with TemporaryDirectory(prefix="edgeelad-training-") as scratch:
        job = Path(scratch) / "job"
        job.write_bytes(pickle.dumps((base, examples, out, config, seed)))
        with (Path(scratch) / "stderr").open("w+b") as log:
            with _launched(config, job, log) as process:
                assert process.stdout is not None, "a pipe"
                for step in _steps(process.stdout):
                    if progress is not None:
                        progress(*step)
            log.seek(0)
            said = log.read().decode(errors="replace")
        for rank in range(config.num_processes):
            failure = job.with_name(f"error-{rank}")
            if failure.exists():
                error: EdgeeladError = pickle.loads(failure.read_bytes())
                raise error
        result = job.with_name("result")
        if not result.exists():
            raise TrainingError(_explain(process.returncode, said))
        found: TrainingResult = pickle.loads(result.read_bytes())
        return found


@contextmanager
def _launched(config: TrainingConfig, job: Path, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the processes; gives the launcher, whose standard output ends when all have ended."""
    num_processes = config.num_processes
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command += ["-m", "edgeelad.training.worker", str(job)]
    kept = {"OMP_NUM_THREADS": str(max(1, num_cores() // num_processes)), **environment_alone()}
    if config.device == "cpu":  # each process would take a GPU of its own, if it sees one, and there may be too few
        kept["CUDA_VISIBLE_DEVICES"] = ""
    paths = [str(Path(edgeelad.__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
    process = subprocess.Popen(
        command,
        env={**kept, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for the caller
    )
    # if the launcher is killed, its processes end with their standard input
    watch = threading.Thread(target=_close_input, args=(process,), daemon=True)
    watch.start()
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
            process.kill()
        watch.join()
        if process.stdout is not None:
            process.stdout.close()


def _close_input(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    assert process.stdin is not None, "a pipe"
    process.stdin.close()


def _steps(lines: IO[bytes]) -> Iterator[tuple[int, int, float]]:
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):  # what a library writes is no report
            step, total, loss = json.loads(line)
            yield step, total, loss


def _explain(code: int, said: str) -> str:
    """Why the processes ended without an outcome, from the launcher's exit code and what was written."""
    codes = [code, *(int(code) for code in re.findall(r"exitcode\s*:\s*(-?\d+)", said))]
    if -9 in codes:
        return (
            "a training process was killed (signal 9), as the system does if memory runs out; lower "
            "training.batch_size, or set training.gradient_checkpointing or training.fsdp, and resume"
        )
    errors = re.findall(r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .+)$", said, re.MULTILINE)
    reason = errors[0] if errors else f"exit code {codes[-1]}"
    return f"a training process ended early: {reason}; everything before is kept: resume when the cause is mended"
