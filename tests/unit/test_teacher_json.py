"""JSON as models write it."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question
from edgeelad.teacher.prompts.json_reply import read_object
from edgeelad.teacher.prompts.latex import restore
from edgeelad.teacher.prompts.parse import parse_answer, parse_chain, parse_first_error, parse_judgment

NUMBER = Question("q", "How many?")


def steps(text, is_cut=False):
    return read_object(text, ("steps",), is_cut)["steps"]


WRITTEN = [
    # as the model wrote it, with its backslashes not doubled
    (r"6 \times 7 = 42", r"6 \times 7 = 42"),
    (r"6 \times7 = 42", r"6 \times7 = 42"),
    (r"6 \timesx", r"6 \timesx"),
    (r"\frac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", r"\frac12"),
    (r"\tfrac{1}{2}", r"\tfrac{1}{2}"),
    (r"\text{Evelyn} has 3", r"\text{Evelyn} has 3"),
    (r"\theta = 5", r"\theta = 5"),
    (r"3 \to 4", r"3 \to 4"),
    (r"$\tan(x)$", r"$\tan(x)$"),
    (r"\beta = 2", r"\beta = 2"),
    (r"\boxed{42}", r"\boxed{42}"),
    (r"\binom{4}{2} = 6", r"\binom{4}{2} = 6"),
    (r"3 \neq 4", r"3 \neq 4"),
    (r"3 \ne 4", r"3 \ne 4"),
    (r"(\nu + 1)", r"(\nu + 1)"),
    (r"\nabla f", r"\nabla f"),
    (r"x \notin A", r"x \notin A"),
    (r"a \rightarrow b", r"a \rightarrow b"),
    (r"\left( 3 \right)", r"\left( 3 \right)"),
    (r"\rho = 3", r"\rho = 3"),
    (r"\underline{42}", r"\underline{42}"),
    (r"x \uparrow y", r"x \uparrow y"),
    (r"\usepackage", r"\usepackage"),
    (r"\( 3 \cdot 4 \)", r"\( 3 \cdot 4 \)"),
    (r"\[ 3 \cdot 4 \times 5 \]", r"\[ 3 \cdot 4 \times 5 \]"),
    (r"\$5 \% of 3", r"\$5 \% of 3"),
    (r"\sqrt{2} \ne 1.4", r"\sqrt{2} \ne 1.4"),
    # with its backslashes doubled
    (r"6 \\times 7 \\neq \\frac{1}{2}", r"6 \times 7 \neq \frac{1}{2}"),
    (r"\\( 3 \\cdot 4 \\)", r"\( 3 \cdot 4 \)"),
    # what JSON means
    (r"One.\nTwo.", "One.\nTwo."),
    (r"One.\nNow 3.\r\nThen 4.", "One.\nNow 3.\r\nThen 4."),
    (r"One.\n\tThen 2.", "One.\n\tThen 2."),
    (r"3\t4", "3\t4"),
    (r"5 is\nnot 6", "5 is\nnot 6"),
    (r"So\nequal.\nnever\nnine", "So\nequal.\nnever\nnine"),
    (r"\"six\" \/ \u00e9 \u2713", '"six" / é ✓'),
    # a line break whose backslash was doubled once too often
    (r"One.\\nTwo.\\n3 + 4", "One.\nTwo.\n3 + 4"),
    # escaped a second time on the way
    (r"\u000crac{1}{2} \u0009imes 3", r"\frac{1}{2} \times 3"),
]


@pytest.mark.parametrize(("written", "meant"), WRITTEN)
def test_backslashes_are_what_the_model_meant(written, meant):
    assert steps(f'{{"steps": ["{written}"], "answer": "1"}}') == [meant]


@pytest.mark.parametrize(("written", "meant"), [row for row in WRITTEN if not set(row[1]) & set('\n\r\t"é')])
def test_backslashes_in_what_is_not_quite_json(written, meant):
    assert steps(f"{{'steps': ['{written}'], 'answer': 1,}}") == [meant]


@pytest.mark.parametrize("written", [r"k = 3.\nu = 5", r"5 is\nless than 6", r"So\nmid = 3", "A\\tan apple"])
def test_what_cannot_be_told_is_refused(written):
    with pytest.raises(TeacherReplyError, match="LaTeX"):
        steps(f'{{"steps": ["{written}"]}}')


def test_the_rest_of_the_reply_decides_what_cannot_be_told():
    assert steps(r'{"steps": ["k = 3.\nu = 5", "\(u\)"]}')[0] == r"k = 3.\nu = 5"
    assert steps(r'{"steps": ["k = 3.\nu = 5", "6 \times 7"]}')[0] == r"k = 3.\nu = 5"
    assert steps(r'{"steps": ["k = 3.\nu = 5", "6 \\times 7"]}')[0] == "k = 3.\nu = 5"


def test_latex_is_restored_in_every_kind_of_reply():
    assert parse_chain(r'{"steps": ["6 \times 7 = 42"], "answer": "42"}', NUMBER).steps == (r"6 \times 7 = 42",)
    found = parse_first_error(r'{"first_error": 1, "corrected_step": "\frac{84}{2} = 42"}', NUMBER, 2)
    assert found.corrected == r"\frac{84}{2} = 42"
    judged = parse_judgment(r'{"correct": false, "corrected_step": "6 \times 7 = 42"}', NUMBER, 1)
    assert judged.corrected == r"6 \times 7 = 42"
    assert parse_answer(r'{"work": "\boxed{7}", "answer": "\text{7}"}', NUMBER).answer == "7"


@pytest.mark.parametrize(
    "text",
    [
        '"{\\"steps\\": [\\"a\\", \\"b\\"]}"',
        '{\\"steps\\": [\\"a\\", \\"b\\"]}',
        '{"steps": "[\\"a\\", \\"b\\"]"}',
        '{"steps": "{\\"steps\\": [\\"a\\", \\"b\\"]}"}',
        '{"arguments": "{\\"steps\\": [\\"a\\", \\"b\\"]}"}',
        '{"name": "rationale", "arguments": {"steps": ["a", "b"]}}',
        '[{"steps": ["a", "b"]}]',
        '{"result": [{"output": {"steps": ["a", "b"]}}]}',
        '```json\n{"steps": ["a", "b"]}\n```',
        '```\n"{\\"steps\\": [\\"a\\", \\"b\\"]}"\n```',
        'Here: ```json\n{"steps": ["a", "b"]}\n``` I hope {this} helps.',
        '<think>{"steps": ["x"]}</think>{"steps": ["a", "b"]}',
        'first {"steps": ["x"]} no</think>\n{"steps": ["a", "b"]}',
        '[THINK]{"steps": ["x"]}[/THINK]{"steps": ["a", "b"]}',
        '{"steps": ["a", "b"]}<think>Was that right?</think>',
        '<tool_call>{"name": "f", "arguments": {"steps": ["a", "b"]}}</tool_call>',
        '{"steps": ["a", "b",],}',
        "{'steps': ['a', 'b']}",
        '{steps: ["a", "b"]}',
        '{"steps": ["a" "b"]}',
        '{"steps": ["a", "b"}',
        '{"steps": ["a", "b"], "done": True, "more": None}',
        'Draft: {"steps": ["x"]}. Final: {"steps": ["a", "b",]}',
    ],
)
def test_objects_are_found_however_they_are_written(text):
    assert steps(text) == ["a", "b"]


def test_quotation_marks_that_were_not_escaped():
    assert steps('{"steps": ["He said "6" apples.", "b"]}') == ['He said "6" apples.', "b"]


@pytest.mark.parametrize(
    "text",
    [
        '{"steps": ["a", "b"',
        '{"steps": ["a {x}", "b',
        '{"steps": ["a {x}", "b"], "answer": "\\frac{1}',
        # the last one cannot be read: the draft does not stand in for it
        'Draft: {"steps": ["x"]}. Final: {"steps": ["a", "b',
        # a quotation mark is missing, and what follows would become a step
        '{"steps": ["a", "b], "answer": "4"}',
        '{"steps": ["a, "answer": "4"}',
        '{"other": ["a"]}',
        '{"properties": {"answer": {"type": "string"}}}',
    ],
)
def test_half_objects_and_doubtful_ones_are_refused(text):
    with pytest.raises(TeacherReplyError):
        steps(text)
    with pytest.raises(TeacherReplyError):
        parse_chain(text + "\nThe answer is 4", NUMBER)


@pytest.mark.parametrize(
    "text",
    [
        '{"steps": ["a", "b"], "answer": "4"} Let me check that once more: ',
        '{"steps": ["a", "b"], "answer": "4"}\n{"steps": ["a", "b"], "ans',
        '```json\n{"steps": ["a", "b"], "answer": "4"}\n```\nThe steps {',
    ],
)
def test_a_whole_object_before_the_cut_is_read(text):
    assert steps(text, is_cut=True) == ["a", "b"]
    assert parse_chain(text, NUMBER, is_cut=True).answer == "4"


def test_nothing_else_is_read_of_a_reply_that_was_cut_off():
    for text in ("a\nThe answer is 4", '{"steps": ["a",], "answer": "4"}', '{"steps": ["a"], "answer": "4'):
        with pytest.raises(TeacherReplyError):
            parse_chain(text, NUMBER, is_cut=True)
    with pytest.raises(TeacherReplyError):
        parse_answer("The answer is 4", NUMBER, is_cut=True)


def test_steps_that_are_objects():
    text = '{"steps": [{"step": 1, "explanation": "3 + 4 = 7"}, {"text": "7 * 2 = 14"}], "answer": "14"}'
    assert parse_chain(text, NUMBER).steps == ("3 + 4 = 7", "7 * 2 = 14")


@settings(max_examples=300, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_has_no_control_characters_is_left_alone(value):
    literal = json.dumps(value, ensure_ascii=False)
    if "\\\\" not in literal:
        assert restore(value) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"steps": ' + "\"'" * 9_000 + "}",
        '{"steps": ' + "[" * 9_000 + "}",
        "<think>" * 50_000,
        '{"steps": "' + "\\" * 100_000,
        '{"steps": ["' + "\\t" * 9_000 + '"}',
    ],
)
def test_hostile_replies_are_read_or_refused_in_linear_time(text):
    """The run's time limit would notice quadratic time."""
    with contextlib.suppress(TeacherReplyError):
        steps(text * 3)
        steps(text)
