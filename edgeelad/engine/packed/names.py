"""Input and output names of the engine's graphs, as `export.fused.variants` writes and `packed.graph` binds them.

The strings are part of exported files: changing one makes earlier exports unreadable.
"""

from __future__ import annotations

TOKEN_INPUTS = ("input_ids", "position_ids", "logit_index", "num_top")
OUTPUTS = ("top_logits", "top_ids", "top_prob", "mean_logit")
VOCAB_SIZE_KEY = "edgeelad.vocab_size"

# slots: the rows of a batch (slot 0) and packed sequences
SLOT_INPUTS = ("seqlens_k", "total_sequence_length")
# the attention bias of the layers that attend to all tokens, and of those with a sliding window; a student may have
# layers of one kind only
GLOBAL_BIAS, LOCAL_BIAS = "attention_bias", "local_attention_bias"
SIZES_INPUT = "slot_sizes"
PAST = "past_key_values."
PRESENT = "present."

# trees: branches over a shared context
TREE_SIZES_INPUT = "tree_sizes"
TREE_INDEX, TREE_BIAS, TREE_LOCAL_BIAS, TREE_WIDTHS = "own_index", "bias", "local_bias", "widths"
CONTEXT, OWN, OWN_PRESENT = "context.", "own.", "grown."


def lane_name(slot: int, name: str) -> str:
    """The name of a slot's input or output; those of slot 0 have no prefix."""
    return f"lane{slot}.{name}" if slot else name


def tree_name(tree: int, name: str) -> str:
    """The name of a tree's input or output; trees are numbered from 1."""
    return f"tree{tree}.{name}"
