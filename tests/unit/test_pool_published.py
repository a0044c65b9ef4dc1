from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.errors import PoolError
from edgeelad.pool import read_pool
from edgeelad.pool.equations import read_value, rounds_to, solve_prefix
from edgeelad.records import Question
from edgeelad.text.answers import canonical, extract
from edgeelad.text.explanation import join, split

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = {  # file: format, rows, kind, rows with an explanation
    "gsm8k/train.jsonl": ("gsm8k", 7473, "number", 7473),
    "gsm8k/test.jsonl": ("gsm8k", 1319, "number", 1319),
    "svamp/mawps-asdiv-a.csv": ("mawps-asdiv", 3138, "number", 3130),
    "svamp/svamp.csv": ("svamp", 1000, "number", 999),
    "strategyqa/dev.json": ("strategyqa", 229, "boolean", 229),
    "commonsenseqa/dev.jsonl": ("commonsenseqa", 1221, "choice", 0),
    "aqua/dev.json": ("aqua", 254, "choice", 254),
    "aqua/test.json": ("aqua", 254, "choice", 254),
    "tracking/task.json": ("tracking", 750, "choice", 0),
}


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_the_published_files_is_read_and_its_answer_parsed(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there: public data is not part of the repository")
    format, num_rows, kind, num_explained = FILES[name]
    questions = list(read_pool(path, format))
    assert questions == list(read_pool(path))  # recognized by itself
    assert len(questions) == len({question.id for question in questions}) == num_rows
    assert Counter(question.kind for question in questions) == {kind: num_rows}
    assert sum(question.explanation is not None for question in questions) == num_explained
    for question in questions:
        assert question.answer is not None
        assert canonical(question.answer, kind, question.choices) == question.answer
        steps = question.explanation or ()
        assert not any("<<" in step or "\n" in step or step.startswith("The answer is") for step in steps)
        text = join(steps, question.answer)
        assert split(text).steps == steps
        assert extract(text, kind, question.choices, strict=True) == question.answer
        assert bool(question.choices) == (kind == "choice")


def read_one(tmp_path, name, text, format="auto"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    (question,) = read_pool(path, format)
    return question


def test_gsm8k(tmp_path):
    row = (
        '{"question": "How many?", "answer": "He has 48/2 = <<48/2=24>>24.\\nSo $<<24*50=1200>>1,200.\\n#### 1,200"}\n'
    )
    for format in ("auto", "gsm8k"):
        question = read_one(tmp_path, "gsm.jsonl", row, format)
        assert (question.answer, question.explanation) == ("1200", ("He has 48/2 = 24.", "So $1,200."))
    question = read_one(tmp_path, "gsm.jsonl", row, "jsonl")  # one's own pool, if one says so
    assert (question.answer, question.explanation[0]) == ("1200", "He has 48/2 = <<48/2=24>>24.")


def test_mawps_fills_placeholders_and_turns_the_equation_into_steps(tmp_path, caplog):
    header = "Question,Numbers,Equation,Answer,group_nums,Type,Body,Ques\n"
    question = read_one(
        tmp_path,
        "m.csv",
        header
        + "Conner has number0 dollars and spends number1 a month . What is left after number2 months ?,"
        + '25000.0 1500.0 8.0,- number0 * number1 number2,13000.0,"[1, 2]",Subtraction,Conner has,What is left ?\n',
        "mawps-asdiv",
    )
    assert question.text == "Conner has 25000 dollars and spends 1500 a month . What is left after 8 months ?"
    assert question.explanation == ("1500 * 8 = 12000", "25000 - 12000 = 13000")
    assert (question.answer, question.skill) == ("13000", "Subtraction")
    sixths = "Eat number0 and number1 of number10 .,0.16666666666666666 0.5 1 1 1 1 1 1 1 1 7,+ number0 number1,"
    question = read_one(tmp_path, "m.csv", header + sixths + "0.6666666666666666,,,,\n")
    assert question.text == "Eat 1/6 and 0.5 of 7 ."
    assert (question.answer, question.explanation) == ("2/3", ("1/6 + 0.5 = 2/3",))
    assert "fields not used" not in caplog.text  # the question has both of its parts


def test_an_equation_that_does_not_give_the_answer_is_no_explanation(tmp_path):
    def read(answer):
        text = f"Question,Numbers,Equation,Answer\nShare number0 by number1 .,40 7,/ number0 number1,{answer}\n"
        return read_one(tmp_path, "m.csv", text)

    assert read("5.714285714285714").explanation == ("40 / 7 = 40/7",)
    assert read("5.71").explanation == ("40 / 7 = 5.71",)
    assert read("5.71").answer == "5.71"
    assert (read("5.0").answer, read("5.0").explanation) == ("5", None)


def test_strategyqa(tmp_path):
    text = (
        '[{"qid": "x", "question": "Is it?", "answer": false, "facts": ["It is\\nnot."], "decomposition": ["Is #1?"]}]'
    )
    assert read_one(tmp_path, "s.json", text) == Question("x", "Is it?", "boolean", (), "no", ("It is not.",))


def test_commonsenseqa_in_both_shapes(tmp_path):
    choices = '[{"label": "A", "text": "bank"}, {"label": "B", "text": "mall"}]'
    nested = f'{{"answerKey": "B", "id": "x", "question": {{"stem": "Where?", "choices": {choices}}}}}'
    lists = '{"label": ["A", "B"], "text": ["bank", "mall"]}'
    flat = f'{{"answerKey": "B", "id": "x", "question": "Where?", "choices": {lists}}}'
    expected = Question("x", "Where?", "choice", ("bank", "mall"), "B")
    assert read_one(tmp_path, "c.jsonl", nested) == read_one(tmp_path, "c.jsonl", flat) == expected
    hidden = flat.replace('"answerKey": "B"', '"answerKey": ""')
    assert read_one(tmp_path, "c.jsonl", hidden).answer is None
    with pytest.raises(PoolError, match="'E' is none of the labels A, B"):
        read_one(tmp_path, "c.jsonl", flat.replace('"answerKey": "B"', '"answerKey": "E"'))


@pytest.mark.parametrize(
    "remark", ["Answer : B", "The answer is (B).", "ANSWER:OPTION B", "B", "Hence (B) is correct answer."]
)
def test_aqua_drops_labels_and_the_closing_remark(tmp_path, remark):
    text = (
        '{"question": "Which?", "options": ["A)5 km", "B) 7(2)", "C)None"], "correct": "B", '
        f'"rationale": "3 + 4 = 7\\nSo it is 7 km\\n{remark}\\n"}}'
    )
    question = read_one(tmp_path, "a.json", text)
    assert (question.choices, question.answer) == (("5 km", "7(2)", "None"), "B")
    assert question.explanation == ("3 + 4 = 7", "So it is 7 km")


def test_tracking(tmp_path):
    text = '{"name": "three", "examples": [{"input": "Alice has the ", "target_scores": {"red.": 0, "blue.": 1}}]}'
    question = read_one(tmp_path, "t.json", text)
    assert (question.text, question.choices, question.answer) == ("Alice has the", ("red.", "blue."), "B")
    assert (question.kind, question.skill) == ("choice", "three")


@pytest.mark.parametrize(
    ("format", "row", "field"),
    [
        ("gsm8k", '{"question": "?", "answer": "5"}', "answer"),
        ("gsm8k", '{"question": "?"}', "answer"),
        ("svamp", '{"Question": "number1 ?", "Numbers": "1", "Equation": "number0", "Answer": "1"}', "Numbers"),
        ("svamp", '{"Question": "number0 ?", "Numbers": "one", "Equation": "number0", "Answer": "1"}', "Numbers"),
        ("svamp", '{"Question": "?", "Numbers": "1", "Equation": "+ number0", "Answer": "1"}', "Equation"),
        ("svamp", '{"Question": "?", "Numbers": "1 0", "Equation": "/ number0 number1", "Answer": "1"}', "Equation"),
        ("svamp", '{"Question": "?", "Numbers": "1", "Equation": "number0", "Answer": "one"}', "Equation"),
        ("strategyqa", '{"question": "?", "answer": "maybe"}', "answer"),
        ("commonsenseqa", '{"question": "?", "answerKey": "A", "choices": ["bank"]}', "choices"),
        ("aqua", '{"question": "?", "options": ["A)1", "B)2"], "correct": "F"}', "answer"),
        ("aqua", '{"question": "?", "options": ["A)1", "B)2"]}', "correct"),
        ("tracking", '{"input": "?", "target_scores": {"red": 0}}', "target_scores"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path, format, row, field):
    path = tmp_path / "rows.jsonl"
    path.write_text(row, encoding="utf-8")
    with pytest.raises(PoolError, match=rf"rows\.jsonl:1: field '{field}': .*; "):
        list(read_pool(path, format))


# --- equations ------------------------------------------------------------------------------------------------------


def test_operations_come_in_reading_order_and_operands_before_them():
    numbers = {f"number{i}": Fraction(value) for i, value in enumerate((2, 3, 4, 5))}
    solution = solve_prefix(["-", "*", "number0", "number1", "*", "number2", "-", "number3", "7.0"], numbers)
    assert solution.steps == ("2 * 3 = 6", "5 - 7 = -2", "4 * (-2) = -8", "6 - (-8) = 14")
    assert solution.value == 14
    assert solve_prefix(["number0"], numbers).steps == ()
    assert solve_prefix(["/", "number0", "/", "number1", "7"], numbers).steps[-1] == "2 / (3/7) = 14/3"
    for tokens in ("+ number0", "number0 number1", "", "+ x y"):
        with pytest.raises(ValueError, match=r"operands|Fraction|match"):
            solve_prefix(tokens.split(), numbers)


def test_published_floats_are_the_fractions_that_they_render():
    assert read_value("0.16666666666666666") == Fraction(1, 6)
    assert read_value("193.55555555555557") == Fraction(1742, 9)
    assert read_value("0.3333") == Fraction(3333, 10000)
    assert read_value("56.0") == 56
    assert rounds_to(Fraction(10, 3), "3.333")
    assert rounds_to(Fraction(1600, 39), "41.0")
    assert not rounds_to(Fraction(40, 7), "5.0")


expressions = st.recursive(
    st.integers(0, 99).map(lambda n: ([str(n)], Fraction(n))),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner).map(
        lambda t: (
            [t[0], *t[1][0], *t[2][0]],
            {"+": t[1][1] + t[2][1], "-": t[1][1] - t[2][1], "*": t[1][1] * t[2][1]}[t[0]],
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(expressions)
def test_prefix_equations_have_their_value_and_true_steps(expression):
    tokens, value = expression
    solution = solve_prefix(tokens, {})
    assert solution.value == value
    assert len(solution.steps) == sum(token in "+-*" for token in tokens)
    for step in solution.steps:
        left, _, right = step.partition(" = ")
        assert eval(left) == int(right)
