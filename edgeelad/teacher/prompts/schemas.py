"""JSON schemas of the replies, one per prompt, in the strict form: every field required, no others.

No `type` is a list: Gemini refuses these ("Proto field is not repeating").
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_MAYBE_TEXT = {"anyOf": [_TEXT, {"type": "null"}]}
_MAYBE_NUMBER = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
_STEPS = {"type": "array", "items": _TEXT}


def _strict(**fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


SCHEMAS: dict[str, dict[str, Any]] = {
    "answer": _strict(work=_TEXT, answer=_TEXT),
    "check": _strict(work=_TEXT, answer=_TEXT, first_error=_MAYBE_NUMBER, corrected_step=_MAYBE_TEXT),
    "find_first_error": _strict(first_error=_MAYBE_NUMBER, corrected_step=_MAYBE_TEXT, answer=_MAYBE_TEXT),
    "judge_step": _strict(correct={"type": "boolean"}, corrected_step=_MAYBE_TEXT),
    "complete": _strict(steps=_STEPS, answer=_TEXT),
    "rationale": _strict(steps=_STEPS, answer=_TEXT),
}


def response_format(prompt_id: str, structured: str) -> dict[str, Any] | None:
    """The request's `response_format` at a level of structured output; None for plain text."""
    if structured == "json_schema":
        schema = {"name": prompt_id, "strict": True, "schema": SCHEMAS[prompt_id]}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object"} if structured == "json_object" else None
