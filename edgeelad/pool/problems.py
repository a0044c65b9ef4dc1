"""Read rows of arithmetic word problems as published: GSM8K, SVAMP, MAWPS and ASDiv; equations become steps."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from edgeelad.pool.equations import read_value, rounds_to, solve_prefix
from edgeelad.pool.fields import id_of, joined_of, scalar_of, text_of
from edgeelad.pool.own import Draft
from edgeelad.pool.rows import Row
from edgeelad.text.digits import format_fraction

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}

_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
_PLACEHOLDER = re.compile(r"\bnumber\d+\b")


def gsm8k(row: Row) -> Draft:
    """GSM8K (Cobbe et al. 2021): the solution's lines, calculator marks removed, then `#### answer`."""
    solution, mark, answer = text_of(row, "answer").partition("####")
    if not mark:
        row.fail("answer", "has no '####' before the answer", "use --format jsonl for your own pools")
    return Draft(
        text=text_of(row, "question"),
        answer=answer,
        explanation=_CALCULATOR_MARK.sub("", solution),
        kind="number",
        id=id_of(row, "id"),
    )


def svamp(row: Row) -> Draft:
    """SVAMP, MAWPS and ASDiv-A (Patel et al. 2021), as CSV with placeholders or as SVAMP's JSON with a body.

    The equation is turned into steps. If it does not give the published answer, not even rounded, there is no
    explanation (8 of 4,138 rows).
    """
    if not row.name_of("Numbers"):
        return _svamp_json(row)
    try:
        values = [read_value(number) for number in text_of(row, "Numbers").split()]
    except ValueError:
        row.fail("Numbers", "not numbers separated by spaces", "restore the file as published")
    for name in ("Body", "Ques", "group_nums"):
        row.has(name)  # Question in two parts, and the words around its numbers
    numbers = {f"number{index}": value for index, value in enumerate(values)}
    text = text_of(row, "Question")
    unknown = [name for name in _PLACEHOLDER.findall(text) if name not in numbers]
    if unknown:
        row.fail("Numbers", f"no value for {unknown[0]}", "restore the file as published")
    answer, explanation = _solved(row, text_of(row, "Equation").split(), numbers)
    return Draft(
        text=_PLACEHOLDER.sub(lambda match: format_fraction(numbers[match.group()]), text),
        answer=answer,
        explanation=explanation,
        kind="number",
        skill=scalar_of(row, "Type"),
    )


def _svamp_json(row: Row) -> Draft:
    row.has("question_concat")  # a copy of body and question
    answer, explanation = _solved(row, _prefix(row, text_of(row, "Equation")), {})
    return Draft(
        text=joined_of(row, ["Body", "Question"], " "),
        answer=answer,
        explanation=explanation,
        kind="number",
        skill=scalar_of(row, "Type"),
        id=id_of(row, "ID"),
    )


def _solved(row: Row, equation: Sequence[str], numbers: Mapping[str, Fraction]) -> tuple[str, str | None]:
    """The answer, and the equation as steps if they lead to it."""
    stated = str(scalar_of(row, "Answer"))
    try:
        solution = solve_prefix(equation, numbers)
        answer = read_value(stated)
        is_rounded = solution.value != answer and rounds_to(solution.value, stated)
    except (ValueError, ZeroDivisionError) as error:
        row.fail("Equation", f"not an equation with a numeric answer ({error})", "restore the file as published")
    steps = list(solution.steps)
    if is_rounded and steps:
        steps[-1] = f"{steps[-1].rpartition(' = ')[0]} = {format_fraction(answer)}"
    return format_fraction(answer), "\n".join(steps) if is_rounded or solution.value == answer else None


def _prefix(row: Row, equation: str) -> list[str]:
    """An infix equation, such as "( 8.0 - 3.0 )", in prefix notation."""

    def tokens(node: ast.expr) -> list[str]:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return [str(node.value)]
        if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
            return [SIGNS[type(node.op)], *tokens(node.left), *tokens(node.right)]
        raise ValueError("other things than numbers and + - * /")

    try:
        return tokens(ast.parse(equation.strip(), mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        row.fail("Equation", "not numbers and + - * / with parentheses", "restore the file as published")


def asdiv(row: Row) -> Draft:
    """ASDiv (Miao et al. 2020): body and question; the answer without its unit, "9 (apples)"; the formula as a step."""
    formula, answer = scalar_of(row, "formula"), (scalar_of(row, "answer") or "").strip()
    return Draft(
        text=joined_of(row, ["body", "question"], " "),
        answer=(answer.rpartition("(")[0].strip() if answer.endswith(")") else answer) or None,
        explanation=formula if formula and "=" in formula else None,
        skill=scalar_of(row, "solution_type") or scalar_of(row, "Solution-Type"),
        id=id_of(row, "id"),
    )
