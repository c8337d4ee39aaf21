"""What there is of a series, seen without its lock or by who holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.errors import ObjectNotFoundError
from cloud_optimized_dicom.format.metadata.document import SeriesDocument, parse_document
from cloud_optimized_dicom.lock.lease import Listing, list_series
from cloud_optimized_dicom.lock.record import parse_lock
from cloud_optimized_dicom.series.commit import metadata_state

if TYPE_CHECKING:
    from cloud_optimized_dicom.lock.record import Intent, LockRecord, ObjectState
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey


class SeenDocument(NamedTuple):
    """A document, and the state of the object that it was read from."""

    document: SeriesDocument
    state: ObjectState


class Look(NamedTuple):
    """A series as it was seen without a lock.

    Attributes
    ----------
    listing
        What a list showed.
    document
        None where there is none.
    intent
        The commit that is decided, and may not be in the document yet.
    """

    listing: Listing
    document: SeenDocument | None
    intent: Intent | None = None

    @classmethod
    def at(cls, store: ObjectStore, key: SeriesKey) -> Look:
        """Look at a series: a list, and a read where there is something to read; one more where there is a lock.

        Raises
        ------
        MetadataError, UnsupportedVersionError
            If the document, or the lock, cannot be understood.
        """
        listing = list_series(store, key)
        # Before the document: what is decided later than this look is later than all that is told from it.
        lock = read_lock(store, key) if key.lock in listing.names else None
        document = read_seen(store, key) if key.metadata in listing.names else None
        return cls(listing, document, lock.intent if lock is not None else None)

    @property
    def stored(self) -> SeriesDocument | None:
        """The document as it is."""
        return self.document.document if self.document is not None else None

    @property
    def decided(self) -> SeriesDocument | None:
        """The document with the decided commit, which will happen: what it removes is not stored any more.

        Notes
        -----
        A commit that the document holds already changes nothing when it is applied once more.  What only the commit
        adds is not stored yet, and never will be if somebody deletes its segments.
        """
        if self.stored is None or self.intent is None:
            return self.stored
        return self.stored.applied(self.intent.change, None, self.intent.write_id)

    def has_leftovers(self, key: SeriesKey) -> bool:
        """Return whether a writer is, or was, at work: there is a lock, or a segment."""
        return any(name == key.lock or name.startswith(key.pending) for name in self.listing.names)


def read_lock(store: ObjectStore, key: SeriesKey) -> LockRecord | None:
    """Return what the lock of a series says, or None if there is none.

    Raises
    ------
    MetadataError
        If it is damaged: what it decided cannot be told.
    """
    try:
        found = store.read_object(key.lock)
    except ObjectNotFoundError:
        return None
    return parse_lock(store.url_of(key.lock), found.data)


def read_seen(store: ObjectStore, key: SeriesKey, known: SeenDocument | None = None) -> SeenDocument | None:
    """Return the document of a series, or None if there is none.

    Parameters
    ----------
    known
        What was read before; it is read again only if it is not what is there.
    """
    if known is not None:
        present = store.find(key.metadata)
        if present is not None and present.version == known.state.version:
            return known
    try:
        found = store.read_object(key.metadata)
    except ObjectNotFoundError:
        return None
    document = parse_document(store.url_of(key.metadata), found.data, key)
    return SeenDocument(document, metadata_state(found.data, found.info.version))


def find_tar(
    store: ObjectStore, key: SeriesKey, seen: SeenDocument | None, listed: ObjectInfo | None
) -> ObjectInfo | None:
    """Return the tar of a series, as the holder of its lock has to know it.

    Parameters
    ----------
    seen
        The document, read by the holder.
    listed
        The tar that a list showed before the lock was taken.

    Notes
    -----
    A tar that the list showed is still there if the document, which was read later, names its version and its size
    (fake-gcs-server keeps the generation of an object that is composed onto itself); and where there was neither before
    nor is a document now, there is none.  Anything else is looked at again.
    """
    recorded = seen.document.tar if seen is not None else None
    if listed is not None and recorded is not None:
        same = (recorded.generation, recorded.size) == (listed.version, listed.size)
        return listed if same else store.find(key.tar)
    if listed is None and seen is None:
        return None
    return store.find(key.tar)
