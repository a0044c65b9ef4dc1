"""Names of a student's graph files: one table for every precision and purpose.

    model.onnx            standard names, for Optimum, transformers.js, onnxruntime-genai and other runtimes
    engine.graph          the same student for `engine.packed`, one question at a time: devices
    engine_lanes.graph    the same for many questions at a time, and their trees: scoring
    model.onnx_data       the weights of all three

An encoder-decoder has two graphs with standard names instead, and no engine graphs:

    encoder_model.onnx, decoder_model_merged.onnx

An int8 or int4 student has the same files with `_quantized` after the stem; a folder holds one of the two. In int8, the
weights for many rows differ from those for one, and are in a file of their own, with a second graph that reads them:

    engine_rows_quantized.graph         `engine.graph` over these weights: servers
    engine_lanes_quantized.graph_data   the weights of this graph and of that with lanes

An exported folder holds the files itself, a package in its folder `onnx`. A folder without engine graphs runs on the
standard one, one without the graph for many rows or with lanes on another engine graph.

Engine graphs are ONNX files without the suffix `.onnx`: Optimum loads any `.onnx` file that it finds in any folder.
Earlier versions wrote them as `engine.onnx` and `engine_lanes.onnx`, which are read if the new names are absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgeelad.engine.onnx_file import summarize_graph
from edgeelad.errors import ModelError

Precision = Literal["fp32", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EngineKind = Literal["engine", "rows", "lanes"]  # one question at a time; several clients; scoring
ONNX_FOLDER = "onnx"
STANDARD_SUFFIX = ".onnx"
ENGINE_SUFFIX = ".graph"
NO_LANES = (
    "this package has no graph for scoring, so trees run one by one, more slowly; package with "
    "export.include_scoring=true, or score the run's rounds/NN/onnx with the package's --precision, --kind and "
    "--max-tokens"
)
AGREEMENT_FILE = "quantization.json"  # of an exported folder: how closely the quantized graph follows fp32


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """The graph files of one precision, whether they exist or not.

    Attributes:
        folder: Where they are.
        precision: Of the weights.
    """

    folder: Path
    precision: Precision = "fp32"

    @property
    def standard(self) -> Path:
        """The graph with standard names; the decoder's, if there is an encoder."""
        return self.decoder if self.encoder.is_file() else self._path("model", STANDARD_SUFFIX)

    @property
    def encoder(self) -> Path:
        """The encoder of an encoder-decoder."""
        return self._path("encoder_model", STANDARD_SUFFIX)

    @property
    def decoder(self) -> Path:
        """The decoder of an encoder-decoder, with and without cache."""
        return self._path("decoder_model_merged", STANDARD_SUFFIX)

    @property
    def engine(self) -> Path:
        """The engine's graph for one question at a time."""
        return self._engine_path("engine")

    @property
    def lanes(self) -> Path:
        """The engine's graph for many questions at a time."""
        return self._engine_path("engine_lanes")

    @property
    def rows(self) -> Path:
        """The engine's graph for several clients, if that with lanes has weights of its own."""
        return self._path("engine_rows", ENGINE_SUFFIX)

    @property
    def weights(self) -> Path:
        """The weights, if the graphs do not contain them."""
        return self._path("model", f"{STANDARD_SUFFIX}_data")

    @property
    def lanes_weights(self) -> Path:
        """The weights for many rows, if they are not those of the standard graph."""
        return self._path("engine_lanes", f"{ENGINE_SUFFIX}_data")

    @property
    def fused(self) -> tuple[Path, Path, Path]:
        """The three graphs of a student with engine graphs."""
        return self._path("model", STANDARD_SUFFIX), self.engine, self.lanes

    @property
    def graphs(self) -> tuple[Path, ...]:
        """All graphs that a student may have."""
        return *self.fused, self.rows, self.encoder, self.decoder

    def find_engine(self, kind: EngineKind) -> Path | None:
        """The engine's graph of this kind, or the one that runs instead of it; None if there is none."""
        first = {"engine": (), "rows": (self.rows,), "lanes": (self.lanes,)}[kind]
        return next((path for path in (*first, self.engine, self.lanes) if path.is_file()), None)

    @property
    def lacks_lanes(self) -> bool:
        """Whether many questions run on the engine's graph for one, because that with lanes was left out."""
        return self.engine.is_file() and not self.lanes.is_file()

    @property
    def files(self) -> tuple[Path, ...]:
        """The graphs and their weights."""
        return *self.graphs, self.weights, self.lanes_weights

    def existing(self) -> list[Path]:
        """The files that exist, sorted by name."""
        return sorted(path for path in self.files if path.is_file())

    def _engine_path(self, stem: str) -> Path:
        path, former = self._path(stem, ENGINE_SUFFIX), self._path(stem, STANDARD_SUFFIX)
        return former if former.is_file() and not path.is_file() else path

    def _path(self, stem: str, suffix: str) -> Path:
        return self.folder / f"{stem}{'' if self.precision == 'fp32' else '_quantized'}{suffix}"


def find_graphs(folder: Path, precision: Precision | None = None) -> GraphFiles:
    """Find the graphs of an exported folder or a package.

    Args:
        folder: The folder.
        precision: Which graphs; default: fp32 if there are any, else the quantized ones.

    Raises:
        ModelError: There is no standard graph of this precision.
    """
    places = (folder, folder / ONNX_FOLDER)
    found = [GraphFiles(place) for place in places if GraphFiles(place).standard.is_file()]
    if not found or precision not in ("fp32", None):
        found += [
            GraphFiles(place, quantized_precision(files.find_engine("engine") or files.standard))
            for place in places
            if (files := GraphFiles(place, "int8")).standard.is_file()
        ]
    for files in found:
        if precision in (files.precision, None):
            return files
    if found:
        raise ModelError(
            f"{folder}: has no {precision} graph; use its {' or '.join(files.precision for files in found)} graph"
        )
    names = " or ".join(GraphFiles(folder, name).standard.name for name in ("fp32", "int8"))
    raise ModelError(
        f"{folder}: no {names} in it or in its folder {ONNX_FOLDER}; export the student with `edgeelad export`"
    )


def has_graphs(folder: Path) -> bool:
    """Whether a folder holds graphs: an exported folder or a package does."""
    places = (folder, folder / ONNX_FOLDER)
    return any(GraphFiles(place, name).standard.is_file() for place in places for name in PRECISIONS)


def quantized_precision(path: Path) -> Precision:
    """Whether a quantized graph is int8 or int4: they have the same file names.

    Raises:
        ModelError: The file is damaged.
    """
    return "int4" if 4 in summarize_graph(path).weight_bits else "int8"
