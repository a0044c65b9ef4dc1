"""Ask a packaged student a question: its steps as they are written, then the answer and how sure it is.

python examples/explain.py runs/quickstart/package "Finn has 3 boxes of 4 shells and 5 more. How many does Finn have?"
"""

import sys

import edgeelad

if __name__ == "__main__":
    package, question = sys.argv[1:]
    with edgeelad.load(package) as student:
        for piece in student.stream(question):
            print(piece, end="", flush=True)
        explanation = student.explain(question)
    print(f"{len(explanation.steps)} steps, answer {explanation.answer}, confidence {explanation.confidence:.2f}")
