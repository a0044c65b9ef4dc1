"""KV cache buffers that ONNX Runtime reads and writes in place."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from math import prod
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.engine.shape import CacheShape
from edgeelad.errors import ModelError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
# a block is reused for arrays that take at least this share of it
MIN_SHARE = 0.5
_size = attrgetter("size")


class BufferPool:
    """Reusable blocks of memory: touching pages fresh from the system costs more than what is written to them.

    Attributes:
        max_bytes: Above this, unused blocks are returned to the system.
    """

    def __init__(self, max_bytes: int) -> None:
        """Hold nothing yet."""
        self.max_bytes = max_bytes
        self._free: list[Floats] = []  # by size
        self._num_held = 0  # bytes, in use or not

    def take(self, shape: tuple[int, ...]) -> Floats:
        """An array with arbitrary content: finite numbers, as only zeros and earlier arrays were ever there."""
        size = prod(shape)
        place = bisect_left(self._free, size, key=_size)
        if place < len(self._free) and size >= MIN_SHARE * self._free[place].size:
            block = self._free.pop(place)
        else:
            if self._num_held + 4 * size > self.max_bytes:
                self.release_unused()
            block = np.zeros(size, dtype=np.float32)
            self._num_held += block.nbytes
        return block[:size].reshape(shape)

    def give_back(self, array: Floats) -> None:
        """Take back an array that is no longer used."""
        assert array.base is not None, "it was taken from here"
        insort(self._free, array.base, key=_size)

    def release_unused(self) -> None:
        """Return unused blocks to the system."""
        self._num_held -= sum(block.nbytes for block in self._free)
        self._free.clear()


class KeyValueBuffers:
    """KV cache of several sequences: two arrays [rows, heads, capacity, head size] per layer.

    Attributes:
        rows, capacity: Number of sequences, and of tokens per sequence, that fit.
        arrays: In the order of the graph's past inputs; initially zeros.
    """

    def __init__(self, shape: CacheShape, rows: int, capacity: int, pool: BufferPool | None = None) -> None:
        self.rows, self.capacity = rows, capacity
        self._pool = pool or BufferPool(0)
        self.arrays: list[Floats] = _take(self._pool, shape, (rows, shape.num_heads, capacity, shape.head_dim))
        for array in self.arrays if pool else ():
            array.fill(0)
        self._values: dict[tuple[int, int], list[Any]] = {}

    def close(self) -> None:
        """Give the memory back to the pool."""
        self._values.clear()
        while self.arrays:
            self._pool.give_back(self.arrays.pop())

    def values(self, start: int, stop: int) -> list[Any]:
        """Rows `start` to `stop` of each array as OrtValues over the same memory."""
        if (start, stop) not in self._values:
            self._values[start, stop] = [shared(array[start:stop]) for array in self.arrays]
        return self._values[start, stop]

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row to another."""
        for array in self.arrays:
            array[target, :, :length] = array[source, :, :length]

    def take_row(self, target: int, source: KeyValueBuffers, length: int) -> None:
        """Copy the first `length` tokens of the first row of other buffers to a row."""
        for array, other in zip(self.arrays, source.arrays, strict=True):
            array[target, :, :length] = other[0, :, :length]

    def resize(self, rows: int, capacity: int, lengths: Sequence[int]) -> None:
        """Change the size; the first `lengths[i]` tokens of row i are kept, for as many rows as there are lengths."""
        self._values.clear()
        for place, old in enumerate(self.arrays):  # array by array, so that little more than one copy is held
            fresh = self._pool.take((rows, old.shape[1], capacity, old.shape[3]))
            for row, length in enumerate(lengths):
                fresh[row, :, :length] = old[row, :, :length]
            self.arrays[place] = fresh
            self._pool.give_back(old)
            self._pool.release_unused()
        self.rows, self.capacity = rows, capacity

    def keep_columns(self, row: int, first: int, columns: Ints) -> None:
        """Move the given columns of a row, in their order, to the columns from `first` on."""
        for array in self.arrays:
            array[row, :, first : first + len(columns)] = array[row][:, columns]


class BranchBuffers:
    """KV cache of a tree's branches beside their shared context: two arrays [heads, branches, width, head size]
    per layer.

    Attributes:
        num_branches, width: Number of branches, and of tokens per branch, that fit.
        arrays: In the order of the graph's past inputs.
    """

    def __init__(self, shape: CacheShape, num_branches: int, width: int, pool: BufferPool | None = None) -> None:
        self.num_branches, self.width = num_branches, width
        self._pool = pool or BufferPool(0)
        self.arrays: list[Floats] = _take(self._pool, shape, (shape.num_heads, num_branches, width, shape.head_dim))
        for array in self.arrays:
            array.fill(0)

    def values(self) -> list[Any]:
        """The arrays as OrtValues over the same memory."""
        return [shared(array) for array in self.arrays]

    def rebuild(self, branches: Ints, num_tokens: int, width: int) -> None:
        """Keep the first tokens of the given branches, in that order, in new arrays of `width` tokens per branch."""
        old, self.arrays = self.arrays, []  # a new list: the graph compares lists to see what is bound
        while old:  # array by array, so that little more than one copy is held
            array = old.pop()
            heads, _, _, size = array.shape
            fresh = self._pool.take((heads, len(branches), width, size))
            fresh[:, :, :num_tokens] = array[:, branches, :num_tokens]
            fresh[:, :, num_tokens:] = 0
            self.arrays.append(fresh)
            self._pool.give_back(array)
        self.arrays.reverse()
        self.num_branches, self.width = len(branches), width

    def close(self) -> None:
        """Give the memory back to the pool."""
        while self.arrays:
            self._pool.give_back(self.arrays.pop())


def _take(pool: BufferPool, shape: CacheShape, array_shape: tuple[int, ...]) -> list[Floats]:
    return [pool.take(array_shape) for _ in range(shape.num_arrays)]


def shared(array: npt.NDArray[Any]) -> Any:
    """An OrtValue over an array's own memory.

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
