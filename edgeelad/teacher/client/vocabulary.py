"""The codes and words with which providers say what is wrong, in lower case; `refusals` decides by them."""

from __future__ import annotations

import re
from typing import Literal

Feature = Literal[
    "structured", "temperature", "token_parameter", "system_role", "stream", "stream_options", "reasoning_effort"
]


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


# the status that an error inside a 200 stands for, by its code or type
STATUS_OF_CODE = {
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "resource_exhausted": 429, "too_many_requests": 429,
    "overloaded_error": 503, "engine_overloaded_error": 503, "unavailable": 503, "service_unavailable": 503,
    "server_error": 500, "internal_error": 500, "internal": 500, "api_error": 500, "internal_server_error": 500,
    "timeout": 504, "timeout_error": 504, "deadline_exceeded": 504,
}  # fmt: skip

# the account has no money: final
MONEY_CODES = {
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance",
    "insufficient_credits", "insufficient_funds", "exceeded_current_quota_error", "arrearage", "account_deactivated",
    "credit_balance_too_low", "access_terminated", "1113",
}  # fmt: skip
MONEY = _any_of(
    r"credit balance is too low",
    r"insufficient (account )?(balance|credits?|funds)|balance is (insufficient|not enough)|余额不足",
    r"(out of|not enough|no|requires more) credits",
    r"used all available credits|\bkey limit exceeded",
)

# the key, the account's permissions, the model: final
KEY_CODES = {
    "invalid_api_key", "api_key_invalid", "authentication_error", "invalid_authentication_error", "unauthenticated"
}  # fmt: skip
KEY = _any_of(
    r"api[ _-]?key (is )?(not valid|invalid|expired|missing)", r"(invalid|incorrect|expired|missing) api[ _-]?key"
)
PERMISSION_CODES = {
    "permission_denied", "permission_error", "forbidden", "unsupported_country_region_territory", "access_denied"
}  # fmt: skip
PERMISSION = _any_of(
    r"permission|authoriz|forbidden|country|region|organization", r"access (is )?denied", r"not have access"
)
MODEL_CODES = {
    "model_not_found", "deploymentnotfound", "model_not_available", "model_decommissioned", "model_not_supported"
}  # fmt: skip
MODEL = _any_of(
    r"model.{0,80}(does not exist|doesn't exist|not exist|not found|has been (retired|deprecated))",
    r"(unknown|invalid|no such) model|not a valid model",
    r"no endpoints found for",
)
# inside a 200: the URL is none of the API's
NO_SUCH_PLACE = _any_of(
    r"endpoint or method", r"(unknown|invalid|no such) (url|path|route|endpoint)", r"cannot post", r"not found"
)

# rate limits: the quota of a day or a month, and a quota of nothing, are final
DAY = _any_of(r"per[ _-]?day", r"\bdaily\b", r"\b[rt]pd\b", r"monthly (usage|quota|limit|spend)")
NO_QUOTA = re.compile(r"\blimit:? 0(?![.,]?\d)")
TOO_LARGE = re.compile(r"request too large")

# about this one request: moderated, or too long for the context
MODERATION_CODES = {
    "content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed",
    "datainspectionfailed", "moderation", "moderation_blocked", "content_moderation", "invalid_prompt", "safety",
    "prohibited_content", "contentfilter", "sensitive_content", "content_policy", "1301",
}  # fmt: skip
MODERATION = _any_of(
    r"content exists risk",
    r"content (management|policy|filter|moderation|safety)",
    r"safety (system|filter|setting|reasons?)",
    r"considered high risk|inappropriate content|\bflagged\b|\bmoderat(ed|ion)\b",
    r"usage polic|violat\w+ .{0,40}polic|敏感|违规",
)
SIZE_CODES = {
    "context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "request_too_large",
    "tokens_limit_reached", "context_window_exceeded",
}  # fmt: skip
SIZE = _any_of(
    r"(maximum|available|max) context|context[ _-]?(length|size|window)|max_seq_len|max_model_len",
    r"too many (input )?tokens|token count.{0,80}exceeds|tokens.{0,60}must be <=",
    r"(prompt|input|message|string|request|payload) (is |was )?too (long|large)",
    r"(tokens?|length|input|prompt|characters).{0,60}exceeds? the (maximum|max|limit|configured limit)",
    r"reduce the length",
)
# the completion cap itself, whatever the prompt
CAP = re.compile(
    r"max_(completion_)?tokens\W{0,4}(value|is too large|must be|exceeds|should be|is \[|\d+ > \d+)(?!.*context length)"
)

# the model's own output did not have the form that was required of it
GENERATION_CODES = {"json_validate_failed", "output_parse_failed", "tool_use_failed"}

TRANSIENT = _any_of(
    r"overloaded|temporar|try again|timed? ?out|\bbusy\b|(at|over) capacity|unavailable",
    r"rate limit|too many requests|internal (server )?error|\bloading\b|warming up",
)

# features of a request, in the order in which words that name two of them are read
NAMES: dict[Feature, re.Pattern[str]] = {
    "stream_options": re.compile(r"\bstream_options\b"),
    "token_parameter": re.compile(r"\bmax_(completion_)?tokens\b"),
    "temperature": re.compile(r"\btemperature\b"),
    "reasoning_effort": re.compile(r"\breasoning[_. ]effort\b"),
    "structured": _any_of(
        r"response[_ ]?format|response[_ ]?schema|response[_ ]?mime[_ ]?type",
        r"json[_ ]?object|\bjson[_ ](mode|output)\b|\bstructured[ _](json )?outputs?\b|schema\b",
        r"\bguided[ _](json|decoding|grammar)|\bgrammar\b|additional_?properties|proto field is not repeating",
    ),
    "system_role": _any_of(
        r"\bsystem[`'\"]?[ _](role|message|prompt|instruction)s?\b|\brole\b.{0,30}\bsystem\b|\bsystem\b.{0,30}\brole\b",
        r"developer instruction|roles must alternate|valid role|variant [`'\"]system",
    ),
    "stream": re.compile(r"\bstream(ing)?\b"),
}
# a parameter is refused as such, not its value
UNKNOWN = _any_of(
    r"not support|unsupported|unrecognized|unknown|unexpected|deprecated|no longer|instead",
    r"not permitted|not allowed|cannot find field|extra (inputs?|fields?)|extra_forbidden|extraneous",
)
VALUE_CODES = {"unsupported_value", "invalid_value"}
# what OpenRouter says if no provider takes the request as it is
NO_PROVIDER = re.compile(r"no endpoints found that (can handle|support)")
