"""Errors as providers send them, and what each means."""

# ruff: noqa: E501 (bodies are as they were sent)

import json
from email.utils import formatdate

import pytest

from edgeelad.teacher.client.api_error import error_message, read_error
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported, judge, retry_after

NOW = 1_700_000_000.0
SENT = {
    "model": "m",
    "messages": [{"role": "system", "content": "You are a teacher."}, {"role": "user", "content": "What is 3 + 4?"}],
    "max_tokens": 512,
    "temperature": 0.0,
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {}}},
}


def verdict(status, body, headers=None, sent=SENT):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(status, headers or {}, data, NOW, sent)


def kind_of(outcome):
    if isinstance(outcome, Unsupported):
        return outcome.feature
    if isinstance(outcome, Refused):
        return "aside" if outcome.is_about_request else "unclear" if outcome.is_unclear else "final"
    if outcome.is_generation:
        return "malformed"
    return {"network": "wait", "server": "outage", "server or request": "fault", "request": "its fault"}[
        outcome.suspect
    ]


def openai(message, type_="invalid_request_error", param=None, code=None):
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def gemini(status, message, state, *details):
    return [{"error": {"code": status, "message": message, "status": state, "details": list(details)}}]


def quota_failure(*quotas):
    violations = [{"quotaMetric": "generativelanguage.googleapis.com/requests", "quotaId": name} for name in quotas]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


def retry_info(delay):
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


OUT_OF_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)
ADD_A_CARD = (
    "Rate limit reached for default-gpt-3.5-turbo in organization org-x on requests per min. Limit: 3 / min. Please try "
    "again in 20s. Contact us through our help center if you continue to have issues. Please add a payment method to "
    "your account to increase your rate limit. Visit https://platform.openai.com/account/billing to add a payment method."
)
GROQ_MINUTE = (
    "Rate limit reached for model `llama-3.3-70b-versatile` in organization `org_01` service tier `on_demand` on tokens "
    "per minute (TPM): Limit 12000, Used 11500, Requested 900. Please try again in 2.1s. Need more tokens? Upgrade to Dev "
    "Tier today at https://console.groq.com/settings/billing"
)
GROQ_DAY = GROQ_MINUTE.replace("per minute (TPM): Limit 12000", "per day (TPD): Limit 100000").replace(
    "2.1s", "20m9.6s"
)
GROQ_TOO_LARGE = (
    "Request too large for model `llama-3.3-70b-versatile` in organization `org_01` service tier `on_demand` on tokens "
    "per minute (TPM): Limit 6000, Requested 7591, please reduce your message size and try again. Need more tokens? "
    "Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
)

THROTTLES = [
    # status, body, headers, kind, seconds
    (openai(GROQ_MINUTE, "tokens", code="rate_limit_exceeded"), {"retry-after": "3"}, "wait", 3.0),
    (openai(GROQ_MINUTE, "tokens", code="rate_limit_exceeded"), {}, "wait", 2.1),
    (openai(ADD_A_CARD, "requests", code="rate_limit_exceeded"), {}, "wait", 20.0),
    (openai(ADD_A_CARD, "requests", code="rate_limit_exceeded"), {"retry-after-ms": "1500"}, "wait", 1.5),
    (
        gemini(429, f"{OUT_OF_QUOTA} Please retry in 2.1s.", "RESOURCE_EXHAUSTED", retry_info("2s")),
        {},
        "wait",
        2.0,
    ),
    (
        gemini(
            429,
            OUT_OF_QUOTA,
            "RESOURCE_EXHAUSTED",
            quota_failure("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
            retry_info("41.5s"),
        ),
        {},
        "wait",
        41.5,
    ),
    # a gateway that puts the error into the message of another
    (
        {
            "error": {
                "message": json.dumps({"error": {"code": 429, "message": f"{OUT_OF_QUOTA} Please retry in 5.2s."}})
            }
        },
        {},
        "wait",
        5.2,
    ),
    (openai("You exceeded your current quota"), {"retry-after": "30"}, "wait", 30.0),
    (b"too many requests", {}, "wait", None),
    (b"", {}, "wait", None),
    (
        {
            "error": {
                "message": "Provider returned error",
                "code": 429,
                "metadata": {
                    "raw": "m is temporarily rate-limited upstream. Please retry shortly",
                    "provider_name": "P",
                },
            }
        },
        {},
        "wait",
        None,
    ),
    # a day's quota, no quota, no money: final, whatever they say of waiting
    (openai(GROQ_DAY, "tokens", code="rate_limit_exceeded"), {"retry-after": "1209"}, "final", None),
    (
        gemini(
            429,
            OUT_OF_QUOTA,
            "RESOURCE_EXHAUSTED",
            quota_failure(
                "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
                "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            ),
            retry_info("25s"),
        ),
        {},
        "final",
        None,
    ),
    (
        gemini(
            429,
            f"{OUT_OF_QUOTA}\n* Quota exceeded for metric: generativelanguage.googleapis.com/"
            "generate_content_free_tier_requests, limit: 0, model: gemini-3.1-pro\nPlease retry in 25.4s.",
            "RESOURCE_EXHAUSTED",
            retry_info("25s"),
        ),
        {},
        "final",
        None,
    ),
    (
        openai("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day"),
        {},
        "final",
        None,
    ),
    (openai(OUT_OF_QUOTA, "insufficient_quota", code="insufficient_quota"), {"retry-after": "1"}, "final", None),
    (
        {"error": {"message": "Your account is suspended", "type": "exceeded_current_quota_error"}},
        {},
        "final",
        None,
    ),
    (openai("Your team has reached its monthly spending limit."), {}, "final", None),
    (
        {
            "error": {
                "code": "429",
                "message": "Requests have exceeded call rate limit of your current OpenAI S0 pricing "
                "tier. Please retry after 3 seconds. Go here: https://aka.ms/oai/quotaincrease to increase it.",
            }
        },
        {},
        "wait",
        3.0,
    ),
    (openai(GROQ_TOO_LARGE, "tokens", code="rate_limit_exceeded"), {}, "its fault", None),
]


@pytest.mark.parametrize(("body", "headers", "kind", "seconds"), THROTTLES)
def test_rate_limits_wait_and_used_up_quotas_are_final(body, headers, kind, seconds):
    outcome = verdict(429, body, headers)
    assert kind_of(outcome) == kind
    if isinstance(outcome, Again):
        assert outcome.outcome == "unbilled"
        assert outcome.retry_after_s == seconds
        assert outcome.is_throttle == (kind == "wait")


@pytest.mark.parametrize("status", [408, 409, 425, 498, 500, 501, 502, 503, 504, *range(520, 530)])
def test_statuses_that_are_tried_again(status):
    outcome = verdict(status, openai("later"), {"retry-after": "3"})
    assert isinstance(outcome, Again)
    assert outcome.retry_after_s == 3.0
    assert outcome.outcome == "unbilled"
    assert outcome.is_throttle == (status in (498, 503, 529))


ABOUT_ONE_REQUEST = [
    (
        403,
        {
            "error": {
                "message": "Input was flagged",
                "code": 403,
                "metadata": {
                    "reasons": ["violence/graphic"],
                    "flagged_input": "What is …",
                    "provider_name": "OpenAI",
                    "model_slug": "openai/gpt-4o",
                },
            }
        },
    ),
    (400, openai("Content Exists Risk", code="invalid_request_error")),
    (400, {"detail": "Content Exists Risk"}),
    (
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
                "policy. Please modify your prompt and retry. To learn more about our content filtering policies "
                "please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
                },
            }
        },
    ),
    (400, openai("Invalid prompt: we've limited access to this content for safety reasons.", code="invalid_prompt")),
    (400, openai("Input data may contain inappropriate content.", code="data_inspection_failed")),
    (400, {"error": {"message": "The request was rejected because it was considered high risk", "type": "content_filter"}}),
    (400, openai("This model's maximum context length is 4096 tokens. However, you requested 4500 tokens (3988 in the "
                 "messages, 512 in the completion). Please reduce the length of the messages or completion.",
                 param="messages", code="context_length_exceeded")),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size. try increasing the context size or enable "
                "context shift",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 1407,
                "n_ctx": 256,
            }
        },
    ),
    (400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum "
           "context length is 1024 tokens and your request has 900 input tokens (512 > 1024 - 900).",
           "type": "BadRequestError", "param": None, "code": 400}),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` "
           "tokens and 512 `max_new_tokens`", "error_type": "validation"}),
    (400, gemini(400, "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).",
                 "INVALID_ARGUMENT")),
    (400, openai("length of prompt_tokens (8192) must be less than max_seq_len (4096)")),
    (413, openai(GROQ_TOO_LARGE, "tokens", code="rate_limit_exceeded")),
    (413, b"<html><h1>413 Request Entity Too Large</h1></html>"),
    (500, {"error": {"code": 500, "message": "the request exceeds the available context size",
                     "type": "exceed_context_size_error"}}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), ABOUT_ONE_REQUEST)
def test_refusals_of_one_request(status, body):
    assert kind_of(verdict(status, body)) == "aside"


FINAL = [
    (401, openai("Incorrect API key provided: sk-x.", code="invalid_api_key"), "teacher.api_key_env"),
    (401, b"", "teacher.api_key_env"),
    (400, gemini(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT",
                 {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}),
     "teacher.api_key_env"),
    (402, openai("Insufficient Balance", "unknown_error"), "no money left"),
    (403, {"error": {"message": "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys",
                     "code": 403}}, "no money left"),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}, "no money left"),
    (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, "no money left"),
    (403, {"code": "The caller does not have permission to execute the specified operation", "error": "No."},
     "no permission"),
    (400, {"error": {"message": "The requested model 'a/b' is not supported by any provider you have enabled.",
                     "code": "model_not_supported"}}, "teacher.model"),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to "
           "access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}, "no money left"),
    (400, openai("Access denied, please make sure your account is in good standing.", "Arrearage", code="Arrearage"),
     "no money left"),
    (403, openai("You do not have permission to use this model.", "permission_error"), "no permission"),
    (403, openai("Country, region, or territory not supported", "request_forbidden",
                 code="unsupported_country_region_territory"), "no permission"),
    (404, openai("The model `gpt-9` does not exist or you do not have access to it.", code="model_not_found"),
     "teacher.model"),
    (400, openai("Model Not Exist"), "teacher.model"),
    (400, openai("gpt-9 is not a valid model ID"), "teacher.model"),
    (404, {"error": {"message": "No endpoints found for openai/gpt-9.", "code": 404}}, "teacher.model"),
    (404, {"detail": "Not Found"}, "/v1"),
    (404, b"<html>404</html>", "/v1"),
    (405, {"detail": "Method Not Allowed"}, "/v1"),
    (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "/v1"),
    (200, openai("Incorrect API key provided", code="invalid_api_key"), "teacher.api_key_env"),
    (200, {"error": {"message": "no", "code": 401}}, "teacher.api_key_env"),
    (302, b"", "teacher.url"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "hint"), FINAL)
def test_refusals_that_no_other_request_escapes(status, body, hint):
    outcome = verdict(status, body)
    assert kind_of(outcome) == "final"
    assert hint in outcome.reason


PYDANTIC_ECHO = (
    b"1 validation error for ChatCompletionRequest\nuser\n  Field required [type=missing, input_value={'model': 'm', "
    b"'temperature': 0.0, 'max_tokens': 512, 'response_format': {'type': 'json_schema'}}, input_type=dict]"
)
UNCLEAR = [
    (400, openai("invalid character")),
    (400, openai("Invalid API parameter, please check the documentation.", code="1210")),
    (403, b"<html>Sorry, you have been blocked: temperature, response_format, permission</html>"),
    # an unrelated 422 that repeats the body
    (422, {"detail": [{"type": "missing", "loc": ["body", "user"], "msg": "Field required", "input": SENT}]}),
    (422, {"detail": [{"type": "missing", "loc": ["body", "user"], "msg": f"Field required in {json.dumps(SENT)}"}]}),
    (422, PYDANTIC_ECHO),
    (422, {"error": {"message": f"could not process {SENT!r}", "param": None}}),
    (422, f"bad request: {json.dumps(SENT)[:-40]}".encode()),
    (400, openai("Unexpected field 'user'. Allowed: model, messages, temperature, max_tokens, response_format, stream")),
    # the cap itself, not its name
    (400, openai("max_tokens is too large: 5000. This model supports at most 4096 completion tokens, whereas you "
                 "provided 5000.", param="max_tokens", code="invalid_value")),
    (400, openai("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the "
                 "`context_window` for this model")),
    (200, {"error": "something"}),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: 9999 > 8192, which is the "
           "maximum allowed number of output tokens for claude-3"}}),
    (400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]")),
    (400, openai("Range of max_tokens should be [1, 8192]", code="invalid_parameter_error")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), UNCLEAR)
def test_refusals_that_do_not_say_whose_fault_it_is(status, body):
    assert kind_of(verdict(status, body)) == "unclear"


NAMED = [
    # temperature
    (400, openai("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
                 "supported.", param="temperature", code="unsupported_value"), "temperature"),
    (400, openai("Unsupported parameter: 'temperature' is not supported with this model.", param="temperature",
                 code="unsupported_parameter"), "temperature"),
    (400, {"error": {"message": "invalid temperature: only 1 is allowed for this model",
                     "type": "invalid_request_error"}}, "temperature"),
    (400, {"type": "error", "error": {"type": "invalid_request_error",
           "message": "`temperature` is deprecated for this model."}}, "temperature"),
    (422, {"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"},
     "temperature"),
    (422, {"status": 422, "message": "Invalid params: temperature must be in range (0, +inf)"}, "temperature"),
    (400, b'{"message": "Malformed input request: #: subject must not be valid against schema '
          b'{\\"required\\":[\\"messages\\"]}#/temperature: expected type: Number, found: Null"}', "temperature"),
    # structured output
    (400, gemini(400, "Invalid JSON payload received. Unknown name \"type\" at 'generation_config.response_schema."
                 "properties[0].value': Proto field is not repeating, cannot start list.", "INVALID_ARGUMENT",
                 {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [
                     {"field": "generation_config.response_schema.properties[0].value", "description": "Invalid JSON"}]}),
     "structured"),
    (400, {"error": {"code": 400, "message": "Proto field is not repeating, cannot start list."}}, "structured"),
    (400, {"code": 20024, "message": "Json mode is not supported for this model.", "data": None}, "structured"),
    (400, {"error": {"code": 400, "message": "Failed to initialize samplers: failed to parse grammar",
                     "type": "invalid_request_error"}}, "structured"),
    (400, {"error": {"code": 400, "message": "Failed to parse grammar", "type": "invalid_request_error"}}, "structured"),
    (405, {"detail": {"error": "json_object response format is not supported for model: stepfun-ai/Step-3.5-Flash"}},
     "structured"),
    (404, {"error": {"message": "No endpoints found that support structured outputs. To learn more about provider "
                     "routing, visit: https://openrouter.ai/docs/provider-routing", "code": 404}}, "structured"),
    (404, {"error": {"message": "No endpoints found that can handle the requested parameters.", "code": 404}},
     "structured"),
    (422, b"Failed to deserialize the JSON body into the target type: response_format: unknown variant `json_schema`, "
          b"expected one of `json`, `json_object`, `regex` at line 1 column 345", "structured"),
    (400, openai("Invalid schema for response_format 'answer': In context=(), 'additionalProperties' is required.",
                 param="response_format"), "structured"),
    (400, {"object": "error", "message": "Missing `additionalProperties: False` in object schema",
           "type": "invalid_request_error", "param": None, "code": None}, "structured"),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "response_format", "json_schema"],
                       "msg": "Extra inputs are not permitted", "input": SENT}]}, "structured"),
    (400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(
        openai("This response_format type is unavailable now")), "provider_name": "DeepSeek"}}}, "structured"),
    (400, openai("deepseek-reasoner does not support Json Output."), "structured"),
    (400, gemini(400, "A schema in GenerationConfig in the request exceeds the maximum allowed nesting depth.",
                 "INVALID_ARGUMENT"), "structured"),
    (400, openai("The provided JSON schema contains features not supported by xgrammar."), "structured"),
    # the system role
    (400, {"detail": [{"type": "literal_error", "loc": ["body", "messages", 0, "role"], "input": "system",
                       "msg": "Input should be 'user' or 'assistant'"}]}, "system_role"),
    (400, openai("This model doesn't support 'system' messages."), "system_role"),
    (400, {"object": "error", "message": "System role not supported", "type": "BadRequestError", "param": None,
           "code": 400}, "system_role"),
    (500, b"System role not supported", "system_role"),
    (500, {"error": {"code": 500, "type": "server_error", "message": "\n------------\nWhile executing CallExpression at "
           "line 1, column 50 in source:\n...{{ bos_token }}{{- raise_exception('System role not sup...\nError: Jinja "
           "Exception: System role not supported"}}, "system_role"),
    (400, openai("Unsupported value: 'messages[0].role' does not support 'system' with this model.",
                 param="messages[0].role", code="unsupported_value"), "system_role"),
    (400, gemini(400, "Developer instruction is not enabled for models/gemma-3-27b-it", "INVALID_ARGUMENT"),
     "system_role"),
    (400, openai("Conversation roles must alternate user/assistant/user/assistant/..."), "system_role"),
    (500, openai("status 400: Please use a valid role: user, model."), "system_role"),
    # the completion cap
    (400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                 "instead.", param="max_tokens", code="unsupported_parameter"), "token_parameter"),
    (400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                     "'max_completion_tokens' instead.", "code": "invalid_request_body"}}, "token_parameter"),
    (400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'max_tokens'), 'msg': 'Extra "
           "inputs are not permitted', 'input': 8192}]", "type": "BadRequestError", "param": None, "code": 400},
     "token_parameter"),
    # an endpoint that only streams
    (400, {"error": {"code": "invalid_parameter_error", "message": "This model only support stream mode, please enable "
                     "the stream parameter to access the model.", "type": "invalid_request_error"}}, "stream"),
    (400, openai("parameter.enable_thinking must be set to false for non-streaming calls",
                 code="invalid_parameter_error"), "stream"),
    (400, {"detail": "Stream must be set to true"}, "stream"),
    (422, {"detail": [{"type": "literal_error", "loc": ["body", "stream"], "msg": "Input should be True"}]}, "stream"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "feature"), NAMED)
def test_what_is_named_is_left_out(status, body, feature):
    assert kind_of(verdict(status, body)) == feature


def test_what_was_not_sent_cannot_be_left_out():
    sent = {"model": "m", "messages": [{"role": "user", "content": "?"}], "max_completion_tokens": 5, "stream": True}
    for _, body, feature in NAMED:
        outcome = verdict(400, body, sent=sent)
        assert kind_of(outcome) == feature if feature == "token_parameter" else not isinstance(outcome, Unsupported)
    refused = openai("stream_options is not supported")
    assert kind_of(verdict(400, refused)) == "unclear"
    assert kind_of(verdict(400, refused, sent={**sent, "stream_options": {}})) == "stream_options"


def test_an_unknown_effort_is_left_out_and_a_wrong_one_is_not():
    sent = {**SENT, "reasoning_effort": "minimal"}
    unknown = openai("Unrecognized request argument supplied: reasoning_effort")
    assert kind_of(verdict(400, unknown, sent=sent)) == "reasoning_effort"
    wrong = openai(
        "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model. Supported values are: 'low'.",
        param="reasoning_effort",
        code="unsupported_value",
    )
    assert kind_of(verdict(400, wrong, sent=sent)) == "unclear"


@pytest.mark.parametrize("code", ["json_validate_failed", "output_parse_failed", "tool_use_failed"])
def test_a_reply_that_the_endpoint_finds_malformed(code):
    body = {"error": {"message": "Failed to generate JSON. Please adjust your prompt.", "code": code,
                      "type": "invalid_request_error", "failed_generation": "response_format temperature"}}  # fmt: skip
    assert kind_of(verdict(400, body)) == "malformed"


def test_errors_inside_a_200():
    assert kind_of(verdict(200, {"error": {"message": "later", "code": 502}})) == "outage"
    assert kind_of(verdict(200, {"error": "overloaded"})) == "fault"
    assert kind_of(verdict(200, {"error": {"type": "overloaded_error", "message": "Overloaded"}})) == "outage"
    assert (
        kind_of(verdict(200, {"error": {"message": "flagged", "code": 403, "metadata": {"reasons": ["x"]}}})) == "aside"
    )
    assert kind_of(verdict(200, {"error": {"code": "rate_limit_exceeded", "message": GROQ_MINUTE}})) == "wait"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({}, None),
    ],
)
def test_retry_after_in_its_forms(headers, seconds):
    assert retry_after(headers, NOW) == seconds


def test_messages_are_one_printable_line():
    reason = verdict(403, b"<html>\n\x1b[31m" + b"x" * 10_000).reason
    assert "\n" not in reason
    assert reason.isprintable()
    assert len(reason) < 400
    assert error_message(b'[{"error": {"message": "No.", "code": 400}}]') == "No."
    assert error_message(b'{"error": "No."}') == "No."
    assert "violence" in error_message(json.dumps(ABOUT_ONE_REQUEST[0][1]).encode())


@pytest.mark.parametrize(
    "body",
    [b"{" * 30_000, b"[" * 30_000, b'{"error":' * 5_000, b"[{'" * 9_000, b"\xff\xfe{", b'{"error": {"details": 3}}'],
)
def test_hostile_bodies_are_read(body):
    assert read_error(body).retry_delay_s is None
