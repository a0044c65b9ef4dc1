"""Give tokens to the newline and the punctuation that a student's tokenizer lacks.

T5's SentencePiece turns a newline, which ends a step, into a space, and `{ } < ~` and others into unknown tokens. Added
tokens keep them, in `tokenizer.json`, so that training, scoring and devices read the same text. Spaces around added
punctuation are not kept: `x < 3` becomes `x<3`.
"""

from __future__ import annotations

import string

import torch
from tokenizers import AddedToken, Tokenizer, decoders
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from edgeelad.errors import ModelError
from edgeelad.text.explanation import STEP_SEPARATOR, join

SAMPLE = join(("Start with 3.", "Add 2."), "5")


def keep_characters(source: str, tokenizer: FastTokenizer, model: PreTrainedModel) -> None:
    """Add tokens for the newline and lost punctuation, unless the tokenizer keeps newlines already.

    Their embeddings, and their rows of a head of its own, start as the mean of the others.

    Raises:
        ModelError: The tokenizer loses line breaks even so.
    """
    backend = tokenizer.backend_tokenizer
    if _keeps_lines(backend):
        return
    lost = [character for character in string.punctuation if character not in _round_trip(backend, f"a {character} b")]
    added = [STEP_SEPARATOR, *lost]
    tokenizer.add_tokens([AddedToken(character, normalized=False, special=False) for character in added])
    backend = tokenizer.backend_tokenizer
    # SentencePiece begins every piece of text with a space, also the one after an added token
    tight = [decoders.Replace(f"{character} ", character) for character in added]
    backend.decoder = decoders.Sequence(
        [*([backend.decoder] if backend.decoder is not None else []), decoders.Fuse(), *tight]
    )
    if not _keeps_lines(backend):
        raise ModelError(f"{source}: its tokenizer loses line breaks, which end steps; choose another student")
    _add_rows(model, tokenizer.convert_tokens_to_ids(added))


def _keeps_lines(tokenizer: Tokenizer) -> bool:
    return _round_trip(tokenizer, SAMPLE).count(STEP_SEPARATOR) == SAMPLE.count(STEP_SEPARATOR)


def _round_trip(tokenizer: Tokenizer, text: str) -> str:
    return str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids))


@torch.no_grad()
def _add_rows(model: PreTrainedModel, tokens: list[int]) -> None:
    """Give tokens their rows; T5's checkpoints have some to spare."""
    if max(tokens) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(tokens) + 1, mean_resizing=False)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.weight[tokens] = module.weight[: min(tokens)].mean(dim=0)
