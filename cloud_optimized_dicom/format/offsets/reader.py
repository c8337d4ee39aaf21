"""Reads by position from a seekable stream, with a small window so that a walk over a header costs few reads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_WINDOW_BYTES = 16 << 10
_CHUNK_BYTES = 1 << 20


class PositionedReader:
    """A seekable stream seen as an array of bytes.

    Parameters
    ----------
    stream
        Positioned anywhere; it is left positioned anywhere.
    window_bytes
        How much a small read fetches, and keeps, at a time.
    whole_bytes
        A stream of at most this size is its own window: its first small read is the only one.

    Notes
    -----
    Holds at most one window; a read at or over that size passes through and is not kept.
    """

    __slots__ = ("_start", "_stream", "_window", "_window_bytes", "size")

    def __init__(self, stream: BinaryIO, window_bytes: int = _WINDOW_BYTES, *, whole_bytes: int = 0) -> None:
        self._stream = stream
        self._window = b""
        self._start = 0
        self.size = stream.seek(0, io.SEEK_END)
        self._window_bytes = max(window_bytes, self.size) if self.size <= whole_bytes else window_bytes

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, fewer only where the stream ends before."""
        length = min(length, self.size - start)
        skip = start - self._start
        if skip >= 0 and skip + length <= len(self._window):
            return self._window[skip : skip + max(0, length)]
        if length >= self._window_bytes:
            return self._fetch(start, length)
        self._window = self._fetch(start, self._window_bytes)
        self._start = start
        return self._window[:length]

    def view(self, start: int, length: int) -> tuple[bytes, int]:
        """Return a buffer, and where in it the byte at `start` is, followed by `length` bytes or all that there are.

        `length` is less than the window; nothing is copied.
        """
        if start >= self.size:
            return b"", 0
        skip = start - self._start
        held = len(self._window)
        if skip < 0 or (skip + length > held and self._start + held < self.size) or skip > held:
            self._window = self._fetch(start, self._window_bytes)
            self._start = start
            skip = 0
        return self._window, skip

    def probe(self, start: int, length: int) -> bytes:
        """Return the same as :meth:`read` without reading ahead: for a few bytes far apart."""
        skip = start - self._start
        if skip >= 0 and skip + length <= len(self._window):
            return self._window[skip : skip + length]
        return self._fetch(start, length)

    def iter_chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `stop` in chunks of at most 1 MiB."""
        while start < stop:
            chunk = self.probe(start, min(_CHUNK_BYTES, stop - start))
            if not chunk:
                return
            yield chunk
            start += len(chunk)

    def find(self, pattern: bytes, start: int, stop: int) -> int:
        """Return the first position of `pattern` that lies wholly between `start` and `stop`, or -1."""
        tail = b""
        position = start
        for chunk in self.iter_chunks(start, stop):
            text = tail + chunk
            found = text.find(pattern)
            if found >= 0:
                return position - len(tail) + found
            position += len(chunk)
            tail = text[1 - len(pattern) :] if len(pattern) > 1 else b""
        return -1

    def _fetch(self, start: int, length: int) -> bytes:
        length = min(length, self.size - start)
        if length <= 0:
            return b""
        self._stream.seek(start)
        data = self._stream.read(length)
        if len(data) == length or not data:
            return data
        parts = [data]  # raw streams may give less than asked before their end
        missing = length - len(data)
        while missing and (data := self._stream.read(missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)
