"""Files appear whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeelad.errors import RunError, StorageError
from edgeelad.files import make_folder, read_json, read_jsonl, write_json, write_jsonl, write_text


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_round_trip(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": "ü\n"}, {"a": None}, []]
    assert write_jsonl(tmp_path / "deep" / "rows.jsonl", rows) == 3
    assert list(read_jsonl(tmp_path / "deep" / "rows.jsonl")) == rows


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
    with pytest.raises(RunError, match=r"rows\.jsonl:2: damaged line"):
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
