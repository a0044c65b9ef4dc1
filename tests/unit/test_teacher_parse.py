import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question
from edgeelad.teacher.prompts.parse import parse_answer, parse_chain, parse_check, parse_first_error, parse_judgment
from edgeelad.teacher.protocol import AnswerReply, ChainReply, FirstErrorReply

NUMBER = Question("q", "How many?")
CHOICE = Question("q", "Which?", kind="choice", choices=("red", "blue"))
BOOLEAN = Question("q", "Is it?", kind="boolean")
KINDS = [NUMBER, CHOICE, BOOLEAN, Question("q", "Who?", kind="text")]


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": "7"}',
        '{"answer": 7}',
        '{"work": "3 + 4 = 7", "answer": "7.0"}',
        '```json\n{"answer": "7"}\n```',
        'Sure! {"answer": "7",} Anything else?',
        '<think>{"answer": "9"} no</think>{"answer": "7"}',
        'The question was {"answer": "1"}. So: {"answer": "7"}',
        '{"answer": "7 apples"}',
        "It is easy.\nThe answer is 7",
    ],
)
def test_answers_are_found(text):
    assert parse_answer(text, NUMBER) == AnswerReply("7")


def test_answers_of_other_kinds():
    assert parse_answer('{"answer": "(b)"}', CHOICE).answer == "B"
    assert parse_answer('{"answer": "blue"}', CHOICE).answer == "B"
    assert parse_answer('{"answer": true}', BOOLEAN).answer == "yes"


@pytest.mark.parametrize(
    "text", ["", "I cannot say.", '{"answer": null}', '{"answer": []}', '{"answer": "none"}', "[7]", '{"result": 7}']
)
def test_no_answer_is_no_answer(text):
    with pytest.raises(TeacherReplyError):
        parse_answer(text, NUMBER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"first_error": 2, "corrected_step": "3 + 4 = 7"}', FirstErrorReply(1, "3 + 4 = 7")),
        ('{"first_error": "2", "corrected_step": "2. 3 + 4 = 7"}', FirstErrorReply(1, "3 + 4 = 7")),
        ('{"first_error": "Step 2", "corrected_step": "Step 2: 3 + 4 = 7"}', FirstErrorReply(1, "3 + 4 = 7")),
        ('{"first_error": 2.0, "corrected_step": "3 +\\t4 = 7\\nThen more."}', FirstErrorReply(1, "3 + 4 = 7")),
        ('{"first_error": 1, "corrected_step": null, "answer": "8"}', FirstErrorReply(0, None, "8")),
        ('{"first_error": 1, "corrected_step": "The answer is 8"}', FirstErrorReply(0, ending="8")),
        ('{"first_error": 2, "corrected_step": "2. The answer is 8 pens.\\nDone."}', FirstErrorReply(1, ending="8")),
        ('{"first_error": 3, "corrected_step": "The answer is unknown"}', FirstErrorReply(2)),
        ('{"first_error": 1, "corrected_step": "3 + 5 = 8\\nThe answer is 8"}', FirstErrorReply(0, "3 + 5 = 8")),
        ('{"first_error": null, "corrected_step": "The answer is 8"}', FirstErrorReply(None, ending="8")),
        ('{"first_error": 4, "corrected_step": "And 1."}', FirstErrorReply(3, "And 1.")),
        ('{"first_error": null, "corrected_step": null, "answer": null}', FirstErrorReply(None)),
        ('{"first_error": "none"}', FirstErrorReply(None)),
        ('{"first_error": 0}', FirstErrorReply(None)),
        ('{"first_error": -1}', FirstErrorReply(None)),
        ('{"first_error": "-1", "corrected_step": null}', FirstErrorReply(None)),
        ('{"first_error": -1.0, "corrected_step": ""}', FirstErrorReply(None)),
        ('{"first_error": false}', FirstErrorReply(None)),
        ('{"first_error": []}', FirstErrorReply(None)),
        ('{"first_error": "No errors found"}', FirstErrorReply(None)),
        ('{"first_error": [2], "corrected_step": "3 + 4 = 7"}', FirstErrorReply(1, "3 + 4 = 7")),
        ('{"first_error": 2, "corrected_step": {"step": 2, "text": "3 + 4 = 7"}}', FirstErrorReply(1, "3 + 4 = 7")),
        ('{"first\\_error": 2, "corrected\\_step": "3 + 4 = 7"}', FirstErrorReply(1, "3 + 4 = 7")),
    ],
)
def test_first_errors(text, expected):
    assert parse_first_error(text, NUMBER, num_steps=3) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"first_error": 5}',
        '{"first_error": -1, "corrected_step": "x"}',
        '{"first_error": [2, 3]}',
        '{"first_error": 0, "corrected_step": "x"}',
        '{"first_error": true}',
        '{"first_error": "second"}',
        '{"first_error": 1, "corrected_step": {"text": "x", "content": "y"}}',
        '{"first_error": 1, "corrected_step": {"mood": "x"}}',
        '{"corrected_step": "x"}',
        "Step 2 is wrong.",
    ],
)
def test_bad_first_errors(text):
    with pytest.raises(TeacherReplyError):
        parse_first_error(text, NUMBER, num_steps=3)


def test_a_decimal_is_not_taken_for_a_number_of_a_step():
    reply = parse_first_error('{"first_error": 2, "corrected_step": "2.5 + 1 = 3.5"}', NUMBER, num_steps=3)
    assert reply.corrected == "2.5 + 1 = 3.5"


def test_checks_are_first_errors_with_an_answer():
    text = '{"work": "2 + 3 = 5", "answer": "5 apples", "first_error": 2, "corrected_step": "2 + 3 = 5"}'
    assert parse_check(text, NUMBER, 2) == FirstErrorReply(1, "2 + 3 = 5", "5")
    text = '{"work": "", "answer": 5, "first_error": null, "corrected_step": null}'
    assert parse_check(text, NUMBER, 2) == FirstErrorReply(None, None, "5")
    for text in ('{"first_error": 2, "corrected_step": "a"}', '{"answer": null, "first_error": null}'):
        with pytest.raises(TeacherReplyError, match="no answer of kind number"):
            parse_check(text, NUMBER, 2)
    with pytest.raises(TeacherReplyError, match="no JSON object with first_error"):
        parse_check('{"work": "2 + 3", "answer": "5"}', NUMBER, 2)


def test_judgments():
    assert parse_judgment('{"correct": true, "corrected_step": "x"}', NUMBER, 1).corrected is None
    ended = parse_judgment('{"correct": false, "corrected_step": "The answer is 8"}', NUMBER, 1)
    assert (ended.corrected, ended.ending) == (None, "8")
    assert parse_judgment('{"correct": true, "corrected_step": "The answer is 8"}', NUMBER, 1).ending is None
    wrong = parse_judgment('{"correct": "no", "corrected_step": "1) 3 + 4 = 7"}', NUMBER, 1)
    assert (wrong.is_correct, wrong.corrected) == (False, "3 + 4 = 7")
    assert wrong.text == '{"correct": "no", "corrected_step": "1) 3 + 4 = 7"}'
    for text in ('{"correct": null}', '{"correct": 1}', "yes", '{"correct": "perhaps"}'):
        with pytest.raises(TeacherReplyError):
            parse_judgment(text, NUMBER, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"steps": ["3 + 4 = 7", "7 * 2 = 14"], "answer": "14"}',
        '{"steps": ["1. 3 + 4 = 7", "2. 7 * 2 = 14", "The answer is 14"], "answer": 14}',
        '{"steps": "3 + 4 = 7\\n\\n7 * 2 = 14", "answer": "14"}',
        '{"steps": ["3 + 4 = 7\\n7 * 2 = 14", "The answer is 14"]}',
        "3 + 4 = 7\n7 * 2 = 14\nThe answer is 14",
    ],
)
def test_chains(text):
    assert parse_chain(text, NUMBER) == ChainReply(("3 + 4 = 7", "7 * 2 = 14"), "14")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_newlines_end_a_line(mark):
    """As in the student's explanations; `str.splitlines` cuts at these too, and lost the rest of a corrected step."""
    step = f"3 + 4{mark}= 7"
    for text in (step, [step], [f"3 + 4{mark}= 7\r\nDone"]):
        steps = parse_chain(json.dumps({"steps": text, "answer": "7"}), NUMBER).steps
        assert steps[0] == "3 + 4 = 7"
    assert parse_chain(f"{step}\nThe answer is{mark}7", NUMBER) == ChainReply(("3 + 4 = 7",), "7")
    found = parse_first_error(json.dumps({"first_error": 1, "corrected_step": step}), NUMBER, 2)
    assert found.corrected == "3 + 4 = 7"
    assert parse_judgment(json.dumps({"correct": False, "corrected_step": step}), NUMBER, 1).corrected == "3 + 4 = 7"


def test_numbers_of_steps_go_on_after_the_given_ones():
    reply = parse_chain('{"steps": ["3. 7 * 2 = 14"], "answer": "14"}', NUMBER, num_given=2)
    assert reply.steps == ("7 * 2 = 14",)


def test_a_completion_may_have_nothing_to_add():
    assert parse_chain('{"steps": [], "answer": "14"}', NUMBER, num_given=2) == ChainReply((), "14")
    with pytest.raises(TeacherReplyError, match="no steps"):
        parse_chain('{"steps": [], "answer": null}', NUMBER, num_given=2)


@pytest.mark.parametrize(
    "text", ['{"steps": [], "answer": "1"}', '{"steps": [1, 2]}', '{"steps": {"a": 1}}', "No idea.", '{"answer": "4"}']
)
def test_bad_chains(text):
    with pytest.raises(TeacherReplyError):
        parse_chain(text, NUMBER)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
replies = st.one_of(
    st.text(),
    st.text(alphabet='{}[]",:\\answer steps0123456789\n'),
    st.dictionaries(st.sampled_from(["answer", "first_error", "corrected_step", "correct", "steps"]), json_values).map(
        json.dumps
    ),
    st.builds(
        lambda before, fields, cut: (before + json.dumps(fields))[:cut],
        st.text(max_size=20),
        st.dictionaries(st.sampled_from(["answer", "steps", "first_error", "correct"]), json_values),
        st.integers(0, 200),
    ),
)


@settings(max_examples=300, deadline=None)
@given(text=replies, question=st.sampled_from(KINDS), num_steps=st.integers(0, 5))
def test_any_reply_is_read_or_refused(text, question, num_steps):
    """Whatever comes, a reply is a valid record or a TeacherReplyError; what it holds can be written as UTF-8."""
    parsers = {
        "answer": lambda: parse_answer(text, question),
        "first_error": lambda: parse_first_error(text, question, num_steps),
        "check": lambda: parse_check(text, question, num_steps),
        "judgment": lambda: parse_judgment(text, question, num_steps + 1),
        "chain": lambda: parse_chain(text, question),
    }
    for name, parser in parsers.items():
        try:
            reply = parser()
        except TeacherReplyError as error:
            message = str(error)
        else:
            message = ""
        assert "\n" not in message
        if message:
            continue
        repr(reply).encode()
        if name == "answer":
            assert reply.answer
        if name == "first_error" and reply.step is not None:
            assert 0 <= reply.step <= num_steps
        if name == "chain":
            assert reply.steps
            assert all(step == " ".join(step.split()) and step for step in reply.steps)
            assert not any(step.startswith("The answer is") for step in reply.steps)


@pytest.mark.parametrize("text", ["{" * 5000, '{"answer":' * 3000, "[" * 100_000, '{"answer": "' + "9" * 500_000])
def test_hostile_replies_are_refused_quickly(text):
    with pytest.raises(TeacherReplyError):
        parse_answer(text, NUMBER)
