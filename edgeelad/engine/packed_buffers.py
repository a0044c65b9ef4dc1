"""Memory for keys and values that ONNX Runtime reads and fills in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.errors import ModelError

if TYPE_CHECKING:
    from edgeelad.engine.packed_graph import PackedGraph

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


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
            self._values[start, stop] = [shared(array[start:stop]) for array in self.arrays]
        return self._values[start, stop]

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row to another."""
        for array in self.arrays:
            array[target, :, :length] = array[source, :, :length]

    def keep_columns(self, row: int, first: int, columns: Ints) -> None:
        """Move some of a row's tokens, in the given order, to the places from `first` on."""
        for array in self.arrays:
            array[row, :, first : first + len(columns)] = array[row][:, columns]


class Windows:
    """Keys and values of a tree's branches: for each layer two arrays [heads, branches, window, head size].

    Attributes:
        num_branches, width: How many branches of how many tokens have room.
        arrays: In the order of the graph's past inputs.
    """

    def __init__(self, graph: PackedGraph, num_branches: int, width: int) -> None:
        self.num_branches, self.width = num_branches, width
        shape = (graph.num_heads, num_branches, width, graph.head_dim)
        self.arrays: list[Floats] = [np.zeros(shape, dtype=np.float32) for _ in graph.past_names]

    def values(self) -> list[Any]:
        """The arrays as ONNX Runtime takes them: the same memory."""
        return [shared(array) for array in self.arrays]

    def rebuild(self, branches: Ints, num_tokens: int, width: int) -> None:
        """Keep some branches, in that order, and the first tokens of each, with room for `width`; array by array."""
        old, self.arrays = self.arrays, []  # another list: what was bound before is bound no more
        while old:
            array = old.pop()
            heads, _, _, size = array.shape
            fresh = np.zeros((heads, len(branches), width, size), dtype=np.float32)
            fresh[:, :, :num_tokens] = array[:, branches, :num_tokens]
            self.arrays.append(fresh)
        self.arrays.reverse()
        self.num_branches, self.width = len(branches), width


def shared(array: npt.NDArray[Any]) -> Any:
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
