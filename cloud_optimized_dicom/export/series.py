"""One series on its way into a folder."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    CODError,
    PermissionDeniedError,
    StaleReadError,
    StorageError,
    TarValidationError,
    TransientStorageError,
)
from cloud_optimized_dicom.events import BytesExported, ExportPlanned, FileExported
from cloud_optimized_dicom.export.arrival import Arrival
from cloud_optimized_dicom.export.pieces import ONE_REQUEST, plan_pieces
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.uids import check_uid, member_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.events import Event
    from cloud_optimized_dicom.export.folder import ExportFolder
    from cloud_optimized_dicom.export.pieces import Piece
    from cloud_optimized_dicom.export.selection import Selection
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_OPENINGS = 4
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class SeriesExport:
    """The export of one series.

    Parameters
    ----------
    say
        Called with events, from any thread.

    Notes
    -----
    `open` plans pieces, which `fetch` brings in any order and from several threads.  An instance that was replaced
    meanwhile makes the series `outdated`: opened again, it plans what is still missing by its present metadata.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: SeriesKey,
        folder: ExportFolder,
        selection: Selection,
        say: Callable[[Event], None],
    ) -> None:
        self.key = key
        self._store, self._folder, self._selection, self._say = store, folder, selection, say
        self._openings = 0
        self._reader: SeriesReader | None = None
        self._arrivals: dict[str, Arrival] = {}
        self._mutex = threading.Lock()
        self._failures = 0
        self._stale: StaleReadError | None = None
        self.uri = store.url_of(key.folder)
        self.error: CODError | None = None
        self.pieces: list[Piece] = []
        self.named: frozenset[str] = frozenset()
        self.written = 0
        self.present = 0
        self.removed = 0

    @property
    def error_uri(self) -> str:
        """What :attr:`error` is about: the series, or its tar once the metadata was read."""
        return self.uri if self._reader is None else self._reader.tar_uri

    @property
    def reopened(self) -> bool:
        """Whether it was opened more than once."""
        return self._openings > 1

    @property
    def failed(self) -> int:
        """How many instances could not be had; those that are still on their way count once all pieces are through."""
        return self._failures + sum(not arrival.ended for arrival in self._arrivals.values())

    def open(self) -> None:
        """Read the metadata and plan :attr:`pieces`; `error` says why there are none."""
        self._openings += 1
        before, self.pieces = self._reader, []
        try:
            self._reader = SeriesReader.open(self._store, self.key)
            if before is None:
                self._plan(self._reader)
            elif self._openings > _OPENINGS or self._reader.metadata_version == before.metadata_version:
                self.error = self._stale  # not another state of the series, but a tar that is not the metadata's
            else:
                self._plan_again(self._reader)
        except CODError as error:
            self.error = error

    def fetch(self, piece: Piece) -> None:
        """Fetch one piece and write what it holds."""
        reader = self._reader
        if reader is None or self.error is not None or self._stale is not None:
            return
        try:
            self._fetch(reader, piece)
        except StaleReadError as error:
            self._stale = error
        except CODError as error:  # the tar is gone, or another one: true of all instances
            self.error = error

    @property
    def outdated(self) -> bool:
        """Whether, all pieces being through, the series must be opened again."""
        return self._stale is not None and self.error is None

    # -- planning

    def _plan(self, reader: SeriesReader) -> None:
        present, missing = self._planned(reader, self._named_uids(reader))
        sizes = [sum(record.size for record in records) for records in (missing, present)]
        self.present = len(present)
        self._say(ExportPlanned(self.uri, len(missing), sizes[0], len(present), sizes[1]))

    def _plan_again(self, reader: SeriesReader) -> None:
        left = [arrival for arrival in self._arrivals.values() if arrival.give_up()]
        uids = [uid for arrival in left if (uid := arrival.record.name_uid) in reader.document.instances]
        self.removed += len(left) - len(uids)
        self._stale = None
        self._planned(reader, uids)

    def _planned(self, reader: SeriesReader, uids: Sequence[str]) -> tuple[list[InstanceRecord], list[InstanceRecord]]:
        records = [record for uid in uids if (record := self._record(reader, uid)) is not None]
        present, placed = self._folder.split_present(self.key, records)
        self._arrivals = {
            record.name_uid: Arrival(self._folder, path, reader.tar_uri, record) for record, path in placed
        }
        missing = [record for record, _ in placed]
        self.pieces = plan_pieces(missing)
        return present, missing

    def _named_uids(self, reader: SeriesReader) -> list[str]:
        uids = list(reader.document.instances)
        self.named = self._selection.uids & set(uids)
        return uids if self._selection.names_series(self.key) else [uid for uid in uids if uid in self.named]

    def _record(self, reader: SeriesReader, uid: str) -> InstanceRecord | None:
        """Return the record of an instance that is wanted; one that cannot be understood is a failure of its own."""
        try:
            record = reader.document.get(check_uid(uid, "instance"))
            return record if self._fits(reader, record) else None
        except CODError as error:
            self._failed(uid, 0, error)
            return None

    def _fits(self, reader: SeriesReader, record: InstanceRecord) -> bool:
        if not self._selection.where:
            return True
        header = header_of(reader.document.uri, record)
        return all(condition.holds(header) for condition in self._selection.where)

    # -- fetching

    def _fetch(self, reader: SeriesReader, piece: Piece) -> None:
        piece = tuple(part for part in piece if not self._arrivals[part.record.name_uid].ended)

        def take(position: int, data: bytes) -> None:
            self._put(piece, position, data)

        try:
            reader.read_each([(part.record, part.span) for part in piece], take, ONE_REQUEST)
        except StorageError as error:
            if len(piece) == 1 or isinstance(error, TransientStorageError | PermissionDeniedError):
                for part in piece:
                    self._give_up(part.record, error)
                return
            for part in piece:  # a piece fails as a whole where the tar is cut off; by itself the instance may be fine
                self._fetch(reader, (part,))

    def _put(self, piece: Piece, position: int, data: bytes) -> None:
        part = piece[position]
        arrival = self._arrivals[part.record.name_uid]
        if arrival.ended:
            return
        self._say(BytesExported(len(data)))
        try:
            if arrival.put(part, data):
                with self._mutex:
                    self.written += 1
                self._say(FileExported(self._uri_of(part.record.name_uid), str(arrival.path), part.record.size))
        except TarValidationError as error:
            self._give_up(part.record, error)
        except OSError as error:
            if error.errno in _DISK_ERRORS:  # no other file would fare better
                raise
            self._give_up(part.record, error)

    def _give_up(self, record: InstanceRecord, error: Exception) -> None:
        arrival = self._arrivals[record.name_uid]
        if arrival.give_up():
            self._failed(record.name_uid, record.size, error)

    def _failed(self, uid: str, size: int, error: Exception) -> None:
        with self._mutex:
            self._failures += 1
        self._say(FileExported(self._uri_of(uid), "", size, error))

    def _uri_of(self, uid: str) -> str:
        return member_uri(self._store.url_of(self.key.tar), uid)
