"""An ONNX Runtime session over a student exported with the standard names: one forward step at a time.

Knows tokens and keys and values; not what they mean. Inputs `input_ids, attention_mask, position_ids,
past_key_values.*`, outputs `logits, present.*`, as Optimum exports decoders.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.errors import ModelError

IntArray = npt.NDArray[np.int64]
PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)$")
ADVICE = "export the student again with `edgeelad export`"


class OnnxGraph:
    """A decoder graph with standard names, and the cache that its steps hand on.

    Attributes:
        num_heads, head_dim: Shape of the cached keys and values: [batch, num_heads, past length, head_dim].
        vocab_size: Columns of the logits.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        self.session = open_session(path, num_threads)
        inputs = {value.name: value for value in self.session.get_inputs()}
        self.past_names = [name for name in inputs if PAST.match(name)]
        missing = {"input_ids", "attention_mask"} - set(inputs)
        unknown = set(inputs) - {"input_ids", "attention_mask", "position_ids", *self.past_names}
        outputs = [value.name for value in self.session.get_outputs()]
        if missing or unknown or not self.past_names or outputs[0] != "logits":
            raise ModelError(
                f"{path}: not a decoder with cache and standard names (missing {sorted(missing)}, "
                f"unexpected {sorted(unknown)}, outputs {outputs[:2]}); {ADVICE}"
            )
        self.has_positions = "position_ids" in inputs
        self.present_names = [name.replace("past_key_values", "present") for name in self.past_names]
        shape = inputs[self.past_names[0]].shape
        if not isinstance(shape[1], int) or not isinstance(shape[3], int):
            raise ModelError(f"{path}: the cache's heads and head size are not fixed in the graph ({shape}); {ADVICE}")
        self.num_heads, self.head_dim = shape[1], shape[3]
        self.vocab_size = int(self.session.get_outputs()[0].shape[2])

    def empty_cache(self, num_rows: int) -> list[Any]:
        """The cache before the first step."""
        nothing = np.zeros((num_rows, self.num_heads, 0, self.head_dim), dtype=np.float32)
        return [onnxruntime.OrtValue.ortvalue_from_numpy(nothing) for _ in self.past_names]

    def step(
        self, input_ids: IntArray, attention_mask: IntArray, position_ids: IntArray, cache: list[Any]
    ) -> tuple[npt.NDArray[np.float32], list[Any]]:
        """Run new tokens through the graph.

        Args:
            input_ids: The new tokens, shape [rows, new].
            attention_mask: 1 where a token counts, over past and new, shape [rows, past + new].
            position_ids: The new tokens' positions, shape [rows, new].
            cache: Keys and values of the past.

        Returns:
            The logits, shape [rows, new, vocabulary], and the cache with the new tokens.
        """
        feeds = {"input_ids": _value(input_ids), "attention_mask": _value(attention_mask)}
        if self.has_positions:
            feeds["position_ids"] = _value(position_ids)
        feeds |= dict(zip(self.past_names, cache, strict=True))
        outputs = self.session.run_with_ort_values(["logits", *self.present_names], feeds)
        return outputs[0].numpy(), outputs[1:]


def take_rows(cache: list[Any], rows: IntArray) -> list[Any]:
    """The cache of some rows, in that order; a row may be taken several times."""
    return [onnxruntime.OrtValue.ortvalue_from_numpy(value.numpy()[rows]) for value in cache]


def open_session(path: Path, num_threads: int) -> Any:
    """Open a graph on the CPU, with threads that sleep when there is nothing to do.

    Raises:
        ModelError: The file is missing, torn, or needs a newer ONNX Runtime.
    """
    if not path.is_file():
        raise ModelError(f"{path}: missing; {ADVICE}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # spinning threads would take the cores from the other workers and from torch (onnxruntime #13808)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # shapes change every step: patterns would only pile up (onnxruntime #11627)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({reason}); {ADVICE}, or update onnxruntime"
        ) from error


def _value(array: IntArray) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, dtype=np.int64))
