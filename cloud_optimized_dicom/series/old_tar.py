"""The tar that a transaction found: where its members end, and its bytes as parts of the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c, without_tail
from cloud_optimized_dicom.errors import TarValidationError
from cloud_optimized_dicom.format.tar import end_of_members
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.packing import SlicePayload, TarWindow

if TYPE_CHECKING:
    from cloud_optimized_dicom.series.commit import Base, Series
    from cloud_optimized_dicom.storage.base import ObjectInfo


def members_end(series: Series, base: Base, tar: ObjectInfo) -> int:
    """Return where the last member of the tar ends, its padding included, in bytes.

    Raises
    ------
    TarValidationError
        If something other than zeros lies behind it.
    """
    store, name = series.store, series.key.tar
    recorded = base.document.members_end
    if tar.size == recorded:
        return recorded
    end = end_of_members(lambda span: store.read(name, span, version=tar.version), recorded, tar.size)
    behind = ByteRange(end, tar.size)
    if len(behind) and any(any(chunk) for chunk in store.iter_chunks(name, behind, version=tar.version)):
        raise TarValidationError(series.tar_uri, "bytes behind the last member are neither members nor zeros")
    return end


def window(series: Series, tar: ObjectInfo) -> TarWindow:
    """Return the tar's bytes, to be read from front to back."""
    return TarWindow(series.store, series.key.tar, tar.version, tar.size)


def prefix(series: Series, tar: ObjectInfo, end: int) -> SlicePayload:
    """Return the tar up to `end`, behind which it holds zeros only."""
    zeros = tar.size - end
    crc = without_tail(series.tar_crc32c(tar), crc32c(bytes(zeros)), zeros)
    return SlicePayload(window(series, tar), ByteRange(0, end), crc)
