"""The engine's graph in an ONNX Runtime session, over key and value buffers that are allocated once.

The graph (`export.graph_variants`) appends the new tokens' keys and values to the buffers it is given: `present.*` is
bound to the very memory that is bound as `past_key_values.*`, so nothing is copied. Knows tokens and buffers; not what
a tree is.
"""

from __future__ import annotations

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
INPUTS = (
    "input_ids",
    "position_ids",
    "seqlens_k",
    "total_sequence_length",
    "attention_bias",
    "logit_index",
    "num_top",
)
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
        self._graph = graph
        self._bindings: dict[tuple[int, int], Any] = {}

    def binding(self, start: int, stop: int) -> Any:
        """An I/O binding whose past and present are rows `start` to `stop`, in place."""
        if (start, stop) not in self._bindings:
            binding = self._graph.session.io_binding()
            for name, array in zip(self._graph.past_names, self.arrays, strict=True):
                view = array[start:stop]
                value = onnxruntime.OrtValue.ortvalue_from_numpy(view)
                if value.data_ptr() != view.__array_interface__["data"][0]:
                    raise ModelError(
                        f"ONNX Runtime {onnxruntime.__version__} copies the key and value buffers instead of "
                        "sharing them; update onnxruntime"
                    )
                binding.bind_ortvalue_input(name, value)
                binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
            self._bindings[start, stop] = binding
        return self._bindings[start, stop]

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row to another."""
        for array in self.arrays:
            array[target, :, :length] = array[source, :, :length]

    def keep_columns(self, row: int, columns: Ints) -> None:
        """Move some of a row's tokens to its front, in the given order."""
        for array in self.arrays:
            array[row, :, : len(columns)] = array[row][:, columns]


class PackedGraph:
    """The engine's graph.

    Attributes:
        session: The ONNX Runtime session.
        past_names: The past inputs, keys and values of each layer.
        num_heads, head_dim: Of the cached keys and values.
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
        self.past_names = [name for name in inputs if name.startswith("past_key_values.")]
        wanted = {*INPUTS, *self.past_names}
        if not self.past_names or wanted != set(inputs) or not set(OUTPUTS) <= outputs:
            strange = sorted(wanted ^ set(inputs))[:4] or ["no past_key_values inputs, or other outputs"]
            raise ModelError(f"{path}: not an engine graph of edgeelad ({', '.join(strange)}); {ADVICE}")
        shape = inputs[self.past_names[0]].shape
        self.num_heads, self.head_dim = int(shape[1]), int(shape[3])
        self.vocab_size = int(self.session.get_modelmeta().custom_metadata_map.get(VOCAB_SIZE_KEY, 0))
        if self.vocab_size < 1:
            raise ModelError(f"{path}: it does not say how large the vocabulary is; {ADVICE}")

    @property
    def bytes_per_token(self) -> int:
        """Size of the keys and values of one token."""
        return len(self.past_names) * self.num_heads * self.head_dim * 4

    def run(
        self,
        buffers: KeyValueBuffers,
        rows: tuple[int, int],
        input_ids: Ints,
        position_ids: Ints,
        past_lengths: npt.NDArray[np.int32],
        bias: Floats,
        wanted: Ints,
        *,
        num_top: int,
    ) -> TopRows:
        """Run new tokens; their keys and values are appended to the buffers.

        Args:
            buffers: Where keys and values lie.
            rows: The rows of `buffers` that take part, from and up to.
            input_ids: The new tokens, shape [rows, new]; `new` is 1, or there is one row, or nothing is past.
            position_ids: Their positions, shape [rows, new].
            past_lengths: Tokens that each row holds already, shape [rows].
            bias: Added to the scores, 0 or `HIDDEN`, shape [1, 1, new, longest past + new].
            wanted: Which new tokens' next-token distributions to give, indices into the flattened tokens.
            num_top: How many of the largest logits to give; at most the vocabulary's.
        """
        num_top = min(num_top, self.vocab_size)
        new = input_ids.shape[1]
        num_wanted = len(wanted)
        binding = buffers.binding(*rows)
        total = np.array([int(past_lengths.max()) + new], dtype=np.int32)
        feeds: tuple[npt.NDArray[Any], ...] = (
            input_ids,
            position_ids,
            past_lengths + np.int32(new - 1),
            total,
            bias,
            wanted,
            np.array([num_top], dtype=np.int64),
        )
        for name, array in zip(INPUTS, feeds, strict=True):  # `feeds` keeps the memory until the run is over
            binding.bind_ortvalue_input(name, _value(array))
        logits = np.empty((num_wanted, num_top), dtype=np.float32)
        ids = np.empty((num_wanted, num_top), dtype=np.int64)
        top_prob, mean_logit = np.empty((2, num_wanted), dtype=np.float32)
        outputs: tuple[npt.NDArray[Any], ...] = (logits, ids, top_prob, mean_logit)
        for name, output in zip(OUTPUTS, outputs, strict=True):
            binding.bind_ortvalue_output(name, _value(output))
        self.session.run_with_iobinding(binding)
        normalizers = logits[:, 0].astype(np.float64) - np.log(top_prob.astype(np.float64))
        return TopRows(logits, ids, normalizers, np.maximum(normalizers - mean_logit, 0.0))


def _value(array: npt.NDArray[Any]) -> Any:
    assert array.flags.c_contiguous, "ONNX Runtime would read a copy"
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
