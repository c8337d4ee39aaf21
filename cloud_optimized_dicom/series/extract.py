"""Whole instances, many at a time: the tar read once from front to back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import HashMismatchError, ObjectNotFoundError, StaleReadError, TarValidationError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.packing import TarWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader

_CHUNK_BYTES = 4 << 20
_MOVES = 6


class _MovingWindow:
    """The tar in large blocks, wherever the instances lie in it by now."""

    def __init__(self, reader: SeriesReader, records: Sequence[InstanceRecord]) -> None:
        self._reader, self._records = reader, records
        self._window: TarWindow | None = None
        self._starts: Mapping[str, int] = {}

    def _opened(self) -> TarWindow:
        if self._window is None:
            places = self._reader.places(self._records)
            self._starts = places.starts
            stops = (places.starts.get(record.name_uid, 0) + record.size for record in self._records)
            name = self._reader.key.tar
            self._window = TarWindow(self._reader.store, name, places.generation, max(stops, default=0))
        return self._window

    def read(self, record: InstanceRecord, span: ByteRange) -> bytes:
        """Return a span of an instance's file."""
        for _ in range(_MOVES):
            window = self._opened()
            start = self._starts.get(record.name_uid)
            if start is None:
                raise StaleReadError(self._reader.tar_uri, record.name_uid, "it was removed or replaced meanwhile")
            try:
                return window.read(span.shifted(start))
            except ObjectNotFoundError:
                self._reader.refresh(record.name_uid)
                self._window = None
        raise StaleReadError(self._reader.tar_uri, record.name_uid, "it kept changing while it was being read")


def iter_instances(
    reader: SeriesReader, records: Iterable[InstanceRecord]
) -> Iterator[tuple[InstanceRecord, Iterator[bytes]]]:
    """Yield instances in the order of the tar, each with its bytes in chunks, to be used up before the next.

    Notes
    -----
    The tar is fetched in large blocks, however small its instances are.  Each instance's CRC32C is checked behind its
    last chunk: `HashMismatchError`.  An instance whose tar was replaced meanwhile is read at its new place;
    `StaleReadError` if it has none.
    """
    ordered = sorted(records, key=lambda record: record.start)
    window = _MovingWindow(reader, ordered)
    for record in ordered:
        yield record, _iter_checked(reader, window, record)


def _iter_checked(reader: SeriesReader, window: _MovingWindow, record: InstanceRecord) -> Iterator[bytes]:
    crc = 0
    for start in range(0, record.size, _CHUNK_BYTES):
        chunk = window.read(record, ByteRange(start, min(record.size, start + _CHUNK_BYTES)))
        crc = crc32c(chunk, crc)
        yield chunk
    if crc != record.crc32c:
        raise HashMismatchError(reader.tar_uri, record.name_uid, encode(record.crc32c), encode(crc))


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
    What was only appended to begins with the tar that it was: that much of it is taken.
    """
    recorded = reader.document.tar
    for _ in range(_MOVES):
        version, present, is_same = reader.tar_now()
        if not is_same and (recorded is None or present is None or present.size < recorded.size):
            break
        span = ByteRange(0, recorded.size) if recorded is not None and not is_same else None
        try:
            found = _copy_tar(reader, version, span, path)
        except ObjectNotFoundError:
            reader.refresh("(all)")
            continue
        if recorded is None or found == (recorded.crc32c, recorded.size):
            return
        if is_same:
            raise TarValidationError(reader.tar_uri, "the tar is not the one that the metadata was written for")
        break
    raise StaleReadError(reader.tar_uri, "(all)", "the tar was replaced while it was being read")


def _copy_tar(reader: SeriesReader, version: str, span: ByteRange | None, path: Path) -> tuple[int, int]:
    crc = size = 0
    with path.open("wb") as file:
        if span is None or len(span):
            for chunk in reader.store.iter_chunks(reader.key.tar, span, version=version):
                file.write(chunk)
                crc, size = crc32c(chunk, crc), size + len(chunk)
    return crc, size
