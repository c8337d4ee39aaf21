"""The thumbnail that a series has: what its document says, and the object beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError
from cloud_optimized_dicom.series.companion import find_thumbnail_name
from cloud_optimized_dicom.thumbnail.document import ThumbnailDocument
from cloud_optimized_dicom.thumbnail.encode import decode
from cloud_optimized_dicom.thumbnail.generate import Thumbnail

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey


def find_thumbnail_document(document: SeriesDocument) -> ThumbnailDocument | None:
    """Return what a document says of its thumbnail; None where that is nothing, or not of the series as it is."""
    try:
        described = ThumbnailDocument.parse(document.find_field("thumbnail"))
    except ValueError:
        return None
    return described if described.shows(document.iter_records()) else None


class StoredFile(NamedTuple):
    """The file of a thumbnail, and what the document says of it."""

    described: ThumbnailDocument
    data: bytes
    extension: str


def find_thumbnail(store: ObjectStore, key: SeriesKey, document: SeriesDocument) -> Thumbnail | None:
    """Return the thumbnail of a series as its document has it, or None: one request at most.

    Notes
    -----
    None also where the object is not the one that the document was written for (a writer died between the two), where
    it is damaged, or where it shows other instances than the series holds.

    Raises
    ------
    MissingDependencyError
        If the extra ``thumbnail`` is not installed.
    """
    file = find_thumbnail_file(store, key, document)
    if file is None:
        return None
    try:
        pictures = decode(file.data, file.extension)
    except ValueError:
        return None
    return Thumbnail(file.described, pictures) if len(pictures) == len(file.described.frames) else None


def find_thumbnail_file(store: ObjectStore, key: SeriesKey, document: SeriesDocument) -> StoredFile | None:
    """Return the file that a document means, or None, as :func:`find_thumbnail` does; it is not decoded."""
    described = find_thumbnail_document(document)
    name = find_thumbnail_name(key, described.uri) if described is not None else None
    if described is None or name is None:
        return None
    try:
        data = store.read_object(name).data
    except ObjectNotFoundError:
        return None
    if described.crc32c is not None and (len(data), crc32c(data)) != (described.size, described.crc32c):
        return None
    return StoredFile(described, data, name.rpartition(".")[2])
