"""Check an ONNX file before ONNX Runtime opens it: which operators it runs, and which other files it reads.

A package may come from a stranger. ONNX Runtime itself would run a Loop of 2^62 steps, and before version 1.24 it read
weights from any file that the graph named. Reads the protobuf format directly, since the `onnx` package is not part of
the base install, and skips over weights.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from edgeelad.errors import ModelError

# What the exporters write, and what Optimum writes for architectures without engine graphs: operators on tensors whose
# work is bounded by the sizes of their inputs and outputs. No Loop, and none that reads files or calls other code.
STANDARD = """
Abs Add And ArgMax ArgMin Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum DequantizeLinear Div
DynamicQuantizeLinear Einsum Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm Greater
GreaterOrEqual Identity If IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger
Max Mean Min Mod Mul Neg NonZero Not OneHot Or Pad Pow QuantizeLinear RMSNormalization Range Reciprocal ReduceL2
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape RotaryEmbedding Round
Scan ScatterElements ScatterND Shape Sigmoid Sign SimplifiedLayerNormalization Sin Size Slice Softmax Softplus Split
Sqrt Squeeze Sub Sum Tan Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
MICROSOFT = """
BiasGelu DynamicQuantizeMatMul FastGelu FusedMatMul GatherBlockQuantized Gelu GroupQueryAttention MatMulIntegerToFloat
MatMulNBits MultiHeadAttention QGemm QuickGelu RotaryEmbedding SimplifiedLayerNormalization SkipLayerNormalization
SkipSimplifiedLayerNormalization
"""
OPERATORS = {domain: frozenset(MICROSOFT.split() if domain else STANDARD.split()) for domain in ("", "com.microsoft")}
MAX_FIELDS = 10_000_000  # more than any student's graph has by a factor of a hundred; a second or two of reading
ADVICE = "do not use this file; export the student again with `edgeelad export`"

# number, start and end of a field with content; or minus the number, value and 0 of a field with an integer
Field: TypeAlias = tuple[int, int, int]


@dataclass(slots=True)
class GraphSummary:
    """What a graph runs and reads.

    Attributes:
        operators: Domain and type of each operator.
        locations: Other files that hold weights, as the graph names them.
        weight_bits: Bits per weight of the products with block-wise quantized weights.
        metadata: Keys of its metadata.
    """

    operators: set[tuple[str, str]] = field(default_factory=set)
    locations: set[str] = field(default_factory=set)
    weight_bits: set[int] = field(default_factory=set)
    metadata: set[str] = field(default_factory=set)


def check_graph(path: Path) -> GraphSummary:
    """Check that a graph runs known operators only, and reads weights only from files beside it; gives what it does.

    Raises:
        ModelError: It does not, or the file is damaged.
    """
    summary = summarize_graph(path)
    unknown = sorted(
        f"{domain}.{kind}".strip(".")[:80]
        for domain, kind in summary.operators
        if kind not in OPERATORS.get(domain, frozenset())
    )
    if unknown:
        raise ModelError(f"{path}: runs the operator {unknown[0]!r}, which no student needs; {ADVICE}")
    folders = {path.parent.resolve(), path.resolve().parent}  # in a Hugging Face cache, files are links to one folder
    for location in summary.locations:
        is_name = location not in ("", ".", "..") and not set(location) & set("/\\:\0")
        if not is_name or (path.parent / location).resolve().parent not in folders:
            raise ModelError(f"{path}: reads weights from {location!r}, which is outside its folder; {ADVICE}")
    return summary


def summarize_graph(path: Path) -> GraphSummary:
    """List what a graph runs and reads. A file that has not changed since is not read again.

    Raises:
        ModelError: The file is no ONNX graph, or damaged.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return _summarize(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=16)
def _summarize(path: Path, _state: tuple[int, ...]) -> GraphSummary:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(data)
            reader.read_model()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, IndexError) as error:  # ValueError also for an empty file
        raise ModelError(
            f"{path}: damaged, or no ONNX graph ({error}); copy the folder again, or export the student again"
        ) from error
    return reader.summary


class _Reader:
    """Walks through the messages of an ONNX file. Field numbers are those of onnx.proto."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._num_fields = 0
        self.summary = GraphSummary()

    def read_model(self) -> None:
        has_graph = False
        for number, start, end in self._fields(0, len(self._data)):
            if number == 7:
                self._read_graph(start, end, is_nested=False)
                has_graph = True
            elif number == 14:
                entry = {inner: self._data[a:b] for inner, a, b in self._fields(start, end)}
                self.summary.metadata.add(entry.get(1, b"").decode())
            elif number in (20, 25):  # training_info, functions
                raise ValueError("it defines functions")
        if not has_graph:
            raise ValueError("no graph")

    def _read_graph(self, start: int, end: int, *, is_nested: bool) -> None:
        for number, first, last in self._fields(start, end):
            if number == 1:
                self._read_node(first, last, is_nested=is_nested)
            elif number == 5:
                self._read_tensor(first, last)
            elif number == 15:
                raise ValueError("sparse weights")

    def _read_node(self, start: int, end: int, *, is_nested: bool) -> None:
        kind = domain = b""
        for number, first, last in self._fields(start, end):
            if number == 4:
                kind = self._data[first:last]
            elif number == 7:
                domain = self._data[first:last]
            elif number == 5:
                self._read_attribute(first, last, is_nested=is_nested)
        self.summary.operators.add(("" if domain == b"ai.onnx" else domain.decode(), kind.decode()))

    def _read_attribute(self, start: int, end: int, *, is_nested: bool) -> None:
        name, value = b"", 0
        for number, first, last in self._fields(start, end):
            if number == 1:
                name = self._data[first:last]
            elif number == -3:
                value = first
            elif number in (5, 10):  # tensors
                self._read_tensor(first, last)
            elif number in (6, 11):  # graphs
                if is_nested:  # the work of nested loops is the product of their lengths
                    raise ValueError("graphs nested more than once")
                self._read_graph(first, last, is_nested=True)
            elif number in (22, 23):
                raise ValueError("sparse weights")
        if name == b"bits":
            self.summary.weight_bits.add(value)

    def _read_tensor(self, start: int, end: int) -> None:
        for number, first, last in self._fields(start, end):
            if number == 13:  # external_data: an entry with a key and a value
                entry = {number: self._data[a:b] for number, a, b in self._fields(first, last)}
                if entry.get(1) == b"location":
                    self.summary.locations.add(entry.get(2, b"").decode())

    def _fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message between two offsets."""
        data = self._data
        while start < end:
            self._num_fields += 1
            if self._num_fields > MAX_FIELDS:
                raise ValueError("too many parts")
            tag = data[start]
            if tag < 128:
                start += 1
            else:
                tag, start = self._varint(start)
                if tag >> 32:
                    raise ValueError(f"an invalid tag before byte {start}")
            kind = tag & 7
            if kind == 2:  # a length, and that many bytes
                length = data[start]
                if length < 128:
                    start += 1
                else:
                    length, start = self._varint(start)
                if length > end - start:
                    raise ValueError(f"cut off at byte {start}")
                yield tag >> 3, start, start + length
                start += length
            elif kind == 0:
                value, start = self._varint(start)
                yield -(tag >> 3), value, 0
            elif kind in (1, 5):
                start += 8 if kind == 1 else 4
            else:
                raise ValueError(f"an invalid tag before byte {start}")
        if start > end:
            raise ValueError(f"cut off at byte {end}")

    def _varint(self, start: int) -> tuple[int, int]:
        """An integer in groups of seven bits, and the offset behind it."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self._data[start]
            start += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, start
        raise ValueError(f"an invalid number before byte {start}")
