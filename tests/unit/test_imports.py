"""Light modules stay light: the base install has no torch, and importing does nothing heavy."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import edgeelad

HEAVY = {
    "torch", "transformers", "optimum", "peft", "datasets", "accelerate", "onnx", "sklearn", "scipy", "pandas",
    "requests", "starlette", "uvicorn", "ray", "pyarrow",
}  # fmt: skip
# what only a workstation uses may import torch when it is called, but not when it is imported
ALL_MODULES = sorted(
    name for _, name, _ in pkgutil.walk_packages(edgeelad.__path__, "edgeelad.") if not name.endswith("__main__")
)
LIST_LOADED = """
import sys, json, importlib
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def _loaded(names: list[str]) -> set[str]:
    code = LIST_LOADED.format(names=names)
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {module.partition(".")[0] for module in json.loads(output)}


def test_no_light_module_loads_anything_heavy() -> None:
    light = [
        name
        for name in ALL_MODULES
        if not name.startswith(("edgeelad.training.", "edgeelad.export.", "edgeelad.quickstart.student"))
    ]
    assert "edgeelad.engine.student" in light
    assert "edgeelad.loop" in light
    assert _loaded(light) & HEAVY == set()


def test_the_command_line_loads_almost_nothing() -> None:
    assert _loaded(["edgeelad.cli.commands"]) & {"onnxruntime", "numpy", "pydantic", "tokenizers"} == set()


def test_the_root_launcher_is_the_command_line() -> None:
    root = Path(edgeelad.__file__).parents[1] / "cli.py"
    output = subprocess.run([sys.executable, str(root), "--version"], check=True, capture_output=True, text=True).stdout
    assert output == f"edgeelad, version {edgeelad.__version__}\n"
