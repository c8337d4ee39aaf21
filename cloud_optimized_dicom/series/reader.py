"""Reading one series: one request for its document, then exactly the bytes that are asked for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    FormatError,
    HashMismatchError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StaleReadError,
    TarMissingInstanceError,
    TarValidationError,
)
from cloud_optimized_dicom.format.metadata.document import SeriesDocument, parse_document
from cloud_optimized_dicom.lock.record import Intent, LockRecord, parse_lock
from cloud_optimized_dicom.model import InstanceRecord, TarState
from cloud_optimized_dicom.ranges import ByteRange, Coalesced, FetchPolicy, coalesce
from cloud_optimized_dicom.series.state import describes, explains, is_base
from cloud_optimized_dicom.series.virtual_file import open_virtual_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloud_optimized_dicom.series.virtual_file import FileLayout, OffsetTable
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_REFRESHES = 6
_PAUSE_SECONDS = 0.2


class _Look(NamedTuple):
    """One sight of a series; `document` is None where metadata and tar do not agree and no intent explains it."""

    document: SeriesDocument | None
    metadata_version: str
    tar_version: str
    locked: bool = False


class _State(NamedTuple):
    """What a reader goes by, replaced as a whole: places of one document never meet another document's tar.

    `generation` is None while it is not known which tar a document belongs to that names none.
    """

    document: SeriesDocument
    metadata_version: str
    generation: str | None


class SeriesReader:
    """A series as one document describes it.

    Parameters
    ----------
    generation
        The version of the tar that the document describes, where the caller knows it; None: as the document says.

    Notes
    -----
    Reads are pinned to the tar's recorded generation, so they see one state of the series.  When that generation is
    gone, the document is read anew: an instance that is still the same is read at its new place, silently; one that was
    removed or changed raises `StaleReadError`.  Series of older writers record no generation: the first read finds out
    which tar their document describes (three requests, once), and all reads are pinned to that one.
    Records may be of any state that the reader has been in.  Threads may share a reader.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: SeriesKey,
        document: SeriesDocument,
        metadata_version: str,
        generation: str | None = None,
    ) -> None:
        self.store, self.key = store, key
        recorded = document.tar.generation if document.tar else None
        self._opened = _State(document, metadata_version, generation or recorded)
        self._state = self._opened
        self._pinning = threading.Lock()
        self.policy = FetchPolicy()
        self.shown_tables: dict[tuple[str, int], FileLayout] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pinning": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_pinning": threading.Lock()}

    @classmethod
    def open(cls, store: ObjectStore, key: SeriesKey) -> SeriesReader:
        """Read the document of a series: one request.

        Raises
        ------
        CODObjectNotFoundError
            If there is no such series.
        MetadataError, UnsupportedVersionError
            If the document cannot be understood.
        """
        return cls(store, key, *read_document(store, key))

    @property
    def document(self) -> SeriesDocument:
        """The document that the series was opened with; what happens to the series later does not change it."""
        return self._opened.document

    @property
    def metadata_version(self) -> str:
        """The version of metadata.json that :attr:`document` was read from."""
        return self._opened.metadata_version

    @property
    def overtaken(self) -> bool:
        """Whether a read has found that the series is not what :attr:`document` says any more."""
        opened, state = self._opened, self._state
        return (state.metadata_version, state.document.tar) != (opened.metadata_version, opened.document.tar)

    @property
    def present(self) -> tuple[SeriesDocument, str | None]:
        """The document and the version of the tar that reads go by now: newer ones where the series was rewritten."""
        state = self._state
        return state.document, state.generation

    @property
    def tar_uri(self) -> str:
        """Where the tar is."""
        return self.store.url_of(self.key.tar)

    # -- bytes of an instance

    def read_spans(self, record: InstanceRecord, spans: Sequence[ByteRange]) -> list[bytes]:
        """Read ranges of one instance's file, in the order given.

        Raises
        ------
        StaleReadError
            If the instance was removed or changed meanwhile.
        TarMissingInstanceError
            If the tar is shorter than the document says.
        """
        pieces = [b""] * len(spans)

        def take(position: int, data: bytes) -> None:
            pieces[position] = data

        self.read_each([(record, span) for span in spans], take)
        return pieces

    def read_each(
        self,
        wanted: Sequence[tuple[InstanceRecord, ByteRange]],
        take: Callable[[int, bytes], None],
        policy: FetchPolicy | None = None,
    ) -> None:
        """Read ranges of several instances' files, handing each over as it arrives.

        Parameters
        ----------
        take
            Called with a range's position in `wanted` and its bytes, from several threads and in any order; again with
            the same position where the series was rewritten meanwhile.
        policy
            Instead of the reader's own.

        Raises
        ------
        StaleReadError, TarMissingInstanceError
            As :meth:`read_spans`.

        Notes
        -----
        Neighbours come in one request, as the policy says; requests run in parallel.  No more than what is under way is
        held here.
        """
        if not wanted:
            return
        for _ in range(_REFRESHES):
            state = self._pinned()
            spans = [span.shifted(self._place(record, state)) for record, span in wanted]
            try:
                self._fetch(spans, state.generation, take, policy or self.policy)
            except ObjectNotFoundError:
                self.refresh(wanted[0][0].name_uid)
            else:
                return
        raise StaleReadError(self.tar_uri, wanted[0][0].name_uid, "it kept changing while it was being read")

    def _fetch(
        self,
        spans: Sequence[ByteRange],
        generation: str | None,
        take: Callable[[int, bytes], None],
        policy: FetchPolicy,
    ) -> None:
        groups = coalesce(spans, policy)

        def fetch(group: Coalesced) -> None:
            data = self.store.read(self.key.tar, group.span, version=generation)
            for position in group.members:
                start, stop = spans[position].start - group.span.start, spans[position].stop - group.span.start
                take(position, data if stop - start == len(data) else data[start:stop])

        if len(groups) <= 1:
            for group in groups:
                fetch(group)
            return
        with ThreadPoolExecutor(min(len(groups), policy.max_parallel)) as pool:
            for _ in pool.map(fetch, groups):
                pass

    def read_span(self, record: InstanceRecord, span: ByteRange) -> bytes:
        """Read one range of one instance's file."""
        if span.stop > record.size:
            raise TarMissingInstanceError(self.tar_uri, record.name_uid, "a range behind its end was asked for")
        return self.read_spans(record, [span])[0]

    def read_instance(self, record: InstanceRecord) -> bytes:
        """Read one instance's file whole, with its CRC32C checked.

        Raises
        ------
        HashMismatchError
            If the bytes are not those that were stored.
        """
        data = self.read_span(record, ByteRange(0, record.size))
        self._check(record, checksum.crc32c(data))
        return data

    def iter_instance(self, record: InstanceRecord) -> Iterator[bytes]:
        """Stream one instance's file; `HashMismatchError` after the last chunk if the bytes are not those stored."""
        crc = done = 0
        while done < record.size:
            state = self._pinned()
            start = self._place(record, state)
            span = ByteRange(start + done, start + record.size)
            try:
                for chunk in self.store.iter_chunks(self.key.tar, span, version=state.generation):
                    crc = checksum.crc32c(chunk, crc)
                    done += len(chunk)
                    yield chunk
            except ObjectNotFoundError:
                self.refresh(record.name_uid)
        self._check(record, crc)

    def open_instance(self, record: InstanceRecord, offset_table: OffsetTable | None = None) -> BinaryIO:
        """Open one instance's file; only what is read is fetched, and a whole read is checked against its CRC32C."""
        return open_virtual_file(self, record, offset_table)

    def _check(self, record: InstanceRecord, found: int) -> None:
        if found != record.crc32c:
            raise HashMismatchError(
                self.tar_uri, record.name_uid, checksum.encode(record.crc32c), checksum.encode(found)
            )

    # -- the whole tar

    def tar_now(self) -> tuple[str, TarState | None, bool]:
        """Return the present tar's version, its state on record, and whether :attr:`document` is the present one."""
        state = self._pinned()
        return state.generation or "", state.document.tar, not self.overtaken

    # -- when the series changed under us

    def _pinned(self) -> _State:
        """Return a state that names its tar."""
        if self._state.generation is None:
            with self._pinning:
                if self._state.generation is None:
                    self._go_by_what_is(self._opened, "(all)")
        return self._state

    def _place(self, seen: InstanceRecord, state: _State) -> int:
        """Return where an instance lies in the tar of a state; `seen` may be of an earlier one."""
        found = state.document.find(seen.name_uid)
        if found is None:
            raise StaleReadError(self.tar_uri, seen.name_uid, "it was removed while it was being read")
        if (found.crc32c, found.size) != (seen.crc32c, seen.size):
            raise StaleReadError(self.tar_uri, seen.name_uid, "it was replaced while it was being read")
        return found.start

    def refresh(self, uid: str) -> None:
        """Go by the present state of the series from now on, because the tar that was named is gone.

        Parameters
        ----------
        uid
            Of the instance that was being read, for errors.

        Raises
        ------
        StaleReadError
            If metadata and tar do not come to agree.
        TarValidationError
            If they never will.
        CODObjectNotFoundError
            If the series is gone.
        """
        self._go_by_what_is(None, uid)

    def _go_by_what_is(self, known: _State | None, uid: str) -> None:
        """Find the tar of the `known` document, or, where that is not the present one, document and tar."""
        unexplained = None
        for attempt in range(_REFRESHES):
            if attempt:
                time.sleep(_PAUSE_SECONDS * attempt)
            look = self._look(known if attempt == 0 else None)
            if look.document is None:
                # A commit is between its two writes, and ends soon; but the same sight twice without a lock is damage.
                if look == unexplained and not look.locked:
                    raise TarValidationError(self.tar_uri, "the tar is not the one that the metadata was written for")
                unexplained = look
                continue
            self._state = _State(look.document, look.metadata_version, look.tar_version)
            return
        raise StaleReadError(self.tar_uri, uid, "metadata and tar do not agree")

    def _look(self, known: _State | None) -> _Look:
        document, version = (known.document, known.metadata_version) if known else read_document(self.store, self.key)
        tar = self.store.find(self.key.tar)
        if tar is None:
            raise TarValidationError(self.tar_uri, "the tar is missing")
        recorded = document.tar
        if recorded is not None and (
            tar.version == recorded.generation or describes(recorded, self.store, self.key, tar)
        ):
            return _Look(document, version, tar.version)
        lock = self._lock()
        intent = lock.intent if lock is not None else None
        if intent is not None and explains(intent, version, self.store, self.key, tar):
            state = TarState(tar.version, tar.size, intent.result.crc32c if intent.result else 0)
            return _Look(document.applied(intent.change, state, intent.write_id), version, tar.version)
        if recorded is None and self._belongs(version, tar, intent):
            return _Look(document, version, tar.version)
        return _Look(None, version, tar.version, locked=lock is not None)

    def _belongs(self, metadata_version: str, tar: ObjectInfo, intent: Intent | None) -> bool:
        """Return whether a document that names no tar describes this one.

        Notes
        -----
        The tar was looked at first, then the lock, now the document.  Had a commit of ours replaced the tar before the
        first look, its intent would have been there at the second, or its document at the third.
        """
        if intent is not None and intent.result is not None and not is_base(intent, self.store, self.key, tar):
            return False
        present = self.store.find(self.key.metadata)
        return present is not None and present.version == metadata_version

    def _lock(self) -> LockRecord | None:
        # Google Cloud Storage denies what is not there to those who may read, but not list.
        try:
            found = self.store.read_object(self.key.lock)
            return parse_lock(self.store.url_of(self.key.lock), found.data)
        except (ObjectNotFoundError, PermissionDeniedError, FormatError):
            return None


def read_document(store: ObjectStore, key: SeriesKey) -> tuple[SeriesDocument, str]:
    """Read a series' document and the version it is at: one request.

    Raises
    ------
    CODObjectNotFoundError
        If there is none.
    """
    try:
        found = store.read_object(key.metadata)
    except ObjectNotFoundError:
        raise CODObjectNotFoundError(store.url_of(key.folder)) from None
    return parse_document(store.url_of(key.metadata), found.data, key), found.info.version
