"""CRC32Cs of a whole file and of ranges in it, in one pass, together with whoever reads its header."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

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


class Prefix(NamedTuple):
    """The CRC32C of a file's first `size` bytes."""

    crc32c: int = 0
    size: int = 0


class PrefixStream(io.RawIOBase):
    """A seekable stream that keeps the CRC32C of what was read of it without a gap from its first byte.

    Attributes
    ----------
    prefix
        What :func:`measure` need not read again.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._position = 0
        self.prefix = Prefix()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in the stream."""
        self._position = self._stream.seek(offset, whence)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read from the stream."""
        data = self._stream.read(size)
        crc, known = self.prefix
        skip = known - self._position
        self._position += len(data)
        if 0 <= skip < len(data):
            self.prefix = Prefix(crc32c(data[skip:], crc), self._position)
        return data


def measure(reader: PositionedReader, spans: Sequence[ByteRange] = (), prefix: Prefix = Prefix()) -> Measured:  # noqa: B008
    """Read a file once, in chunks of at most 1 MiB.

    Parameters
    ----------
    spans
        In any order; they may overlap.
    prefix
        What is known already: of these bytes only those are read again that lie in a span.
    """
    crcs = [0] * len(spans)
    waiting = sorted(range(len(spans)), key=lambda number: spans[number].start, reverse=True)
    active: list[int] = []
    total, known = prefix
    position = min(known, spans[waiting[-1]].start) if waiting else known
    for chunk in reader.iter_chunks(position, reader.size):
        stop = position + len(chunk)
        if stop > known:
            total = crc32c(chunk[max(0, known - position) :], total)
        while waiting and spans[waiting[-1]].start < stop:
            active.append(waiting.pop())
        for number in active:
            start = max(0, spans[number].start - position)
            crcs[number] = crc32c(chunk[start : spans[number].stop - position], crcs[number])
        active = [number for number in active if spans[number].stop > stop]
        position = stop
    return Measured(total, max(position, known), tuple(crcs))
