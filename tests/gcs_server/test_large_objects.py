"""Large objects live in files; the server's memory does not grow with them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.memory import peak_bytes_of
from cloud_optimized_dicom.checksum import crc32c, encode

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server import GcsServer

_MIB = 1 << 20


class _Zeros(io.RawIOBase):
    """A stream of zeros that is not in memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        count = left if size < 0 else min(size, left)
        self._position += count
        return bytes(count)

    def tell(self) -> int:
        return self._position


def _store(server: GcsServer, bucket: Any, size: int) -> None:
    peak = peak_bytes_of(server.pid)
    for name in ("big", "more"):
        bucket.blob(name, chunk_size=16 * _MIB).upload_from_file(_Zeros(size), size=size, retry=None)
    bucket.blob("big").compose([bucket.blob("big"), bucket.blob("more")])
    total = 0
    for start in range(0, 2 * size, 16 * _MIB):
        total += len(bucket.blob("big").download_as_bytes(start=start, end=start + 16 * _MIB - 1, checksum=None))
    assert total == bucket.get_blob("big").size == 2 * size
    assert peak_bytes_of(server.pid) - peak < 24 * _MIB


def test_memory_does_not_grow_with_the_objects(server: GcsServer, bucket: Any) -> None:
    """Storing, composing and reading 192 MiB leaves the server's peak memory where it was."""
    _store(server, bucket, 96 * _MIB)


@pytest.mark.slow
def test_memory_does_not_grow_with_two_gigabytes(server: GcsServer, bucket: Any) -> None:
    """The same with an object past 2**31 bytes."""
    _store(server, bucket, 1088 * _MIB)


def test_many_appends_stay_whole(bucket: Any) -> None:
    """An object composed onto itself seven hundred times has every byte and the right checksum."""
    bucket.blob("x").upload_from_string(b"")
    expected = b""
    for index in range(22):
        names = [f"p{index}-{part}" for part in range(31)]
        for name in names[:2]:
            bucket.blob(name).upload_from_string(name.encode())
        sources = [bucket.blob(names[part % 2]) for part in range(31)]
        bucket.blob("x").compose([bucket.blob("x"), *sources])
        expected += b"".join(names[part % 2].encode() for part in range(31))
    blob = bucket.get_blob("x")
    assert blob.component_count == 22 * 31 + 1
    assert blob.crc32c == encode(crc32c(expected))
    assert blob.download_as_bytes() == expected


def test_ranges_cross_the_parts_of_a_composition(bucket: Any) -> None:
    """A range over parts in memory and parts in files is what a range of the joined bytes is."""
    parts = [bytes([65 + index]) * size for index, size in enumerate((10, 200_000, 1, 70_000, 3))]
    blobs = [bucket.blob(str(index)) for index in range(len(parts))]
    for blob, part in zip(blobs, parts, strict=True):
        blob.upload_from_string(part)
    bucket.blob("x").compose(blobs)
    whole = b"".join(parts)
    for start, stop in ((0, 11), (5, 200_012), (9, 10), (10, 11), (200_010, 200_011), (200_009, 270_014)):
        got = bucket.blob("x").download_as_bytes(start=start, end=stop - 1, raw_download=True)
        assert got == whole[start:stop]
