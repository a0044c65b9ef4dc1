"""Hash an exported student, to tell whether a file of scores was written with it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeelad.engine.graph_files import GraphFiles
from edgeelad.errors import ModelError

# files besides the graphs that determine the prompts' tokens and how answers are read
STUDENT_FILES = ("config.json", "generation_config.json", "prompt.json", "tokenizer.json")
CHUNK_BYTES = 1 << 20


def student_fingerprint(folder: Path, graphs: GraphFiles) -> str:
    """SHA-256 over everything that determines what an exported student computes, weights included.

    Args:
        folder: The exported folder or package.
        graphs: Those that run; graphs of another precision are left out.

    Raises:
        ModelError: A file cannot be read.
    """
    files = [folder / name for name in STUDENT_FILES if (folder / name).exists()]
    files += graphs.existing()
    digest = hashlib.sha256(b"edgeelad-student-1\0")
    for path in files:
        try:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise ModelError(
                f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
            ) from error
    return digest.hexdigest()
