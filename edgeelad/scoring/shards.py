"""A pool in shards, scored on different machines: which part is whose, and how the parts become one file.

Shards are runs of whole blocks in the pool's order, so that what runs together is what runs together without shards.
Merging is concatenation, after a look at whether all shards are there, whole, and of the same student, pool and
settings.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from edgeelad.errors import RunError, UsageError
from edgeelad.files import atomic_file, storage_errors
from edgeelad.scoring.files import (
    ScoreSettings,
    aside_path,
    lock_scores,
    read_settings,
    write_settings,
)

CHUNK_BYTES = 1 << 20
SMALLEST_BLOCK, LARGEST_BLOCK, MANY_BLOCKS = 16, 64, 64


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `total` parts of a pool; `number` counts from 1."""

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From `2/8`.

        Raises:
            UsageError: It is no such thing.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        number, total = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= total:
            raise UsageError(
                f"--shard {text}: not a part of a whole; write 1/8, 2/8 … 8/8 for the eight parts of a pool"
            )
        return cls(number, total)

    def blocks(self, num_blocks: int) -> range:
        """Which of the pool's blocks belong to it."""
        return range(num_blocks * (self.number - 1) // self.total, num_blocks * self.number // self.total)

    def places(self, num_questions: int) -> range:
        """Which of the pool's questions belong to it, counted from 0."""
        size = block_size(num_questions)
        blocks = self.blocks(-(-num_questions // size))
        return range(min(blocks.start * size, num_questions), min(blocks.stop * size, num_questions))


def block_size(num_questions: int) -> int:
    """Questions that go to a worker together: many, for they share its steps; fewer where few workers had any.

    It follows from the pool alone: not from the machine, or students that run on the standard graph, whose last bits
    depend on what runs together, would score differently on another.
    """
    return min(max(-(-num_questions // MANY_BLOCKS), SMALLEST_BLOCK), LARGEST_BLOCK)


def merge_shards(paths: Sequence[Path], out: Path) -> dict[str, int]:
    """Put the scores of all shards of a pool into one file, as if it had been scored at once.

    Args:
        paths: Their scores, in any order.
        out: The new file; the lists of what was set aside are merged beside it.

    Returns:
        How many questions are scored and set aside.

    Raises:
        UsageError: `out` exists, or the shards are not those of one pool, each once.
        RunError: A shard is not whole yet.
        StorageError: `out` cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; name another file with --out")
    twice = [path for number, path in enumerate(paths) if path in paths[:number]]
    if twice:
        raise UsageError(f"{twice[0]} is named twice; name each shard once")
    with ExitStack() as stack:
        for path in paths:
            _hold(path, stack)
        ordered = _ordered([(read_settings(path), path) for path in paths])
        counts = [_check_whole(path, settings) for settings, path in ordered]
        asides = [aside_path(path) for _, path in ordered if aside_path(path).exists()]
        write_settings(out, replace(ordered[0][0], shard=1, num_shards=1))
        if asides:
            _concatenate(asides, aside_path(out))
        _concatenate([path for _, path in ordered], out)
    return {"questions": sum(scored for scored, _ in counts), "set_aside": sum(aside for _, aside in counts)}


def _hold(path: Path, stack: ExitStack) -> None:
    """Keep a shard from being written while it is merged."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name the files that `edgeelad score --shard` wrote")
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    lock_scores(path, file.fileno())


def _ordered(shards: list[tuple[ScoreSettings, Path]]) -> list[tuple[ScoreSettings, Path]]:
    """The shards from the first to the last, each there once."""
    first, first_path = shards[0]
    found: dict[int, Path] = {}
    for settings, path in shards:
        if differences := settings.differences(replace(first, shard=settings.shard)):
            raise UsageError(f"{path} and {first_path} do not belong together: {differences}; merge shards of one pool")
        if settings.shard in found:
            raise UsageError(
                f"{path} and {found[settings.shard]} are both shard {settings.shard}/{first.num_shards}; name one"
            )
        found[settings.shard] = path
    missing = [str(number) for number in range(1, first.num_shards + 1) if number not in found]
    if missing:
        shown = ", ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
        raise UsageError(f"shards missing of {first.num_shards}: {shown}; name the files of all of them")
    return sorted(shards, key=lambda shard: shard[0].shard)


def _check_whole(path: Path, settings: ScoreSettings) -> tuple[int, int]:
    """Check that every question of a shard has a row; gives how many are scored and set aside."""
    aside = aside_path(path)
    scored, set_aside = _count_rows(path), _count_rows(aside) if aside.exists() else 0
    wanted = len(Shard(settings.shard, settings.num_shards).places(settings.num_questions))
    if scored + set_aside != wanted:
        raise RunError(
            f"{path}: shard {settings.shard}/{settings.num_shards} has {scored + set_aside} of its {wanted} questions; "
            "run its `edgeelad score` again to the end, then merge"
        )
    return scored, set_aside


def _count_rows(path: Path) -> int:
    """Lines of a file; one that lacks its end is none."""
    count, end = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            count, end = count + chunk.count(b"\n"), chunk[-1:]
    if end != b"\n":
        raise RunError(f"{path}: its last row is torn; run its `edgeelad score` again to the end, then merge")
    return count


def _concatenate(paths: Sequence[Path], out: Path) -> None:
    """Write files one after another; the new file appears whole or not at all."""
    with atomic_file(out) as target, storage_errors(out):
        for path in paths:
            with path.open("rb") as source:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
