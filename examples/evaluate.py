"""Measure a student on labeled questions, by skill if the file names skills; exit code 1 below a bar.

python examples/evaluate.py runs/quickstart/package runs/quickstart/quickstart/test.jsonl 0.8
"""

import sys

import edgeelad

if __name__ == "__main__":
    package, data, bar = sys.argv[1:]
    result = edgeelad.evaluate(package, data)
    print(f"accuracy {result.accuracy:.3f} (95 % interval {result.low:.3f} to {result.high:.3f})")
    for skill, (num_correct, num_questions) in result.by_skill.items():
        print(f"  {skill}: {num_correct} of {num_questions}")
    # the student passes only if even the lower end of the interval does
    sys.exit(0 if result.low >= float(bar) else f"the lower end is below {bar}")
