"""Explanations: split into steps and an answer line, and joined again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.text.explanation import ParsedExplanation, is_answer_line, join, join_steps, split

STEP = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("text", "steps", "answer_line"),
    [
        ("2 + 3 = 5 apples.\nThe answer is 5", ("2 + 3 = 5 apples.",), "The answer is 5"),
        ("a\n\n  b  \nThe answer is: 7.\nmore", ("a", "b"), "The answer is: 7."),
        ("The answer isn't 5.\nThe answer is 6", ("The answer isn't 5.",), "The answer is 6"),
        ("a\nb", ("a", "b"), None),
        ("", (), None),
        ("The answer is", (), "The answer is"),
        (
            "As drawn: [asy]\ndraw((0,0)--(1,1));\n[/asy]\n1 + 1 = 2\nThe answer is 2",
            ("As drawn:", "1 + 1 = 2"),
            "The answer is 2",
        ),
        ("a\n[asy]\ndraw((0,0));", ("a",), None),
    ],
)
def test_split(text: str, steps: tuple[str, ...], answer_line: str | None) -> None:
    assert split(text) == ParsedExplanation(steps, answer_line)


@given(st.lists(STEP.filter(lambda step: not is_answer_line(step)), max_size=5).map(tuple), STEP)
def test_split_undoes_join(steps: tuple[str, ...], answer: str) -> None:
    assert split(join(steps, answer)) == ParsedExplanation(steps, f"The answer is {answer}")
    assert split(join_steps(steps)) == ParsedExplanation(steps, None)
