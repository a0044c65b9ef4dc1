"""OpenVINO GenAI's ContinuousBatchingPipeline: all prefixes in one call, four sequences each, prefix caching on.

A request per prefix with `num_return_sequences`, so that its branches share the prompt's cache; prefixes of a question
share blocks by prefix caching. Runs in an environment of its own, which has openvino-genai and numpy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import openvino_genai
from protocol import Run, Work, serve

CACHE_GB = 4
MAX_BATCHED_TOKENS = 256  # the fastest of 64, 128, 256, 512, 1024 and 4096


def load(work: Work) -> tuple[Run, dict[str, Any]]:
    """Compile the int8 model; precisions are OpenVINO's own choice where `properties` do not say them."""
    chosen = work.settings
    properties = {"INFERENCE_NUM_THREADS": chosen["threads"], **chosen["properties"]}
    run, settings = (_one_by_one if chosen.get("is_one_by_one") else _trees)(work, properties)
    versions = {"openvino": openvino.__version__, "openvino-genai": openvino_genai.__version__}
    return run, {"versions": versions, "settings": {"precision": "int8", **settings, **properties}}


def _trees(work: Work, properties: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.max_num_batched_tokens = MAX_BATCHED_TOKENS
    scheduler.enable_prefix_caching = True
    pipeline = openvino_genai.ContinuousBatchingPipeline(work.settings["folder"], scheduler, "CPU", properties)
    config = _forced_length(work)
    config.do_sample, config.temperature, config.top_k = True, work.temperature, work.top_k
    config.num_return_sequences = work.num_branches

    def run(questions: list[int], every: int, offset: int) -> int:
        assert every == 1, "all or nothing"
        tensors = [_tensor(prefix.ids) for prefix in work.prefixes(questions)]
        found = pipeline.generate(tensors, [config] * len(tensors))
        made = [ids for result in found for ids in result.m_generation_ids]
        assert all(len(ids) == work.num_new for ids in made), "forced lengths"
        return len(made) * work.num_new

    return run, {"prefix_caching": True, "max_num_batched_tokens": MAX_BATCHED_TOKENS, "cache_gb": CACHE_GB}


def _one_by_one(work: Work, properties: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    pipeline = openvino_genai.LLMPipeline(work.settings["folder"], "CPU", properties)
    config = _forced_length(work)

    def run(questions: list[int], every: int, offset: int) -> int:
        total = 0
        for question in questions:
            total += len(pipeline.generate(_tensor(work.prompts[question]), config).tokens[0])
        return total

    return run, {}


def _forced_length(work: Work) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = work.num_new
    config.ignore_eos = True
    return config


def _tensor(ids: Sequence[int]) -> Any:
    return openvino.Tensor(np.array([ids], dtype=np.int64))


if __name__ == "__main__":
    serve(load)
