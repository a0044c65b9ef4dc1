"""Divide a pool into shards that different machines score, and merge their scores into one file.

A shard is a sequence of whole blocks in the pool's order, so the same questions run together as without shards.
Merging concatenates the files, after checking that all shards are present, complete, and of the same student, pool
and settings, and that no question occurs twice.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import Connection

from edgeelad.errors import RunError, UsageError
from edgeelad.files import atomic_file, storage_errors
from edgeelad.pool.store import full_disk_errors, temporary_database
from edgeelad.scoring.files import (
    ScoreSettings,
    aside_path,
    lock_scores,
    read_settings,
    whole_rows,
    write_settings,
)
from edgeelad.scoring.tables import is_table, require_pyarrow, rows_path, table_ids, write_table

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
            UsageError: It is not of this form.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        number, total = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= total:
            raise UsageError(f"--shard {text}: not a shard; use 1/8, 2/8 … 8/8 for the eight parts of a pool")
        return cls(number, total)

    def blocks(self, num_blocks: int) -> range:
        """The pool's blocks in this shard."""
        return range(num_blocks * (self.number - 1) // self.total, num_blocks * self.number // self.total)

    def places(self, num_questions: int) -> range:
        """The pool's questions in this shard, counted from 0."""
        size = block_size(num_questions)
        blocks = self.blocks(-(-num_questions // size))
        return range(min(blocks.start * size, num_questions), min(blocks.stop * size, num_questions))


def block_size(num_questions: int) -> int:
    """Questions per block: many, since they share decode steps; fewer in a small pool, so that all workers have work.

    Depends on the pool alone, not on the machine: on the standard graph, a student's last bits depend on which
    questions run together.
    """
    return min(max(-(-num_questions // MANY_BLOCKS), SMALLEST_BLOCK), LARGEST_BLOCK)


def merge_shards(paths: Sequence[Path], out: Path) -> dict[str, int]:
    """Merge the scores of all shards of a pool into the file that scoring it at once would have written.

    Args:
        paths: The shards' scores, in any order; the lists beside them, which `parts/*.jsonl` names too, are known.
        out: The new file; the lists of questions set aside are merged beside it.

    Returns:
        The numbers of questions scored and set aside.

    Raises:
        UsageError: `out` exists, or the shards are not those of one pool, each once.
        RunError: A shard is incomplete, or a question occurs twice.
        StorageError: `out` cannot be written, or the temporary folder is full.
    """
    asides_named = {aside_path(path) for path in paths}
    paths = [path for path in paths if path not in asides_named]
    if out.exists():
        raise UsageError(f"{out} exists already; name another file with --out")
    tables = [path for path in (out, *paths) if is_table(path)]
    if tables and not is_table(out):
        raise UsageError(f"{tables[0]} is a parquet file; name a file that ends in .parquet with --out")
    if tables:
        require_pyarrow(out)
    twice = [path for number, path in enumerate(paths) if path in paths[:number]]
    if twice:
        raise UsageError(f"{twice[0]} is named twice; name each shard once")
    with ExitStack() as stack:
        for path in paths:
            _hold(path, stack)
        ordered = _ordered([(read_settings(path), path) for path in paths])
        with closing(temporary_database()) as ids, full_disk_errors("the ids of the shards' questions do"):
            ids.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
            counts = [_check_whole(path, settings, ids) for settings, path in ordered]
        asides = [aside_path(path) for _, path in ordered if aside_path(path).exists()]
        write_settings(out, replace(ordered[0][0], shard=1, num_shards=1))
        if asides:
            _concatenate(asides, aside_path(out))
        else:
            with storage_errors(out):
                aside_path(out).unlink(missing_ok=True)  # of an earlier `out`
        (write_table if tables else _concatenate)([path for _, path in ordered], out)
    return {"questions": sum(scored for scored, _ in counts), "set_aside": sum(aside for _, aside in counts)}


def _hold(path: Path, stack: ExitStack) -> None:
    """Lock a shard while it is merged."""
    if not path.is_file():
        if rows_path(path).is_file():
            raise RunError(f"{path}: not complete; run its `edgeelad score` command to the end, then merge")
        raise UsageError(f"{path}: no such file; name the files that `edgeelad score --shard` wrote")
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    lock_scores(path, file.fileno())


def _ordered(shards: list[tuple[ScoreSettings, Path]]) -> list[tuple[ScoreSettings, Path]]:
    """The shards in order, after checking that each is present once."""
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


def _check_whole(path: Path, settings: ScoreSettings, ids: Connection) -> tuple[int, int]:
    """Check that every question of a shard has one row; returns the numbers scored and set aside.

    Args:
        path: The shard's scores.
        settings: Its settings.
        ids: The ids of the shards before it, to which its own are added.
    """
    aside = aside_path(path)
    scored, set_aside = _count_rows(path, ids), _count_rows(aside, ids) if aside.exists() else 0
    wanted = len(Shard(settings.shard, settings.num_shards).places(settings.num_questions))
    if scored + set_aside != wanted:
        raise RunError(
            f"{path}: shard {settings.shard}/{settings.num_shards} has {scored + set_aside} of its {wanted} questions; "
            "run its `edgeelad score` command to the end, then merge"
        )
    return scored, set_aside


def _count_rows(path: Path, ids: Connection) -> int:
    """Number of rows of a file, whose ids are added to `ids`.

    Raises:
        RunError: The last row is truncated, or an id is there already.
    """
    count = 0
    for id_ in table_ids(path) if is_table(path) else _row_ids(path):
        if not ids.execute("INSERT OR IGNORE INTO ids VALUES (?)", (id_,)).rowcount:
            raise RunError(f"{path}: question {id_} occurs twice in the shards; score this shard again, then merge")
        count += 1
    return count


def _row_ids(path: Path) -> Iterator[str]:
    end = 0
    for end, id_ in whole_rows(path):  # noqa: B007  used after the loop
        yield id_
    if end != path.stat().st_size:
        raise RunError(f"{path}: its last row is truncated; run its `edgeelad score` command to the end, then merge")


def _concatenate(paths: Sequence[Path], out: Path) -> None:
    """Concatenate files; the new file appears whole or not at all."""
    with atomic_file(out) as target, storage_errors(out):
        for path in paths:
            with path.open("rb") as source:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
