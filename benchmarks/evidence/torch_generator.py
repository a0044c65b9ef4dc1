"""Generate with a student in torch, on a GPU, for studies of students that take a CPU too long.

Chooses the same tokens as the engine, and gives the same log-probabilities and entropies, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from edgeelad.engine.generate import (
    GeneratedTokens,
    Limits,
    LiveBatch,
    LiveSequence,
    SamplingParams,
    SequenceRequest,
    TreeRequest,
    TreeResult,
)
from edgeelad.engine.sampling import choose, uniforms
from edgeelad.training.load import load_model

MAX_ROWS = 512


class TorchGenerator:
    """A `generate.TokenGenerator` for whole pools: neither streams nor serves, and forces no tokens."""

    def __init__(self, folder: Path, device: str = "cuda") -> None:
        self._model: Any = load_model(str(folder)).to(device).eval()
        self._device = device
        # transformers 5.24 has renamed it
        self._cache = "cache" if "cache" in signature(self._model.forward).parameters else "past_key_values"

    def close(self) -> None:
        """Release the weights."""
        vars(self).pop("_model", None)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Limits,
        seeds: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[GeneratedTokens]:
        """Generate one sequence per prompt; see `TokenGenerator`."""
        own = [0] * len(prompts) if seeds is None else seeds
        given: Sequence[Sequence[int]] = [()] * len(prompts) if prefixes is None else prefixes
        texts = [[*prompt, *prefix] for prompt, prefix in zip(prompts, given, strict=True)]
        results = [GeneratedTokens((), (), (), "length")] * len(prompts)
        fitting = [index for index, text in enumerate(texts) if len(text) < limits.max_context]
        fitting.sort(key=lambda index: -len(texts[index]))
        for start in range(0, len(fitting), MAX_ROWS):
            batch = fitting[start : start + MAX_ROWS]
            sequences = [SequenceRequest(tuple(texts[i]), params, own[i]).begin(limits) for i in batch]
            self._run([texts[i] for i in batch], sequences, params, limits)
            for index, sequence in zip(batch, sequences, strict=True):
                results[index] = sequence.result()
        return results

    def generate_trees(
        self, requests: Sequence[TreeRequest], params: SamplingParams, limits: Limits
    ) -> list[TreeResult]:
        """Sample the branches of each tree; see `TokenGenerator`."""
        prompts: list[Sequence[int]] = []
        prefixes: list[Sequence[int]] = []
        seeds: list[int] = []
        for request in requests:
            for point in request.points:
                assert not point.forced_ids, "forced tokens are the engine's"
                prompts += [request.prompt_ids] * len(point.seeds)
                prefixes += [request.completion_ids[: point.num_tokens]] * len(point.seeds)
                seeds += point.seeds
        found = iter(self.generate(prompts, params, limits, seeds, prefixes))
        return [
            TreeResult(tuple(tuple(next(found) for _ in point.seeds) for point in r.points), (None,) * len(r.points))
            for r in requests
        ]

    def stream(self, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
        """Not here: the engine streams."""
        raise NotImplementedError

    def open_batch(self, limits: Limits, num_rows: int) -> LiveBatch:
        """Not here: the engine serves."""
        raise NotImplementedError

    @torch.inference_mode()
    def _run(
        self, texts: Sequence[Sequence[int]], sequences: Sequence[LiveSequence], params: SamplingParams, limits: Limits
    ) -> None:
        """Generate rows of one batch, padded on the left, until all have ended."""
        width = max(map(len, texts))
        ids = np.zeros((len(texts), width), dtype=np.int64)
        mask = np.zeros((len(texts), width), dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, width - len(text) :] = text
            mask[row, width - len(text) :] = 1
        tokens, attention = self._put(ids), self._put(mask)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        live, cache = list(sequences), DynamicCache()
        while True:
            found = self._model(
                input_ids=tokens,
                attention_mask=attention,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **{self._cache: cache},
            )
            chosen = self._choose(found.logits[:, -1].float(), live, params)
            for sequence, token, logprob, entropy in zip(live, *chosen, strict=True):
                sequence.append(int(token), float(logprob), float(entropy), limits)
            left = [row for row, sequence in enumerate(live) if not sequence.is_done]
            if not left:
                return
            positions = positions[:, -1:] + 1
            if len(left) < len(live):
                rows = self._put(np.array(left))
                cache.batch_select_indices(rows)
                attention, positions = attention[rows], positions[rows]
                live = [live[row] for row in left]
            tokens = self._put(np.array([[sequence.ids[-1]] for sequence in live]))
            attention = torch.cat([attention, attention.new_ones(len(live), 1)], dim=1)

    def _choose(
        self, logits: torch.Tensor, live: Sequence[LiveSequence], params: SamplingParams
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The next token of each row, its log-probability and its distribution's entropy (nats), each [rows]."""
        log = logits.log_softmax(-1)
        entropies = -(log.exp() * log).sum(-1)
        top, ids = logits.topk(params.num_top, dim=-1)
        columns = torch.zeros(len(live), dtype=torch.int64)
        if params.temperature:
            draws = uniforms(
                np.array([sequence.seed for sequence in live], dtype=np.uint64),
                np.array([len(sequence.ids) for sequence in live]),
            )
            columns = torch.from_numpy(choose(top.cpu().numpy(), params, draws, ids.cpu().numpy()))
        token = ids.gather(1, columns.to(self._device)[:, None])
        logprobs = log.gather(1, token)[:, 0]
        return token[:, 0].cpu().numpy(), logprobs.cpu().numpy(), entropies.cpu().numpy()

    def _put(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)
