"""The report of an ingest as a file: a line a file, written when its fate is final, read again to go on from there."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from array import array
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from cloud_optimized_dicom.events import Outcome
from cloud_optimized_dicom.ingest.digest import DIGEST_BYTES, digest_of
from cloud_optimized_dicom.whole_files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from cloud_optimized_dicom.hints import Hints

_OUTCOMES: tuple[str, ...] = get_args(Outcome)
_FINISHED = frozenset({"new", "same"})


@dataclass(frozen=True, slots=True)
class ReportLine:
    """What became of one file.

    Parameters
    ----------
    series_uri
        Where it is stored: the URL of the series' folder.  None where that is not known.
    crc32c
        What was claimed of the file, in base64, and held; None where nothing was.
    reason
        Why it was not stored.
    uid_hash
        Which function (``module:function``) hashed the UIDs; None: they are the file's own.
    """

    uri: str
    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None
    series_uri: str | None
    size_bytes: int
    crc32c: str | None
    reason: str | None
    outcome: str
    uid_hash: str | None = None

    @classmethod
    def parse(cls, cells: Any) -> ReportLine:
        """Return the line that a mapping of its fields is; `ValueError` if it is none."""
        try:
            # Reports that were begun before there were hashed UIDs do not say that theirs are not.
            values = {field.name: cells[field.name] for field in fields(cls) if field.name in cells}
            line = cls(**values | {"size_bytes": int(values["size_bytes"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("is not a line of a report") from error
        if line.outcome not in _OUTCOMES or not isinstance(line.uri, str):
            raise ValueError("is not a line of a report")
        return line

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to be done for this file."""
        return self.outcome in _FINISHED


_NAMES = [field.name for field in fields(ReportLine)]


def read_report(path: Path) -> Iterator[ReportLine]:
    """Yield the lines of a report, JSON Lines or (named ``.csv``) CSV.

    Raises
    ------
    ValueError
        If a line is not one of a report.  A last line without an end, as a killed run leaves it, is passed over.
    """
    with path.open("rb") as file:
        if path.suffix.lower() == ".csv":
            for cells in _iter_rows(file):
                yield ReportLine.parse({name: value or None for name, value in cells.items() if name})
            return
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                try:
                    cells = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is not a line of a report") from error
                yield ReportLine.parse(cells)


def _iter_rows(file: Any) -> Iterator[dict[str, str]]:
    lines = _Lines(io.TextIOWrapper(io.BufferedReader(_WholeLines(file)), "utf-8", newline=""))
    try:
        yield from csv.DictReader(lines, strict=True)
    except csv.Error as error:
        if not lines.are_over:  # else the last cell is open: the run was killed between two lines of it
            raise ValueError("is not a line of a report") from error


class _Lines:
    """Lines, and whether there are no more."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.are_over = False

    def __iter__(self) -> Iterator[str]:
        yield from self._lines
        self.are_over = True


class _WholeLines(io.RawIOBase):
    """The lines of a file, a last one without an end left out."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            line = self._file.readline()
            self._rest = line if line.endswith(b"\n") else b""
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


class FinishedFiles:
    """The files of a report for which nothing is left to be done, in some thirty bytes each."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._crcs = array("q")
        self._sizes = array("q")
        self._sorted: tuple[Any, Any, Any] | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, line: ReportLine) -> None:
        """Take note of a line."""
        self._sorted = None
        self._digests += digest_of(line.uri)
        self._crcs.append(_number(line.crc32c))
        self._sizes.append(line.size_bytes)

    def holds(self, uri: str, hints: Hints) -> bool:
        """Return whether a file was finished, and is now claimed to be what it was then.

        Notes
        -----
        A claimed CRC32C must be the one that was claimed then; without one, a claimed size must be the size.
        """
        if self._sorted is None:
            digests = np.frombuffer(bytes(self._digests), dtype=f"S{DIGEST_BYTES}")
            order = np.argsort(digests)
            self._sorted = digests[order], np.asarray(self._crcs)[order], np.asarray(self._sizes)[order]
        digests, crcs, sizes = self._sorted
        wanted = np.frombuffer(digest_of(uri), dtype=digests.dtype)
        first, last = (int(np.searchsorted(digests, wanted, side)[0]) for side in ("left", "right"))
        crc = _number(hints.crc32c)
        return any(
            (hints.crc32c is None or crc == crcs[place])
            and (hints.crc32c is not None or hints.size in (None, sizes[place]))
            for place in range(first, last)
        )


def _number(crc32c: str | None) -> int:
    return -1 if crc32c is None else int.from_bytes(crc32c.encode("ascii", "replace")[:6], "big")


class ReportWriter:
    """A report being written; each line is on the disk's side of the process as soon as it is written.

    Parameters
    ----------
    path
        Named ``.csv`` for CSV; JSON Lines otherwise.
    store_url
        The datastore that the report is about.
    uid_hash
        As of its lines.
    resume
        Go on with the report that is there: `finished` holds what it has as new or same; its other lines are dropped,
        because those files will be tried again.  Else the report begins anew.

    Raises
    ------
    ValueError
        If what is to be gone on with is no report, or one of another datastore, or of UIDs that were hashed otherwise.

    Notes
    -----
    Lines may be written from several threads.  A run that is killed leaves every line that was written, and at the
    most one that is not whole, which readers pass over.
    """

    def __init__(self, path: Path, store_url: str, *, uid_hash: str | None = None, resume: bool = False) -> None:
        self.finished = FinishedFiles()
        self._is_csv = path.suffix.lower() == ".csv"
        self._lock = threading.Lock()
        if resume and path.exists():
            self._take_over(path, store_url, uid_hash)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if resume else os.O_TRUNC)
        self._file = os.open(path, flags, 0o666)
        if self._is_csv and os.fstat(self._file).st_size == 0:
            os.write(self._file, _csv_line(_NAMES))

    def _take_over(self, path: Path, store_url: str, uid_hash: str | None) -> None:
        """Keep what is finished, in a new file that takes the place of the old one when it is whole."""
        with replacing(path) as kept:
            if self._is_csv:
                kept.write(_csv_line(_NAMES))
            for line in read_report(path):
                if line.is_finished:
                    if not (line.series_uri or "").startswith(f"{store_url}/"):
                        raise ValueError("is the report of another datastore")
                    if line.uid_hash != uid_hash:
                        raise ValueError("is the report of an ingest that hashed UIDs otherwise")
                    kept.write(self._dumped(line))
                    self.finished.add(line)
            kept.flush()
            os.fsync(kept.fileno())
            Path(kept.name).chmod(path.stat().st_mode & 0o777)

    def write(self, line: ReportLine) -> None:
        """Add a line."""
        data = self._dumped(line)
        with self._lock:
            while data:  # a full disk or a signal may cut a write short
                data = data[os.write(self._file, data) :]

    def _dumped(self, line: ReportLine) -> bytes:
        cells = asdict(line)
        return _csv_line([cells[name] for name in _NAMES]) if self._is_csv else f"{json.dumps(cells)}\n".encode()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _csv_line(cells: list[Any]) -> bytes:
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerow(cells)
    return target.getvalue().encode("utf-8", "backslashreplace")
