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

from edgeelad.engine.shape import CacheShape
from edgeelad.errors import ModelError

IntArray = npt.NDArray[np.int64]
PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)$")
ADVICE = "export the student again with `edgeelad export`"
MIN_ONNXRUNTIME = (1, 22)  # older ones lack 8-bit MatMulNBits, and die on a Raspberry Pi 4 (onnxruntime #23957)
CACHE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
SETTINGS = {
    # spinning threads would take the cores from the other workers and from torch (onnxruntime #13808)
    "session.intra_op.allow_spinning": "0",
}


class OnnxGraph:
    """A decoder graph with standard names, and the cache that its steps hand on.

    A cache is a list of OrtValues in the order of `past_names`, each [rows, num_heads, past length, head_dim].

    Attributes:
        num_heads, head_dim: Of the cached keys and values.
        vocab_size: Columns of the logits.
    """

    def __init__(self, path: Path, num_threads: int = 1, shape: CacheShape | None = None) -> None:
        """Open a graph; `shape` is what the student's configuration says of the cache, where it says it.

        Raises:
            ModelError: The file cannot be loaded, is no decoder with standard names, or has another shape.
        """
        self.session = open_session(path, num_threads)
        inputs = {value.name: value for value in self.session.get_inputs()}
        outputs = {value.name: value for value in self.session.get_outputs()}
        self.past_names = [name for name in inputs if PAST.match(name)]
        self.present_names = [name.replace("past_key_values", "present") for name in self.past_names]
        _check_names(path, set(inputs), set(outputs), self.past_names, self.present_names)
        self.has_positions = "position_ids" in inputs
        found = _cache_shape(path, [inputs[name].shape for name in self.past_names])
        if shape is not None and shape != found:
            raise ModelError(
                f"{path}: the graph caches {found}, but config.json beside it says {shape}: they belong to different "
                f"students; {ADVICE}"
            )
        self.num_layers, self.num_heads, self.head_dim = found.num_layers, found.num_heads, found.head_dim
        self.cache_type = CACHE_TYPES.get(inputs[self.past_names[0]].type)
        if self.cache_type is None:
            raise ModelError(f"{path}: its cache holds {inputs[self.past_names[0]].type}, not float; {ADVICE}")
        logits = outputs["logits"].shape
        if len(logits) != 3 or not isinstance(logits[2], int):
            raise ModelError(f"{path}: its logits are {logits}, not [rows, tokens, vocabulary]; {ADVICE}")
        self.vocab_size: int = logits[2]

    @property
    def cache_bytes_per_token(self) -> int:
        """Size of the keys and values of one token."""
        assert self.cache_type is not None
        return len(self.past_names) * self.num_heads * self.head_dim * np.dtype(self.cache_type).itemsize

    def empty_cache(self, num_rows: int) -> list[Any]:
        """The cache before the first step."""
        nothing = np.zeros((num_rows, self.num_heads, 0, self.head_dim), dtype=self.cache_type)
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
        return outputs[0].numpy().astype(np.float32, copy=False), outputs[1:]


def take_rows(cache: list[Any], rows: IntArray, num_dropped: int = 0) -> list[Any]:
    """The cache of some rows, in that order, without its first `num_dropped` places; a row may be taken repeatedly."""
    return [onnxruntime.OrtValue.ortvalue_from_numpy(value.numpy()[rows, :, num_dropped:]) for value in cache]


def open_session(path: Path, num_threads: int) -> Any:
    """Open a graph on the CPU, with threads that sleep when there is nothing to do.

    Raises:
        ModelError: The file is missing or torn, or ONNX Runtime is too old.
    """
    check_onnxruntime(onnxruntime.__version__)
    if not path.is_file():
        raise ModelError(f"{path}: missing; {ADVICE}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for name, value in SETTINGS.items():
        options.add_session_config_entry(name, value)
    # Shapes change every step: patterns would only pile up (onnxruntime #11627), and no reuse of memory can be planned:
    # looking for one at load takes the square of the number of nodes, six of eight seconds for a graph with trees.
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
        reason = " ".join(str(error).split())[:600]
        raise ModelError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({reason}); {ADVICE}, or update onnxruntime"
        ) from error


def flush_denormals() -> None:
    """Let sessions treat denormal numbers as zero, in a process that does nothing but run them.

    A probability below 1e-38 takes an Intel core a hundred cycles, and the hidden columns of a tree's attention are all
    such. What a student computes stays the same bits: next to the other terms of a sum they are nothing. To be called
    before the first session is opened: ONNX Runtime then changes the thread's floating-point mode for good (onnxruntime
    #5391), which no library may do to somebody else's process.
    """
    SETTINGS["session.set_denormal_as_zero"] = "1"


def check_onnxruntime(version: str) -> None:
    """Raise ModelError where this version of ONNX Runtime is too old."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < MIN_ONNXRUNTIME:
        wanted = ".".join(map(str, MIN_ONNXRUNTIME))
        raise ModelError(
            f"ONNX Runtime {version} is too old: students need {wanted} or newer; "
            f"install it with: pip install 'onnxruntime>={wanted}'"
        )


def _check_names(path: Path, inputs: set[str], outputs: set[str], past: list[str], present: list[str]) -> None:
    missing = ({"input_ids", "attention_mask"} - inputs) | ({"logits", *present} - outputs)
    unknown = inputs - {"input_ids", "attention_mask", "position_ids", *past}
    if not past:
        missing.add("past_key_values.0.key")
    if missing or unknown:
        found = "; ".join(
            f"{word} {', '.join(sorted(names)[:4])}"
            for word, names in (("lacks", missing), ("wants", unknown))
            if names
        )
        raise ModelError(f"{path}: not a decoder with cache and standard names: {found}; {ADVICE}")


def _cache_shape(path: Path, shapes: list[list[int | str]]) -> CacheShape:
    sizes = {(shape[1], shape[3]) if len(shape) == 4 else () for shape in shapes}
    match sizes.pop() if len(sizes) == 1 else ():
        case (int(num_heads), int(head_dim)):
            return CacheShape(len(shapes) // 2, num_heads, head_dim)
    raise ModelError(
        f"{path}: its cache is not [rows, heads, length, head size] with the same fixed heads and head size in each "
        f"layer ({shapes[0]}); {ADVICE}"
    )


def _value(array: IntArray) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, dtype=np.int64))
