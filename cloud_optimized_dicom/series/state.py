"""What a series' objects are now, as far as the store can say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError

if TYPE_CHECKING:
    from cloud_optimized_dicom.lock.record import Intent
    from cloud_optimized_dicom.model import TarState
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey


def tar_crc32c(store: ObjectStore, key: SeriesKey, tar: ObjectInfo) -> int:
    """Return the CRC32C of the tar in a given state; read in full where the store keeps none (a copied folder)."""
    if tar.crc32c is not None:
        return tar.crc32c
    crc = 0
    for chunk in store.iter_chunks(key.tar, version=tar.version):
        crc = crc32c(chunk, crc)
    return crc


def describes(recorded: TarState, store: ObjectStore, key: SeriesKey, tar: ObjectInfo) -> bool:
    """Return whether a tar has the recorded size and CRC32C (a copied or restored store, say)."""
    return tar.size == recorded.size and tar_crc32c(store, key, tar) == recorded.crc32c


def explains(intent: Intent, metadata_version: str, store: ObjectStore, key: SeriesKey, tar: ObjectInfo) -> bool:
    """Return whether the intent, applied to the document at `metadata_version`, describes this tar.

    Notes
    -----
    Both conditions are needed: an intent made for another document would give wrong places for right bytes.
    """
    if intent.result is None or tar.size != intent.result.size or not _made_for(intent, metadata_version, store, key):
        return False
    return tar_crc32c(store, key, tar) == intent.result.crc32c


def is_base(intent: Intent, store: ObjectStore, key: SeriesKey, tar: ObjectInfo) -> bool:
    """Return whether a tar is the one that an intent, not yet carried out, was made for; or a copy of it."""
    base = intent.base_tar
    if base is None or tar.size != base.size:
        return False
    return tar.version == base.version or tar_crc32c(store, key, tar) == base.crc32c


def _made_for(intent: Intent, metadata_version: str, store: ObjectStore, key: SeriesKey) -> bool:
    """Return whether an intent was made for the document at a version, or for the one that it is a copy of."""
    base = intent.base_metadata
    if base is None or base.version == metadata_version:
        return base is not None
    try:
        found = store.read_object(key.metadata)
    except ObjectNotFoundError:
        return False
    same_bytes = (len(found.data), crc32c(found.data)) == (base.size, base.crc32c)
    return same_bytes and found.info.version == metadata_version
