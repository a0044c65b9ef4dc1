"""Prepare encoder-decoders (T5) for training: settings of the checkpoint, rows and batches for the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from edgeelad.engine.shape import CONTEXT_KEYS
from edgeelad.training.tensors import IGNORED, Layout, Row

# tokens that T5 was trained on; its positions are relative, so that a checkpoint need not state a limit
DEFAULT_CONTEXT = 512


def complete_config(model: PreTrainedModel) -> None:
    """State the context length and the token before a completion, if the checkpoint leaves them out."""
    config = model.config
    if not any(getattr(config, key, None) for key in CONTEXT_KEYS):
        config.n_positions = DEFAULT_CONTEXT
    if config.decoder_start_token_id is None:
        config.decoder_start_token_id = config.pad_token_id
    model.generation_config.decoder_start_token_id = config.decoder_start_token_id


def make_row(prompt: Sequence[int], completion: Sequence[int]) -> Row:
    """The prompt for the encoder, and the completion, which the decoder learns to write."""
    return {"input_ids": list(prompt), "labels": list(completion)}


def collate(rows: Sequence[Row], pad_id: int, multiple: int = 1) -> dict[str, torch.Tensor]:
    """Pad prompts and completions on the right, each to their longest (to a multiple of `multiple`).

    The decoder's inputs are the labels, shifted by the model itself.

    Returns:
        input_ids and attention_mask, [batch, prompt length], and labels, [batch, completion length].
    """
    input_ids = _padded([row["input_ids"] for row in rows], pad_id, multiple)
    mask = _padded([[1] * len(row["input_ids"]) for row in rows], 0, multiple)
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "labels": _padded([row["labels"] for row in rows], IGNORED, multiple),
    }


def _padded(rows: Sequence[Sequence[int]], value: int, multiple: int) -> torch.Tensor:
    length = max(map(len, rows))
    length += -length % multiple
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], dtype=torch.long)


SEQ2SEQ = Layout(make_row, collate)
