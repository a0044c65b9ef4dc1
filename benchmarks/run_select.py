"""Select a batch from the scores of a large pool, as a round does, for `scaling.py`; prints seconds and peak memory.

python benchmarks/run_select.py QUESTIONS gsm8k/test.jsonl SCORES
"""

from __future__ import annotations

import json
import random
import re
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgeelad.config import SelectionConfig
from edgeelad.files import read_jsonl
from edgeelad.record_files import RowFile
from edgeelad.records import Question
from edgeelad.run.scores import ScoreRow
from edgeelad.selection import select
from edgeelad.uncertainty.traces import StepTrace

TRACE = StepTrace(9, -0.1, -0.2, 0.3, 0.9, 5, 0.2)
STEPS = ("48 / 2 = <<48/2=24>>24", "48 + 24 = <<48+24=72>>72")
BATCH = 100


def main(num: int, data: Path, path: Path) -> None:
    """Write the scores of GSM8K's questions with other numbers in them, then read them and select."""
    rng, texts = random.Random(1), [row["question"] for row in read_jsonl(data)]
    pool: dict[str, Question] = {}
    for number in range(num):
        text = re.sub(r"\d+", lambda _: str(rng.randrange(1000)), texts[number % len(texts)])
        pool[f"q{number:08}"] = Question(f"q{number:08}", text, "number")
    with path.open("w", encoding="utf-8") as file:
        for id_ in pool:
            score = round(rng.random(), 6)
            row = ScoreRow(
                id_, "risk", score, "\n".join(STEPS), STEPS, "72", (), (), -0.1, 0.2, 90, score, (TRACE,) * 3
            )
            file.write(json.dumps(asdict(row)) + "\n")
    figures = {"questions": num, "pool_mb": megabytes()}

    start, scores, questions = time.monotonic(), {}, []
    for row in RowFile(path, ScoreRow).read():
        questions.append(pool[row.id])
        scores[questions[-1].id] = row.score
    figures |= {"read_s": round(time.monotonic() - start, 1), "read_mb": megabytes()}

    start, config = time.monotonic(), SelectionConfig()
    chosen = select(questions, scores, config, num=BATCH, first_round=False, rng=np.random.default_rng(0))
    assert len(chosen) == BATCH
    print(json.dumps(figures | {"select_s": round(time.monotonic() - start, 1), "select_mb": megabytes()}))


def megabytes() -> int:
    """Peak resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
