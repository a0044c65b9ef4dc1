"""The students and their exports, and how each engine is run over them; all made once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from engines import Engine
from shapes import make_student
from workload import training_texts

import edgeelad.export
from edgeelad.files import make_folder

SLOW_BATCH = 32


class Models:
    """What engines need for one shape."""

    def __init__(self, cache: Path, shape: str, data: Path) -> None:
        self._cache, self._shape, self._data = cache, shape, data

    def engine(self, name: str, cores: int) -> Engine:
        """An engine by name, ready to be run."""
        return self.ENGINES[name](self, name, cores)

    def student(self) -> Path:
        """The transformers folder."""
        folder = self._cache / "students" / self._shape
        make_student(self._shape, training_texts(self._data), folder)
        return folder

    def fused(self) -> Path:
        """edgeelad's graphs, fp32 and int8, as the export code of today writes them."""
        from edgeelad.export.graph import traced_graph, write_student_graphs

        code = sorted(Path(edgeelad.export.__file__).parent.glob("*.py"))
        key = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:12]
        folder = self._cache / "edgeelad" / f"{self._shape}-{key}"
        student = self.student()

        def fill(made: Path) -> None:
            import shutil

            graph = traced_graph(student, made / "scratch")
            shutil.rmtree(made / "scratch")
            for quantization in ("none", "int8"):
                write_student_graphs(graph, made, quantization)

        if not folder.exists():
            print(f"exporting {self._shape}", file=sys.stderr, flush=True)
            make_folder(folder, fill)
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

    def _edgeelad(self, name: str, cores: int) -> Engine:
        precision = "int8" if "int8" in name else "fp32"
        processes = 1 if "worker" in name or "threads" in name else cores
        threads = cores if "threads" in name else 1
        settings = {"folder": str(self.fused()), "precision": precision, "threads": threads}
        return Engine(name, Path(sys.executable), "run_edgeelad.py", settings, processes)

    def _hugging_face(self, name: str, cores: int) -> Engine:
        engine = name.partition("-")[0]
        folder = self.optimum() if engine == "optimum" else self.student()
        settings = {"folder": str(folder), "threads": cores, "engine": engine, "batch_size": SLOW_BATCH}
        return Engine(name, Path(sys.executable), "run_torch.py", settings, is_slow=True)

    # in the order of a round
    ENGINES: ClassVar[dict[str, Callable[[Models, str, int], Engine]]] = {
        "edgeelad-int8": _edgeelad,
        "edgeelad-fp32": _edgeelad,
        "edgeelad-int8-one-worker": _edgeelad,
        "edgeelad-int8-threads": _edgeelad,
        "optimum-generate": _hugging_face,
        "torch-generate": _hugging_face,
    }
