"""Reply to edgeelad's prompts as the quickstart's teacher, from their text alone, as an LLM would.

Shares no code with the client: it knows the prompts by the wording of their tasks and labels. For experiments with
imperfect teachers, errors can be planted; they depend on the request alone, so the same request gets the same reply.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from edgeelad.errors import InputError
from edgeelad.quickstart import solver
from edgeelad.quickstart.steps import find_equations, replace_equation

_TASK = re.compile(r"^Task: (.+)\.$", re.MULTILINE)
_LABEL = re.compile(
    r"^(Question|Reference answer|Student's steps|Student's answer|Correct steps so far|Next step):[ ]*",
    re.MULTILINE,
)
_NUMBERED = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a request; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Faults:
    """How often the teacher makes errors.

    Attributes:
        answer_error: Probability of a wrong answer if the prompt does not contain the reference answer.
        finding_error: Probability that an error is missed, or another step is named instead.
    """

    answer_error: float = 0.0
    finding_error: float = 0.0

    def __post_init__(self) -> None:
        for name in ("answer_error", "finding_error"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} is {getattr(self, name)}; expected a probability from 0 to 1")


NO_FAULTS = Faults()


class Solver(Protocol):
    """Exact answers about questions of one sort: `quickstart.solver`, or a module like it."""

    def solve(self, question: str) -> solver.Solution:
        """Explain and answer a question."""
        ...

    def find_first_error(self, question: str, steps: Sequence[str]) -> int | None:
        """The first wrong step."""
        ...

    def judge_step(self, question: str, previous_steps: Sequence[str], step: str) -> bool:
        """Whether a step is right."""
        ...

    def correct_step(self, question: str, previous_steps: Sequence[str], step: str) -> str:
        """The correction of a wrong step."""
        ...

    def continue_from(self, question: str, good_steps: Sequence[str]) -> tuple[str, ...]:
        """The missing steps."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """A parsed prompt, and who answers it."""

    solver: Solver
    question: str
    reference: str | None
    steps: tuple[str, ...]
    next_step: str | None


def reply(
    messages: Sequence[ChatMessage], faults: Faults = NO_FAULTS, salt: str = "", solved_by: Solver = solver
) -> str:
    """The teacher's reply to a chat.

    Args:
        messages: The request's messages.
        faults: Errors to plant.
        salt: Further data that the planted errors depend on (temperature, seed and repetition of the request).
        solved_by: Who knows the answers.

    Raises:
        InputError: The chat is not one of edgeelad's prompts.
    """
    task = next((match[1] for message in messages for match in _TASK.finditer(message.content)), None)
    if task not in _REPLIES:
        known = "; ".join(f"'Task: {name}.'" for name in _REPLIES)
        raise InputError(f"this teacher knows only edgeelad's prompts; no line of this chat is one of {known}")
    asked = _read(messages, solved_by)
    try:
        fields = _REPLIES[task](asked, faults, _Chance(messages, salt))
    except InputError as error:
        return f"I cannot work on this question: {error}"
    return json.dumps(fields, ensure_ascii=False)


class _Chance:
    """Pseudorandom numbers that depend on the request alone."""

    def __init__(self, messages: Sequence[ChatMessage], salt: str) -> None:
        self._text = json.dumps([salt, *([message.role, message.content] for message in messages)])

    def draw(self, purpose: str, limit: int) -> int:
        """A number from 0 to limit - 1."""
        digest = hashlib.sha256(f"{purpose}\n{self._text}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % limit

    def happens(self, purpose: str, prob: float) -> bool:
        """True with the given probability."""
        return self.draw(purpose, 10**9) < prob * 10**9


def _read(messages: Sequence[ChatMessage], solved_by: Solver) -> _Asked:
    turns = [message for message in messages if message.role in ("user", "assistant")]
    if not turns or turns[0].role != "user":
        raise InputError("the chat has no user message; expected the question in one")
    blocks = _blocks(turns[0].content)
    if "Question" not in blocks:
        raise InputError("the first user message has no block 'Question:'")
    steps = _numbered(blocks.get("Student's steps", "")) or _numbered(blocks.get("Correct steps so far", ""))
    next_step = _next_step(blocks)
    for answered, asked in zip(turns[1::2], turns[2::2], strict=False):
        steps.append(_judged(next_step or "", answered.content))
        next_step = _next_step(_blocks(asked.content))
    return _Asked(solved_by, blocks["Question"], blocks.get("Reference answer"), tuple(steps), next_step)


def _blocks(text: str) -> dict[str, str]:
    labels = list(_LABEL.finditer(text))
    ends = [label.start() for label in labels[1:]] + [len(text)]
    return {label[1]: text[label.end() : end].strip() for label, end in zip(labels, ends, strict=True)}


def _numbered(block: str) -> list[str]:
    return [match[2].strip() for match in _NUMBERED.finditer(block)]


def _next_step(blocks: dict[str, str]) -> str | None:
    return next(iter(_numbered(blocks.get("Next step", ""))), None)


def _judged(step: str, verdict: str) -> str:
    """The step that an earlier turn left: the judged step, or its correction."""
    try:
        fields = json.loads(verdict)
        corrected = None if fields["correct"] else fields["corrected_step"]
    except (ValueError, KeyError, TypeError):
        raise InputError("an assistant message is not of the form {correct, corrected_step}") from None
    return corrected if isinstance(corrected, str) else step


def _answer(asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    solution = asked.solver.solve(asked.question)
    answer = _maybe_wrong(solution.answer, faults, chance)
    work = "; ".join(str(equation) for step in solution.steps for equation in find_equations(step))
    return {"work": work, "answer": str(answer)}


def _check(asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    fields = _answer(asked, faults, chance)
    right = asked.solver.solve(asked.question)
    if fields["answer"] == str(right.answer):
        return {**fields, **_first_error(asked, faults, chance)}
    # who answers wrongly takes the step that leads there for right
    equation = replace(find_equations(right.steps[-1])[0], result=int(fields["answer"]))
    return {
        **fields,
        "first_error": len(asked.steps),
        "corrected_step": replace_equation(right.steps[-1], equation),
    }


def _find_first_error(asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    answer = asked.solver.solve(asked.question).answer
    disputed = str(answer) if asked.reference is None or asked.reference.strip() != str(answer) else None
    return {**_first_error(asked, faults, chance), "answer": disputed}


def _first_error(asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    index = asked.solver.find_first_error(asked.question, asked.steps)
    if index is not None and chance.happens("finding", faults.finding_error):
        choices = [choice for choice in (None, *range(len(asked.steps))) if choice != index]
        index = choices[chance.draw("mistaken", len(choices))]
    if index is None:
        return {"first_error": None, "corrected_step": None}
    step = asked.steps[index] if index < len(asked.steps) else ""
    corrected = asked.solver.correct_step(asked.question, asked.steps[:index], step)
    return {"first_error": index + 1, "corrected_step": corrected}


def _judge_step(asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    if asked.next_step is None:
        raise InputError("the prompt has no block 'Next step:' with a numbered step")
    is_correct = asked.solver.judge_step(asked.question, asked.steps, asked.next_step)
    if is_correct or chance.happens("finding", faults.finding_error):
        return {"correct": True, "corrected_step": None}
    corrected = asked.solver.correct_step(asked.question, asked.steps, asked.next_step)
    return {"correct": False, "corrected_step": corrected}


def _complete(asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    steps = asked.solver.continue_from(asked.question, asked.steps)
    return _chain(list(steps), asked.solver.solve(asked.question).answer, asked, faults, chance)


def _rationale(asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    solution = asked.solver.solve(asked.question)
    return _chain(list(solution.steps), solution.answer, asked, faults, chance)


def _chain(steps: list[str], answer: int, asked: _Asked, faults: Faults, chance: _Chance) -> dict[str, Any]:
    if asked.reference is None:
        stated = _maybe_wrong(answer, faults, chance)
        if steps and stated != answer:
            equation = find_equations(steps[-1])[0]
            steps[-1] = replace_equation(steps[-1], replace(equation, result=stated))
        answer = stated
    return {"steps": steps, "answer": str(answer)}


def _maybe_wrong(answer: int, faults: Faults, chance: _Chance) -> int:
    if not chance.happens("answer", faults.answer_error):
        return answer
    return answer + 1 + chance.draw("wrong", 3)


_REPLIES = {
    "solve the question": _answer,
    "solve the question, then check the student's steps": _check,
    "find the first error in the student's steps": _find_first_error,
    "judge the student's next step": _judge_step,
    "complete the explanation": _complete,
    "explain the answer step by step": _rationale,
}
