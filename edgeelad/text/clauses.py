"""Split the sentence that states an answer into clauses, and say what each has to do with the answer.

Takes the text after "The answer is"; gives the clauses of its first sentence: "not 5" is denied, "which is 452"
restates what stands before it, "because 5 > 3" is a reason. Knows no numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SENTENCE_END = re.compile(
    r"(?<![A-Za-z.])\.(?=\s|\Z)|(?<=[A-Za-z]{4})(?<!prox)\.(?=\s)|(?<=[A-Za-z])\.(?=\s[^a-z0-9\s]|\s?\Z)|(?<=[!?])(?=\s)|\n",
    re.MULTILINE,
)
_CONNECTOR = re.compile(
    r"(?P<reason>,?\s?\b(?:because|since|as|for|if|when|whenever|where|given|after|before|assuming|though|although)\b)"
    r"|(?P<denied>,?\s?\b(?:and|but)?\s?\b(?:not|neither|nor|never|rather\sthan|instead\sof|unlike|cannot|can't|isn't)\b)"
    r"|(?P<restated>,?\s?\b(?:which\s(?:is|equals|means|gives|makes)|that\sis|i\.e\.|namely|making|giving|so|thus|hence"
    r"|therefore|meaning|which\scomes\sto|for\sa\stotal\sof)\b,?)"
    r"|(?P<but>,?\s?\bbut\b)|(?P<neutral>,\s(?![0-9])|\s?;\s|(?<![0-9])(?<![0-9]\s):\s|\s-\s(?=[A-Za-z]{2})|\s?—\s?)",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"\b(?:unknown|undetermined|undefined|impossible|none|nothing|infinite|infinity|unclear|no\s(?:solution|answer|one|number)"
    r"|(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    r"|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|zero"
    r"|dozen|half)(?:\b|-))",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(
    r"\s?(?:(?:or|and)\s)?(?:[-+±$(√π∞\\|0-9]|[a-z]\w{0,8}\s?[=≈]|[a-z]\s?[-+*/^(])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a sentence, and how it is joined to what stands before it ("" for the first)."""

    text: str
    joined_by: str = ""

    @property
    def is_reason(self) -> bool:
        """Whether it says why, and not what."""
        return self.joined_by == "reason"

    @property
    def is_denied(self) -> bool:
        """Whether it says what is not the answer."""
        return self.joined_by == "denied"

    @property
    def is_restated(self) -> bool:
        """Whether it says again what stands before it."""
        return self.joined_by == "restated"

    @property
    def is_alternative(self) -> bool:
        """Whether it adds another number: "5, or 6", "x = 5, y = 6"."""
        return self.joined_by == "neutral" and _ALTERNATIVE.match(self.text) is not None

    @property
    def says_nothing(self) -> bool:
        """Whether it answers in words: "unknown", "two hundred"."""
        return not re.search(r"[0-9]", self.text) and _NO_ANSWER.search(self.text) is not None


def first_sentence(text: str) -> str:
    """The first sentence of a text; a point in an abbreviation or a number does not end it.

    >>> first_sentence("approx. 5.5 ft. long. She had 8.")
    'approx. 5.5 ft. long'
    """
    text = text.strip()
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def clauses(text: str) -> list[Clause]:
    """The clauses of the first sentence.

    >>> [(clause.joined_by, clause.text) for clause in clauses("3 + 2, which is 5, not 6. More")]
    [('', '3 + 2'), ('restated', ' 5'), ('denied', ' 6')]
    """
    sentence = first_sentence(text)
    found: list[Clause] = []
    start, joined_by = 0, ""
    for connector in _CONNECTOR.finditer(sentence):
        found.append(Clause(sentence[start : connector.start()], joined_by))
        start, joined_by = connector.end(), connector.lastgroup or ""
    return [*found, Clause(sentence[start:], joined_by)]
