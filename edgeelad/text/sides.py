"""Find the expressions on either side of an equals sign in running text.

Takes the tokens between two equals signs; gives the expression that ends them, or that begins them. Words that stand
behind a number are its unit, words between an operator and a number belong to the number ("+ her 1 coach"), words
before the first number belong to the sentence. What may belong to mathematics not read here raises `UnreadableError`.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeelad.text.expressions import UnreadableError
from edgeelad.text.tokens import Token
from edgeelad.text.units import CALCULATING, CALCULATING_OF, COUNTED, JOINING, SCALES, units_of, words

MAX_UNIT_WORDS = 4
_FILLERS = words(
    "about approximately approx around roughly nearly almost only just exactly a an the total of Rs rs now still then"
)
_CLAUSE_WORDS = words(
    "of than is are was were has have had gives get gets therefore then so or because which if when while but less more"
    " we you he she they it since as where that remains"
)
_REMAINDERS = words("remainder rem r R with mod modulo choose squared cubed")
_PREPOSITIONS = words("on in of at during")
_OPERAND_ENDS = ("number", ")")


def expression_before(tokens: Sequence[Token], *, is_first: bool) -> Sequence[Token]:
    """The longest expression that ends the tokens before an equals sign.

    Args:
        tokens: What stands between the equals sign and the one before it, or the beginning of the text.
        is_first: Whether there is no equals sign before.

    Raises:
        UnreadableError: There is none, or what stands before it may belong to it.
    """
    start, depth = len(tokens), 0
    while start > 0:
        token = tokens[start - 1]
        if token.kind == "word":
            first = _first_word(tokens, start - 1)
            if not _is_inside(tokens, first, start, at_end=start == len(tokens)):
                break
            start = first
            continue
        if token.kind not in ("number", "op", "(", ")") or (token.kind == "(" and depth == 0):
            break
        after = tokens[start].kind if start < len(tokens) else ""
        if after == "number" and token.kind == ")" and not _opens(tokens, start - 1):
            break  # "1) 3 + 4"
        if after == "number" and token.kind in _OPERAND_ENDS and not _is_mixed(tokens, start):
            raise UnreadableError
        depth += (token.kind == ")") - (token.kind == "(")
        start -= 1
    run = tokens[start:]
    if not run:
        raise UnreadableError
    _check_start(tokens, start, is_first=is_first)
    return run


def expression_after(tokens: Sequence[Token], *, is_last: bool) -> Sequence[Token]:
    """The longest expression that begins the tokens behind an equals sign; words before its first number are dropped.

    Args:
        tokens: What stands between the equals sign and the next one, or the end of the text.
        is_last: Whether there is no equals sign behind.

    Raises:
        UnreadableError: There is none, or what stands behind it may belong to it.
    """
    begin = 0
    while begin < len(tokens) and tokens[begin].kind == "word" and tokens[begin].text in _FILLERS:
        begin += 1
    end, depth = begin, 0
    while end < len(tokens):
        token = tokens[end]
        if token.kind == "word":
            last = _last_word(tokens, end)
            if end == begin:
                raise UnreadableError
            if last == len(tokens) or not _is_inside(tokens, end, last, at_end=False):
                is_unit = tokens[end - 1].kind in _OPERAND_ENDS and token.text not in _CLAUSE_WORDS | {"and"}
                end += is_unit
                break
            end = last
            continue
        if token.kind not in ("number", "op", "(", ")") or (token.kind == ")" and depth == 0):
            break
        is_beside = token.kind == "number" and end > begin and tokens[end - 1].kind in _OPERAND_ENDS
        if is_beside and not _is_mixed(tokens, end):
            raise UnreadableError
        depth += (token.kind == "(") - (token.kind == ")")
        end += 1
    run = tokens[begin:end]
    if not run or (run[-1].kind == "op" and run[-1].text != "!"):
        raise UnreadableError
    _check_end(tokens, end, is_last=is_last)
    return run


def _is_inside(tokens: Sequence[Token], first: int, last: int, *, at_end: bool) -> bool:
    """Whether words belong to an expression: a unit behind a number, or words between an operator and a number."""
    group = [token.text.lower() for token in tokens[first:last]]
    before = tokens[first - 1].kind if first else ""
    after = "" if at_end else tokens[last].kind
    is_short = len(group) <= MAX_UNIT_WORDS
    if at_end and "and" in group:
        raise UnreadableError  # what stands behind it is what the next statement is about: "= 7 and B ="
    if not is_short or not _CLAUSE_WORDS.isdisjoint(group):
        if before in _OPERAND_ENDS and (at_end or after == "op"):
            raise UnreadableError
        return False
    if before in _OPERAND_ENDS and (at_end or after in ("op", ")")):
        return True
    if before in ("op", "(") and after in ("number", "("):
        if after == "(" and tokens[last].is_glued:
            raise UnreadableError  # a function: "1 - f(2)"
        if not (CALCULATING | CALCULATING_OF).isdisjoint(group) or not COUNTED.isdisjoint(units_of(group[-1:])):
            raise UnreadableError
        return first == 1 or before == "(" or tokens[first - 2].kind in (*_OPERAND_ENDS, "word")
    return False


def _check_start(tokens: Sequence[Token], start: int, *, is_first: bool) -> None:
    """Raise if what stands before an expression may be a part of it: "apples + 4", "√(9)", "twice 3 + 4", "14, 400"."""
    run, before = tokens[start:], tokens[start - 1] if start else None
    is_signed = run[0].text in ("+", "-") and len(run) > 1 and run[1].is_glued and not run[0].is_glued
    if run[0].kind == "op" and not (run[0].text in ("+", "-") and (before is None or is_signed)):
        raise UnreadableError
    if before is None:
        return
    if before.kind in ("variable", "other", "number", ")") or (run[0].is_glued and before.kind != "break"):
        raise UnreadableError
    if before.kind == "(" and start > 1 and tokens[start - 2].kind in ("word", "variable") and before.is_glued:
        raise UnreadableError
    earlier = tokens[start - 2] if start > 1 else None
    if before.kind == "break" and earlier is not None:
        is_split = before.text == "," and len(run[0].text) == 3
        is_ratio = before.text == ":" and run[0].is_glued
        if earlier.kind == "op" or (earlier.kind == "number" and (is_split or is_ratio)):
            raise UnreadableError
    if before.kind == "word":
        _check_words_before(tokens, start, is_first=is_first)


def _check_words_before(tokens: Sequence[Token], start: int, *, is_first: bool) -> None:
    first = _first_word(tokens, start - 1)
    group = [token.text.lower() for token in tokens[max(first, start - 4) : start]]
    is_of = group[-1] == "of" and not CALCULATING_OF.isdisjoint(units_of(group) | set(group))
    if group[-1] in CALCULATING or is_of:
        raise UnreadableError
    has_number = first > 0 and tokens[first - 1].kind in _OPERAND_ENDS
    if has_number and (is_first or group[-1] != "and") and not JOINING.isdisjoint(group[-2:]):
        raise UnreadableError
    is_name = has_number or (len(group) > 1 and group[-2] in _PREPOSITIONS)
    if is_name and not COUNTED.isdisjoint(units_of(group[-1:])):
        raise UnreadableError


def _check_end(tokens: Sequence[Token], end: int, *, is_last: bool) -> None:
    """Raise if what stands behind an expression may be a part of it: "2x", "3 remainder 1", "5 dozen", "7 and 1/2"."""
    if end == len(tokens):
        return
    after, behind = tokens[end], tokens[end + 1] if end + 1 < len(tokens) else None
    if after.kind in ("variable", "other", "number", "(") or (after.kind == "op" and after.text != "!"):
        raise UnreadableError
    if after.kind == "break" and behind is not None:
        is_split = after.text in ",." and len(behind.text) == 3  # "14, 400"
        if behind.kind == "number" and (after.text == ":" or is_split):
            raise UnreadableError
        if behind.kind == "other" and after.text == ".":
            raise UnreadableError  # "13 . \\overline{3}"
    place = end - 1 if tokens[end - 1].kind == "word" else end
    if tokens[place].kind == "word":
        _check_words_after(tokens, place, is_last=is_last)


def _check_words_after(tokens: Sequence[Token], place: int, *, is_last: bool) -> None:
    last = _last_word(tokens, place)
    group = [token.text for token in tokens[place : min(last, place + 4)]]
    is_number_next = last < len(tokens) and tokens[last].kind in ("number", "(")
    if group[0] in _REMAINDERS or not SCALES.isdisjoint(units_of(group[:2])):
        raise UnreadableError
    if "and" in group[:3] and is_last and (is_number_next or "remainder" in group):
        raise UnreadableError
    if is_number_next and {"less", "more", "times"} & set(group[:3]):
        raise UnreadableError


def _is_mixed(tokens: Sequence[Token], index: int) -> bool:
    """Whether the number at an index is a fraction behind a whole number: "2 1/2"."""
    if index == 0 or tokens[index - 1].kind != "number" or tokens[index - 1].num_decimals:
        return tokens[index].is_fraction
    if tokens[index].is_fraction:
        return True
    return index + 2 < len(tokens) and tokens[index + 1].text == "/" and tokens[index + 2].kind == "number"


def _opens(tokens: Sequence[Token], index: int) -> bool:
    """Whether the closing parenthesis at an index has an opening one."""
    depth = 0
    for token in reversed(tokens[: index + 1]):
        depth += (token.kind == ")") - (token.kind == "(")
        if depth == 0:
            return True
    return False


def _first_word(tokens: Sequence[Token], index: int) -> int:
    while index > 0 and tokens[index - 1].kind == "word":
        index -= 1
    return index


def _last_word(tokens: Sequence[Token], index: int) -> int:
    while index < len(tokens) and tokens[index].kind == "word":
        index += 1
    return index
