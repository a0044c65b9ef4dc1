"""Pools at addresses that fsspec knows, in folders and by patterns: the same questions as in one local file."""

import functools
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeelad import pool
from edgeelad.errors import PoolError
from edgeelad.pool import read_pool

pyarrow = pytest.importorskip("pyarrow")
upath = pytest.importorskip("upath")

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(60)]


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty object store in memory."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def fill(root: Any) -> None:
    """Three files of rows in a folder with others' files, out of order."""
    import pyarrow.parquet

    (root / "day=2").mkdir(parents=True, exist_ok=True)
    with (root / "b.parquet").open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[20:40]), file, row_group_size=7)
    (root / "day=2" / "a.jsonl").write_bytes(json_lines(ROWS[40:]))
    (root / "a.jsonl").write_bytes(json_lines(ROWS[:20]))
    (root / "_SUCCESS").write_bytes(b"")
    (root / "_c.jsonl").write_bytes(b"being written")
    (root / "readme.md").write_bytes(b"# Pool")


def as_one_file(folder: Path) -> list[Any]:
    (folder / "one.jsonl").write_bytes(json_lines(ROWS))
    return list(read_pool(folder / "one.jsonl"))


def test_a_folder_of_an_object_store_is_read_in_the_order_of_names(memory: Any, tmp_path: Path) -> None:
    fill(upath.UPath("memory://bucket/pool"))
    assert list(read_pool("memory://bucket/pool")) == as_one_file(tmp_path)
    assert list(read_pool("memory://bucket/pool/", limit=30)) == as_one_file(tmp_path)[:30]


def test_a_pattern_and_a_single_file(memory: Any, tmp_path: Path) -> None:
    fill(upath.UPath("memory://bucket/pool"))
    assert list(read_pool("memory://bucket/pool/**/a.jsonl")) == [
        question for question in as_one_file(tmp_path) if question.answer not in {str(n + 1) for n in range(20, 40)}
    ]
    assert list(read_pool("memory://bucket/pool/b.parquet")) == as_one_file(tmp_path)[20:40]
    memory.mv("/bucket/pool/b.parquet", "/bucket/pool/b.data")
    assert len(list(read_pool("memory://bucket/pool/b.data", "parquet"))) == 20


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_local_patterns(tmp_path: Path, scheme: str) -> None:
    fill(tmp_path / "pool")
    given = f"{scheme}{tmp_path}/pool/[!_]*.[jp]*"
    assert list(read_pool(given)) == as_one_file(tmp_path)[:40]
    with pytest.raises(PoolError, match=r"none\*\.jsonl: no such file, .*; check the path"):
        read_pool(f"{scheme}{tmp_path}/none*.jsonl")


def test_errors_name_the_file_and_the_row(memory: Any) -> None:
    memory.pipe("/bucket/pool.jsonl", json_lines(ROWS[:2]) + b"{\n")
    with pytest.raises(PoolError, match=r"^memory://bucket/pool\.jsonl:3: not JSON"):
        list(read_pool("memory://bucket/pool.jsonl"))
    memory.pipe("/bucket/pool.txt", json_lines(ROWS))
    with pytest.raises(PoolError, match=r"memory://bucket/pool\.txt: unrecognized file extension '\.txt'"):
        read_pool("memory://bucket/pool.txt")
    for name in ("none.jsonl", "none", "none/", "none/*.jsonl"):
        with pytest.raises(PoolError, match=rf"memory://bucket/{re.escape(name)}: no such file, .*; check the path"):
            read_pool(f"memory://bucket/{name}")
    with pytest.raises(PoolError, match=r"none://bucket/x: cannot be read \(.*none"):
        read_pool("none://bucket/x")


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(PoolError, match=r"s3://bucket/x\.jsonl: Install s3fs to access S3: pip install"):
        read_pool("s3://bucket/x.jsonl")


class Failing:
    """A reader of rows that fails as a network does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, path: Any) -> Iterator[Any]:
        from edgeelad.pool.rows import read_json_lines

        for number, row in enumerate(read_json_lines(path)):
            if number == self.after:
                raise RuntimeError("connection\nreset by peer")
            yield row


def test_a_network_that_fails_in_the_middle(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/bucket/pool.jsonl", json_lines(ROWS))
    monkeypatch.setitem(pool.READERS, "jsonl", Failing(7))
    questions = read_pool("memory://bucket/pool.jsonl")
    assert [next(questions).answer for _ in range(7)] == [str(n + 1) for n in range(7)]
    with pytest.raises(PoolError, match=r"pool\.jsonl: cannot be read \(connection reset by peer\); check the address"):
        next(questions)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *given: Any) -> None:
        pass


def test_a_pool_on_a_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    whole = as_one_file(tmp_path)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert list(read_pool(f"{address}/one.jsonl")) == whole
        with pytest.raises(PoolError, match=r"/none\.jsonl: no such file"):
            read_pool(f"{address}/none.jsonl")
        server.shutdown()
