"""Which systems and Pythons have wheels of every base dependency, by the package index's metadata.

    python benchmarks/wheels.py

Resolves pyproject.toml's base dependencies, with all that they need, for each system, from wheels alone; nothing is
installed. Prints a Markdown table of the versions that pip chooses, or of what has no wheel.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

PLATFORMS = {
    "Linux x86-64": ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"],
    "Linux aarch64": [
        "manylinux_2_28_aarch64",
        "manylinux_2_27_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    ],
    "macOS arm64": ["macosx_14_0_arm64", "macosx_13_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64"],
    "Windows x86-64": ["win_amd64"],
    "Windows arm64": ["win_arm64"],
}
PYTHONS = ("3.10", "3.12", "3.13")


def main() -> None:
    """Ask for each system and Python, print the table."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dependencies = [text for text in project["dependencies"] if not text.startswith("tomli>")]
    columns = {
        (system, python): _resolve(project["dependencies"], tags, python)
        for system, tags in PLATFORMS.items()
        for python in PYTHONS
    }
    names = sorted({_name(text) for text in dependencies})
    print(f"| system | Python | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for (system, python), found in columns.items():
        cells = [found.get(name, "no wheel") for name in names] if isinstance(found, dict) else [found] * len(names)
        print(f"| {system} | {python} | {' | '.join(cells)} |", flush=True)


def _resolve(dependencies: list[str], tags: list[str], python: str) -> dict[str, str] | str:
    """The versions that pip chooses, by name; or the first dependency without a wheel."""
    version = tuple(map(int, python.split(".")))
    chosen = []
    for text in dependencies:
        requirement, _, marker = text.partition(";")
        if ("<" in marker and version >= (3, 11)) or (">=" in marker and version < (3, 11)):
            continue  # pip reads markers for the Python that it runs on
        chosen.append(requirement.strip())
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        options = ["--only-binary=:all:", "--target", folder, "--python-version", python, "--report", str(report)]
        platforms = [option for tag in tags for option in ("--platform", tag)]
        done = subprocess.run([*command, *options, *platforms, *chosen], capture_output=True, encoding="utf-8")
        if done.returncode:
            return done.stderr.strip().splitlines()[-1].removeprefix("ERROR: ")
        rows = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {row["metadata"]["name"].lower().replace("_", "-"): row["metadata"]["version"] for row in rows}


def _name(requirement: str) -> str:
    return requirement.partition(">")[0].strip().lower()


if __name__ == "__main__":
    main()
