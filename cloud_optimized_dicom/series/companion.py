"""The thumbnail beside a series: derived from it, written before the commit that names it, never trusted unchecked.

The document says which object it means, by size and CRC32C.  So it does no harm that the object is written by a request
of its own: who finds another one than the document names finds none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.errors import ObjectNotFoundError
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

THUMBNAIL = "thumbnail"
"""The name of the field."""
_EXTENSIONS = ("mp4", "jpg")


@dataclass(frozen=True)
class StagedThumbnail:
    """A thumbnail on its way in.

    Parameters
    ----------
    extension
        ``jpg`` or ``mp4``.
    document
        The value of the document's field, as JSON.
    """

    data: bytes
    extension: str
    content_type: str
    document: Mapping[str, Any]


def thumbnail_stem(key: SeriesKey) -> str:
    """Return the name of a series' thumbnail, without the dot and the extension."""
    return f"{key.folder}/{THUMBNAIL}"


def find_thumbnail_name(key: SeriesKey, uri: str) -> str | None:
    """Return the name, in the datastore at hand, of the thumbnail that a document names by a URI of any datastore."""
    names = [f"{stem}.{extension}" for stem in (thumbnail_stem(key), key.folder) for extension in _EXTENSIONS]
    return next((name for name in names if uri == name or uri.endswith(f"/{name}")), None)


def settle_thumbnail(
    store: ObjectStore,
    key: SeriesKey,
    base: SeriesDocument,
    staged: StagedThumbnail | None,
    renew: Callable[[], object],
) -> None:
    """Write the object of a staged thumbnail, and delete every other one.

    Parameters
    ----------
    base
        The document that is about to be changed.
    staged
        None where the series will have no thumbnail.
    renew
        Proves that the lock is held, right before anything is changed: whoever lost it must not touch them.

    Notes
    -----
    Called by the holder of the lock right before a commit that changes the document's field, or takes pixels away.  A
    thumbnail that shows removed pixels is gone before the commit is decided, so that no crash can leave it behind; also
    one that no document names, because its writer died before it decided.
    """
    name = f"{thumbnail_stem(key)}.{staged.extension}" if staged is not None else None
    present = {info.name: info for info in store.list(f"{thumbnail_stem(key)}.")}
    doomed = {*present, *_named_beside_the_tar(key, base)} - {name}
    if not doomed and staged is None:
        return
    renew()
    for other in sorted(doomed):
        with suppress(ObjectNotFoundError):
            store.delete(other)
    if staged is None or name is None:
        return
    payload, attributes = BytesPayload(staged.data), Attributes(content_type=staged.content_type)
    if name in present:
        version = present[name].version
        store.replace(name, payload, version=version, write_id=new_write_id(), attributes=attributes)
    else:
        store.create(name, payload, write_id=new_write_id(), attributes=attributes)


def _named_beside_the_tar(key: SeriesKey, base: SeriesDocument) -> set[str]:
    """Return the name of a thumbnail that a document names outside the series' folder."""
    before = base.find_field(THUMBNAIL)
    uri = before.get("uri") if isinstance(before, dict) else None
    name = find_thumbnail_name(key, uri) if isinstance(uri, str) else None
    return set() if name is None or name.startswith(f"{thumbnail_stem(key)}.") else {name}
