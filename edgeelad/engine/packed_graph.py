"""The engine's graph in an ONNX Runtime session, over key and value buffers that are allocated once.

The graph (`export.graph_variants`) appends the new tokens' keys and values to the buffers it is given: `present.*` is
bound to the very memory that is bound as `past_key_values.*`, so nothing is copied. Knows tokens and buffers; not what
a tree is.

A graph has slots: groups of tokens whose attention is their own while all else is computed together. The plain graph
has one, which takes a packed sequence or a batch of rows; a graph with lanes has slot 0 for rows that advance by one
token, and a lane, 1 and up, for each of several packed sequences. What a slot computes does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.engine.session import ADVICE, open_session
from edgeelad.errors import ModelError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
# what a hidden column gets added: so low that its probability is exactly 0, and finite
HIDDEN = np.float32(np.finfo(np.float32).min)
TOKEN_INPUTS = ("input_ids", "position_ids", "logit_index", "num_top")
SLOT_INPUTS = ("seqlens_k", "total_sequence_length", "attention_bias")
SIZES_INPUT = "slot_sizes"
PAST = "past_key_values."
PRESENT = "present."
OUTPUTS = ("top_logits", "top_ids", "top_prob", "mean_logit")
VOCAB_SIZE_KEY = "edgeelad.vocab_size"


@dataclass(frozen=True, slots=True, eq=False)
class TopRows:
    """The next-token distribution of each wanted row.

    Attributes:
        logits: The largest logits, largest first, shape [rows, k].
        ids: Their tokens, shape [rows, k].
        normalizers: log Σ exp over the whole vocabulary, shape [rows].
        entropies: In nats, shape [rows].
    """

    logits: Floats
    ids: Ints
    normalizers: npt.NDArray[np.float64]
    entropies: npt.NDArray[np.float64]

    def take(self, rows: Ints) -> TopRows:
        """Some rows, in that order; a row may be taken repeatedly."""
        return TopRows(self.logits[rows], self.ids[rows], self.normalizers[rows], self.entropies[rows])

    def part(self, start: int, stop: int) -> TopRows:
        """The rows from `start` up to `stop`."""
        rows = slice(start, stop)
        return TopRows(self.logits[rows], self.ids[rows], self.normalizers[rows], self.entropies[rows])


class KeyValueBuffers:
    """Keys and values of several sequences: for each layer two arrays [rows, heads, capacity, head size].

    Attributes:
        rows, capacity: How many sequences of how many tokens have room.
        arrays: In the order of the graph's past inputs; they begin as zeros.
    """

    def __init__(self, graph: PackedGraph, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        shape = (rows, graph.num_heads, capacity, graph.head_dim)
        self.arrays: list[Floats] = [np.zeros(shape, dtype=np.float32) for _ in graph.past_names]
        self._values: dict[tuple[int, int], list[Any]] = {}

    def values(self, start: int, stop: int) -> list[Any]:
        """Rows `start` to `stop` of each array, as ONNX Runtime takes them: the same memory."""
        if (start, stop) not in self._values:
            self._values[start, stop] = [_shared(array[start:stop]) for array in self.arrays]
        return self._values[start, stop]

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row to another."""
        for array in self.arrays:
            array[target, :, :length] = array[source, :, :length]

    def copy_row(self, source: KeyValueBuffers, length: int) -> None:
        """Copy the first `length` tokens of the first row of other buffers to the first row."""
        for target, array in zip(self.arrays, source.arrays, strict=True):
            target[0, :, :length] = array[0, :, :length]

    def keep_columns(self, row: int, first: int, columns: Ints) -> None:
        """Move some of a row's tokens, in the given order, to the places from `first` on."""
        for array in self.arrays:
            array[row, :, first : first + len(columns)] = array[row][:, columns]


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """New tokens for one slot.

    Attributes:
        buffers: Where their keys and values go.
        rows: The rows of `buffers` that take part, from and up to.
        input_ids: The tokens, shape [rows, new]; `new` is 1, or there is one row.
        position_ids: Their positions, shape [rows, new].
        past_lengths: Tokens that each row holds already, shape [rows].
        bias: Added to the scores, 0 or `HIDDEN`, shape [1, 1, new, longest past + new].
        wanted: Which tokens' next-token distributions are wanted, indices into the flattened tokens.
    """

    buffers: KeyValueBuffers
    rows: tuple[int, int]
    input_ids: Ints
    position_ids: Ints
    past_lengths: npt.NDArray[np.int32]
    bias: Floats
    wanted: Ints


class PackedGraph:
    """The engine's graph.

    Attributes:
        session: The ONNX Runtime session.
        past_names: The past inputs of a slot, keys and values of each layer.
        num_heads, head_dim: Of the cached keys and values.
        num_lanes: Lanes for packed sequences; 0 for the plain graph.
        vocab_size: How many logits a row has.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        """Open an engine graph.

        Raises:
            ModelError: The file cannot be loaded, or is no engine graph.
        """
        self.session = open_session(path, num_threads)
        inputs = {value.name: value for value in self.session.get_inputs()}
        outputs = {value.name for value in self.session.get_outputs()}
        self.past_names = [name for name in inputs if name.startswith(PAST)]
        self.num_lanes = sum(name.startswith("lane") and name.endswith(SLOT_INPUTS[0]) for name in inputs)
        own = [*SLOT_INPUTS, *self.past_names]
        slots = {lane_name(slot, name) for slot in range(self.num_lanes + 1) for name in own}
        expected = {*TOKEN_INPUTS, *slots, *([SIZES_INPUT] if self.num_lanes else [])}
        if not self.past_names or expected != set(inputs) or not set(OUTPUTS) <= outputs:
            strange = sorted(expected ^ set(inputs))[:4] or ["other outputs, or no past_key_values"]
            raise ModelError(f"{path}: not an engine graph of edgeelad ({', '.join(strange)}); {ADVICE}")
        shape = inputs[self.past_names[0]].shape
        self.num_heads, self.head_dim = int(shape[1]), int(shape[3])
        self.vocab_size = int(self.session.get_modelmeta().custom_metadata_map.get(VOCAB_SIZE_KEY, 0))
        if self.vocab_size < 1:
            raise ModelError(f"{path}: it does not say how large the vocabulary is; {ADVICE}")
        self._binding = self.session.io_binding()
        self._bound: dict[int, tuple[KeyValueBuffers, tuple[int, int]]] = {}
        self._nothing = KeyValueBuffers(self, 1, 1)

    @property
    def bytes_per_token(self) -> int:
        """Size of the keys and values of one token."""
        return len(self.past_names) * self.num_heads * self.head_dim * 4

    @property
    def sequence_slots(self) -> range:
        """The slots that take packed sequences."""
        return range(1, self.num_lanes + 1) if self.num_lanes else range(1)

    def run(self, feeds: Mapping[int, Feed], num_top: int) -> tuple[TopRows, dict[int, int]]:
        """Run new tokens; their keys and values are appended to the buffers.

        Args:
            feeds: New tokens by slot.
            num_top: How many of the largest logits to give; at most the vocabulary's.

        Returns:
            All wanted distributions, and for each slot where its own begin.
        """
        num_top = min(num_top, self.vocab_size)
        slots = [feeds.get(slot) or self._idle() for slot in range(self.num_lanes + 1)]
        sizes = [feed.input_ids.size for feed in slots]
        starts = np.cumsum([0, *sizes])
        shape = (1, -1) if self.num_lanes else slots[0].input_ids.shape
        wanted = np.concatenate([feed.wanted + start for feed, start in zip(slots, starts, strict=False)])
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.concatenate([feed.input_ids.ravel() for feed in slots]).reshape(shape),
            "position_ids": np.concatenate([feed.position_ids.ravel() for feed in slots]).reshape(shape),
            "logit_index": wanted,
            "num_top": np.array([num_top], dtype=np.int64),
        }
        if self.num_lanes:
            inputs[SIZES_INPUT] = np.array(sizes, dtype=np.int64)
        for slot, feed in enumerate(slots):
            inputs |= _slot_inputs(slot, feed)
            self._bind_buffers(slot, feed)
        for name, array in inputs.items():  # `inputs` keeps the memory until the run is over
            assert array.flags.c_contiguous, "ONNX Runtime would read a copy"
            self._binding.bind_cpu_input(name, array)
        logits = np.empty((len(wanted), num_top), dtype=np.float32)
        ids = np.empty((len(wanted), num_top), dtype=np.int64)
        top_prob, mean_logit = np.empty((2, len(wanted)), dtype=np.float32)
        outputs: tuple[npt.NDArray[Any], ...] = (logits, ids, top_prob, mean_logit)
        for name, output in zip(OUTPUTS, outputs, strict=True):
            self._binding.bind_ortvalue_output(name, _shared(output))
        self.session.run_with_iobinding(self._binding)
        normalizers = logits[:, 0].astype(np.float64) - np.log(top_prob.astype(np.float64))
        found = TopRows(logits, ids, normalizers, np.maximum(normalizers - mean_logit, 0.0))
        firsts = np.cumsum([0, *(len(feed.wanted) for feed in slots)]).tolist()
        return found, {slot: firsts[slot] for slot in feeds}

    def unbind(self) -> None:
        """Let go of the buffers of earlier runs."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._bound.clear()

    def _bind_buffers(self, slot: int, feed: Feed) -> None:
        """Bind a slot's buffers, past and present alike, unless they are bound already."""
        if self._bound.get(slot) == (feed.buffers, feed.rows):
            return
        for name, value in zip(self.past_names, feed.buffers.values(*feed.rows), strict=True):
            self._binding.bind_ortvalue_input(lane_name(slot, name), value)
            self._binding.bind_ortvalue_output(lane_name(slot, name.replace(PAST, PRESENT)), value)
        self._bound[slot] = (feed.buffers, feed.rows)

    def _idle(self) -> Feed:
        """One token that sees itself, for a slot that has nothing to do."""
        token = np.zeros((1, 1), dtype=np.int64)
        past, bias = np.zeros(1, dtype=np.int32), np.zeros((1, 1, 1, 1), dtype=np.float32)
        return Feed(self._nothing, (0, 1), token, token, past, bias, token[0, :0])


def lane_name(slot: int, name: str) -> str:
    """What an input or output of a slot is called; those of slot 0 have plain names."""
    return f"lane{slot}.{name}" if slot else name


def _slot_inputs(slot: int, feed: Feed) -> dict[str, npt.NDArray[Any]]:
    new = feed.input_ids.shape[1]
    values = (
        feed.past_lengths + np.int32(new - 1),
        np.array([int(feed.past_lengths.max()) + new], dtype=np.int32),
        feed.bias,
    )
    return {lane_name(slot, name): value for name, value in zip(SLOT_INPUTS, values, strict=True)}


def _shared(array: npt.NDArray[Any]) -> Any:
    """An array as ONNX Runtime takes it, in the same memory.

    Raises:
        ModelError: ONNX Runtime would work on a copy.
    """
    assert array.flags.c_contiguous, "ONNX Runtime would read a copy"
    value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    if array.size and value.data_ptr() != array.__array_interface__["data"][0]:
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} copies buffers instead of sharing them; update onnxruntime"
        )
    return value
