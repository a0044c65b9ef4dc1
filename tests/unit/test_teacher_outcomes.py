import json

import pytest

from edgeelad.teacher.client.outcomes import Answered, classify
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported
from edgeelad.teacher.client.transport import HttpReply, Lost
from edgeelad.teacher.client.usage import Told

NOW = 1_700_000_000.0


def reply(body=None, status=200, problem="", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, data, problem)


def chat(content="7", finish_reason="stop", **changes):
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage, "model": "m", **changes}


def test_a_reply():
    outcome = classify(reply(chat()), NOW)
    assert outcome == Answered("7", "stop", "", Told(10, 5), "m")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (chat("", finish_reason="length"), "cut off at the completion cap before it began"),
        (chat(finish_reason="content_filter"), "withheld by the endpoint's content filter"),
        (chat(""), "an empty reply"),
        (chat(None), "an empty reply"),
        (chat("  \n"), "an empty reply"),
        ({"choices": []}, "a reply without choices"),
        ({"choices": "none"}, "a reply without choices"),
        ({"result": 7}, "a reply without choices"),
        ({"choices": [{"message": "7"}]}, "a reply without choices"),
        ({"choices": [{"message": {"content": None, "refusal": "I will not."}}]}, "the teacher declined: I will not."),
    ],
)
def test_replies_that_cannot_be_used_are_billed_all_the_same(body, problem):
    outcome = classify(reply(body), NOW)
    assert isinstance(outcome, Answered)
    assert outcome.problem == problem


@pytest.mark.parametrize(
    "broken",
    [
        reply(b""),
        reply(b"<html>Login</html>"),
        reply(b'{"choices": [{"mess'),
        reply([1]),
        reply(b"\xff\xfe"),
        reply(chat(), problem="the body broke off after 10 bytes"),
        reply(b"[" * 100_000),
    ],
)
def test_broken_bodies_are_in_doubt_and_tried_again(broken):
    outcome = classify(broken, NOW)
    assert isinstance(outcome, Again)
    assert outcome.outcome == "in_doubt"


def test_errors_are_judged_with_what_was_sent():
    body = {"error": {"message": "temperature is not supported"}}
    assert isinstance(classify(reply(body, 400), NOW, {"temperature": 0.0}), Unsupported)
    assert isinstance(classify(reply(body, 400), NOW, {}), Refused)
    assert isinstance(classify(reply({"error": {"message": "later", "code": 502}}), NOW), Again)


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": "This model's maximum context length is 2048 tokens.", "code": 40303},
        {"detail": "context length exceeded"},
        {"error_code": 336, "error_msg": "prompt too long"},
    ],
)
def test_a_200_without_choices_that_is_an_error(body):
    assert classify(reply(body), NOW).is_about_request


def test_a_choice_that_failed_is_in_doubt():
    choice = {
        "message": {"content": ""},
        "finish_reason": "error",
        "error": {"code": 502, "message": "upstream failed"},
    }
    outcome = classify(reply(chat(choices=[choice])), NOW)
    assert (outcome.outcome, "upstream failed" in outcome.reason) == ("in_doubt", True)
    assert isinstance(classify(reply(chat(message="hello", detail=None)), NOW), Answered)


def test_lost_requests():
    assert classify(Lost("refused", was_sent=False), NOW) == Again("refused", "unbilled")
    assert classify(Lost("broke", was_sent=True), NOW) == Again("broke", "in_doubt", suspect="server or request")
    assert classify(Lost("certificate", was_sent=False, is_final=True), NOW) == Refused("certificate")
