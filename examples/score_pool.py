"""Show the questions that a student is least certain of, and the step at which its reasoning is most open.

python examples/score_pool.py runs/quickstart/package runs/quickstart/quickstart/pool.jsonl
"""

import heapq
import sys

import edgeelad

NUM_SHOWN = 5

if __name__ == "__main__":  # worker processes import this file
    package, pool = sys.argv[1:]
    scored = (record for record in edgeelad.score(package, pool) if record.score is not None)
    for record in heapq.nlargest(NUM_SHOWN, scored, key=lambda record: record.score or 0.0):
        print(f"{record.score:.3f}  {record.question.text}")
        for step, uncertainty in zip(record.steps, record.step_scores, strict=True):
            mark = "?" if uncertainty == max(record.step_scores) else " "
            print(f"    {uncertainty:.2f} {mark} {step}")
