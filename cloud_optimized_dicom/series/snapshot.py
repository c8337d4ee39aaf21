"""Metadata and tar as they belong together, however busy the series is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.errors import CODObjectNotFoundError, FormatError
from cloud_optimized_dicom.model import TarState
from cloud_optimized_dicom.series.look import read_lock
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.state import describes, explains

if TYPE_CHECKING:
    from cloud_optimized_dicom.lock.record import Intent, LockRecord
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_LOOKS = 6
_PAUSE_SECONDS = 0.2


class Snapshot(NamedTuple):
    """One state of a series.

    Parameters
    ----------
    reader
        Of the document, with a decided commit applied to it where the tar is that commit's already; None without one.
    tar
        None where there is none.
    coming
        Whether a decided commit is about to write the first document.
    """

    reader: SeriesReader | None
    tar: ObjectInfo | None
    coming: bool = False


def take_snapshot(store: ObjectStore, key: SeriesKey, known: SeriesReader | None = None) -> Snapshot:
    """Return document and tar that belong together; where they provably do not, as they are.

    Parameters
    ----------
    known
        A reader of the series; its document is used, rather than read again, if it is still the present one.

    Raises
    ------
    MetadataError, UnsupportedVersionError
        If the document cannot be understood.

    Notes
    -----
    A commit is between its two writes only while a lock holds its intent, and a document never goes back to a version.
    So we look at the document, the tar, the lock and the document again, in this order: if the document stayed and no
    intent was there, the disagreement is real.  An older writer's lock tells nothing, so that one is given some time.
    """
    reader = _known_or_read(store, key, known)
    tar = store.find(key.tar)
    for attempt in range(_LOOKS):
        if attempt:
            time.sleep(_PAUSE_SECONDS * attempt)
            tar = store.find(key.tar)
        if reader is not None and _agree(reader, tar):
            return Snapshot(_pinned(reader, tar), tar)
        lock = _find_lock(store, key)
        intent = lock.intent if lock is not None else None
        explained = _explained(reader, tar, intent)
        if explained is not None:
            return explained
        again = _read(store, key)
        if _version(again) == _version(reader) and (lock is None or _tells_nothing_more(reader, lock)):
            break
        reader = again
    return Snapshot(_pinned(reader, tar), tar)


def _find_lock(store: ObjectStore, key: SeriesKey) -> LockRecord | None:
    try:
        return read_lock(store, key)
    except FormatError:
        return None  # a damaged one explains nothing, and is a finding of its own


def _pinned(reader: SeriesReader | None, tar: ObjectInfo | None) -> SeriesReader | None:
    """Return the reader with the tar that was found to be its document's, or to be all there is."""
    if reader is None or tar is None or reader.document.tar is not None:
        return reader
    return SeriesReader(reader.store, reader.key, reader.document, reader.metadata_version, tar.version)


def _agree(reader: SeriesReader, tar: ObjectInfo | None) -> bool:
    recorded = reader.document.tar
    if recorded is None or tar is None:
        return recorded is None and tar is None
    return tar.version == recorded.generation or describes(recorded, reader.store, reader.key, tar)


def _tells_nothing_more(reader: SeriesReader | None, lock: LockRecord) -> bool:
    """Return whether it is no use to wait for the holder of a lock: it is between no writes, or we cannot tell."""
    if reader is not None and reader.document.tar is None:
        return True
    return lock.intent is None and lock.lease_seconds is not None


def _explained(reader: SeriesReader | None, tar: ObjectInfo | None, intent: Intent | None) -> Snapshot | None:
    if reader is None:
        return Snapshot(None, tar, coming=True) if intent is not None and intent.base_metadata is None else None
    if tar is None or intent is None or not explains(intent, reader.metadata_version, reader.store, reader.key, tar):
        return None
    state = TarState(tar.version, tar.size, intent.result.crc32c if intent.result else 0)
    document = reader.document.applied(intent.change, state, intent.write_id)
    return Snapshot(SeriesReader(reader.store, reader.key, document, reader.metadata_version), tar)


def _known_or_read(store: ObjectStore, key: SeriesKey, known: SeriesReader | None) -> SeriesReader | None:
    if known is not None:
        present = store.find(key.metadata)
        if present is not None and present.version == known.metadata_version:
            return SeriesReader(store, key, known.document, known.metadata_version)
    return _read(store, key)


def _read(store: ObjectStore, key: SeriesKey) -> SeriesReader | None:
    try:
        return SeriesReader.open(store, key)
    except CODObjectNotFoundError:
        return None


def _version(reader: SeriesReader | None) -> str | None:
    return reader.metadata_version if reader is not None else None
