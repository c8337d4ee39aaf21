"""A stretch of another stream as a seekable file, with an archive's damage told as an error of the member."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from typing import TYPE_CHECKING, Protocol

from cloud_optimized_dicom.errors import InstanceValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from cloud_optimized_dicom.ranges import ByteRange

_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
_READ_BYTES = 1 << 20


class Readable(Protocol):
    """What a stretch is cut from."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102

    def seek(self, offset: int, /) -> int: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Closable(Protocol):
    """What a stretch keeps open and closes with itself."""

    def close(self) -> None: ...  # noqa: D102


def reason_of(error: Exception) -> str:
    """Return why the operating system or an archive refused, without repeating the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, EOFError):
        return "the compressed data ends too early"
    if isinstance(error, ValueError):  # a path that cannot be one
        return str(error)
    return f"damaged: {error}" if str(error) else "damaged"


class _Part(io.RawIOBase):
    """A stretch of another stream; what is wrong with an archive becomes an InstanceValidationError."""

    def __init__(self, inner: Readable, span: ByteRange | None, uri: str, owned: Closable) -> None:
        super().__init__()
        self._inner, self._owned, self._uri = inner, owned, uri
        # read1, where there is one, hands out what precedes a damage; read would lose it.
        self._read: Callable[[int], bytes] = getattr(inner, "read1", inner.read)
        self._start = 0 if span is None else span.start
        self._size = None if span is None else len(span)
        self._position, self._inner_position = 0, -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        position = (self._end() if base is None else base) + offset
        if position < 0:
            raise ValueError("negative seek position")
        self._position = position
        return position

    def _end(self) -> int:
        while self._size is None:  # an unpacked gzip says its length only at its end
            if not self._take(_READ_BYTES):
                self._size = self._position
        return self._size

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = len(view) if self._size is None else min(len(view), max(0, self._size - self._position))
        data = self._take(wanted)
        if wanted and not data and self._size is not None:
            raise InstanceValidationError(self._uri, "the archive ends inside this member")
        view[: len(data)] = data
        return len(data)

    def _take(self, length: int) -> bytes:
        try:
            if self._inner_position != self._start + self._position:
                self._inner.seek(self._start + self._position)
            data = self._read(length)
        except _DAMAGE as error:
            raise InstanceValidationError(self._uri, reason_of(error)) from error
        self._position += len(data)
        self._inner_position = self._start + self._position
        return data

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
            self._owned.close()
        super().close()


def open_part(inner: Readable, span: ByteRange | None, uri: str, owned: Closable) -> io.BufferedReader:
    """Return a reader of `span` of `inner` (None: all of it) that closes `inner` and `owned`; errors name `uri`."""
    return io.BufferedReader(_Part(inner, span, uri, owned), 64 << 10)
