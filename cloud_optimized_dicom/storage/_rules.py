"""What the adapters share: the judgement of a precondition, and the checks that a promise of `ObjectStore` rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from cloud_optimized_dicom.storage.base import MAX_CONCAT_SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.base import ConcatSource, ObjectInfo
    from cloud_optimized_dicom.storage.payload import Payload

COPY_BYTES = 1 << 20
CHUNK_BYTES = 4 << 20


def judge(url: str, present: ObjectInfo | None, expected: str | None, write_id: str) -> ObjectInfo | None:
    """Say whether a conditional write may go on.

    Returns
    -------
    ObjectInfo or None
        None: the precondition holds, write.  An info: this very write has landed already.

    Raises
    ------
    PreconditionFailedError
        If the object is at another version, and not by this write.
    """
    if (present.version if present else None) == expected:
        return None
    if present is not None and present.write_id == write_id:
        return present
    raise PreconditionFailedError(url, expected, present.version if present else None)


def check_source(url: str, found: str, wanted: str | None) -> None:
    """Refuse a source of a concatenation that is not at its version."""
    if wanted is not None and found != wanted:
        raise PreconditionFailedError(url, wanted, found)


def check_source_count(url: str, sources: Sequence[ConcatSource]) -> None:
    """Refuse a concatenation of nothing, or of more than a store can take."""
    if not 1 <= len(sources) <= MAX_CONCAT_SOURCES:
        raise StorageError(url, f"a concatenation takes 1 to {MAX_CONCAT_SOURCES} sources, not {len(sources)}")


def check_pin(url: str, found: str, pinned: str | None) -> None:
    """Refuse a read of a version that is gone."""
    if pinned is not None and found != pinned:
        raise ObjectNotFoundError(url, f"version {pinned} is gone; the present one is {found}")


def check_span(url: str, span: ByteRange, size: int) -> None:
    """Refuse a span that reaches beyond the object."""
    if span.stop > size:
        raise StorageError(url, f"ends at byte {size}, before byte {span.stop} of the range that was asked for")


def check_expected_crc32c(url: str, found: int | None, expected: int | None) -> None:
    """Refuse a concatenation that is not what was expected."""
    if expected is not None and found != expected:
        raise StorageError(url, f"the concatenation has CRC32C {found}, expected {expected}")


def iter_payload(url: str, payload: Payload) -> Iterator[bytes]:
    """Yield a payload's bytes in pieces, and refuse it at the end if its size or CRC32C is not what it claims.

    Notes
    -----
    Errors of the payload's own file are the caller's and come through as they are.
    """
    crc = size = 0
    with payload.open() as stream:
        while chunk := stream.read(COPY_BYTES):
            crc = crc32c(chunk, crc)
            size += len(chunk)
            yield chunk
    if size != payload.size or crc != payload.crc32c:
        raise StorageError(url, "the bytes to be written are not of the size and CRC32C that were announced")
