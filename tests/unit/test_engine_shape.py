"""The context that a student is used with."""

from pathlib import Path
from typing import Any

import pytest

from edgeelad.engine.shape import max_context

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 4096),
        ({"sliding_window": None}, 4096),
        ({"sliding_window": 512}, 512),  # Mistral: every layer has the window
        ({"sliding_window": 512, "use_sliding_window": False}, 4096),  # Qwen2
        ({"sliding_window": 512, "layer_types": ["full_attention"]}, 4096),
        ({"sliding_window": 512, "layer_types": ["full_attention", "sliding_attention"]}, 512),  # Gemma 3
        ({"sliding_window": 9999}, 4096),
        ({"sliding_window": 4096}, 4096),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024}, 1024),  # Phi-3
        ({"rope_parameters": {**LONGROPE, "original_max_position_embeddings": 1024}}, 1024),  # by transformers 5
        ({"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 1024}}, 4096),
        ({"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 1024}}, 4096),
    ],
)
def test_the_context_is_what_the_graph_computes_rightly(config: dict[str, Any], expected: int) -> None:
    config = {"max_position_embeddings": 4096, **config}
    assert max_context(config, Path("config.json")) == expected
    with_windows = max_context(config, Path("config.json"), has_windows=True)
    assert with_windows == (expected if "rope" in str(config) else 4096)
