"""A decoder graph with the standard names, as Optimum exports it: one forward pass at a time.

Inputs `input_ids, attention_mask, position_ids, past_key_values.*`, outputs `logits, present.*`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.engine.plain.cache import Cache, IntArray
from edgeelad.engine.session import ADVICE, open_session, run_errors
from edgeelad.engine.shape import CacheShape
from edgeelad.errors import ModelError

PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)$")
CACHE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Graph(Protocol):
    """A student as the fallback generator runs it: one forward pass at a time, over rows padded on the left.

    Attributes:
        vocab_size: Logits per token.
    """

    vocab_size: int

    @property
    def bytes_per_token(self) -> int:
        """Size of one token's keys and values; a token of an encoded prompt takes as much."""
        ...

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[Cache, list[list[int]]]:
        """Begin one row per prompt.

        Returns:
            A cache without tokens, and per row the tokens to run before the first of the completion: the prompt of a
            decoder, the start token of an encoder-decoder, whose cache has the encoded prompt as its context.
        """
        ...

    def step(
        self, input_ids: IntArray, attention_mask: IntArray, position_ids: IntArray, cache: Cache
    ) -> tuple[npt.NDArray[np.float32], Cache]:
        """Run new tokens through the graph.

        Args:
            input_ids: The new tokens, shape [rows, new].
            attention_mask: 1 for a token, 0 for padding, over past and new, shape [rows, past + new].
            position_ids: The new tokens' positions, shape [rows, new].
            cache: Keys and values of the past.

        Returns:
            The logits, shape [rows, new, vocabulary], and the cache with the new tokens.
        """
        ...


class OnnxGraph:
    """A decoder graph with standard names; a `Graph`. Its cache is in the order of `past_names`.

    Attributes:
        past_names, present_names: The cache's inputs and outputs.
        shape: Of the cache.
        vocab_size: Logits per token.
    """

    def __init__(self, path: Path, num_threads: int = 1, shape: CacheShape | None = None, *, spin_us: int = 0) -> None:
        """Open a graph; `shape` is that of the cache by the student's configuration, if it states one.

        Raises:
            ModelError: The file cannot be loaded, is no decoder with standard names, or has another shape.
        """
        self.session = open_session(path, num_threads, spin_us=spin_us)
        inputs = {value.name: value for value in self.session.get_inputs()}
        outputs = {value.name: value for value in self.session.get_outputs()}
        self.past_names = [name for name in inputs if PAST.match(name)]
        self.present_names = [name.replace("past_key_values", "present") for name in self.past_names]
        _check_names(path, set(inputs), set(outputs), self.past_names, self.present_names)
        self.has_positions = "position_ids" in inputs
        pairs = zip(self.past_names, self.present_names, strict=True)
        self.shape = _cache_shape(path, [_fixed(inputs[past].shape, outputs[new].shape) for past, new in pairs])
        if shape is not None and shape != self.shape:
            raise ModelError(
                f"{path}: the graph caches {self.shape}, but config.json says {shape}: they belong to different "
                f"students; {ADVICE}"
            )
        self.cache_type = CACHE_TYPES.get(inputs[self.past_names[0]].type)
        if self.cache_type is None:
            raise ModelError(f"{path}: its cache holds {inputs[self.past_names[0]].type}, not float; {ADVICE}")
        logits = outputs["logits"].shape
        if len(logits) != 3 or not isinstance(logits[2], int):
            raise ModelError(f"{path}: its logits are {logits}, not [rows, tokens, vocabulary]; {ADVICE}")
        self.vocab_size: int = logits[2]

    @property
    def bytes_per_token(self) -> int:
        """Size of one token's keys and values."""
        assert self.cache_type is not None
        return self.shape.num_values * np.dtype(self.cache_type).itemsize

    def empty_cache(self, num_rows: int) -> Cache:
        """The cache before the first step."""
        nothing = np.zeros((num_rows, self.shape.num_heads, 0, self.shape.head_dim), dtype=self.cache_type)
        return Cache([onnxruntime.OrtValue.ortvalue_from_numpy(nothing) for _ in self.past_names], [])

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[Cache, list[list[int]]]:
        """Begin one row per prompt; see `Graph`."""
        return self.empty_cache(len(prompts)), [list(prompt) for prompt in prompts]

    def step(
        self, input_ids: IntArray, attention_mask: IntArray, position_ids: IntArray, cache: Cache
    ) -> tuple[npt.NDArray[np.float32], Cache]:
        """Run new tokens through the graph; see `Graph`."""
        outputs = self._run(["logits", *self.present_names], input_ids, attention_mask, position_ids, cache)
        return outputs[0].numpy().astype(np.float32, copy=False), Cache(outputs[1:], [])

    def read(self, token_ids: Sequence[int], outputs: Sequence[str] = ("logits",)) -> list[Any]:
        """Run one whole sequence, alone and without cache; returns the given outputs."""
        ids = np.array([token_ids], dtype=np.int64)
        positions = np.arange(len(token_ids))[None]
        values = self._run(list(outputs), ids, np.ones_like(ids), positions, self.empty_cache(1))
        return [value.numpy() for value in values]

    def _run(
        self,
        outputs: list[str],
        input_ids: IntArray,
        attention_mask: IntArray,
        position_ids: IntArray,
        cache: Cache,
    ) -> list[Any]:
        feeds = {"input_ids": int_value(input_ids), "attention_mask": int_value(attention_mask)}
        if self.has_positions:
            feeds["position_ids"] = int_value(position_ids)
        feeds |= dict(zip(self.past_names, cache.tokens, strict=True))
        with run_errors(self.session):
            values: list[Any] = self.session.run_with_ort_values(outputs, feeds)
        return values


def int_value(array: IntArray) -> Any:
    """An array of integers as ONNX Runtime takes it."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def _check_names(path: Path, inputs: set[str], outputs: set[str], past: list[str], present: list[str]) -> None:
    missing = ({"input_ids", "attention_mask"} - inputs) | ({"logits", *present} - outputs)
    unknown = inputs - {"input_ids", "attention_mask", "position_ids", *past}
    if not past:
        missing.add("past_key_values.0.key")
    if missing or unknown:
        found = "; ".join(
            f"{word} {', '.join(sorted(names)[:4])}"
            for word, names in (("lacks", missing), ("wants", unknown))
            if names
        )
        raise ModelError(f"{path}: not a decoder with cache and standard names: {found}; {ADVICE}")


def _fixed(past: list[int | str], present: list[int | str]) -> list[int | str]:
    """The dimensions of a past input, those that it leaves open as its present output states them."""
    if len(past) != len(present):
        return past
    return [mine if isinstance(mine, int) else other for mine, other in zip(past, present, strict=True)]


def _cache_shape(path: Path, shapes: list[list[int | str]]) -> CacheShape:
    sizes = {(shape[1], shape[3]) if len(shape) == 4 else () for shape in shapes}
    match sizes.pop() if len(sizes) == 1 else ():
        case (int(num_heads), int(head_dim)):
            return CacheShape(len(shapes) // 2, num_heads, head_dim)
    raise ModelError(
        f"{path}: its cache is not [rows, heads, length, head size] with the same fixed heads and head size in each "
        f"layer ({shapes[0]}); {ADVICE}"
    )
