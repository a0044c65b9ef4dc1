"""Write a student folder: configuration, safetensors, fast tokenizer, prompt format."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from edgeelad.errors import StorageError
from edgeelad.files import storage_errors
from edgeelad.text.prompts import PromptFormat


def refuse_existing(out: Path) -> None:
    """Raise StorageError if `out` exists, before any work is done."""
    if out.exists():
        raise StorageError(f"{out}: already exists and is not overwritten; choose another folder, or move this one")


def save_student(
    folder: Path, target: Path, model: PreTrainedModel, tokenizer: FastTokenizer, prompt: PromptFormat
) -> None:
    """Write everything into `folder`, which exists; errors name `target`, which it becomes.

    Raises:
        StorageError: It cannot be written.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # what a tokenizer was last used for is no part of the student
    backend.no_truncation()
    if not isinstance(tokenizer.chat_template, str):
        # several templates are saved as files named as the checkpoint says, in other folders, too (CVE-2026-9856)
        tokenizer.chat_template = None
    with storage_errors(target):
        try:
            model.save_pretrained(folder, safe_serialization=True)
        except SafetensorError as error:  # how safetensors reports a disk that is full
            raise StorageError(
                f"{target}: cannot be written: {error}; free some space or choose another folder"
            ) from None
        tokenizer.save_pretrained(folder, legacy_format=False)
        prompt.save(folder)
