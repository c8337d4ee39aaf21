"""Whole instances, many at a time: the tar read once from front to back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import HashMismatchError, ObjectNotFoundError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.packing import TarWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader

_CHUNK_BYTES = 4 << 20


def iter_instances(
    reader: SeriesReader, records: Iterable[InstanceRecord]
) -> Iterator[tuple[InstanceRecord, Iterator[bytes]]]:
    """Yield instances in the order of the tar, each with its bytes in chunks, to be used up before the next.

    Notes
    -----
    The tar is fetched in large blocks, however small its instances are.  Each instance's CRC32C is checked behind its
    last chunk: `HashMismatchError`.  An instance whose tar was replaced meanwhile is read at its new place.
    """
    ordered = sorted(records, key=lambda record: record.start)
    end = max((record.span.stop for record in ordered), default=0)
    window = TarWindow(reader.store, reader.key.tar, reader.generation, end)
    for record in ordered:
        yield record, _iter_checked(reader, window, record)


def _iter_checked(reader: SeriesReader, window: TarWindow, record: InstanceRecord) -> Iterator[bytes]:
    crc, position = 0, record.start
    while position < record.span.stop:
        try:
            chunk = window.read(ByteRange(position, min(record.span.stop, position + _CHUNK_BYTES)))
        except ObjectNotFoundError:
            yield from _iter_rest(reader, record, position - record.start)
            return
        crc = crc32c(chunk, crc)
        position += len(chunk)
        yield chunk
    if crc != record.crc32c:
        raise HashMismatchError(reader.tar_uri, record.name_uid, encode(record.crc32c), encode(crc))


def _iter_rest(reader: SeriesReader, record: InstanceRecord, done: int) -> Iterator[bytes]:
    for chunk in reader.iter_instance(record):  # checks the CRC32C of the whole
        if done < len(chunk):
            yield chunk[done:]
        done = max(0, done - len(chunk))


def iter_whole(
    reader: SeriesReader, records: Iterable[InstanceRecord], batch_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Yield instances' UIDs and bytes in the order of the tar, read in batches by parallel requests, each checked."""
    batch: list[InstanceRecord] = []
    size = 0
    for record in sorted(records, key=lambda record: record.start):
        if batch and size + record.size > batch_bytes:
            yield from _read_batch(reader, batch)
            batch, size = [], 0
        batch.append(record)
        size += record.size
    yield from _read_batch(reader, batch)


def _read_batch(reader: SeriesReader, batch: list[InstanceRecord]) -> Iterator[tuple[str, bytes]]:
    found = [b""] * len(batch)

    def take(position: int, data: bytes) -> None:
        found[position] = data

    reader.read_each([(record, ByteRange(0, record.size)) for record in batch], take)
    for record, data in zip(batch, found, strict=True):
        crc = crc32c(data)
        if crc != record.crc32c:
            raise HashMismatchError(reader.tar_uri, record.name_uid, encode(record.crc32c), encode(crc))
        yield record.name_uid, data


def extract(reader: SeriesReader, records: Iterable[InstanceRecord], directory: Path) -> dict[str, Path]:
    """Write instances as ``{uid}.dcm`` below `directory`; return the files by the UID they are stored under.

    Raises
    ------
    HashMismatchError
        If stored bytes are not those that were ingested.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for record, chunks in iter_instances(reader, records):
        path = directory / f"{record.name_uid}.dcm"
        with path.open("wb") as file:
            file.writelines(chunks)
        files[record.name_uid] = path
    return files
