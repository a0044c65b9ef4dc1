"""The inputs and outputs of the engine's graphs: what `export.graph_variants` writes and `packed_graph` binds."""

from __future__ import annotations

TOKEN_INPUTS = ("input_ids", "position_ids", "logit_index", "num_top")
OUTPUTS = ("top_logits", "top_ids", "top_prob", "mean_logit")
VOCAB_SIZE_KEY = "edgeelad.vocab_size"

# slots: rows of a batch (slot 0) and packed sequences
SLOT_INPUTS = ("seqlens_k", "total_sequence_length", "attention_bias")
SIZES_INPUT = "slot_sizes"
PAST = "past_key_values."
PRESENT = "present."

# trees: branches over a context that they share
TREE_SIZES_INPUT = "tree_sizes"
TREE_INDEX, TREE_BIAS, TREE_WIDTHS = "own_index", "bias", "widths"
CONTEXT, OWN, GROWN = "context.", "own.", "grown."


def lane_name(slot: int, name: str) -> str:
    """What an input or output of a slot is called; those of slot 0 have plain names."""
    return f"lane{slot}.{name}" if slot else name


def tree_name(tree: int, name: str) -> str:
    """What an input or output of a tree (from 1 on) is called."""
    return f"tree{tree}.{name}"
