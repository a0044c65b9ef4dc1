"""One of the processes that fine-tune a student together; started by `processes.fine_tune`, under torch's launcher.

Reads the job, writes the steps to standard output (the first process only) and the outcome to files beside the job.
Ends at once if the process that started it is gone: its standard input ends then, however that process ended.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from pathlib import Path

from edgeelad.errors import EdgeeladError, ModelError, StorageError, TrainingError
from edgeelad.training import trainer
from edgeelad.training.result import TrainingResult


def main(path: Path) -> None:
    """Take part in the job that a file describes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    is_first = os.environ["RANK"] == "0"
    base, examples, out, config, seed = pickle.loads(path.read_bytes())
    try:
        result = trainer.fine_tune(base, examples, out, config, seed, _tell if is_first else None)
    except EdgeeladError as error:
        # those with arguments of their own cannot be pickled
        told = error if isinstance(error, TrainingError | ModelError | StorageError) else TrainingError(str(error))
        _write(path.parent / f"error-{os.environ['RANK']}", told)
        sys.exit(1)
    if is_first:
        _write(path.parent / "result", result)


def _write(path: Path, value: TrainingResult | EdgeeladError) -> None:
    """Write a file whole or not at all: this process may be killed because another one failed."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(pickle.dumps(value))
    temporary.replace(path)


def _tell(step: int, total: int, loss: float) -> None:
    sys.stdout.write(json.dumps([step, total, loss]) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
