"""The two graphs of an encoder-decoder with standard names, as Optimum exports them (T5).

The encoder runs once per prompt. Its output becomes the keys and values of the decoder's cross-attention once, which
all rows with this prompt reuse: the context of their cache. The decoder's inputs are `input_ids, attention_mask,
encoder_attention_mask, encoder_hidden_states, past_key_values.*, use_cache_branch`; its attention mask, which Optimum's
own export leaves out, lets rows of different lengths run together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.engine.plain.cache import Cache, IntArray
from edgeelad.engine.plain.graph import int_value
from edgeelad.engine.session import ADVICE, open_session
from edgeelad.engine.shape import CacheShape
from edgeelad.errors import ModelError

PAST = re.compile(r"past_key_values\.\d+\.(decoder|encoder)\.(key|value)$")
DECODER_INPUTS = {"input_ids", "attention_mask", "encoder_attention_mask", "encoder_hidden_states", "use_cache_branch"}
ENCODER_INPUTS, ENCODER_OUTPUT = {"input_ids", "attention_mask"}, "last_hidden_state"


class EncoderDecoderGraph:
    """An encoder-decoder; a `plain.graph.Graph`.

    Attributes:
        shape: Of the decoder's cache; the cross-attention's keys and values have the same.
        vocab_size: Logits per token.
    """

    def __init__(
        self,
        encoder: Path,
        decoder: Path,
        start_id: int,
        num_threads: int = 1,
        shape: CacheShape | None = None,
        *,
        spin_us: int = 0,
    ) -> None:
        """Open both graphs.

        Args:
            encoder: The encoder's graph.
            decoder: The decoder's graph, with and without cache.
            start_id: The token that every completion begins after.
            num_threads: Threads per session.
            shape: The cache's shape by the student's configuration, if it states one.
            spin_us: See `session.open_session`.

        Raises:
            ModelError: A file cannot be loaded, has other names, or belongs to another student.
        """
        self._encoder, self._decoder = (open_session(path, num_threads, spin_us=spin_us) for path in (encoder, decoder))
        inputs = {value.name: value for value in self._decoder.get_inputs()}
        past = [name for name in inputs if PAST.match(name)]
        self._own, self._cross = ([n for n in past if f".{part}." in n] for part in ("decoder", "encoder"))
        _check_names(encoder, self._encoder, ENCODER_INPUTS, {ENCODER_OUTPUT})
        _check_names(decoder, self._decoder, DECODER_INPUTS | set(past), {"logits", *map(_present, past)})
        outputs = {value.name: value for value in self._decoder.get_outputs()}
        present = [outputs[_present(name)] for name in past]
        cached = {(value.type, *value.shape[1::2]) for value in present}
        sizes = (outputs["logits"].shape[2:], inputs["encoder_hidden_states"].shape[2:])
        match (*cached, *sizes):
            case (("tensor(float)", int(num_heads), int(head_dim)), [int(vocab_size)], [int(width)]):
                self.shape = CacheShape(len(self._own) // 2, num_heads, head_dim)
                self.vocab_size = vocab_size
            case _:
                raise ModelError(
                    f"{decoder}: its cache, logits and hidden states are not float with fixed sizes in each layer "
                    f"({cached}, {sizes}); {ADVICE}"
                )
        if shape is not None and shape != self.shape:
            raise ModelError(
                f"{decoder}: the graph caches {self.shape}, but config.json says {shape}: they belong to different "
                f"students; {ADVICE}"
            )
        self._start_id = start_id
        # an input of the branch with cache, which does not read it
        self._unread = _value(np.zeros((1, 1, width), dtype=np.float32))

    @property
    def bytes_per_token(self) -> int:
        """Size of one token's keys and values; a token of an encoded prompt takes as much."""
        return self.shape.num_values * np.dtype(np.float32).itemsize

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[Cache, list[list[int]]]:
        """Encode prompts, padded on the right; see `Graph`."""
        lengths = np.array(list(map(len, prompts)), dtype=np.int64)
        ids = np.zeros((len(prompts), int(lengths.max())), dtype=np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        mask = int_value((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64))
        encoded = self._encoder.run_with_ort_values(
            [ENCODER_OUTPUT], {"input_ids": int_value(ids), "attention_mask": mask}
        )
        starts = np.full((len(prompts), 1), self._start_id, dtype=np.int64)
        tokens = self._no_tokens(len(prompts))
        feeds = self._feeds(starts, np.ones_like(starts), encoded[0], mask, is_cached=False)
        feeds |= dict.fromkeys([*self._own, *self._cross], tokens[0])
        cross = self._decoder.run_with_ort_values([_present(name) for name in self._cross], feeds)
        return Cache(tokens, [*cross, mask]), starts.tolist()

    def step(
        self, input_ids: IntArray, attention_mask: IntArray, position_ids: IntArray, cache: Cache
    ) -> tuple[npt.NDArray[np.float32], Cache]:
        """Run new tokens through the decoder, whose positions are relative; see `Graph`."""
        *cross, mask = cache.context
        feeds = self._feeds(input_ids, attention_mask, self._unread, mask, is_cached=True)
        feeds |= dict(zip([*self._own, *self._cross], [*cache.tokens, *cross], strict=True))
        outputs = self._decoder.run_with_ort_values(["logits", *map(_present, self._own)], feeds)
        return outputs[0].numpy(), Cache(outputs[1:], cache.context)

    def _no_tokens(self, num_rows: int) -> list[Any]:
        nothing = np.zeros((num_rows, self.shape.num_heads, 0, self.shape.head_dim), dtype=np.float32)
        return [_value(nothing) for _ in self._own]

    def _feeds(
        self, input_ids: IntArray, attention_mask: IntArray, hidden: Any, mask: Any, *, is_cached: bool
    ) -> dict[str, Any]:
        return {
            "input_ids": int_value(input_ids),
            "attention_mask": int_value(attention_mask),
            "encoder_hidden_states": hidden,
            "encoder_attention_mask": mask,
            "use_cache_branch": _value(np.array([is_cached])),
        }


def _present(name: str) -> str:
    return name.replace("past_key_values", "present")


def _check_names(path: Path, session: Any, inputs: set[str], outputs: set[str]) -> None:
    found_inputs = {value.name for value in session.get_inputs()}
    missing = (inputs - found_inputs) | (outputs - {value.name for value in session.get_outputs()})
    wrong = sorted(missing) or sorted(found_inputs - inputs)
    if wrong:
        what = "lacks" if missing else "wants"
        raise ModelError(f"{path}: not an encoder-decoder with standard names: {what} {', '.join(wrong[:4])}; {ADVICE}")


def _value(array: npt.NDArray[Any]) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
