"""A seekable binary file over ranged reads."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

WHOLE_BYTES = 2 << 20
"""Files up to this size are fetched whole by their first read, usually: one request costs more than the bytes."""

_BLOCK_BYTES = 256 << 10
_BLOCKS_KEPT = 16


class RangeFile(io.RawIOBase):
    """A read-only file whose bytes come from `read`, a block at a time.

    Parameters
    ----------
    read
        Returns exactly the bytes of a range.
    size
        Of the file in bytes.
    block_bytes
        Small reads fetch and keep whole blocks of this size; a read of several blocks fetches just its bytes, in one
        range.
    name
        What the file says it is called; readers of DICOM ask for it.
    whole_bytes
        Files up to this size are fetched whole by their first read.
    """

    def __init__(
        self,
        read: Callable[[ByteRange], bytes],
        size: int,
        block_bytes: int = _BLOCK_BYTES,
        name: str = "",
        whole_bytes: int = WHOLE_BYTES,
    ) -> None:
        super().__init__()
        self.name = name
        self._read, self._size = read, size
        self._block = max(size, 1) if size <= whole_bytes else block_bytes
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; as for any file it may lie behind the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def readall(self) -> bytes:
        """Return everything from the position to the end, in one range."""
        return self._take(max(0, self._size - self._position))

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` as far as the file goes; return the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self._take(min(len(view), max(0, self._size - self._position)))
        view[: len(data)] = data
        return len(data)

    def _take(self, length: int) -> bytes:
        if length <= 0:
            return b""
        start, stop = self._position, self._position + length
        self._position = stop
        first, last = start // self._block, (stop - 1) // self._block
        if last - first > 1:  # larger than the cache is good for: fetch just these bytes
            return self._read(ByteRange(start, stop))
        data = b"".join(self._block_bytes(number) for number in range(first, last + 1))
        return data[start - first * self._block : stop - first * self._block]

    def _block_bytes(self, number: int) -> bytes:
        data = self._blocks.get(number)
        if data is None:
            data = self._read(ByteRange(number * self._block, min(self._size, (number + 1) * self._block)))
            self._blocks[number] = data
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return data


def open_range_file(
    read: Callable[[ByteRange], bytes],
    size: int,
    block_bytes: int = _BLOCK_BYTES,
    name: str = "",
    whole_bytes: int = WHOLE_BYTES,
) -> BinaryIO:
    """Return a buffered binary reader over `read`; see :class:`RangeFile`."""
    # The small buffer only serves line-sized reads; blocks are kept by the RangeFile.
    return io.BufferedReader(RangeFile(read, size, block_bytes, name, whole_bytes), 8 << 10)
