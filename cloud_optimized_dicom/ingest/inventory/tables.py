"""CSV, JSON and Parquet as rows of named cells, read lazily; damage is a value among them."""

from __future__ import annotations

import codecs
import csv
import gzip
import importlib
import io
import json
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple

from cloud_optimized_dicom.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_LINE_BYTES = 1 << 20
_BATCH_ROWS = 8192
_BETWEEN = re.compile(r"[\s,]*")


class Record(NamedTuple):
    """A row: where it is (``"line 7"``), and its cells, or what is wrong with it."""

    place: str
    cells: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True)
class Table:
    """What is in an opened inventory.

    Parameters
    ----------
    kind
        ``"csv"``, ``"json"`` or ``"parquet"``.
    names
        Of the columns, where the format tells them in advance; else empty.
    records
        All rows, once.
    opened
        What they are read from.
    """

    kind: str
    names: list[str]
    records: Iterator[Record]
    opened: IO[Any]

    def close(self) -> None:
        """Close what was opened around the stream, and the stream."""
        self.opened.close()


def open_table(stream: BinaryIO, *, has_header: bool, wanted: list[str] | None = None) -> Table:
    """Return the rows of a seekable stream; what it is, its first bytes tell.

    Parameters
    ----------
    has_header
        Whether a CSV begins with the names of its columns; else they are called ``"1"``, ``"2"`` ...
    wanted
        The only columns that need be read, where the format can leave out others.

    Raises
    ------
    ValueError
        If it is empty, or damaged from the start.
    MissingDependencyError
        If it is Parquet and pyarrow is not installed.
    """
    head = stream.read(4)
    stream.seek(0)
    if head.startswith(_PARQUET):
        return _open_parquet(stream, wanted)
    opened: Any = gzip.GzipFile(fileobj=stream) if head.startswith(_GZIP) else stream
    buffered = io.BufferedReader(opened, 256 << 10)
    start = buffered.peek(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith(b"{"):
        return Table("json", [], _iter_lines(buffered), buffered)
    if start.startswith(b"["):
        text = io.TextIOWrapper(buffered, "utf-8-sig", errors="surrogateescape")
        return Table("json", [], _iter_array(text), text)
    if start and not start.startswith(_PARQUET):
        return _open_csv(buffered, has_header=has_header)
    buffered.close()
    raise ValueError("is gzipped Parquet, which cannot be read in place: unpack it first" if start else "is empty")


def _open_csv(stream: io.BufferedReader, *, has_header: bool) -> Table:
    first = stream.peek(64 << 10).split(b"\n", 1)[0]
    delimiter = max(b",\t;|", key=first.count)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=chr(delimiter))
    try:
        names = [cell.strip() for cell in next(reader)] if has_header else []
    except csv.Error as error:
        text.close()
        raise ValueError(f"has no header that can be read: {error}") from error
    return Table("csv", names, _iter_csv(reader, names), text)


def _iter_csv(reader: Any, names: list[str]) -> Iterator[Record]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(f"line {reader.line_num}", {}, str(error))
            continue
        place = f"line {reader.line_num}"
        if not cells:
            continue
        if names and len(cells) > len(names):
            yield Record(place, {}, f"has {len(cells)} cells, the header {len(names)}")
            continue
        columns = names or [str(number + 1) for number in range(len(cells))]
        yield Record(place, dict(zip(columns, cells, strict=False)))


def _iter_lines(stream: io.BufferedReader) -> Iterator[Record]:
    number = 0
    while line := stream.readline(_LINE_BYTES):
        number += 1
        place = f"line {number}"
        if len(line) == _LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Record(place, {}, f"is longer than {_LINE_BYTES} bytes")
        elif line.strip(b" \t\r\n" + codecs.BOM_UTF8):
            yield _json_record(place, line)


def _json_record(place: str, line: bytes) -> Record:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # the error's own text would repeat the line
        return Record(place, {}, "is not JSON")
    return _flat_record(place, value)


def _flat_record(place: str, value: Any) -> Record:
    if not isinstance(value, dict):
        return Record(place, {}, "is not a JSON object")
    cells = dict(value)
    for name, inner in value.items():
        if isinstance(inner, dict):
            cells.update({f"{name}.{key}": item for key, item in inner.items()})
    return Record(place, cells)


def _iter_array(text: io.TextIOWrapper) -> Iterator[Record]:
    """Yield the elements of one JSON array; after damage nothing can be found any more."""
    decoder, number = json.JSONDecoder(), 0
    buffer = text.read(_LINE_BYTES)
    position = buffer.index("[") + 1
    while True:
        position = _BETWEEN.match(buffer, position).end()  # type: ignore[union-attr]  # it matches nothing at least
        if buffer.startswith("]", position):
            return
        try:
            value, end = decoder.raw_decode(buffer, position)
        except (ValueError, RecursionError):
            more = text.read(_LINE_BYTES) if len(buffer) - position <= _LINE_BYTES else ""
            if not more:
                yield Record(f"element {number + 1}", {}, "is not JSON; what follows was not read")
                return
            buffer, position = buffer[position:] + more, 0
            continue
        number, position = number + 1, end
        yield _flat_record(f"element {number}", value)


def _open_parquet(stream: BinaryIO, wanted: list[str] | None) -> Table:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependencyError("a Parquet inventory", "export") from error
    errors = importlib.import_module("pyarrow").ArrowException
    try:
        file = parquet.ParquetFile(stream)
    except (errors, OSError) as error:
        raise ValueError("is damaged Parquet") from error
    return Table("parquet", list(file.schema_arrow.names), _iter_parquet(file, wanted, errors), stream)


def _iter_parquet(file: Any, wanted: list[str] | None, errors: type[Exception]) -> Iterator[Record]:
    number = 0
    try:
        for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
            for cells in batch.to_pylist():
                number += 1
                yield Record(f"row {number}", cells)
    except (errors, OSError):
        yield Record(f"row {number + 1}", {}, "is damaged; what follows was not read")
