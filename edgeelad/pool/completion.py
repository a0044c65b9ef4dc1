"""Split a completion, as a model or a person writes it, into its explanation and the answer that it states."""

from __future__ import annotations

import re

from edgeelad.text.explanation import without_drawings

HASHES = "####"
MAX_BARE_ANSWER = 100  # characters of a completion of one line that is an answer without steps

_THOUGHT = re.compile(r"</?(?:think|thinking|reasoning)>", re.IGNORECASE)
_OPEN, _CLOSE = "<answer>", "</answer>"
_STATED = re.compile(
    r"^.*(?:\bthe (?:final |correct )?answer is\b|^\W*(?:final )?answer\W*[:=]|^\s*#{4})\s*:?\s*(?P<answer>\S.*)$",
    re.IGNORECASE,
)


def completion(text: str) -> tuple[str | None, str | None]:
    """Split a completion into its answer and its explanation; None for what it lacks.

    >>> completion("2 + 3 = 5\\nThe answer is 5.")
    ('5.', '2 + 3 = 5')
    >>> completion("Paris")
    ('Paris', None)
    """
    text = without_drawings(_THOUGHT.sub("\n", text)).strip()
    if text.endswith(_CLOSE) and _OPEN in text:
        before, _, answer = text.removesuffix(_CLOSE).rpartition(_OPEN)
        return answer.strip() or None, before.strip() or None
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None, None
    stated = _STATED.match(lines[-1].replace("*", ""))
    if stated:
        lines.pop()
        while lines and lines[-1].lstrip().startswith(HASHES):  # MetaMath states the answer twice
            lines.pop()
        return stated["answer"].strip(), "\n".join(lines) or None
    if "\\boxed" in text:
        return text[text.rindex("\\boxed") :], text  # `canonical` reads the braces
    if len(lines) == 1 and len(text) <= MAX_BARE_ANSWER:
        return text, None
    return None, text
