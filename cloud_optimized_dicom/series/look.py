"""What there is of a series, seen without its lock or by who holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.errors import ObjectNotFoundError
from cloud_optimized_dicom.format.metadata.document import SeriesDocument, parse_document
from cloud_optimized_dicom.lock.lease import list_folder
from cloud_optimized_dicom.series.commit import metadata_state

if TYPE_CHECKING:
    from cloud_optimized_dicom.lock.record import ObjectState
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey


class SeenDocument(NamedTuple):
    """A document, and the state of the object that it was read from."""

    document: SeriesDocument
    state: ObjectState


class Look(NamedTuple):
    """A series as it was seen without a lock: the names in its folder, and its document if there is one."""

    names: tuple[str, ...]
    document: SeenDocument | None

    @classmethod
    def at(cls, store: ObjectStore, key: SeriesKey) -> Look:
        """Look at a series: a list, and a read where there is something to read.

        Raises
        ------
        MetadataError, UnsupportedVersionError
            If the document cannot be understood.
        """
        names = list_folder(store, key)
        if key.metadata not in names:
            return cls(names, None)
        try:
            return cls(names, _read(store, key))
        except ObjectNotFoundError:
            return cls(names, None)


def _read(store: ObjectStore, key: SeriesKey) -> SeenDocument:
    found = store.read_object(key.metadata)
    document = parse_document(store.url_of(key.metadata), found.data, key)
    return SeenDocument(document, metadata_state(found.data, found.info.version))


def present(store: ObjectStore, key: SeriesKey) -> tuple[SeenDocument | None, ObjectInfo | None]:
    """Return the document and the tar of a series, in the order that the protocol looks at them."""
    try:
        seen = _read(store, key)
    except ObjectNotFoundError:
        seen = None
    return seen, store.find(key.tar)


def present_since(store: ObjectStore, key: SeriesKey, look: Look) -> tuple[SeenDocument | None, ObjectInfo | None]:
    """Return the same as :func:`present`; the document is not read again if it is still the one that was seen."""
    metadata, tar = store.find_all([key.metadata, key.tar])
    if metadata is None:
        return None, tar
    if look.document is not None and look.document.state.version == metadata.version:
        return look.document, tar
    return _read(store, key), tar
