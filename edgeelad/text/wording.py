"""The canonical form of an answer in words, so that texts that say the same are equal and others are not.

Takes and gives text. Words are case-folded and lose the punctuation around them, the text its first article and LaTeX
its commands; what carries meaning stays ("C#", "Hepatitis A", "(3,4]", "-√2"). Mathematics loses its spaces.
"""

from __future__ import annotations

import re
import unicodedata

from edgeelad.text.notation import FRACTION_SLASH, plain

MAX_FOLDS = 8  # folding can uncover what folds further (ligatures, marks); a fixed point makes it idempotent

_QUOTES = "\"'“”„‘’‚«»‹›`´"
_TRAILING = f".,;:!?…{_QUOTES}"
_LEADING = f"¿¡,;:{_QUOTES}"
_MATHEMATICS = re.compile(r"[\\^=<>√π∞≤≥∪∩±]|[(\[{][^A-Za-z()\[\]{}]*[)\]}]|\A[\s()\[\]{}]+\Z")
_SINGLE = re.compile(r"(?<=[\w√^])\((\w)\)")  # "√(2)" is "√2"
_FORMULA = re.compile(r"\$([^$]*)\$")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_DASH = re.compile(r"\A[-–—]+(?=\Z|[^\W\d_]{2})")  # and no sign
_EMPHASIS = re.compile(r"\*\*|__")
_WRAPPED = re.compile(r"[(\[{*_]([^()\[\]{}]*[^\W\d_][^()\[\]{}]*)[)\]}*_]")


def canonical_text(value: str) -> str | None:
    """The canonical form of a text; None if it is blank.

    >>> canonical_text("The Eiffel Tower."), canonical_text(r"$\\text{Evelyn}$"), canonical_text("Hepatitis A")
    ('eiffel tower', 'evelyn', 'hepatitis a')
    """
    for _ in range(MAX_FOLDS):
        folded = _fold(value)
        if folded == value:
            break
        value = folded
    return value or None


def _fold(value: str) -> str:
    value = _RAISED.sub(lambda found: "^" + unicodedata.normalize("NFKC", found.group()), value.replace("−", "-"))
    if "\\" in value or _FORMULA.search(value):
        value = plain(_FORMULA.sub(r" \1 ", value))
    value = unicodedata.normalize("NFKC", value).casefold()
    value = unicodedata.normalize("NFKC", _EMPHASIS.sub("", value) or value).replace(FRACTION_SLASH, "/")
    words = value.split()
    if _MATHEMATICS.search(value):
        return _fold_mathematics("".join(words))
    bare = [word for word in map(_strip, words) if word]
    if not bare:
        return " ".join(words)
    text = " ".join([word for word in bare if word != "the"] or bare)
    wrapped = _WRAPPED.fullmatch(text)
    return _without_article((wrapped[1] if wrapped else text).split())


def _fold_mathematics(text: str) -> str:
    text = _SINGLE.sub(r"\1", text.replace("$", ""))
    stripped = text.rstrip(_TRAILING.replace("!", "").replace("'", ""))
    return stripped or text


def _strip(word: str) -> str:
    """A word without the punctuation around it; a sign, a sharp and a percent sign stay."""
    bare = word.rstrip(_TRAILING).lstrip(_LEADING)
    if bare[-1:].isdigit() and word[len(bare) : len(bare) + 1] == "!" and word.startswith(bare):
        bare += "!"  # a factorial
    bare = _DASH.sub("", bare)
    wrapped = _WRAPPED.fullmatch(bare)
    return wrapped[1] if wrapped and len(wrapped[1]) > 1 else bare


def _without_article(words: list[str]) -> str:
    """Words without a leading "a" or "an"; one before a single letter may be a name."""
    is_article = len(words) > 1 and words[0] in ("a", "an") and len(words[1]) > 1
    return " ".join(words[1:] if is_article else words)
