"""Encode text and decode tokens: the one tokenization that training, scoring and the edge share.

Reads `tokenizer.json`, `prompt.json`, `config.json` and `generation_config.json` of a model folder. Prompt and
completion are encoded separately, in training as in generation, so no token spans both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgeelad.engine.graph_files import find_graphs, has_graphs
from edgeelad.engine.onnx_file import summarize_graph
from edgeelad.engine.shape import WINDOW_FAMILIES, WINDOW_KEY, max_context, read_json, window_size
from edgeelad.errors import ModelError
from edgeelad.records import Question
from edgeelad.text.explanation import STEP_SEPARATOR
from edgeelad.text.prompts import PromptFormat

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoders write for bytes that are not yet a character
SYMBOL = re.compile(r"[0-9+\-*/×÷−]")
BEGINNINGS = ("Why?", "a", "7", "(", "é")  # of questions: a tokenizer may merge one with the text before it
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


class Codec:
    """Encodes prompts and completions, and decodes generated tokens.

    Attributes:
        prompt_format: How questions become prompts.
        config: The student's `config.json`.
        eos_ids: Tokens that end an explanation.
        max_context: Maximum tokens of prompt and explanation together.
        vocab_size: Rows of the student's embedding.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_format: PromptFormat,
        config: Mapping[str, Any],
        *,
        eos_ids: Iterable[int],
        max_context: int,
    ) -> None:
        self._tokenizer = tokenizer
        self.prompt_format = prompt_format
        self.config = config
        self.eos_ids = frozenset(eos_ids)
        self.max_context = max_context
        self.vocab_size = int(config.get("vocab_size") or tokenizer.get_vocab_size())

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """Read a model folder's tokenization.

        Raises:
            ModelError: A file is missing or damaged, or the tokenizer belongs to another model.
        """
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such folder; name a package or an exported student")
        config = read_json(folder / "config.json")
        if not isinstance(config.get("vocab_size", 0), int | None):
            raise ModelError(f"{folder / 'config.json'}: vocab_size is not a number; export the student again")
        tokenizer = _load_tokenizer(folder / "tokenizer.json")
        prompt_format = PromptFormat.load(folder)
        # training ends examples with the prompt format's end token, so it ends an explanation, too
        named = tokenizer.token_to_id(prompt_format.eos_token) if prompt_format.eos_token else None
        codec = cls(
            tokenizer,
            prompt_format,
            config,
            eos_ids=_eos_ids(folder, config) | (frozenset() if named is None else {named}),
            max_context=max_context(config, folder / "config.json", has_windows=_has_windows(folder, config)),
        )
        # without a list of all ids, which takes as long as all other checks of a package
        base_size = tokenizer.get_vocab_size(with_added_tokens=False)
        largest = max(base_size - 1, *tokenizer.get_added_tokens_decoder(), 0)
        if largest >= codec.vocab_size:
            raise ModelError(
                f"{folder / 'tokenizer.json'}: has token ids up to {largest}, but config.json says vocab_size "
                f"{codec.vocab_size}: they belong to different models; export the student again"
            )
        return codec

    def encode_prompt(self, question: Question) -> list[int]:
        """The prompt's token ids, with the special tokens of the prompt format.

        Raises:
            ModelError: There are none.
        """
        text = self.prompt_format.render(question)
        ids = self._encode(text, add_special_tokens=self.prompt_format.add_special_tokens)
        if not ids:
            raise ModelError(f"question {question.id}: its prompt has no tokens; export the student again")
        return ids

    def shared_prompt(self) -> list[int]:
        """The token ids with which the prompts of questions that begin differently all begin."""
        prompts = [self.encode_prompt(Question("shared", text, "text")) for text in BEGINNINGS]
        places = enumerate(zip(*prompts, strict=False))
        length = next((place for place, ids in places if len(set(ids)) > 1), min(map(len, prompts)))
        return prompts[0][:length]

    def encode_completion(self, text: str) -> list[int]:
        """The token ids of text that follows a prompt, without special tokens."""
        return self._encode(text, add_special_tokens=False)

    def encode_line(self, text: str, *, is_first: bool) -> list[int]:
        """The token ids of a line: the first of a completion, or one after a newline."""
        if is_first:
            return self.encode_completion(text)
        newline, both = self.encode_completion(STEP_SEPARATOR), self.encode_completion(STEP_SEPARATOR + text)
        # if newline and text merge into one token, encode the text as a completion of its own
        return both[len(newline) :] if both[: len(newline)] == newline else self.encode_completion(text)

    @property
    def prompt_prefix(self) -> str:
        """The text of the special tokens that the tokenizer puts before a prompt; "" if it puts none there."""
        if not self.prompt_format.add_special_tokens:
            return ""
        bare, full = (self._encode("0", add_special_tokens=add) for add in (False, True))
        return "".join(map(self._tokenizer.id_to_token, full[: len(full) - len(bare)]))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they arrive, in pieces of whole characters; joined, they equal `decode` of all."""
        text = TextStream(self)
        for token in ids:
            if piece := text.push(token):
                yield piece
        if rest := text.flush():
            yield rest

    def token_text(self, token: int, before: int | None) -> str:
        """The text of one token after another; None: the first of a completion."""
        if before is None:
            return self.decode([token])
        return self.decode([before, token]).removeprefix(self.decode([before]))

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt, and a decoder writes the completion."""
        return bool(self.config.get("is_encoder_decoder"))

    @property
    def start_id(self) -> int:
        """The token that an encoder-decoder's completion begins after.

        Raises:
            ModelError: The configuration does not name it.
        """
        start_id = self.config.get("decoder_start_token_id")
        if not isinstance(start_id, int) or not 0 <= start_id < self.vocab_size:
            raise ModelError(f"config.json: decoder_start_token_id is {start_id!r}, not a token id; export it again")
        return start_id

    @cached_property
    def newline_ids(self) -> TokenSet:
        """Tokens whose text contains a newline, with which a step may end."""
        return TokenSet(lambda id_: STEP_SEPARATOR in self.decode([id_]))

    @cached_property
    def symbol_ids(self) -> TokenSet:
        """Tokens whose text holds a digit or an operator: what is calculated, whatever the words around it."""
        return TokenSet(lambda id_: SYMBOL.search(self.decode([id_])) is not None)

    @cached_property
    def max_token_chars(self) -> int:
        """Length of the vocabulary's longest token, in characters: a longer text needs more than one token."""
        return max(map(len, self._tokenizer.get_vocab()), default=1)

    @cached_property
    def byte_ids(self) -> TokenSet:
        """Tokens that stand for one byte, if the tokenizer falls back to bytes (as SentencePiece's do).

        A run of them that is no valid text decodes to replacement characters as a whole, valid parts included: until
        the run is over, none of its text is certain.
        """

        def is_byte(id_: int) -> bool:
            token = self._tokenizer.id_to_token(id_) or ""
            return BYTE_TOKEN.fullmatch(token) is not None and self.decode([id_]) != token

        return TokenSet(is_byte)

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


class TokenSet:
    """Tokens with a property, decided one by one when they are first asked about.

    To decode a whole vocabulary takes longer than to open a graph, and an explanation has few different tokens.
    """

    def __init__(self, has_property: Callable[[int], bool]) -> None:
        self._has_property = cache(has_property)

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, int) and self._has_property(id_)


class TextStream:
    """Decodes tokens as they arrive, into pieces of whole characters."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._ids: list[int] = []
        self._text = ""
        self._num_shown = 0

    def push(self, token: int) -> str:
        """The text that is certain now and was not returned before; it may be empty."""
        self._ids.append(token)
        self._text = self._codec.decode(self._ids)
        if token in self._codec.byte_ids:
            return ""
        return self._show(len(self._text.rstrip(INCOMPLETE)))

    def flush(self) -> str:
        """The rest of the text, after the last token."""
        return self._show(len(self._text))

    def _show(self, end: int) -> str:
        piece = self._text[self._num_shown : end]
        self._num_shown = max(end, self._num_shown)
        return piece


def _has_windows(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the graphs in a folder have sliding windows, or will have them if it is a student to be exported."""
    if window_size(config) is None:
        return False
    if not has_graphs(folder):
        return config.get("model_type") in WINDOW_FAMILIES
    return WINDOW_KEY in summarize_graph(find_graphs(folder).standard).metadata


def _load_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ModelError(f"{path}: missing; export the student again with `edgeelad export`")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust binding raises bare Exception for every fault of the file
        raise ModelError(f"{path}: not a tokenizer ({error}); export the student again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _eos_ids(folder: Path, config: Mapping[str, Any]) -> frozenset[int]:
    """The end tokens by `generation_config.json`, else by `config.json`: an id, a list of ids, or none.

    Raises:
        ModelError: They are something else.
    """
    path = folder / "generation_config.json"
    found = read_json(path).get("eos_token_id") if path.exists() else None
    if found is None:
        path, found = folder / "config.json", config.get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(id_, int) and not isinstance(id_, bool) and id_ >= 0 for id_ in ids):
        raise ModelError(
            f"{path}: eos_token_id is {found!r}, not a token id or a list of them; export the student again"
        )
    return frozenset(ids)
