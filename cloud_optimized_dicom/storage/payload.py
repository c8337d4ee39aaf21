"""Bytes to be written: re-openable, of known size, never needed in memory as a whole."""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cloud_optimized_dicom.checksum import combine_all, crc32c, crc32c_of_stream

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer


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
        return io.BufferedReader(_ChainReader(self.parts), 1 << 20)


class _ChainReader(io.RawIOBase):
    def __init__(self, parts: tuple[Payload, ...]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(part.size for part in parts)]
        self._position = 0
        self._current: tuple[int, BinaryIO] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        if self._position >= self._starts[-1]:
            return 0
        index = bisect_right(self._starts, self._position) - 1
        stream = self._part(index)
        stream.seek(self._position - self._starts[index])
        view = memoryview(buffer)[: self._starts[index + 1] - self._position]
        chunk = stream.read(len(view))
        if not chunk:
            raise OSError(f"part {index} of an upload ends before its recorded size")
        view[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

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
