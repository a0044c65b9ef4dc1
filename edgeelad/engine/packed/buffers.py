"""Memory for keys and values that ONNX Runtime reads and fills in place."""

from __future__ import annotations

from bisect import bisect_left, insort
from math import prod
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.errors import ModelError

if TYPE_CHECKING:
    from edgeelad.engine.packed.graph import PackedGraph

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
# a block serves what takes at least this share of it
MIN_SHARE = 0.5
_size = attrgetter("size")


class Memory:
    """Blocks of memory that are used again: a page new from the system costs more than what is written to it.

    Attributes:
        max_bytes: Where more is held than this, blocks that nobody uses are given back to the system.
    """

    def __init__(self, max_bytes: int) -> None:
        """Hold nothing yet."""
        self.max_bytes = max_bytes
        self._free: list[Floats] = []  # by size
        self._num_held = 0  # bytes, in use or not

    def take(self, shape: tuple[int, ...]) -> Floats:
        """An array with whatever was in its memory; finite numbers, as nothing else was ever put there."""
        size = prod(shape)
        place = bisect_left(self._free, size, key=_size)
        if place < len(self._free) and size >= MIN_SHARE * self._free[place].size:
            block = self._free.pop(place)
        else:
            if self._num_held + 4 * size > self.max_bytes:
                self.drop()
            block = np.zeros(size, dtype=np.float32)
            self._num_held += block.nbytes
        return block[:size].reshape(shape)

    def give(self, array: Floats) -> None:
        """Take an array back that nobody looks at any more."""
        assert array.base is not None, "it was taken from here"
        insort(self._free, array.base, key=_size)

    def drop(self) -> None:
        """Give what nobody uses back to the system."""
        self._num_held -= sum(block.nbytes for block in self._free)
        self._free.clear()


class KeyValueBuffers:
    """Keys and values of several sequences: for each layer two arrays [rows, heads, capacity, head size].

    Attributes:
        rows, capacity: How many sequences of how many tokens have room.
        arrays: In the order of the graph's past inputs; they begin as zeros.
    """

    def __init__(self, graph: PackedGraph, rows: int, capacity: int, memory: Memory | None = None) -> None:
        self.rows, self.capacity = rows, capacity
        self._memory = memory or Memory(0)
        shape = (rows, graph.num_heads, capacity, graph.head_dim)
        self.arrays: list[Floats] = [self._memory.take(shape) for _ in graph.past_names]
        for array in self.arrays if memory else ():
            array.fill(0)
        self._values: dict[tuple[int, int], list[Any]] = {}

    def close(self) -> None:
        """Give the memory back."""
        self._values.clear()
        while self.arrays:
            self._memory.give(self.arrays.pop())

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

    def __init__(self, graph: PackedGraph, num_branches: int, width: int, memory: Memory | None = None) -> None:
        self.num_branches, self.width = num_branches, width
        self._memory = memory or Memory(0)
        shape = (graph.num_heads, num_branches, width, graph.head_dim)
        self.arrays: list[Floats] = [self._memory.take(shape) for _ in graph.past_names]
        for array in self.arrays:
            array.fill(0)

    def values(self) -> list[Any]:
        """The arrays as ONNX Runtime takes them: the same memory."""
        return [shared(array) for array in self.arrays]

    def rebuild(self, branches: Ints, num_tokens: int, width: int) -> None:
        """Keep some branches, in that order, and the first tokens of each, with room for `width`; array by array."""
        old, self.arrays = self.arrays, []  # another list: what was bound before is bound no more
        while old:
            array = old.pop()
            heads, _, _, size = array.shape
            fresh = self._memory.take((heads, len(branches), width, size))
            fresh[:, :, :num_tokens] = array[:, branches, :num_tokens]
            fresh[:, :, num_tokens:] = 0
            self.arrays.append(fresh)
            self._memory.give(array)
        self.arrays.reverse()
        self.num_branches, self.width = len(branches), width

    def close(self) -> None:
        """Give the memory back."""
        while self.arrays:
            self._memory.give(self.arrays.pop())


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
