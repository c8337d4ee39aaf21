"""CRC32Cs of a whole file and of ranges in it, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.checksum import crc32c

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.format.offsets.reader import PositionedReader
    from cloud_optimized_dicom.ranges import ByteRange


class Measured(NamedTuple):
    """CRC32C and size of a file, and the CRC32C of each range."""

    crc32c: int
    size: int
    span_crc32cs: tuple[int, ...]


def measure(reader: PositionedReader, spans: Sequence[ByteRange] = ()) -> Measured:
    """Read a file once, in chunks of at most 1 MiB.

    Parameters
    ----------
    spans
        In any order; they may overlap.
    """
    crcs = [0] * len(spans)
    waiting = sorted(range(len(spans)), key=lambda number: spans[number].start, reverse=True)
    active: list[int] = []
    total = position = 0
    for chunk in reader.iter_chunks(0, reader.size):
        stop = position + len(chunk)
        total = crc32c(chunk, total)
        while waiting and spans[waiting[-1]].start < stop:
            active.append(waiting.pop())
        for number in active:
            start = max(0, spans[number].start - position)
            crcs[number] = crc32c(chunk[start : spans[number].stop - position], crcs[number])
        active = [number for number in active if spans[number].stop > stop]
        position = stop
    return Measured(total, position, tuple(crcs))
