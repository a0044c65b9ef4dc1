"""Translate configurations that transformers 5 saved into what transformers 4.57 reads.

Transformers 4 ignores `rope_parameters` and uses its defaults, so a model would silently become another one. It does
not know the tokenizer class `TokenizersBackend`. Pure functions on the content of `config.json` and
`tokenizer_config.json`; a setting without an equal in 4.57 is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any

# what families call a parameter in 4.57, the usual name first
THETA_NAMES = ("rope_theta", "rotary_emb_base", "global_rope_theta")
LOCAL_THETA_NAMES = ("rope_local_base_freq", "local_rope_theta")
PARTIAL_NAMES = ("partial_rotary_factor", "rotary_pct")
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
NEW_KEYS = {"rope_parameters", "scale_decoder_outputs"}  # of a `config.json` that 4.57 would misread
FULL, SLIDING = "full_attention", "sliding_attention"


class UntranslatableError(ValueError):
    """The configuration has no equal in transformers 4.57."""


def translate_config(config: Mapping[str, Any], accepted: Set[str]) -> dict[str, Any]:
    """Translate a `config.json`; one without NEW_KEYS stays as it is.

    Args:
        config: The file's content.
        accepted: Parameters that the family's configuration class has in 4.57; others it would ignore.

    Raises:
        UntranslatableError: 4.57 cannot express its rotary embedding.
    """
    translated = dict(config)
    if translated.pop("scale_decoder_outputs", True) is False:
        # T5 1.1: for transformers 5 every head may be tied, for 4.57 one that is tied is scaled as well
        translated["tie_word_embeddings"] = False
    rope = translated.pop("rope_parameters", None)
    if rope is None:
        return translated
    if not isinstance(rope, dict):
        raise UntranslatableError(f"rope_parameters is {rope!r}, not an object")
    layer_types = [key for key, value in rope.items() if isinstance(value, dict)]
    if layer_types:
        rope = _global_rope(rope, layer_types, translated, accepted)
    rope = dict(rope)
    _set(translated, THETA_NAMES, rope.pop("rope_theta", 10_000.0), accepted)
    partial = rope.pop("partial_rotary_factor", 1.0)
    if partial != 1.0 or accepted & set(PARTIAL_NAMES):
        _set(translated, PARTIAL_NAMES, partial, accepted)
    scaling = _rope_scaling(rope, translated)
    if scaling is not None and "rope_scaling" not in accepted:
        raise UntranslatableError(f"its rope_parameters scale by {scaling['rope_type']!r}, which 4.57 cannot do for it")
    if "rope_scaling" in accepted:
        translated["rope_scaling"] = scaling
    return translated


def translate_tokenizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a `tokenizer_config.json` that transformers 4.57 needs in another form; empty if there are none.

    A list of `extra_special_tokens` is 4.57's `additional_special_tokens`; named ones (`model_specific_special_tokens`)
    are its `extra_special_tokens`. The plain fast tokenizer replaces any class that transformers 5 names:
    `tokenizer.json` holds all that the class would add.
    """
    extra = config.get("extra_special_tokens")
    named = config.get("model_specific_special_tokens")
    is_new = isinstance(extra, list) or named is not None or "backend" in config
    if config.get("tokenizer_class") != "TokenizersBackend" and not is_new:
        return {}
    changes: dict[str, Any] = {"extra_special_tokens": named or {}}
    if isinstance(extra, list):
        changes["additional_special_tokens"] = [*config.get("additional_special_tokens", []), *extra]
    return changes


def _global_rope(
    rope: Mapping[str, Any], layer_types: list[str], translated: dict[str, Any], accepted: Set[str]
) -> dict[str, Any]:
    """The parameters of the full-attention layers; those of sliding ones are set apart, or are the same."""
    different = {repr(sorted(rope[kind].items())) for kind in layer_types}
    if len(different) == 1:
        return dict(rope[layer_types[0]])
    local = rope.get(SLIDING) or {}
    is_plain = local.get("rope_type", "default") == "default" and local.get("partial_rotary_factor", 1.0) == 1.0
    if set(layer_types) == {FULL, SLIDING} and is_plain and accepted & set(LOCAL_THETA_NAMES):
        _set(translated, LOCAL_THETA_NAMES, local["rope_theta"], accepted)
        return dict(rope[FULL])
    raise UntranslatableError(
        f"its rope_parameters differ by layer type ({', '.join(sorted(layer_types))}), which 4.57 cannot express for it"
    )


def _rope_scaling(rope: Mapping[str, Any], translated: dict[str, Any]) -> dict[str, Any] | None:
    """4.57's `rope_scaling`: everything but theta and the rotary share; None without scaling."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise UntranslatableError(f"rotary embedding of type {kind!r} is unknown to 4.57")
    if kind == "default":
        return None
    scaling = {key: value for key, value in rope.items() if key not in ("rope_type", "type") and value is not None}
    if kind == "longrope":
        return _longrope(scaling, translated)
    if kind == "yarn" and "factor" not in scaling:
        scaling["factor"] = translated["max_position_embeddings"] / scaling["original_max_position_embeddings"]
    return {"rope_type": kind, **scaling}


def _longrope(scaling: dict[str, Any], translated: dict[str, Any]) -> dict[str, Any]:
    """4.57 reads the original context beside `rope_scaling`, and always scales by the ratio of the two contexts."""
    original = scaling.pop("original_max_position_embeddings", translated.get("original_max_position_embeddings"))
    if original is None:
        raise UntranslatableError("its longrope says no original_max_position_embeddings")
    translated["original_max_position_embeddings"] = original
    ratio = translated["max_position_embeddings"] / original
    factor = scaling.pop("factor", ratio)
    if "attention_factor" not in scaling and factor != ratio:
        scaling["attention_factor"] = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    if translated.get("model_type") == "phi3":  # its configuration takes these three keys and no other
        if "attention_factor" in scaling:
            raise UntranslatableError("its longrope has a factor of its own, which 4.57 does not take for phi3")
        return {"type": "longrope", **scaling}
    return {"rope_type": "longrope", **scaling}


def _set(translated: dict[str, Any], names: tuple[str, ...], value: Any, accepted: Set[str]) -> None:
    """Set a parameter under the name that this family has for it.

    Raises:
        UntranslatableError: It has none, or the file says two different values.
    """
    name = next((name for name in names if name in accepted), None)
    if name is None:
        raise UntranslatableError(f"its rope_parameters say {names[0]} = {value}, which 4.57 does not read for it")
    if translated.get(name, value) != value:
        raise UntranslatableError(f"it says {name} = {translated[name]}, and {value} in rope_parameters")
    translated[name] = value
