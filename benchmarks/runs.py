"""Run `edgeelad distill` as a user does, resuming what was begun, and print what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from machine import describe_machine
from rich.console import Console

from edgeelad.cli.show import rounds_table
from edgeelad.run.folder import RunFolder

LIBRARIES = ("edgeelad", "torch", "transformers", "onnxruntime")


def distill(out: Path, settings: Mapping[str, object]) -> None:
    """Run the distillation in `out`, or resume it; exits if it fails. Settings that are None keep their defaults."""
    command = [sys.executable, "-m", "edgeelad", "distill"]
    if RunFolder(out).config.exists():
        command += [str(out), "--resume"]
    else:
        flags = [f"--set={key}={_toml(value)}" for key, value in settings.items() if value is not None]
        pool, student = str(settings["pool.path"]), str(settings["student.model"])
        command += ["--pool", pool, "--student", student, "--out", str(out), *flags]
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode)


def _toml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def print_run(out: Path) -> None:
    """Print the environment, the table of rounds, the package's figures, and the summary as a line of JSON."""
    folder = RunFolder(out)
    summary = folder.summary.read()
    print(describe_machine())
    print(", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    Console(width=120).print(rounds_table(folder.metrics.read(), summary))
    if summary.package_accuracy is not None:
        print(f"package: {summary.quantization}, accuracy {summary.package_accuracy:.3f}")
    print(json.dumps(json.loads((out / "summary.json").read_text(encoding="utf-8"))))
