"""Swap a later student's weights into the graphs of an earlier one: copy the graph files, write a new weights file.

Tracing takes most of the time of an export, and its result is the same every round. A learned tensor's name states how
it is computed from the student's parameters (`name`, `name.T`, `name.plus1`); each tensor is computed again and written
to its old offset. The files are, byte for byte, those of a fresh export. Quantized graphs are made anew from these
files (`fused.build`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeelad.engine.graph_files import GraphFiles
from edgeelad.errors import ModelError
from edgeelad.export.fused.build import load_parameters

Weight = NDArray[np.generic]
LEARNED = re.compile(r"(?P<source>.+?)(?P<transposed>\.T)?(?P<shifted>\.plus1)?")
# settings that may differ between students of one architecture
IGNORED_KEYS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")


class GraphMismatchError(ModelError):
    """The earlier graphs are of another architecture, or not edgeelad's: a fresh export is needed."""


def swap_weights(previous: Path, student: Path, out: Path) -> GraphFiles:
    """Write the fp32 graphs of `previous` with the weights of `student` into `out`.

    Args:
        previous: The onnx folder of an earlier student, with its config.json.
        student: A transformers folder.
        out: An existing folder.

    Raises:
        GraphMismatchError: The two are not of the same architecture, or `previous` lacks a file.
    """
    _check_same_architecture(previous, student)
    parameters = load_parameters(student)
    old, new = GraphFiles(previous), GraphFiles(out)
    missing = [path.name for path in (*old.fused, old.weights) if not path.is_file()]
    if missing:
        raise GraphMismatchError(f"{previous}: no {', '.join(missing)} to put weights into")
    models = [onnx.load(str(path), load_external_data=False) for path in old.fused]
    _check_all_used(models[0], parameters, old.standard)
    _write_weights(models, old, new, parameters)
    for source, target in zip(old.fused, new.fused, strict=True):
        shutil.copyfile(source, target)
    return new


def _check_same_architecture(previous: Path, student: Path) -> None:
    def relevant(folder: Path) -> dict[str, object]:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise GraphMismatchError(f"{folder}: its config.json cannot be read ({error})") from error
        return {key: value for key, value in config.items() if key not in IGNORED_KEYS}

    old, new = relevant(previous), relevant(student)
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        raise GraphMismatchError(f"{previous}: another architecture than {student} ({', '.join(differing[:4])})")


def _check_all_used(model: onnx.ModelProto, parameters: Mapping[str, Weight], path: Path) -> None:
    """Check that no parameter is missing: a head equal to the embedding, for example, is not stored of its own."""
    matches = (LEARNED.fullmatch(tensor.name) for tensor in model.graph.initializer)
    unused = sorted(parameters.keys() - {match["source"] for match in matches if match is not None})
    if unused:
        raise GraphMismatchError(f"{path}: no place for {unused[0]}")


def _write_weights(
    models: list[onnx.ModelProto], old: GraphFiles, new: GraphFiles, parameters: Mapping[str, Weight]
) -> None:
    """Write each external tensor to its offset: learned ones from the parameters, the others unchanged."""
    places = {_place(tensor): tensor for model in models for tensor in model.graph.initializer if tensor.external_data}
    with old.weights.open("rb") as source, new.weights.open("wb") as target:
        for (offset, length), tensor in sorted(places.items()):
            learned = _make(tensor.name, parameters)
            if learned is not None:
                content = _checked(tensor, learned).tobytes()
            else:
                source.seek(offset)
                content = source.read(length)
            target.write(b"\0" * (offset - target.tell()))
            target.write(content)


def _place(tensor: TensorProto) -> tuple[int, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return int(entries["offset"]), int(entries["length"])


def _make(name: str, parameters: Mapping[str, Weight]) -> Weight | None:
    """Compute the tensor of this name; None for a constant."""
    match = LEARNED.fullmatch(name)
    if match is None or match["source"] not in parameters:
        return None
    weight = parameters[match["source"]]
    if match["transposed"]:
        weight = np.ascontiguousarray(weight.T)
    return weight + 1 if match["shifted"] else weight


def _checked(tensor: TensorProto, value: Weight) -> Weight:
    if list(value.shape) != list(tensor.dims) or value.dtype != helper.tensor_dtype_to_np_dtype(tensor.data_type):
        raise GraphMismatchError(f"{tensor.name}: shape {list(value.shape)}, but the graph has {list(tensor.dims)}")
    return value
