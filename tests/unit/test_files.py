"""Files appear whole or not at all."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeelad.errors import RunError, StorageError
from edgeelad.files import (
    PRIVATE,
    atomic_file,
    make_folder,
    read_json,
    read_jsonl,
    sweep_folder,
    write_json,
    write_jsonl,
    write_text,
)
from edgeelad.record_files import RecordFile, RowFile
from edgeelad.run.records import AuditRow, RunState


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_round_trip(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": "ü\n"}, {"a": None}, []]
    assert write_jsonl(tmp_path / "deep" / "rows.jsonl", rows) == 3
    assert list(read_jsonl(tmp_path / "deep" / "rows.jsonl")) == rows


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    """Some editors write one when a file is saved."""
    rows, state = RowFile(tmp_path / "rows.jsonl", AuditRow), RecordFile(tmp_path / "state.json", RunState)
    rows.write([AuditRow("a", "1"), AuditRow("b", None)])
    state.write(RunState(2, "export"))
    expected = list(rows.read()), list(read_jsonl(rows.path)), state.read(), read_json(state.path)
    for file in (rows, state):
        file.path.write_bytes(b"\xef\xbb\xbf" + file.path.read_bytes())
    assert (list(rows.read()), list(read_jsonl(rows.path)), state.read(), read_json(state.path)) == expected


ROWS = [AuditRow("a", "1"), AuditRow("bü", None), AuditRow("c", "3")]


def write_some(file: RowFile[AuditRow], num: int) -> None:
    """Be killed after some rows."""

    def rest(_: AuditRow | None) -> Iterator[AuditRow]:
        yield from ROWS[:num]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file.extend(rest)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"id": "c"}', b'{"id": "c", "answer": 3}\n{"id": "c", "answer": "3"}\n'])
@pytest.mark.parametrize("num", [0, 1, 3])
def test_rows_that_were_begun_are_kept(tmp_path: Path, num: int, torn: bytes) -> None:
    file, whole = RowFile(tmp_path / "rows.jsonl", AuditRow), RowFile(tmp_path / "whole.jsonl", AuditRow)
    whole.write(ROWS)
    write_some(file, num)
    assert not file.exists()
    with file.begun.open("ab") as begun:
        begun.write(torn)
    given: list[AuditRow | None] = []

    def rest(last: AuditRow | None) -> Iterator[AuditRow]:
        given.append(last)
        return iter(ROWS[0 if last is None else ROWS.index(last) + 1 :])

    file.extend(rest)
    assert given == [ROWS[num - 1] if num else None]
    assert file.path.read_bytes() == whole.path.read_bytes()
    assert _names(tmp_path) == ["rows.jsonl", "whole.jsonl"]
    assert file.path.stat().st_mode == whole.path.stat().st_mode


def test_rows_of_something_else_are_named(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl", AuditRow)
    write_some(file, 2)
    with pytest.raises(RunError, match=r"\.rows\.jsonl\.begun: ends with a record of 'bü', .* delete it"):
        file.extend(lambda last: iter(ROWS[{"x": 0}[last.id] :]) if last else iter(()))


def test_a_disk_that_fills_while_rows_are_kept_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RowFile(tmp_path / "rows.jsonl", AuditRow)
    write_some(file, 1)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(StorageError, match="No space left on device; free some space"):
            file.extend(lambda _: iter(ROWS[1:]))
    file.extend(lambda last: iter(ROWS[3:]) if last == ROWS[2] else iter(()))
    assert list(file.read()) == ROWS


def test_a_failure_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [1, 2])

    def rows() -> Iterator[int]:
        yield 3
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_jsonl(path, rows())
    assert list(read_jsonl(path)) == [1, 2]
    assert _names(tmp_path) == ["rows.jsonl"]


def test_nan_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl(tmp_path / "rows.jsonl", [{"x": float("nan")}])
    assert _names(tmp_path) == []


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"round": 1})

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        write_json(path, {"round": 2})
    assert read_json(path) == {"round": 1}
    assert _names(tmp_path) == ["state.json"]


def test_a_parent_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        write_text(tmp_path / "file" / "inner.txt", "y")


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": 1}) + '\n{"a"', encoding="utf-8")
    with pytest.raises(RunError, match=r"rows\.jsonl:2: damaged"):
        list(read_jsonl(path))
    with pytest.raises(RunError, match="missing"):
        read_json(tmp_path / "none.json")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    make_folder(tmp_path / "model", lambda folder: write_text(folder / "config.json", "{}"))
    assert _names(tmp_path / "model") == ["config.json"]

    def fail(folder: Path) -> None:
        write_text(folder / "config.json", "{}")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        make_folder(tmp_path / "other", fail)
    assert _names(tmp_path) == ["model"]


WRITE_HALF = """
import sys
from pathlib import Path
from edgeelad.files import atomic_file, make_folder
def wait():
    print("half", flush=True)
    sys.stdin.read()
def fill(folder):
    (folder / "weights").write_bytes(b"half")
    wait()
if sys.argv[2] == "folder":
    make_folder(Path(sys.argv[1]), fill)
else:
    with atomic_file(Path(sys.argv[1])) as file:
        file.write(b"half")
        file.flush()
        wait()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_killed_process_are_swept_and_those_of_a_live_one_are_not(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "thing"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_HALF, str(out), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        half = f".thing.{writer.pid}.tmp"
        sweep_folder(tmp_path)
        assert _names(tmp_path) == [half]
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    assert _names(tmp_path) == [half]
    if kind == "file":
        write_text(out, "whole")
    else:
        make_folder(out, lambda folder: write_text(folder / "weights", "whole"))
    assert _names(tmp_path) == ["thing"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads the names of descriptors from /proc")
def test_everything_is_on_disk_before_the_name_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    fsync, out = os.fsync, tmp_path / "model"

    def watch(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, out.exists()))
        fsync(descriptor)

    def fill(folder: Path) -> None:
        (folder / "onnx").mkdir()
        (folder / "onnx" / "model.onnx").write_bytes(b"weights")

    monkeypatch.setattr("os.fsync", watch)
    make_folder(out, fill)
    before = {name for name, exists in synced if not exists}
    assert {"model.onnx", "onnx", f".model.{os.getpid()}.tmp"} <= before
    assert synced[-1] == (tmp_path.name, True)
    synced.clear()
    write_text(out / "config.json", "{}")
    assert [name for name, _ in synced] == [f".config.json.{os.getpid()}.tmp", "model"]


def test_a_private_file_is_for_its_owner_only(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "ledger", PRIVATE) as file:
        file.write(b"secret")
    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(RunError, match=r"state\.json: cannot be read"):
        read_json(tmp_path / "state.json")
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(RunError, match=r"rows\.jsonl:1: damaged"):
        list(read_jsonl(tmp_path / "rows.jsonl"))
