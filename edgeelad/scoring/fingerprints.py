"""What a file of scores belongs to: hashes of a student and of a pool, to tell whether it is the same once more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgeelad.engine.graph_files import GraphFiles
from edgeelad.errors import ModelError
from edgeelad.records import Question

# besides the graphs: what decides which tokens go in, and how what comes out is read
STUDENT_FILES = ("config.json", "generation_config.json", "prompt.json", "tokenizer.json")
CHUNK_BYTES = 1 << 20


def student_fingerprint(folder: Path, graphs: GraphFiles) -> str:
    """SHA-256 over all that decides what an exported student computes, weights included.

    Args:
        folder: The exported folder or package.
        graphs: Those that run; graphs of another precision do not count.

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


def pool_fingerprint(questions: Iterable[Question]) -> tuple[str, int]:
    """SHA-256 over all that is asked, in order, and the number of questions; reference answers do not count."""
    digest, count = hashlib.sha256(b"edgeelad-questions-1\0"), 0
    for question in questions:
        count += 1
        parts = (question.id, question.text, question.kind, *question.choices)
        digest.update(("\0".join(parts) + "\0\0").encode())
    return digest.hexdigest(), count
