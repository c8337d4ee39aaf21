"""Bytes to be written: re-openable, of known size, never needed in memory as a whole."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cloud_optimized_dicom.checksum import combine, combine_all, crc32c, crc32c_of_stream
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

_BUFFER_BYTES = 256 << 10
"""Of a chain; chains of chains have as many, and segments of them go up side by side."""


class Payload(Protocol):
    """What a store writes.  `open` may be called again: a retry starts over."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    @property
    def crc32c(self) -> int:
        """CRC32C of all bytes."""
        ...

    def open(self) -> BinaryIO:
        """Return a new seekable binary reader at position 0."""
        ...


@dataclass(frozen=True)
class BytesPayload:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    @cached_property
    def crc32c(self) -> int:
        """CRC32C of all bytes."""
        return crc32c(self.data)

    def open(self) -> BinaryIO:
        """Return a new reader."""
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class FilePayload:
    """A whole local file, whose size (and CRC32C, where known) were measured before."""

    path: Path
    size: int
    known_crc32c: int | None = None

    @classmethod
    def of(cls, path: Path) -> FilePayload:
        """Return the payload of a file as it is now."""
        return cls(path, path.stat().st_size)

    @cached_property
    def crc32c(self) -> int:
        """CRC32C of all bytes; read from the file where it was not given."""
        if self.known_crc32c is not None:
            return self.known_crc32c
        with self.path.open("rb") as stream:
            return crc32c_of_stream(stream)[0]

    def open(self) -> BinaryIO:
        """Return a new reader."""
        return self.path.open("rb")


@dataclass(frozen=True)
class ChainPayload:
    """Payloads one after the other; at most one of them is open at a time."""

    parts: tuple[Payload, ...]

    @cached_property
    def size(self) -> int:
        """Length in bytes."""
        return sum(part.size for part in self.parts)

    @cached_property
    def crc32c(self) -> int:
        """CRC32C of all bytes, combined from the parts'."""
        return combine_all([(part.crc32c, part.size) for part in self.parts])[0]

    def open(self) -> BinaryIO:
        """Return a new reader."""
        return io.BufferedReader(_ChainReader(self.parts), _BUFFER_BYTES)


class SeekableReader(io.RawIOBase, ABC):
    """A reader of a known number of bytes; what it reads from, subclasses know."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; one before the start is the start."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        """Read up to as many bytes as the buffer takes."""
        view = memoryview(buffer)[: max(0, self._size - self._position)]
        if not view:
            return 0
        data = self.read_some(len(view))
        if not data:
            raise OSError("the bytes of an upload end before their recorded size")
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    @abstractmethod
    def read_some(self, length: int) -> bytes:
        """Return at most `length` bytes (1 or more) from the present position; none where they end too early."""


class _ChainReader(SeekableReader):
    def __init__(self, parts: tuple[Payload, ...]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(part.size for part in parts)]
        self._current: tuple[int, BinaryIO] | None = None
        super().__init__(self._starts[-1])

    def read_some(self, length: int) -> bytes:
        index = bisect_right(self._starts, self._position) - 1
        stream = self._part(index)
        stream.seek(self._position - self._starts[index])
        return stream.read(min(length, self._starts[index + 1] - self._position))

    def _part(self, index: int) -> BinaryIO:
        if self._current is None or self._current[0] != index:
            if self._current is not None:
                self._current[1].close()
            self._current = (index, self._parts[index].open())
        return self._current[1]

    def close(self) -> None:
        if self._current is not None:
            self._current[1].close()
            self._current = None
        super().close()


class Cut:
    """A payload in pieces of equal size (but the last), so that they can go up side by side.

    Notes
    -----
    A piece is hashed when it is about to go up.  The last one's CRC32C is what the others leave of the CRC32C of the
    whole, so that a file which changed since it was measured is refused by the store.
    """

    def __init__(self, whole: Payload, piece_bytes: int) -> None:
        self.whole, self.piece_bytes = whole, piece_bytes
        self.pieces = tuple(CutPiece(self, number) for number in range(-(-whole.size // piece_bytes)))

    def span(self, number: int) -> ByteRange:
        """Return the bytes of a piece within the whole."""
        return ByteRange(number * self.piece_bytes, min(self.whole.size, (number + 1) * self.piece_bytes))


@dataclass(frozen=True)
class CutPiece:
    """One piece of a payload."""

    cut: Cut = field(repr=False)
    number: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.cut.span(self.number))

    @cached_property
    def crc32c(self) -> int:
        """CRC32C of the piece."""
        *others, last = self.cut.pieces
        if self is not last:
            with self.open() as stream:
                return crc32c_of_stream(stream)[0]
        before, _ = combine_all([(piece.crc32c, piece.size) for piece in others])
        return self.cut.whole.crc32c ^ combine(before, 0, self.size)

    def open(self) -> BinaryIO:
        """Return a new reader."""
        return io.BufferedReader(_PieceReader(self.cut.whole.open(), self.cut.span(self.number)), 1 << 20)


class _PieceReader(SeekableReader):
    """A stretch of a stream that it closes with itself."""

    def __init__(self, stream: BinaryIO, span: ByteRange) -> None:
        super().__init__(len(span))
        self._stream, self._span = stream, span

    def read_some(self, length: int) -> bytes:
        self._stream.seek(self._span.start + self._position)
        return self._stream.read(length)

    def close(self) -> None:
        self._stream.close()
        super().close()
