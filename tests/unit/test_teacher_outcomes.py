import json
from email.utils import formatdate

import pytest

from edgeelad.teacher.client.outcomes import Again, Answered, Refused, Unsupported, classify, retry_after
from edgeelad.teacher.client.transport import HttpReply, Lost
from edgeelad.teacher.client.usage import believable
from edgeelad.teacher.ledger.exchange import Billing

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
    assert outcome == Answered("7", "stop", "", Billing(10, 5), "m")


def test_details_of_usage():
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 50},
    }
    outcome = classify(reply(chat("", usage=usage)), NOW)
    assert outcome.billing == Billing(100, 50, 64, 50)
    assert outcome.problem == "an empty reply (50 reasoning tokens billed)"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": "10", "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": 10**30, "completion_tokens": 5},
    ],
)
def test_usage_that_cannot_be_is_unknown(usage):
    assert classify(reply(chat(usage=usage)), NOW).billing is None


def test_usage_far_beyond_the_request_is_not_believed():
    assert believable(Billing(500, 100), 100, 50)
    assert not believable(Billing(50_000, 100), 100, 50)
    assert not believable(Billing(100, 50_000), 100, 50)
    assert not believable(None, 100, 50)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (chat(finish_reason="length"), "cut off at the completion cap"),
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


def test_content_in_parts():
    assert classify(reply(chat([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])), NOW).content == "ab"


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


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_statuses_that_are_tried_again(status):
    outcome = classify(reply({"error": {"message": "later"}}, status, retry_after="3"), NOW)
    assert outcome == Again(f"status {status}: later", "unbilled", 3.0, is_throttle=status in (429, 503, 529))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 422, 302, 307])
def test_statuses_that_are_final(status):
    outcome = classify(reply({"error": {"message": "no", "code": "bad"}}, status), NOW)
    assert isinstance(outcome, Refused)
    assert not outcome.is_about_request
    assert outcome.reason.startswith(f"status {status}: no / bad")


def test_a_used_up_quota_is_final_though_it_is_a_429():
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    assert isinstance(classify(reply(body, 429), NOW), Refused)


@pytest.mark.parametrize(
    "message", ["This model's maximum context length is 4096 tokens", "blocked by content management policy"]
)
def test_refusals_of_one_request(message):
    outcome = classify(reply({"error": {"message": message}}, 400), NOW)
    assert isinstance(outcome, Refused)
    assert outcome.is_about_request


def test_features_that_an_endpoint_lacks():
    structured = classify(reply({"error": {"message": "response_format of type json_schema is unknown"}}, 400), NOW)
    assert isinstance(structured, Unsupported)
    assert structured.feature == "structured"
    temperature = classify(reply({"error": {"message": "Unsupported value: 'temperature' 0.0"}}, 400), NOW)
    assert isinstance(temperature, Unsupported)
    assert temperature.feature == "temperature"
    cap = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    assert "teacher.token_parameter" in classify(reply({"error": {"message": cap}}, 400), NOW).reason


def test_an_error_wrapped_in_a_200():
    assert isinstance(classify(reply({"error": {"message": "later", "code": 502}}), NOW), Again)
    assert isinstance(classify(reply({"error": {"message": "no", "code": 401}}), NOW), Refused)
    assert isinstance(classify(reply({"error": "overloaded"}), NOW), Again)


def test_lost_requests():
    assert classify(Lost("refused", was_sent=False), NOW) == Again("refused", "unbilled")
    assert classify(Lost("broke", was_sent=True), NOW) == Again("broke", "in_doubt")
    assert classify(Lost("certificate", was_sent=False, is_final=True), NOW) == Refused("certificate")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("20", 20.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after_in_both_forms(value, seconds):
    assert retry_after({"retry-after": value}, NOW) == seconds


def test_messages_stay_on_one_printable_line():
    reason = classify(reply(b"<html>\n\x1b[31m" + b"x" * 10_000, 403), NOW).reason
    assert "\n" not in reason
    assert reason.isprintable()
    assert len(reason) < 400
