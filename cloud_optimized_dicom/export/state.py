"""What earlier exports verified of a folder's files, so that they need not be read again."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

_TABLE = """
CREATE TABLE IF NOT EXISTS verified (
    folder TEXT, name TEXT, crc32c INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID
"""
_SETTLING_SECONDS = 0.05  # longer than a tick of any file system whose times have fractions of a second
_WHOLE_SECOND_NS = 1_000_000_000
_FLUSH_SECONDS = 1.0


class Stamp(NamedTuple):
    """The state of a file as its file system tells it; nobody can write to the file and keep the change time."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        """Return the stamp of what `os.stat` gave."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    @property
    def coarse(self) -> bool:
        """Whether the file system seems to count in seconds: too little to tell two writes apart."""
        return self.mtime_ns % _WHOLE_SECOND_NS == 0 and self.ctime_ns % _WHOLE_SECOND_NS == 0


class _Row(NamedTuple):
    path: Path
    crc32c: int
    stamp: Stamp
    seen_seconds: float


class ExportState:
    """Which files had which CRC32C, by the state they were in.

    Parameters
    ----------
    path
        The SQLite database; made where it is missing, made anew where it is damaged.

    Notes
    -----
    Only a help: where it cannot be read or written, nothing is known and every file is read.  A file is remembered once
    its stamp has outlived a tick of the file system's clock unchanged, so that a later write cannot share its stamp.
    Threads may share a state.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._waiting: deque[_Row] = deque()
        self._flushed = time.monotonic()
        self._database = self._open()

    def known(self, folder: Path) -> dict[str, tuple[int, Stamp]]:
        """Return CRC32C and stamp of the files of one folder, by name."""
        query = "SELECT name, crc32c, size, mtime_ns, ctime_ns, inode FROM verified WHERE folder = ?"
        with self._mutex, self._helping() as database:
            if database is not None:
                return {name: (crc, Stamp(*stamp)) for name, crc, *stamp in database.execute(query, [_name_of(folder)])}
        return {}

    def remember(self, path: Path, crc32c: int, stamp: Stamp) -> None:
        """Remember that a file has a CRC32C."""
        if stamp.coarse:
            return
        with self._mutex:
            self._waiting.append(_Row(path, crc32c, stamp, time.monotonic()))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._flush()

    def close(self) -> None:
        """Write down what is not yet, which takes a few hundredths of a second."""
        with self._mutex:
            if self._waiting and self._database is not None:
                time.sleep(max(0, self._waiting[-1].seen_seconds + _SETTLING_SECONDS - time.monotonic()))
                self._flush()
            if self._database is not None:
                self._database.close()
                self._database = None

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        rows = []
        while self._waiting and self._waiting[0].seen_seconds + _SETTLING_SECONDS <= self._flushed:
            row = self._waiting.popleft()
            with contextlib.suppress(OSError):
                if Stamp.of(row.path.stat()) == row.stamp:
                    rows.append((_name_of(row.path.parent), row.path.name, row.crc32c, *row.stamp))
        with self._helping() as database:
            if database is not None and rows:
                database.executemany("REPLACE INTO verified VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                database.commit()

    @contextlib.contextmanager
    def _helping(self) -> Iterator[sqlite3.Connection | None]:
        """Give the database; what goes wrong with it only means that nothing is known from then on."""
        try:
            yield self._database
        except sqlite3.Error:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _open(self) -> sqlite3.Connection | None:
        for _ in range(2):
            try:
                # A second export into the same folder is not waited for long: what it cannot write it does not know.
                database = sqlite3.connect(self._path, timeout=1, check_same_thread=False)
            except sqlite3.Error:
                return None
            try:
                database.execute(_TABLE)
                database.execute("SELECT crc32c, inode FROM verified LIMIT 1").fetchall()
            except sqlite3.OperationalError:
                database.close()
                return None
            except sqlite3.DatabaseError:
                database.close()
                self._path.unlink(missing_ok=True)
            else:
                return database
        return None


def _name_of(folder: Path) -> str:
    """Return the name of a series' folder, which holds wherever the whole tree is moved to."""
    return f"{folder.parent.name}/{folder.name}"
