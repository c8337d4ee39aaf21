"""Whole instances, many at a time, by parallel requests; and the whole tar."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cloud_optimized_dicom.checksum import combine_all, crc32c, encode
from cloud_optimized_dicom.errors import HashMismatchError, ObjectNotFoundError, StaleReadError, TarValidationError
from cloud_optimized_dicom.ranges import ByteRange, FetchPolicy
from cloud_optimized_dicom.whole_files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader

_MOVES = 6
_PART_BYTES = 2 << 20
_POLICY = FetchPolicy(max_request_bytes=_PART_BYTES, max_parallel=16)


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
    StaleReadError
        If an instance was removed or replaced meanwhile.

    Notes
    -----
    Read by parallel requests, small instances together and large ones in parts, and written as they arrive.  At most
    32 MiB are under way, however large the series is.  A file appears under its name once it is whole and compared:
    until then, and where it never is, one that was there stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".cod-", dir=directory) as scratch:
        return {uid: path.replace(directory / path.name) for uid, path in _iter_arrived(reader, records, Path(scratch))}


def _iter_arrived(
    reader: SeriesReader, records: Iterable[InstanceRecord], directory: Path
) -> Iterator[tuple[str, Path]]:
    """Fetch all instances into files of `directory`, then compare and yield one after the other."""
    # Headers and frame tables are most of a record, and nobody needs them here.
    light = [replace(record, packed_header="", frame_table=None) for record in records]
    files = {record.name_uid: directory / f"{record.name_uid}.dcm" for record in light}
    for path in files.values():
        path.write_bytes(b"")  # parts arrive in any order
    parts = [(record, span) for record in light for span in _parts(record.size)]
    crcs = [0] * len(parts)

    def take(position: int, data: bytes) -> None:
        record, span = parts[position]
        crcs[position] = crc32c(data)
        with files[record.name_uid].open("r+b") as file:
            file.seek(span.start)
            file.write(data)

    reader.read_each(parts, take, _POLICY)
    found: dict[str, list[tuple[int, int]]] = {}
    for (record, span), crc in zip(parts, crcs, strict=True):
        found.setdefault(record.name_uid, []).append((crc, len(span)))
    for record in light:
        crc, _ = combine_all(found.get(record.name_uid, []))
        if crc != record.crc32c:
            raise HashMismatchError(reader.tar_uri, record.name_uid, encode(record.crc32c), encode(crc))
        yield record.name_uid, files[record.name_uid]


def _parts(size: int) -> Iterator[ByteRange]:
    for start in range(0, size, _PART_BYTES):
        yield ByteRange(start, min(size, start + _PART_BYTES))


def pull_tar(reader: SeriesReader, path: Path) -> None:
    """Write the tar that the reader's document describes to a file.

    Raises
    ------
    TarValidationError
        If its size or CRC32C are not the recorded ones.
    StaleReadError
        If it was rewritten meanwhile.

    Notes
    -----
    What was only appended to begins with the tar that it was: that much of it is taken.  Until the file is whole and
    compared, and where it never is, one that was there stays.
    """
    with replacing(path) as file:
        _write_tar(reader, file)


def _write_tar(reader: SeriesReader, file: IO[bytes]) -> None:
    recorded = reader.document.tar
    for _ in range(_MOVES):
        version, present, is_same = reader.tar_now()
        if not is_same and (recorded is None or present is None or present.size < recorded.size):
            break
        span = ByteRange(0, recorded.size) if recorded is not None and not is_same else None
        try:
            found = _copy_tar(reader, version, span, file)
        except ObjectNotFoundError:
            reader.refresh("(all)")
            continue
        if recorded is None or found == (recorded.crc32c, recorded.size):
            return
        if is_same:
            raise TarValidationError(reader.tar_uri, "the tar is not the one that the metadata was written for")
        break
    raise StaleReadError(reader.tar_uri, "(all)", "the tar was replaced while it was being read")


def _copy_tar(reader: SeriesReader, version: str, span: ByteRange | None, file: IO[bytes]) -> tuple[int, int]:
    crc = size = 0
    file.seek(0)
    file.truncate()  # what an attempt before this one has left
    if span is None or len(span):
        for chunk in reader.store.iter_chunks(reader.key.tar, span, version=version):
            file.write(chunk)
            crc, size = crc32c(chunk, crc), size + len(chunk)
    return crc, size
