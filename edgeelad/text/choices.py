"""Read which choice an answer names, by its label or by its text; none rather than another one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeelad.text.clauses import clauses, first_sentence
from edgeelad.text.notation import plain
from edgeelad.text.numerals import canonical_number, is_plain_number
from edgeelad.text.prompts import CHOICE_LABELS
from edgeelad.text.wording import canonical_text

_LONE_LABEL = re.compile(
    r"(?:(?:option|choice|answer|letter)\s?)?[(\[{<]?\s?([A-Za-z])\s?[)\]}>]?[.:,;!]*", re.IGNORECASE
)
_LABEL_THEN_TEXT = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s)?(?:[(\[]\s?([A-Za-z])\s?[)\]]|([A-Za-z])\s?[).:]|([A-Z])\s?,)"
    r"(?!\S*[A-Za-z]\.)\s?"
)
_LABEL = re.compile(
    r"[(\[]([A-Za-z])[)\]]|(?<![\w'’])([A-Za-z])\)|(?<![\w'’])(?:option|choice)\s([A-Za-z])(?![\w'’])"
    # "A" and "I" in front of a word are words themselves, unless it goes on about the choice
    r"|(?<![\w'’.\-])([B-HJ-Z]|[AI](?!\s[a-z])|[AI](?=\s(?:is|because|since|as|and|or|but|would|must|seems)\b))(?![\w'’])"
)
_DENIED = re.compile(r"\b(?:not|isn't|never|neither|nor|than)(?:\s(?:the|a|an|in|at))?\Z")


def canonical_choice(value: str, choices: Sequence[str], *, is_lenient: bool = False) -> str | None:
    """The label of the choice that a text names; None if it names none, several, or one that it denies.

    >>> canonical_choice("(B) library", ("bank", "library")), canonical_choice("(A) or (B)", ("bank", "library"))
    ('B', None)

    Args:
        value: The answer.
        choices: The choices' texts; without them any letter is a choice.
        is_lenient: Whether the label or the text may stand among other words.
    """
    labels = CHOICE_LABELS[: len(choices)] if choices else CHOICE_LABELS
    shown = plain(value).replace("$", "").strip() if "\\" in value or "$" in value else value.strip()
    lone = _LONE_LABEL.fullmatch(shown)
    if lone and lone[1].upper() in labels:
        return lone[1].upper()
    same = _same(value, choices, labels)
    if same:
        return same[0] if len(same) == 1 else None
    found = _labels_in(shown, labels)
    labeled = _LABEL_THEN_TEXT.match(shown)
    if labeled and (label := next(filter(None, labeled.groups())).upper()) in labels and found <= {label}:
        named = _same(shown[labeled.end() :], choices, labels)
        return label if not named or label in named else None
    if not is_lenient:
        return None
    named = _named(shown, choices, labels)
    if len(found) == 1 and not named:
        return found.pop()
    return named[0] if len(named) == 1 and found <= set(named) else None


def _same(value: str, choices: Sequence[str], labels: str) -> list[str]:
    """The choices whose text, or whose number, is the value."""
    text, number = canonical_text(value), canonical_number(value) if is_plain_number(value) else None
    return [
        label
        for label, choice in zip(labels, choices, strict=False)
        if text == canonical_text(choice)
        or (number is not None and is_plain_number(choice) and number == canonical_number(choice))
    ]


def _labels_in(text: str, labels: str) -> set[str]:
    """The labels that the first sentence names, those apart that it denies or that stand in a reason."""
    found: set[str] = set()
    for clause in clauses(text):
        if clause.is_reason:
            break
        if not clause.is_denied:
            named = {next(filter(None, match.groups())).upper() for match in _LABEL.finditer(clause.text)}
            found |= named & set(labels)
    return found


def _named(text: str, choices: Sequence[str], labels: str) -> list[str]:
    """The choices whose text occurs in the first sentence, without those within the text of another that does."""
    said = f" {canonical_text(first_sentence(text)) or ''} "
    found: dict[str, str] = {}
    for label, choice in zip(labels, choices, strict=False):
        wanted = f" {canonical_text(choice)} "
        place = said.find(wanted)
        if place != -1 and not _DENIED.search(said[max(0, place - 20) : place]):
            found[label] = wanted
    return [label for label, name in found.items() if not any(name in other != name for other in found.values())]
