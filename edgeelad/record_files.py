"""Files that hold records: one JSON object, or one per line. What is read is checked against the record's types.

A `RecordFile` or `RowFile` names a file and the record in it; both are the one writer and the one reader of that file.
Files are private to the user who runs edgeelad.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from edgeelad.errors import RunError
from edgeelad.files import BOM, PRIVATE, dump_json, extended_file, read_errors, read_lines, write_json, write_jsonl

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class RecordFile(Generic[Record]):
    """A JSON file that holds one record; `dump` turns the record into JSON."""

    path: Path
    kind: type[Record]
    dump: Callable[[Any], dict[str, Any]] = asdict

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def read(self) -> Record:
        """Read the record.

        Raises:
            RunError: The file is missing, unreadable or damaged; the message names file and field.
        """
        with read_errors(self.path):
            data = self.path.read_bytes()
        return parse_record(data.removeprefix(BOM), self.kind, str(self.path))

    def write(self, record: Record) -> None:
        """Write the record; the file appears whole or not at all.

        Raises:
            StorageError: The file cannot be written.
        """
        write_json(self.path, self.dump(record), PRIVATE)


@dataclass(frozen=True, slots=True)
class RowFile(Generic[Record]):
    """A file of JSON lines, one record per line."""

    path: Path
    kind: type[Record]

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def read(self) -> Iterator[Record]:
        """Read the records, one line at a time.

        Raises:
            RunError: The file is missing, unreadable or damaged; the message names file, line and field.
        """
        for number, line in enumerate(read_lines(self.path), start=1):
            yield parse_record(line, self.kind, f"{self.path}:{number}")

    def read_if_there(self) -> Iterator[Record]:
        """Read the records; none if the file is missing."""
        return self.read() if self.exists() else iter(())

    def write(self, records: Iterable[Record]) -> int:
        """Write records, streaming; the file appears whole or not at all. Returns their number.

        Raises:
            StorageError: The file cannot be written.
        """
        return write_jsonl(self.path, map(asdict, records), PRIVATE)  # type: ignore[arg-type]

    @property
    def begun(self) -> Path:
        """Where `extend` keeps records until all are there."""
        return self.path.with_name(f".{self.path.name}.begun")

    def extend(self, rest: Callable[[Record | None], Iterable[Record]]) -> None:
        """Write records as `write` does, but go on where a killed process was.

        Args:
            rest: Gives the records that follow the last one that was written; all, if that is None. It raises a
                KeyError if that one cannot be theirs.

        Raises:
            RunError: What was begun are other records.
            StorageError: The file cannot be written; what was written before is kept.
        """
        kept = deque(self._whole(), maxlen=1)
        last, end = kept[0] if kept else (None, 0)
        try:
            records = rest(last)
        except KeyError as error:
            raise RunError(
                f"{self.begun}: ends with a record of {error}, which is not of this run; delete it"
            ) from None
        with extended_file(self.begun, end, self.path, PRIVATE) as append:
            for record in records:
                append(dump_json(asdict(record)).encode("utf-8") + b"\n")  # type: ignore[call-overload]

    def _whole(self) -> Iterator[tuple[Record, int]]:
        """The records that were begun, each with its end; up to the first line that is torn."""
        end = 0
        for line in read_lines(self.begun) if self.begun.exists() else ():
            try:
                record = parse_record(line, self.kind, str(self.begun))
            except RunError:
                return
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield record, end


def parse_record(data: bytes, kind: type[Record], place: str) -> Record:
    """Read a record from JSON; `place` is the file and line that an error names.

    Raises:
        RunError: It is not such a record.
    """
    from pydantic import ValidationError

    try:
        record: Record = _adapter(cast(Any, kind)).validate_json(data, strict=True)
    except ValidationError as error:
        raise RunError(f"{place}: damaged ({_explain(error)}); restore the file, or delete it and --resume") from error
    return record


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # takes 70 ms, which commands without a run folder do not need

    return TypeAdapter(kind)


def _explain(error: Any) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"field {field} is missing"
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"field {field}: {message}" if field else message
