"""Virtual environments for peers whose requirements clash with edgeelad's; made once, kept in the cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

# the measured versions; torch is only needed to convert the student
PINNED = {
    "openvino": (
        "openvino-genai==2026.4.1.0",
        "openvino-tokenizers==2026.4.1.0",
        "optimum-intel[openvino]==2.2.0",
        "torch<2.14",
    ),
    "onnxruntime-genai": (
        "onnxruntime-genai==0.18.0",
        "onnxruntime==1.31.1",
        "onnx==1.23.2",
        "onnx-ir==1.1.0",
        "transformers>=5,<6",
        "torch<2.14",
    ),
    "llama.cpp": ("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors"),
    "llama.cpp-server": ("xllamacpp==2026.10.11549", "gguf==0.19.0", "safetensors"),  # compiled for AVX2
}
# llama-cpp-python is compiled here, for this machine's instructions; without its server and its image support
BUILD_SETTINGS = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF"}
# comes with optimum-intel, and cannot be imported with a CPU-only torch; no student has images
UNWANTED = ("torchvision",)


def environment(name: str, cache: Path) -> Path:
    """The interpreter of a peer's environment; the first call takes minutes.

    Raises:
        SystemExit: pip could not install it.
    """
    folder = cache / "venvs" / name
    python = folder / "bin" / "python"
    done = folder / "done"
    if not done.exists():
        print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        _pip(python, "install", *PINNED[name])
        _pip(python, "uninstall", "--yes", *UNWANTED)
        done.touch()
    return python


def run(*command: str) -> None:
    """Run a program; its output is shown if it fails.

    Raises:
        SystemExit: It failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | BUILD_SETTINGS)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")


def _pip(python: Path, *command: str) -> None:
    run(str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *command)
