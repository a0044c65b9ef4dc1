"""Distill with a teacher of your own: any object that answers and explains, here one that can add.

python examples/own_teacher.py STUDENT pool.jsonl runs/sums

STUDENT is a model folder or a Hugging Face id; the pool's questions are like "What is 3 + 4?". In place of the sum, a
teacher can call any model's SDK. Its replies are kept in the run folder's ledger: give the same command after a crash,
and nothing is asked twice.
"""

import re
import sys
from pathlib import Path

import edgeelad
from edgeelad.errors import TeacherReplyError


class Adder:
    """A teacher with the two methods that every teacher needs (`edgeelad.Teacher`)."""

    def answer(self, question: edgeelad.Question, sample: int = 0) -> edgeelad.AnswerReply:
        """Answer a question."""
        return edgeelad.AnswerReply(str(sum(self._numbers(question))))

    def rationale(self, question: edgeelad.Question, reference: str | None, sample: int = 0) -> edgeelad.ChainReply:
        """Explain a question step by step."""
        first, second = self._numbers(question)
        total = first + second
        return edgeelad.ChainReply((f"Start with {first}.", f"{first} + {second} = {total}."), str(total))

    def _numbers(self, question: edgeelad.Question) -> tuple[int, int]:
        match = re.search(r"(\d+) \+ (\d+)", question.text)
        if match is None:
            raise TeacherReplyError("not a sum of two numbers")  # this question is set aside, the others go on
        return int(match[1]), int(match[2])


def show(event: edgeelad.Event) -> None:
    """Print finished stages and warnings."""
    if isinstance(event, edgeelad.StageEnded):
        print(f"{event.stage} ({event.seconds:.1f} s) {event.note}")
    elif isinstance(event, edgeelad.Warned):
        print(f"warning: {event.text}")


if __name__ == "__main__":
    student, pool, out = sys.argv[1:]
    config = {
        "run": {"out": out},
        "pool": {"path": pool, "kind": "number"},
        "student": {"model": student},
        "scoring": {"max_explanation_tokens": 48, "max_branch_tokens": 48},
        "selection": {"num_rounds": 1, "batch_size": 20},
        "stopping": {"audit_size": 20},
    }
    if (Path(out) / "config.toml").exists():
        summary = edgeelad.distill(out, resume=True, teacher=Adder(), on_event=show)
    else:
        summary = edgeelad.distill(config, teacher=Adder(), on_event=show)
    print(f"stopped because: {summary.stopped_because}; {summary.annotated} explanations bought")
    if summary.certificate is not None:
        print(f"disagrees with the teacher on at most {summary.certificate.upper:.0%} of such questions")
    print(Path(out) / "package")
