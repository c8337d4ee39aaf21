"""A stretch of an open file as a file of its own, for programs that find their way in a tar themselves.

`CODObject.open_instance` needs none of this: it opens an instance where it lies.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Self

if TYPE_CHECKING:
    from types import TracebackType


class VirtualFile:
    """The bytes `start` to `stop` of an open file, `stop` left out; pydicom reads it as it reads any file.

    Parameters
    ----------
    master_file
        Seekable.  Its position is set before each read, so several stretches may share it, in one thread.
    start, stop
        In bytes from its beginning.

    Notes
    -----
    Closing it closes `master_file`; letting go of it does not.
    """

    def __init__(self, master_file: BinaryIO, start: int, stop: int) -> None:
        if not 0 <= start <= stop:
            raise ValueError(f"no stretch of a file: {start} to {stop}")
        self._master, self._start, self._size = master_file, start, stop - start
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes; all that is left for None or a negative number."""
        left = max(0, self._size - self._position)
        self._master.seek(self._start + self._position)
        data = self._master.read(left if size is None or size < 0 else min(size, left))
        self._position += len(data)
        return data

    def seek(self, virtual_offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, and return it; as for any file it may lie behind the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + virtual_offset < 0:
            raise ValueError("negative seek position")
        self._position = base + virtual_offset
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return False."""
        return False

    @property
    def closed(self) -> bool:
        """Whether the file below is closed."""
        return self._master.closed

    def close(self) -> None:
        """Close the file below."""
        self._master.close()
