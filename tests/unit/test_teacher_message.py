"""Where endpoints put the text of a reply, and what they call its end."""

import pytest

from edgeelad.teacher.client.message import read_choice

ANSWER = '{"answer": "7"}'


def read(message, end="stop", tokens=0):
    return read_choice({"choices": [{"index": 0, "message": message, "finish_reason": end}]}, tokens)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": ANSWER},
        {"content": [{"type": "text", "text": '{"answer": '}, {"type": "text", "text": '"7"}'}]},
        {"content": ['{"answer": ', '"7"}']},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": ANSWER},
            ]
        },
        {"content": [{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": ANSWER}]},
        {"content": [{"type": "text", "text": {"value": ANSWER, "annotations": []}}]},
        {"content": {"type": "text", "text": ANSWER}},
        {"content": {"answer": "7"}},
        {"content": ANSWER, "reasoning_content": 'Perhaps {"answer": "8"}?'},
        {"content": None, "reasoning_content": ANSWER},
        {"content": "", "reasoning_content": f"I think so.\n{ANSWER}"},
        {"content": None, "reasoning": f"```json\n{ANSWER}\n```"},
        {
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": ANSWER}}],
        },
        {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"answer": "7"}}}]},
        {"content": None, "function_call": {"name": "f", "arguments": ANSWER}},
    ],
)
def test_the_text_is_found(message):
    content, end, problem = read(message)
    assert content.strip() == ANSWER
    assert (end, problem) == ("stop", "")


def test_a_completion_without_a_message():
    assert read_choice({"choices": [{"text": ANSWER, "finish_reason": "stop"}]}, 0) == (ANSWER, "stop", "")


def test_reasoning_that_was_cut_off_holds_no_answer():
    """It may be a draft."""
    content, end, problem = read({"content": None, "reasoning_content": f"Perhaps {ANSWER}? Let me"}, "length", 512)
    assert (content, end) == ("", "length")
    assert problem == "cut off at the completion cap before it began (512 reasoning tokens billed)"


@pytest.mark.parametrize("end", ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length"])
def test_the_cap_by_any_name(end):
    assert read({"content": "7"}, end) == ("7", "length", "")
    assert read({"content": None}, end)[1:] == ("length", "cut off at the completion cap before it began")


@pytest.mark.parametrize("end", ["content_filter", "SAFETY", "refusal", "PROHIBITED_CONTENT"])
def test_the_filter_by_any_name(end):
    assert read({"content": "7"}, end) == ("7", "content_filter", "withheld by the endpoint's content filter")


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"content": None, "reasoning_content": "Only thoughts, {x}."}, "an empty reply"),
        ({"content": None, "reasoning_content": 5, "tool_calls": 7, "function_call": []}, "an empty reply"),
        ({"content": [None, 5, {"type": "image_url", "image_url": {"url": "x"}}]}, "an empty reply"),
        ({"content": None, "refusal": "I will not."}, "the teacher declined: I will not."),
    ],
)
def test_what_holds_no_text(message, problem):
    assert read(message)[2] == problem
