"""What a series' objects are now, as far as the store can say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c

if TYPE_CHECKING:
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
