"""Compare an ONNX graph with the torch model that it was exported from: logits, and greedy text.

The graph decodes greedily from its KV cache, all prompts padded on the left into one batch. Then torch reads each
prompt with its completion in one pass, without cache or padding. One comparison thus covers whole prompts, ragged
batches, single steps and greedy text. The engine's graphs return no logits: they generate greedily in a ragged batch
and by sampling in packed trees, and the log-probability of every token is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from edgeelad.engine.generate import BranchPoint, GeneratedTokens, Limits, TokenGenerator, TreeRequest
from edgeelad.engine.plain.graph import Graph
from edgeelad.engine.sampling import SamplingParams
from edgeelad.errors import ParityError
from edgeelad.export.result import Parity

NUM_GREEDY_TOKENS = 32
NUM_BRANCH_TOKENS = 8
BRANCH_SEEDS = (1, 2, 3)
MAX_LOGIT_BYTES = 1 << 29  # logits of one padded batch: a vocabulary of 150,000 takes 600 kB per token

Logits = NDArray[np.float32]


def check_parity(
    model: PreTrainedModel, graph: Graph, prompts: Sequence[list[int]], max_context: int, max_difference: float
) -> Parity:
    """Compare a graph with torch on prompts and on the graph's greedy completions.

    A flip (torch would have chosen another token) is a tie, and no failure, if torch's own logits of the two tokens are
    within twice the allowed difference: then neither has a stable choice.

    Args:
        model: The torch model.
        graph: The ONNX graph.
        prompts: Token ids of prompts.
        max_context: Maximum tokens of a prompt and what is generated after it.
        max_difference: Limit for logits up to ±10; larger ones may differ in proportion (`Parity.allowed`).

    Raises:
        ParityError: A logit differs by the limit or more or is not finite, or greedy text differs, ties aside.
    """
    num_new = min(NUM_GREEDY_TOKENS, max_context - max(map(len, prompts)))
    largest = max_gap = largest_logit = 0.0
    num_tokens = num_flips = 0
    for group in _groups(prompts, model.config.vocab_size):
        written, decoded = _decode(graph, group, num_new)
        for prompt, new, logits in zip(group, written, decoded, strict=True):
            expected = _torch_logits(model, prompt, new[:-1])
            alone = _run_alone(graph, prompt)
            largest_logit = max(largest_logit, float(np.abs(expected).max()))
            differences = (np.abs(logits - expected).max(), np.abs(alone - expected[: len(alone)]).max())
            largest = max(largest, *(float(value) if np.isfinite(value) else np.inf for value in differences))
            choices = expected[len(alone) - 1 :]
            gaps = choices.max(axis=1) - choices[np.arange(len(new)), new]
            num_tokens += len(new)
            num_flips += int((gaps > 0).sum())
            max_gap = max(max_gap, float(gaps.max()))
    parity = Parity(largest, len(prompts), num_tokens, num_flips, max_gap, largest_logit)
    allowed = parity.allowed(max_difference)
    if not (largest < allowed and max_gap < 2 * allowed):
        raise ParityError(
            f"the ONNX student does not compute what the torch student computes: logits differ by up to {largest:.2e} "
            f"({_limit(parity, max_difference)}), {num_flips} of {num_tokens} greedy tokens differ, on {len(prompts)} "
            "prompts"
        )
    return parity


def check_engine_parity(
    model: PreTrainedModel,
    generator: TokenGenerator,
    prompts: Sequence[list[int]],
    max_context: int,
    max_difference: float,
    parity: Parity,
) -> Parity:
    """Compare an engine's completions with torch; returns `parity` with the largest difference added.

    A log-probability is a logit minus a normalizer, so its limit is twice that of a logit.

    Raises:
        ParityError: A log-probability differs by more, or a greedy token is not torch's choice, ties aside.
    """
    largest, gap = parity.max_logprob_difference or 0.0, 0.0
    for before, generated, is_greedy in _engine_sequences(generator, prompts, max_context):
        if not generated.ids:
            continue
        logits = _torch_logits(model, before, list(generated.ids[:-1]))[len(before) - 1 :].astype(np.float64)
        chosen = logits[np.arange(len(generated.ids)), list(generated.ids)]
        expected = chosen - np.logaddexp.reduce(logits, axis=1)
        largest = max(largest, float(np.abs(expected - generated.logprobs).max()))
        if is_greedy:
            gap = max(gap, float((logits.max(axis=1) - chosen).max()))
    allowed = 2 * parity.allowed(max_difference)
    if not (largest < allowed and gap < allowed):
        raise ParityError(
            f"the engine does not compute what the torch student computes: log-probabilities differ by up to "
            f"{largest:.2e} nats, greedy choices by {gap:.2e} (twice {_limit(parity, max_difference)}), on "
            f"{len(prompts)} prompts"
        )
    return replace(parity, max_logprob_difference=largest)


def _limit(parity: Parity, max_difference: float) -> str:
    """The limit as an error states it."""
    scaled = f", {parity.allowed(max_difference):.1e} for logits of ±{parity.largest_logit:.0f}"
    return f"allowed: export.max_logit_difference = {max_difference:.0e}{scaled}"


def _engine_sequences(
    generator: TokenGenerator, prompts: Sequence[list[int]], max_context: int
) -> Iterator[tuple[list[int], GeneratedTokens, bool]]:
    """Each generated sequence, with the token ids before it, and whether it is greedy."""
    limits = Limits(frozenset(), max_context)
    greedy = generator.generate(prompts, SamplingParams(NUM_GREEDY_TOKENS), limits)
    requests = []
    for prompt, sequence in zip(prompts, greedy, strict=True):
        yield prompt, sequence, True
        ends = sorted({0, len(sequence.ids) // 2, len(sequence.ids)})
        points = tuple(BranchPoint(end, BRANCH_SEEDS) for end in ends)
        requests.append(TreeRequest(tuple(prompt), sequence.ids, points))
    results = generator.generate_trees(requests, SamplingParams(NUM_BRANCH_TOKENS, temperature=1.0), limits)
    for request, result in zip(requests, results, strict=True):
        for point, branches in zip(request.points, result.branches, strict=True):
            for branch in branches:
                yield [*request.prompt_ids, *request.completion_ids[: point.num_tokens]], branch, False


def _decode(graph: Graph, prompts: Sequence[list[int]], num_new: int) -> tuple[list[list[int]], list[Logits]]:
    """Decode a left-padded batch greedily; for each prompt the new tokens, and the logits of all real positions."""
    cache, heads = graph.begin(prompts)
    width = max(map(len, heads))
    input_ids = np.array([[head[0]] * (width - len(head)) + head for head in heads])
    mask = np.array([[0] * (width - len(head)) + [1] * len(head) for head in heads])
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    first, cache = graph.step(input_ids, mask, positions, cache)
    logits = [[rows[width - len(head) :]] for rows, head in zip(first, heads, strict=True)]
    chosen = [first[:, -1].argmax(axis=-1)]
    for _ in range(num_new - 1):
        mask = np.concatenate([mask, np.ones((len(prompts), 1), np.int64)], axis=1)
        positions = positions[:, -1:] + 1
        last, cache = graph.step(chosen[-1][:, None], mask, positions, cache)
        for rows, row in zip(logits, last, strict=True):
            rows.append(row)
        chosen.append(last[:, -1].argmax(axis=-1))
    return np.stack(chosen, axis=1).tolist(), [np.concatenate(rows) for rows in logits]


def _run_alone(graph: Graph, prompt: list[int]) -> Logits:
    """The logits of a whole prompt (of an encoder-decoder: of the start token), alone and without padding."""
    cache, (head,) = graph.begin([prompt])
    ones = np.ones((1, len(head)), np.int64)
    return graph.step(np.array([head]), ones, np.arange(len(head))[None], cache)[0][0]


@torch.inference_mode()
def _torch_logits(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> Logits:
    """The logits of prompt and completion; of an encoder-decoder, of the start token and the completion."""
    if model.config.is_encoder_decoder:
        decoded = [model.config.decoder_start_token_id, *completion]
        inputs = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([decoded])}
    else:
        inputs = {"input_ids": torch.tensor([[*prompt, *completion]])}
    # without a mask, transformers looks for packed sequences and builds a mask that rules them out: 20 ms per pass
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    logits: Logits = model(**inputs, use_cache=False).logits[0].numpy()
    return logits


def _groups(prompts: Sequence[list[int]], vocab_size: int) -> list[list[list[int]]]:
    """Split prompts into batches whose logits stay within MAX_LOGIT_BYTES."""
    width = max(map(len, prompts))
    size = max(1, MAX_LOGIT_BYTES // (4 * vocab_size * width))
    return [list(prompts[start : start + size]) for start in range(0, len(prompts), size)]
