"""Text to tokens and back: the one tokenization that training, scoring and the edge share.

Reads `tokenizer.json`, `prompt.json`, `config.json` and `generation_config.json` of a model folder. Prompt and
completion are encoded separately, so a token never straddles the two, in training as in generation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgeelad.errors import ModelError
from edgeelad.prompts import PromptFormat
from edgeelad.records import Question

# what the model families call the longest context
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # how a decoder shows bytes that are not yet a character


class Codec:
    """Encodes prompts and completions, decodes what was generated.

    Attributes:
        prompt_format: How questions become prompts.
        eos_ids: Tokens that end an explanation.
        max_context: Tokens that the student can see: prompt and explanation together.
        vocab_size: Rows of the student's output.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_format: PromptFormat, config: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self.prompt_format = prompt_format
        self.eos_ids = _eos_ids(tokenizer, prompt_format, config)
        self.max_context = next((int(config[key]) for key in CONTEXT_KEYS if config.get(key)), 2048)
        self.vocab_size = int(config.get("vocab_size") or tokenizer.get_vocab_size())

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """Read a model folder's tokenization.

        Raises:
            ModelError: A file is missing or damaged.
        """
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such folder; name a package or an exported student")
        config = _read(folder / "config.json")
        if (folder / "generation_config.json").exists():
            generation = _read(folder / "generation_config.json")
            if generation.get("eos_token_id") is not None:
                config["eos_token_id"] = generation["eos_token_id"]
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{path}: missing; export the student again with `edgeelad export`")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust binding raises bare Exception for whatever is wrong with the file
            raise ModelError(f"{path}: not a tokenizer ({error}); export the student again") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, PromptFormat.load(folder), config)

    def encode_prompt(self, question: Question) -> list[int]:
        """The prompt's token ids, with the special tokens that the prompt format asks for."""
        text = self.prompt_format.render(question)
        return self._encode(text, add_special_tokens=self.prompt_format.add_special_tokens)

    def encode_completion(self, text: str) -> list[int]:
        """The token ids of text that follows a prompt; never special tokens."""
        return self._encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def stream(self, ids: Iterable[int]) -> Iterable[str]:
        """The text of tokens as they come, in pieces of whole characters; the pieces joined are `decode` of all."""
        seen: list[int] = []
        shown = ""
        for token in ids:
            seen.append(token)
            text = self.decode(seen)
            if text.endswith(INCOMPLETE):
                continue
            if len(text) > len(shown):
                yield text[len(shown) :]
                shown = text
        rest = self.decode(seen)[len(shown) :]
        if rest:
            yield rest

    @cached_property
    def newline_ids(self) -> frozenset[int]:
        """Tokens whose text holds a newline: where a step may end."""
        return frozenset(id_ for id_ in range(self._tokenizer.get_vocab_size()) if "\n" in self.decode([id_]))

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


def _eos_ids(tokenizer: Tokenizer, prompt_format: PromptFormat, config: dict[str, Any]) -> frozenset[int]:
    eos = config.get("eos_token_id")
    ids = {int(eos)} if isinstance(eos, int) else {int(id_) for id_ in eos or ()}
    named = tokenizer.token_to_id(prompt_format.eos_token) if prompt_format.eos_token else None
    if named is not None:
        ids.add(int(named))
    return frozenset(ids)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; export the student again with `edgeelad export`") from None
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); export the student again") from error
