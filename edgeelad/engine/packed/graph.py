"""The engine's graph in an ONNX Runtime session, over preallocated KV buffers.

The graph (`export.fused.variants`) appends the new tokens' keys and values in place: `present.*` is bound to the same
memory as `past_key_values.*`, so nothing is copied.

A graph has slots: groups of tokens with separate attention, while everything else is computed together. The plain
graph has one slot, for a packed sequence or a batch of rows. A graph with lanes has slot 0 for a batch of rows that
advance by one token, slots from 1 on (lanes) for one packed sequence each, and inputs for trees, whose branches advance
by one token over a shared context. A slot's or tree's results do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeelad.engine.onnx_file import summarize_graph
from edgeelad.engine.packed.buffers import BranchBuffers, Floats, Ints, KeyValueBuffers, shared
from edgeelad.engine.packed.layout import HIDDEN
from edgeelad.engine.packed.names import (
    CONTEXT,
    GLOBAL_BIAS,
    LOCAL_BIAS,
    OUTPUTS,
    OWN,
    OWN_PRESENT,
    PAST,
    PRESENT,
    SIZES_INPUT,
    SLOT_INPUTS,
    TOKEN_INPUTS,
    TREE_BIAS,
    TREE_INDEX,
    TREE_LOCAL_BIAS,
    TREE_SIZES_INPUT,
    TREE_WIDTHS,
    VOCAB_SIZE_KEY,
    lane_name,
    tree_name,
)
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.session import ADVICE, open_session, run_errors
from edgeelad.engine.shape import WINDOW_KEY, CacheShape
from edgeelad.errors import ModelError

# MatMulNBits computes tiles of four rows in one way, and the rows that are left in another
BLOCK_ROWS = 4
MAX_COPIED_BYTES = 1024  # copying so little into an array that is bound costs less than binding another
TREE_BIASES = {GLOBAL_BIAS: TREE_BIAS, LOCAL_BIAS: TREE_LOCAL_BIAS}


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """New tokens for one slot.

    Attributes:
        buffers: Their KV cache.
        rows: Start and end (exclusive) of the rows of `buffers` to use.
        input_ids: The tokens, shape [rows, new]; `new` is 1, or there is one row.
        position_ids: Their positions, shape [rows, new].
        past_lengths: Tokens already cached per row, shape [rows].
        bias: Attention bias, 0 or `layout.HIDDEN`, shape [1, 1, new, longest past + new].
        wanted: Tokens whose next-token distributions to return, as indices into the flattened tokens.
        key_positions: Positions of the cached and the new tokens, shape [longest past + new]; None: in order.
    """

    buffers: KeyValueBuffers
    rows: tuple[int, int]
    input_ids: Ints
    position_ids: Ints
    past_lengths: npt.NDArray[np.int32]
    bias: Floats
    wanted: Ints
    key_positions: Ints | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TreeFeed:
    """One new token per branch of a tree; all distributions are returned.

    Attributes:
        context: KV cache of the context, one row, full.
        own: KV cache of the branches; one branch per token, at least two.
        input_ids: The tokens, shape [branches].
        position_ids: Their positions, shape [branches].
        num_cached: Tokens already cached per branch.
        bias: Attention bias, 0 or `layout.HIDDEN`, shape [1, branches, 1, context + own width].
        context_positions: Positions of the context's tokens.
    """

    context: KeyValueBuffers
    own: BranchBuffers
    input_ids: Ints
    position_ids: Ints
    num_cached: int
    bias: Floats
    context_positions: Ints

    def key_positions(self) -> Ints:
        """Positions of the context's and of each branch's own tokens, shape [branches, context + own width]."""
        own = (self.position_ids - self.num_cached)[:, None] + np.arange(self.own.width)
        context = np.broadcast_to(self.context_positions, (len(own), len(self.context_positions)))
        return np.concatenate([context, own], axis=1)


class PackedGraph:
    """The engine's graph.

    Attributes:
        path: Its file.
        session: The ONNX Runtime session.
        past_names: The past inputs of a slot, keys and values of each layer.
        shape: Of the KV cache.
        num_lanes: Lanes for packed sequences; 0 for the plain graph.
        num_trees: Trees that fit at the same time.
        vocab_size: Logits per row.
        window: Tokens that the layers with a sliding window attend to; None if there are no such layers.
        row_multiple: A row has the same bits in every batch whose number of rows is a multiple of this, and at least
            two.
    """

    def __init__(self, path: Path, num_threads: int = 1, *, spin_us: int = 0) -> None:
        """Open an engine graph; see `session.open_session`.

        Raises:
            ModelError: The file cannot be loaded, or is no engine graph.
        """
        self.path = path
        self.session = open_session(path, num_threads, spin_us=spin_us)
        inputs = {value.name: value for value in self.session.get_inputs()}
        outputs = {value.name for value in self.session.get_outputs()}
        self.past_names = [name for name in inputs if name.startswith(PAST)]
        self.num_lanes = sum(name.startswith("lane") and name.endswith(SLOT_INPUTS[0]) for name in inputs)
        self.num_trees = sum(name.startswith("tree") and name.endswith("." + TREE_WIDTHS) for name in inputs)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.window = int(metadata[WINDOW_KEY]) if WINDOW_KEY in metadata else None
        self._biases = [name for name in (GLOBAL_BIAS, LOCAL_BIAS) if name in inputs]
        expected = _input_names(self.past_names, self.num_lanes, self.num_trees, self._biases)
        if not self.past_names or expected != set(inputs) or not set(OUTPUTS) <= outputs:
            strange = sorted(expected ^ set(inputs))[:4] or ["other outputs, or no past_key_values"]
            raise ModelError(f"{path}: not an engine graph of edgeelad ({', '.join(strange)}); {ADVICE}")
        shape = inputs[self.past_names[0]].shape
        self.shape = CacheShape(len(self.past_names) // 2, int(shape[1]), int(shape[3]))
        self.vocab_size = int(metadata.get(VOCAB_SIZE_KEY, 0))
        if self.vocab_size < 1:
            raise ModelError(f"{path}: no vocabulary size in its metadata; {ADVICE}")
        self.row_multiple = BLOCK_ROWS if summarize_graph(path).weight_bits else 1
        self._binding = self.session.io_binding()
        self._bound: dict[int, tuple[KeyValueBuffers, tuple[int, int]]] = {}
        self._bound_trees: dict[int, tuple[KeyValueBuffers, list[Floats]]] = {}
        self._bound_inputs: dict[str, npt.NDArray[Any]] = {}
        self._bound_outputs: tuple[npt.NDArray[Any], ...] | None = None
        self._idle_context = KeyValueBuffers(self.shape, 1, 1)
        self._idle_branches = BranchBuffers(self.shape, 1, 1)

    @property
    def bytes_per_token(self) -> int:
        """Size of one token's keys and values."""
        return self.shape.num_values * 4

    @property
    def sequence_slots(self) -> range:
        """The slots that take packed sequences."""
        return range(1, self.num_lanes + 1) if self.num_lanes else range(1)

    def run(
        self, feeds: Mapping[int, Feed], num_top: int, trees: Mapping[int, TreeFeed] | None = None
    ) -> tuple[TopRows, dict[int, int], dict[int, int]]:
        """Run new tokens, and append their keys and values to the buffers.

        Args:
            feeds: New tokens by slot.
            num_top: Number of top logits to return; the vocabulary size if that is less.
            trees: New tokens of trees' branches, by tree, from 1 on.

        Returns:
            All requested distributions, and the first row of each slot's and each tree's.
        """
        trees = trees or {}
        num_top = min(num_top, self.vocab_size)
        slots = [feeds.get(slot) or self._idle() for slot in range(self.num_lanes + 1)]
        tree_feeds = [trees.get(tree) or self._idle_tree() for tree in range(1, self.num_trees + 1)]
        parts: list[Feed | TreeFeed] = [*slots, *tree_feeds]
        starts = accumulate((part.input_ids.size for part in parts), initial=0)
        shape = (1, -1) if self.num_lanes else slots[0].input_ids.shape
        tree_rows = [
            np.arange(len(feed.input_ids) if tree in trees else 0) for tree, feed in enumerate(tree_feeds, start=1)
        ]
        own_rows = [*(feed.wanted for feed in slots), *tree_rows]
        wanted = np.concatenate([rows + start for rows, start in zip(own_rows, starts, strict=False)])
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.concatenate([part.input_ids.ravel() for part in parts]).reshape(shape),
            "position_ids": np.concatenate([part.position_ids.ravel() for part in parts]).reshape(shape),
            "logit_index": wanted,
            "num_top": np.array([num_top], dtype=np.int64),
        }
        if self.num_lanes:
            tree_sizes = np.array([len(feed.input_ids) for feed in tree_feeds], dtype=np.int64)
            inputs[TREE_SIZES_INPUT] = tree_sizes
            inputs[SIZES_INPUT] = np.array([*(feed.input_ids.size for feed in slots), tree_sizes.sum()], dtype=np.int64)
        for slot, feed in enumerate(slots):
            inputs |= self._slot_inputs(slot, feed)
            self._bind_buffers(slot, feed)
        for tree, tree_feed in enumerate(tree_feeds, start=1):
            inputs |= self._tree_inputs(tree, tree_feed)
            self._bind_tree(tree, tree_feed)
        found = self._run(inputs, len(wanted), num_top)
        firsts = list(accumulate((len(rows) for rows in own_rows), initial=0))
        return found, {slot: firsts[slot] for slot in feeds}, {tree: firsts[len(slots) + tree - 1] for tree in trees}

    def _run(self, inputs: Mapping[str, npt.NDArray[Any]], num_wanted: int, num_top: int) -> TopRows:
        for name, array in inputs.items():  # `inputs` keeps the memory alive during the run
            self._bind_input(name, array)
        logits, ids, top_prob, mean_logit = self._bind_outputs(num_wanted, num_top)
        with run_errors(self.session):
            self.session.run_with_iobinding(self._binding)
        normalizers = logits[:, 0].astype(np.float64) - np.log(top_prob.astype(np.float64))
        return TopRows(logits.copy(), ids.copy(), normalizers, np.maximum(normalizers - mean_logit, 0.0))

    def _bind_input(self, name: str, array: npt.NDArray[Any]) -> None:
        """Bind an input; a small one is copied into the array of the last run, if its shape is the same."""
        bound = self._bound_inputs.get(name)
        if bound is not None and bound.shape == array.shape:
            bound[...] = array
            return
        self._bound_inputs.pop(name, None)
        if array.nbytes <= MAX_COPIED_BYTES:
            self._bound_inputs[name] = array = array.copy()
        assert array.flags.c_contiguous, "ONNX Runtime would read a copy"
        self._binding.bind_cpu_input(name, array)

    def _bind_outputs(self, num_rows: int, num_top: int) -> tuple[npt.NDArray[Any], ...]:
        """Arrays for the outputs, bound; those of the last run, if their shapes are the same."""
        if self._bound_outputs is None or self._bound_outputs[0].shape != (num_rows, num_top):
            top_prob, mean_logit = np.empty((2, num_rows), dtype=np.float32)
            logits, ids = (np.empty((num_rows, num_top), dtype=kind) for kind in (np.float32, np.int64))
            self._bound_outputs = logits, ids, top_prob, mean_logit
            for name, output in zip(OUTPUTS, self._bound_outputs, strict=True):
                self._binding.bind_ortvalue_output(name, shared(output))
        return self._bound_outputs

    def unbind(self) -> None:
        """Release the buffers of earlier runs."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._bound_inputs.clear()
        self._bound_outputs = None
        self._bound.clear()
        self._bound_trees.clear()

    def release(self, slots: Iterable[int], trees: Iterable[int]) -> None:
        """Release the buffers of the given slots and trees."""
        for slot in slots:
            self._bind_buffers(slot, self._idle())
        for tree in trees:
            self._bind_tree(tree, self._idle_tree())

    def _bind_buffers(self, slot: int, feed: Feed) -> None:
        """Bind a slot's buffers as past and present, unless they already are."""
        if self._bound.get(slot) == (feed.buffers, feed.rows):
            return
        for name, value in zip(self.past_names, feed.buffers.values(*feed.rows), strict=True):
            self._binding.bind_ortvalue_input(lane_name(slot, name), value)
            self._binding.bind_ortvalue_output(lane_name(slot, name.replace(PAST, PRESENT)), value)
        self._bound[slot] = (feed.buffers, feed.rows)

    def _bind_tree(self, tree: int, feed: TreeFeed) -> None:
        """Bind a tree's context, and its branches' buffers as past and present, unless they already are."""
        context, own = self._bound_trees.get(tree, (None, None))
        stems = [name.removeprefix(PAST) for name in self.past_names]
        if context is not feed.context:
            for stem, value in zip(stems, feed.context.values(0, 1), strict=True):
                self._binding.bind_ortvalue_input(tree_name(tree, CONTEXT + stem), value)
        if own is not feed.own.arrays:
            for stem, value in zip(stems, feed.own.values(), strict=True):
                self._binding.bind_ortvalue_input(tree_name(tree, OWN + stem), value)
                self._binding.bind_ortvalue_output(tree_name(tree, OWN_PRESENT + stem), value)
        self._bound_trees[tree] = (feed.context, feed.own.arrays)

    def _tree_inputs(self, tree: int, feed: TreeFeed) -> dict[str, npt.NDArray[Any]]:
        num_branches = len(feed.input_ids)
        index = np.empty((self.shape.num_heads, num_branches, 3), dtype=np.int64)
        index[..., 0] = np.arange(self.shape.num_heads)[:, None]
        index[..., 1] = np.arange(num_branches)
        index[..., 2] = feed.num_cached
        widths = np.array([feed.context.capacity, feed.own.width], dtype=np.int64)
        values: dict[str, npt.NDArray[Any]] = {TREE_INDEX: index, TREE_WIDTHS: widths}
        positions, keys = feed.position_ids[:, None, None], feed.key_positions()[:, None]
        for name in self._biases:
            values[TREE_BIASES[name]] = self._bias(name, feed.bias, positions, keys)
        return {tree_name(tree, name): value for name, value in values.items()}

    def _slot_inputs(self, slot: int, feed: Feed) -> dict[str, npt.NDArray[Any]]:
        new = feed.input_ids.shape[1]
        total = int(feed.past_lengths.max()) + new
        sizes = (feed.past_lengths + np.int32(new - 1), np.array([total], dtype=np.int32))
        values: dict[str, npt.NDArray[Any]] = dict(zip(SLOT_INPUTS, sizes, strict=True))
        keys = np.arange(total) if feed.key_positions is None else feed.key_positions
        for name in self._biases:
            values[name] = self._bias(name, feed.bias, feed.position_ids[:, None, :, None], keys)
        return {lane_name(slot, name): value for name, value in values.items()}

    def _bias(self, name: str, bias: Floats, positions: Ints, keys: Ints) -> Floats:
        """The bias for one kind of layers; the shapes of the arguments broadcast to its shape."""
        if name == GLOBAL_BIAS or self.window is None:
            return bias
        hidden = keys <= positions - self.window
        return np.where(hidden, HIDDEN, bias) if hidden.any() else bias

    def _idle_tree(self) -> TreeFeed:
        """One token over one column, for a tree without work."""
        token = np.zeros(1, dtype=np.int64)
        return TreeFeed(
            self._idle_context, self._idle_branches, token, token, 0, np.zeros((1, 1, 1, 2), dtype=np.float32), token
        )

    def _idle(self) -> Feed:
        """One token that attends to itself, for a slot without work."""
        token = np.zeros((1, 1), dtype=np.int64)
        past, bias = np.zeros(1, dtype=np.int32), np.zeros((1, 1, 1, 1), dtype=np.float32)
        return Feed(self._idle_context, (0, 1), token, token, past, bias, token[0, :0])


def _input_names(past_names: Sequence[str], num_lanes: int, num_trees: int, biases: Sequence[str]) -> set[str]:
    """The inputs of an engine graph."""
    slot_inputs = (*SLOT_INPUTS, *biases)
    names = {*TOKEN_INPUTS, *([SIZES_INPUT, TREE_SIZES_INPUT] if num_lanes else [])}
    names |= {lane_name(slot, name) for slot in range(num_lanes + 1) for name in (*slot_inputs, *past_names)}
    kept = [kind + name.removeprefix(PAST) for name in past_names for kind in (CONTEXT, OWN)]
    own = (TREE_INDEX, *(TREE_BIASES[name] for name in biases), TREE_WIDTHS, *kept)
    return names | {tree_name(tree, name) for tree in range(1, num_trees + 1) for name in own}
