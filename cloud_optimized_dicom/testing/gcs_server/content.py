"""Bytes of objects: immutable ropes of pieces in memory and in files, so that no object needs to fit in memory.

Slicing and concatenation move no bytes: a multipart upload's payload is a slice of its request body, and a composed
object shares the pieces of its sources.
"""

from __future__ import annotations

import hashlib
import weakref
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.checksum import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedIOBase
    from pathlib import Path

CHUNK_BYTES = 1 << 20
_MEMORY_BYTES = 64 << 10  # above this a body goes to a file
_MAX_PIECES = 512  # above this a concatenation is copied into one file


class StoredFile:
    """A file that goes away with the last content that shows a part of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, path.unlink, missing_ok=True)


class Piece(NamedTuple):
    """A run of bytes: `length` of them from `start` on."""

    source: bytes | StoredFile
    start: int
    length: int


@dataclass(frozen=True)
class Content:
    """An immutable byte sequence.

    Parameters
    ----------
    pieces
        In order; none of them is empty.
    """

    pieces: tuple[Piece, ...] = ()
    size: int = field(init=False)
    _ends: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ends = tuple(accumulate(piece.length for piece in self.pieces))
        object.__setattr__(self, "_ends", ends)
        object.__setattr__(self, "size", ends[-1] if ends else 0)

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Return the content of bytes in memory."""
        return cls((Piece(data, 0, len(data)),)) if data else cls()

    @classmethod
    def joined(cls, contents: Iterable[Content]) -> Content:
        """Return the concatenation; no byte is copied."""
        return cls(tuple(piece for content in contents for piece in content.pieces))

    def slice(self, start: int, stop: int) -> Content:
        """Return the bytes of the half-open range, cut to what there is."""
        stop = min(stop, self.size)
        if start >= stop:
            return Content()
        found = []
        index = bisect_right(self._ends, start)
        while index < len(self.pieces) and (begin := self._ends[index] - self.pieces[index].length) < stop:
            piece = self.pieces[index]
            skip = max(0, start - begin)
            keep = min(stop, self._ends[index]) - begin - skip
            found.append(Piece(piece.source, piece.start + skip, keep))
            index += 1
        return Content(tuple(found))

    def iter_chunks(self) -> Iterator[bytes]:
        """Yield all bytes in chunks of at most a MiB."""
        for piece in self.pieces:
            if isinstance(piece.source, bytes):
                yield piece.source[piece.start : piece.start + piece.length]
                continue
            with piece.source.path.open("rb") as stream:
                stream.seek(piece.start)
                left = piece.length
                while left:
                    chunk = stream.read(min(CHUNK_BYTES, left))
                    left -= len(chunk)
                    yield chunk

    def read(self) -> bytes:
        """Return all bytes; for small contents."""
        return b"".join(self.iter_chunks())


@dataclass
class Digest:
    """CRC32C and MD5 of a content that comes in parts."""

    crc32c: int = 0
    _md5: hashlib._Hash = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    @classmethod
    def of(cls, content: Content) -> Digest:
        """Return the digest of one content."""
        digest = cls()
        digest.update(content)
        return digest

    def update(self, content: Content) -> None:
        """Add the next part."""
        for chunk in content.iter_chunks():
            self.crc32c = crc32c(chunk, self.crc32c)
            self._md5.update(chunk)

    @property
    def md5(self) -> bytes:
        """The 16 bytes of the MD5."""
        return self._md5.digest()


class Spool:
    """Makes contents out of streams, in memory where they are small and in files of one directory where not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._serial = count()

    def receive(self, stream: BufferedIOBase, size: int) -> Content:
        """Read exactly `size` bytes.

        Raises
        ------
        ConnectionError
            If the stream ends before.
        """
        if size <= _MEMORY_BYTES:
            data = stream.read(size)
            if len(data) < size:
                raise ConnectionError("the client went away")
            return Content.of(data)
        return self.store(_exactly(stream, size))

    def store(self, chunks: Iterable[bytes]) -> Content:
        """Write chunks to a file and return its content."""
        path = self._directory / f"{next(self._serial):08d}"
        try:
            with path.open("wb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                size = stream.tell()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Content((Piece(StoredFile(path), 0, size),)) if size else Content()

    def joined(self, contents: Iterable[Content]) -> Content:
        """Return the concatenation, copied into one file where it would have too many pieces."""
        whole = Content.joined(contents)
        return self.store(whole.iter_chunks()) if len(whole.pieces) > _MAX_PIECES else whole


def _exactly(stream: BufferedIOBase, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(CHUNK_BYTES, size))
        if not chunk:
            raise ConnectionError("the client went away")
        size -= len(chunk)
        yield chunk
