"""Select a batch from the scores of a large pool, as a round does, for `scaling.py`; prints seconds and peak memory.

python benchmarks/run_select.py QUESTIONS gsm8k/test.jsonl FOLDER
"""

from __future__ import annotations

import json
import random
import re
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from edgeelad.config import RunConfig, SelectionConfig
from edgeelad.files import read_jsonl
from edgeelad.pool.store import Pool
from edgeelad.progress import Silent
from edgeelad.records import Question
from edgeelad.run.folder import RunFolder
from edgeelad.run.scores import ScoreRow
from edgeelad.stages.run import Run
from edgeelad.stages.select import select
from edgeelad.uncertainty.traces import StepTrace

TRACE = StepTrace(9, -0.1, -0.2, 0.3, 0.9, 5, 0.2)
STEPS = ("48 / 2 = <<48/2=24>>24", "48 + 24 = <<48+24=72>>72")
ROW = ScoreRow("ID", "risk", 0.0, "\n".join(STEPS), STEPS, "72", (), (), -0.1, 0.2, 90, 0.0, (TRACE,) * 3)
BATCH = 100


def main(num: int, data: Path, folder: Path) -> None:
    """Store GSM8K's questions with other numbers in them, write scores, and run the stage that selects."""
    figures: dict[str, float] = {"questions": num}
    start = time.monotonic()
    pool = Pool.store(questions(num, data))
    figures |= {"store_s": round(time.monotonic() - start, 1), "store_mb": megabytes()}
    config = RunConfig(selection=SelectionConfig(batch_size=BATCH, first_batch="score"))
    run = Run(config, RunFolder(folder), Silent(), pool, (), (), frozenset(), (), "run")
    here = run.folder.round(1)
    here.path.mkdir(parents=True)
    write_scores(here.scores.path, pool)
    start = time.monotonic()
    select(run, 1)
    figures |= {"select_s": round(time.monotonic() - start, 1), "select_mb": megabytes()}
    assert sum(1 for _ in here.selected.read()) == BATCH
    print(json.dumps(figures))


def questions(num: int, data: Path) -> Iterator[Question]:
    """As many questions as wanted, each with numbers of its own."""
    rng, texts = random.Random(1), [row["question"] for row in read_jsonl(data)]
    for number in range(num):
        text = re.sub(r"\d+", lambda _: str(rng.randrange(1000)), texts[number % len(texts)])
        yield Question(f"q{number:08}", text, "number")


def write_scores(path: Path, pool: Pool) -> None:
    """A row with a random score per question."""
    rng, (before, after) = random.Random(2), json.dumps(asdict(ROW)).split('"score": 0.0')
    with path.open("w", encoding="utf-8") as file:
        for id_ in pool:
            file.write(f'{before.replace("ID", id_)}"score": {rng.random():.6f}{after}\n')


def megabytes() -> int:
    """Peak resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
