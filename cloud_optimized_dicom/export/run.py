"""Many series, by a few workers: which series is opened and which piece fetched next."""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import StorageError
from cloud_optimized_dicom.events import ExportPlanned, FileExported, SeriesExported, emit
from cloud_optimized_dicom.export.folder import ExportFolder
from cloud_optimized_dicom.export.report import ExportFailure, ExportReport
from cloud_optimized_dicom.export.selection import Selection
from cloud_optimized_dicom.export.series import SeriesExport
from cloud_optimized_dicom.export.workers import Ended, Workers
from cloud_optimized_dicom.uid_hashing import find_uid_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloud_optimized_dicom.datastore import Datastore
    from cloud_optimized_dicom.events import Event, Hook
    from cloud_optimized_dicom.export.pieces import Piece
    from cloud_optimized_dicom.uid_hashing import UidHash
    from cloud_optimized_dicom.uids import SeriesKey

_EVERYTHING = Selection()


def export_dicom(  # noqa: PLR0913 - all but the first two by name
    datastore: Datastore,
    destination: str | os.PathLike[str],
    *,
    selection: Selection = _EVERYTHING,
    workers: int = 8,
    hooks: Sequence[Hook] = (),
    recheck: bool = False,
    uid_hash_func: UidHash | str | None = None,
) -> ExportReport:
    """Write series as files ``destination/STUDY_UID/SERIES_UID/SOP_UID.dcm``, exactly as they are stored.

    Parameters
    ----------
    destination
        A local folder; made where it is missing.
    workers
        How many requests run at a time, and threads; each holds about 16 MiB, however large series and instances are.
    hooks
        Called with `ExportPlanned`, `BytesExported`, `FileExported` and `SeriesExported`, in the calling thread.
    recheck
        Read files that are there already, instead of relying on what earlier exports verified.
    uid_hash_func
        From a UID to the one that names show instead: a function, or ``module:function``.  The files keep their own.  A
        series to whose UIDs it gives no names, or one to two of them, is a failure.

    Returns
    -------
    ExportReport
        A damaged instance or series is a failure in it and never stops the others.

    Raises
    ------
    OSError
        If the destination cannot be written to, a full disk included.
    StorageError
        If the destination is no local folder, or the datastore cannot be listed.
    ValueError
        If `uid_hash_func` names no function.

    Notes
    -----
    A file appears when all of it has been fetched and its CRC32C is that on record; until then an older file stays.  A
    file that is there and equal is left alone: it is read once to find that out, and after that only if its size, times
    or inode have changed.  So an export that was cut off, at whatever moment, is finished by running it again.

    Instances that are replaced while the export runs are exported as they are then, removed ones are left out, and of
    those that are appended none or some are seen.
    """
    hash_func = find_uid_hash(uid_hash_func)
    with ExportFolder(_local_path(destination), recheck=recheck, uid_hash_func=hash_func) as folder:
        return _Export(datastore, selection, folder, hooks).run(max(1, workers))


def _local_path(destination: str | os.PathLike[str]) -> Path:
    text = os.fspath(destination)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise StorageError(text, "an export is written to a local folder")
    return Path(text)


@dataclass(frozen=True, eq=False)
class _Open:
    """The task to open a series."""

    series: SeriesExport

    def __call__(self) -> None:
        self.series.open()


@dataclass(frozen=True, eq=False)
class _Fetch:
    """The task to fetch a piece of a series."""

    series: SeriesExport
    piece: Piece

    def __call__(self) -> None:
        self.series.fetch(self.piece)


@dataclass
class _Tally:
    """What was done so far, by events."""

    series: int = 0
    written: int = 0
    written_bytes: int = 0
    present: int = 0
    present_bytes: int = 0
    failures: list[ExportFailure] = field(default_factory=list)

    def note(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case ExportPlanned(present=files, present_bytes=size):
                self.present += files
                self.present_bytes += size
            case FileExported(error=None, size_bytes=size):
                self.written += 1
                self.written_bytes += size
            case FileExported(uri=uri, error=Exception() as error):
                self.failures.append(ExportFailure(uri, error))
            case SeriesExported():
                self.series += 1

    def report(self, removed: int, not_found: Iterable[str]) -> ExportReport:
        """Return the report of all this."""
        return ExportReport(
            self.series,
            self.written,
            self.written_bytes,
            self.present,
            self.present_bytes,
            removed,
            tuple(self.failures),
            tuple(sorted(not_found)),
        )


class _Export:
    """One run.  Everything happens in the calling thread but for the tasks: opening a series, fetching a piece."""

    def __init__(self, datastore: Datastore, selection: Selection, folder: ExportFolder, hooks: Sequence[Hook]) -> None:
        self._store, self._selection, self._folder, self._hooks = datastore.store, selection, folder, hooks
        self._keys = _iter_keys(datastore, selection)
        self._tally = _Tally()
        self._found: set[str] = set()
        self._removed = 0
        self._outdated: deque[SeriesExport] = deque()
        self._ready: deque[_Fetch] = deque()
        self._left: dict[SeriesExport, int] = {}
        self._opening = 0
        # Documents are held until their pieces are through: few where they are large, more where each is one piece.
        self._ahead = 1

    def run(self, count: int) -> ExportReport:
        """Do everything with so many workers."""
        workers: Workers[_Open | _Fetch, Event] = Workers(count)
        with workers:
            try:
                self._run(workers, count)
            except BaseException:
                for answer in workers.iter_answers():  # files that are in their places, whatever ends the run
                    self._note(answer)
                raise
        return self._tally.report(self._removed, self._selection.uids - self._found)

    def _run(self, workers: Workers[_Open | _Fetch, Event], count: int) -> None:
        running = 0
        while True:
            while running < count and (task := self._next_task(workers.say, count)) is not None:
                workers.submit(task)
                running += 1
            if not running:
                return
            answer = workers.next_answer()
            if isinstance(answer, Ended):
                running -= 1
                self._ended(answer, count)
            else:
                self._note(answer)

    def _next_task(self, say: Callable[[Event], None], count: int) -> _Open | _Fetch | None:
        if self._outdated:
            return _Open(self._outdated.popleft())
        if self._opening < self._ahead and len(self._ready) < count:
            key = next(self._keys, None)
            if key is not None:
                self._opening += 1
                self._found |= {key.study_uid, key.series_uid}
                return _Open(SeriesExport(self._store, key, self._folder, self._selection, say))
        return self._ready.popleft() if self._ready else None

    def _ended(self, ended: Ended[_Open | _Fetch], count: int) -> None:
        if ended.error is not None:
            raise ended.error
        series = ended.task.series
        if isinstance(ended.task, _Fetch):
            self._left[series] -= 1
        else:
            if not series.reopened:
                self._opening -= 1
                self._ahead = min(count, 2 * self._ahead) if len(series.pieces) < count else 1
            self._left[series] = len(series.pieces)
            self._ready.extend(_Fetch(series, piece) for piece in series.pieces)
        if not self._left[series]:
            del self._left[series]
            if series.outdated:
                self._outdated.append(series)
            else:
                self._finish(series)

    def _finish(self, series: SeriesExport) -> None:
        self._found |= series.named
        self._removed += series.removed
        if series.error is not None:
            self._tally.failures.append(ExportFailure(series.error_uri, series.error))
        self._note(SeriesExported(series.uri, series.written, series.present, series.failed))

    def _note(self, event: Event) -> None:
        self._tally.note(event)
        emit(self._hooks, event)


def _iter_keys(datastore: Datastore, selection: Selection) -> Iterator[SeriesKey]:
    keys = datastore.series() if selection.series is None else selection.series
    yield from selection.plan_series(keys)
