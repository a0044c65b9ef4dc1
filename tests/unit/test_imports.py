"""Light modules stay light: the base install has no torch, and importing does nothing heavy."""

import ast
import graphlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import edgeelad
from edgeelad.cli.commands import COMMANDS

# The layers of the package, high to low; a module imports its own room or rooms further down, and never in a circle.
# CONTRIBUTING.md shows the same.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("launch", "edge"),
    ("loop",),
    ("stages", "quickstart", "scoring"),
    ("report", "export"),
    ("run", "package", "selection", "training"),
    ("teacher", "uncertainty", "pool", "stopping", "config_toml"),
    ("config",),
    ("engine", "accuracy"),
    ("text", "record_files", "certificate", "plugins", "progress", "known_prices"),
    ("files",),
    ("records", "errors", "bounds", "logistic", "hosts", "locks", "edgeelad"),
)

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


def test_a_device_opens_its_graph_before_the_rest_is_imported() -> None:
    """`load` opens it in a thread: what is imported beforehand delays the first token."""
    assert _loaded(["edgeelad.api.student"]) & {"tokenizers", "jinja2", "click"} == set()


def test_a_command_is_imported_when_it_is_used() -> None:
    code = "import sys; from edgeelad.cli.commands import cli; cli.get_command(None, 'run'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "edgeelad.cli.student" in loaded
    assert {f"edgeelad.cli.{module}" for module, _ in COMMANDS.values()} & set(loaded) == {"edgeelad.cli.student"}


def test_the_root_launcher_is_the_command_line() -> None:
    root = Path(edgeelad.__file__).parents[1] / "cli.py"
    output = subprocess.run([sys.executable, str(root), "--version"], check=True, capture_output=True, text=True).stdout
    assert output == f"edgeelad, version {edgeelad.__version__}\n"


def _modules() -> dict[str, Path]:
    root = Path(edgeelad.__file__).parent
    paths = {path: path.relative_to(root.parent).with_suffix("").parts for path in root.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in paths.items()}


def _imports(node: ast.AST) -> Iterator[str]:
    """Every name that a module imports, inside functions too, but not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from _imports(child)


def _graph() -> dict[str, set[str]]:
    """The modules of the package that each of them imports."""
    modules = _modules()
    graph = {}
    for name, path in modules.items():
        imported = [found for found in _imports(ast.parse(path.read_text("utf-8"))) if found.startswith("edgeelad")]
        graph[name] = {found if found in modules else found.rpartition(".")[0] for found in imported} - {name}
    assert set().union(*graph.values()) <= set(modules)
    return graph


def test_imports_go_down_the_layers_and_never_in_a_circle() -> None:
    graph = _graph()
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
    layer = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}

    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else module

    assert {room(module) for module in graph} == set(layer), "every room has its place in LAYERS and CONTRIBUTING.md"
    upward = [
        f"{module} imports {target}"
        for module, targets in graph.items()
        for target in targets
        if room(target) != room(module) and layer[room(target)] <= layer[room(module)]
    ]
    assert not upward


def test_the_layers_are_drawn_in_contributing() -> None:
    text = (Path(edgeelad.__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = [" · ".join(name for name in rooms if name not in ("__main__", "edgeelad")) for rooms in LAYERS[1:]]
    assert "\n".join(f"    {line}" for line in drawn) in text
