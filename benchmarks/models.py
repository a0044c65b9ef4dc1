"""The students and their exports, and how each engine is run over them; all made once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from engines import PEERS, Engine
from environments import environment, run
from shapes import make_student
from workload import training_texts

import edgeelad.export
from edgeelad.engine.graph_files import ONNX_FOLDER, PRECISIONS, GraphFiles, Precision
from edgeelad.files import make_folder
from edgeelad.package.runtimes import write_runtime_settings

SLOW_BATCH = 32
# weights are int8 in all; where nothing is said OpenVINO chooses: with AMX bf16 activations, u8 keys and values
OPENVINO_PROPERTIES: dict[str, dict[str, str]] = {
    "openvino-int8": {},
    "openvino-int8-kv-bf16": {"KV_CACHE_PRECISION": "bf16"},
    "openvino-int8-f32": {"INFERENCE_PRECISION_HINT": "f32"},
    "openvino-int8-f32-kv-f32": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
}


EDGE_ENGINES = (
    "edgeelad-int8",
    "edgeelad-int4",
    "edgeelad-fp32",
    "edgeelad-genai-int8",  # edgeelad's own package in onnxruntime-genai
    "edgeelad-genai-int4",
    "openvino-int8",
    "onnxruntime-genai-int8",
    "onnxruntime-genai-int4",
    "llama.cpp-int8",
    "llama.cpp-int4",
)
GGUF_TYPES = {"int8": "Q8_0", "int4": "Q4_0"}


class Models:
    """What engines need for one shape."""

    def __init__(self, cache: Path, shape: str, data: Path) -> None:
        self._cache, self._shape, self._data = cache, shape, data

    def engine(self, name: str, cores: int) -> Engine:
        """An engine by name, ready to be run."""
        return (self.ENGINES | self.EDGE_ONLY)[name](self, name, cores)

    def edge_engine(self, name: str, cores: int) -> Engine:
        """The same engine in one process, which takes one prompt at a time."""
        engine = self.engine(name, cores)
        settings = engine.settings | {"is_one_by_one": True, "threads": cores, "batch_size": 1}
        return replace(engine, settings=settings, num_processes=1, is_slow=False)

    def student(self) -> Path:
        """The transformers folder."""
        folder = self._cache / "students" / self._shape
        make_student(self._shape, training_texts(self._data), folder)
        return folder

    def fused(self) -> Path:
        """edgeelad's graphs, fp32, int8 and in a folder int4 these too, as the export code of today writes them."""
        from edgeelad.export.fused.build import traced_graph, write_quantized_graphs, write_student_graphs

        folder = self._cache / "edgeelad" / f"{self._shape}-{_code_key()}"
        student = self.student()

        def fill(made: Path) -> None:
            graph = traced_graph(student, made / "scratch")
            shutil.rmtree(made / "scratch")
            files = write_student_graphs(graph, made)
            write_quantized_graphs(files, made, "int8", [])  # random weights need no calibration
            (made / "int4").mkdir()
            write_quantized_graphs(files, made / "int4", "int4", [])

        if not folder.exists():
            print(f"exporting {self._shape}", file=sys.stderr, flush=True)
            make_folder(folder, fill)
        return folder

    def exported(self) -> Path:
        """What `edgeelad export` makes of the student, as its code of today does."""
        folder, student = self._cache / "exported" / f"{self._shape}-{_code_key()}", self.student()
        if not folder.exists():
            run(sys.executable, "-m", "edgeelad", "export", "--student", str(student), "--out", str(folder), "--quiet")
        return folder

    def optimum(self) -> Path:
        """Optimum's own export, as `optimum-cli export onnx` writes it."""
        from optimum.exporters.onnx import main_export

        folder, student = self._cache / "optimum" / self._shape, self.student()
        if not folder.exists():
            make_folder(
                folder,
                lambda made: main_export(str(student), made, task="text-generation-with-past", do_validation=False),
            )
        return folder

    def package(self, precision: Precision) -> Path:
        """The graphs, tokenizer and settings of a package in `precision`, as other runtimes read them."""
        folder = self._cache / "packages" / f"{self._shape}-{precision}-{_code_key()}"
        student, graphs = self.student(), self.fused()

        def fill(made: Path) -> None:
            for source in student.glob("*.json"):
                shutil.copyfile(source, made / source.name)
            (made / ONNX_FOLDER).mkdir()
            for source in GraphFiles(_of_precision(graphs, precision), precision).existing():
                shutil.copyfile(source, made / ONNX_FOLDER / source.name)
            write_runtime_settings(made, GraphFiles(made / ONNX_FOLDER, precision), 256)

        if not folder.exists():
            make_folder(folder, fill)
        return folder

    def gguf(self, precision: str) -> Path:
        """The student in llama.cpp's format, "int8" or "int4"."""
        path = self._cache / "gguf" / f"{self._shape}-{precision}.gguf"
        return write_gguf(self.student(), path, precision, environment("llama.cpp", self._cache))

    def _edgeelad(self, name: str, cores: int) -> Engine:
        precision = next(one for one in PRECISIONS if one in name)
        processes = 1 if "worker" in name or "threads" in name else cores
        threads = cores if "threads" in name else 1
        folder = _of_precision(self.fused(), precision)
        settings = {"folder": str(folder), "precision": precision, "threads": threads}
        return Engine(name, Path(sys.executable), "run_edgeelad.py", settings, processes)

    def _hugging_face(self, name: str, cores: int) -> Engine:
        engine = name.partition("-")[0]
        folder = self.optimum() if engine == "optimum" else self.student()
        settings = {"folder": str(folder), "threads": cores, "engine": engine, "batch_size": SLOW_BATCH}
        return Engine(name, Path(sys.executable), "run_torch.py", settings, is_slow=True)

    def openvino(self) -> Path:
        """The int8 model that optimum-intel converts."""
        folder = self._cache / "openvino" / self._shape
        return write_openvino(self.student(), folder, environment("openvino", self._cache))

    def onnxruntime_genai(self, precision: str) -> Path:
        """The model that onnxruntime-genai's builder makes, "int8", "int4" or "fp32"."""
        folder, student = self._cache / "onnxruntime-genai" / f"{self._shape}-{precision}", str(self.student())
        if not folder.exists():
            python = str(environment("onnxruntime-genai", self._cache))
            builder = (python, "-m", "onnxruntime_genai.models.builder", "-m", student, "-i", student, "-e", "cpu")
            rest = ("-p", precision, "-c", str(self._cache / "onnxruntime-genai"), "-o")
            make_folder(folder, lambda made: run(*builder, *rest, str(made)))
        return folder

    def _openvino(self, name: str, cores: int) -> Engine:
        python = environment("openvino", self._cache)
        settings = {"folder": str(self.openvino()), "threads": cores, "properties": OPENVINO_PROPERTIES[name]}
        return Engine(name, python, "run_openvino.py", settings)

    def _onnxruntime_genai(self, name: str, cores: int) -> Engine:
        python, precision = environment("onnxruntime-genai", self._cache), name.rpartition("-")[2]
        folder = self.package(precision) if name.startswith("edgeelad") else self.onnxruntime_genai(precision)
        settings = {"folder": str(folder), "precision": precision, "threads": cores, "batch_size": SLOW_BATCH}
        return Engine(name, python, "run_genai.py", settings, is_slow=True)

    def _llama_cpp(self, name: str, cores: int) -> Engine:
        precision = name.rpartition("-")[2]
        settings = {"folder": str(self.gguf(precision)), "precision": precision, "threads": cores}
        return Engine(name, environment("llama.cpp", self._cache), "run_llama.py", settings)

    # in the order of a round
    ENGINES: ClassVar[dict[str, Callable[[Models, str, int], Engine]]] = {
        "edgeelad-int8": _edgeelad,
        "edgeelad-fp32": _edgeelad,
        "edgeelad-int8-one-worker": _edgeelad,
        "edgeelad-int8-threads": _edgeelad,
        "optimum-generate": _hugging_face,
        "torch-generate": _hugging_face,
        "openvino-int8": _openvino,
        "openvino-int8-kv-bf16": _openvino,
        "openvino-int8-f32": _openvino,
        "openvino-int8-f32-kv-f32": _openvino,
        "onnxruntime-genai-int8": _onnxruntime_genai,
        "onnxruntime-genai-int4": _onnxruntime_genai,
        "onnxruntime-genai-fp32": _onnxruntime_genai,
    }
    # those that take one prompt at a time only
    EDGE_ONLY: ClassVar[dict[str, Callable[[Models, str, int], Engine]]] = {
        "edgeelad-int4": _edgeelad,
        "edgeelad-genai-int8": _onnxruntime_genai,
        "edgeelad-genai-int4": _onnxruntime_genai,
        "llama.cpp-int8": _llama_cpp,
        "llama.cpp-int4": _llama_cpp,
    }


def write_gguf(student: Path, path: Path, precision: str, python: Path) -> Path:
    """Convert a student for llama.cpp, "int8" or "int4", unless the file exists."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial, script = path.with_suffix(".partial"), PEERS / "write_gguf.py"
        run(str(python), str(script), str(student), str(partial), GGUF_TYPES[precision])
        partial.rename(path)
    return path


def write_openvino(student: Path, folder: Path, python: Path) -> Path:
    """Convert a student to int8 as optimum-intel does, unless the folder exists."""
    command = (str(python.with_name("optimum-cli")), "export", "openvino", "-m", str(student))
    options = ("--task", "text-generation-with-past", "--weight-format", "int8")
    if not folder.exists():
        make_folder(folder, lambda made: run(*command, *options, str(made)))
    return folder


def _of_precision(fused: Path, precision: str) -> Path:
    """The folder of `Models.fused` that has the graphs of a precision: fp32 and int8 share one."""
    return fused / "int4" if precision == "int4" else fused


def _code_key() -> str:
    """A name for the export code as it is."""
    code = sorted(Path(edgeelad.export.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:12]
