"""Checksums of what is read of an instance bit by bit."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import HashMismatchError
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.model import InstanceRecord

_WHOLE = -1


class ReadChecks:
    """Compares what is read of one instance with the checksums on record.

    Notes
    -----
    A frame that comes whole is checked at once.  One that comes in parts, front to back, is checked with its last part;
    so is the whole instance.  Other parts have no checksum.  Not for several threads.
    """

    def __init__(self, record: InstanceRecord, tar_uri: str) -> None:
        self._record, self._tar_uri = record, tar_uri
        table = record.frame_table
        has_checksums = table is not None and table.trusted and table.rangeable and table.crc32cs is not None
        self._table = table if has_checksums else None
        self._begun: dict[int, tuple[int, int]] = {}

    def check(self, span: ByteRange, data: bytes) -> None:
        """Check a range of the stored file that has just been read.

        Raises
        ------
        HashMismatchError
            If a frame, or the instance, that ends in this range is not what was stored.
        """
        for frame, part, expected in self._frames_in(span):
            self._follow(frame, part, expected, (span, data))
        self._follow(_WHOLE, ByteRange(0, self._record.size), self._record.crc32c, (span, data))

    def _frames_in(self, span: ByteRange) -> Iterator[tuple[int, ByteRange, int]]:
        table = self._table
        if table is None or table.crc32cs is None:
            return
        # Where frames are not in the order of their numbers, some go unchecked here.
        for frame in range(max(0, bisect_right(table.offsets, span.start) - 1), len(table)):
            if table.offsets[frame] >= span.stop:
                return
            yield frame, ByteRange.of(table.offsets[frame], table.lengths[frame]), table.crc32cs[frame]

    def _follow(self, frame: int, part: ByteRange, expected: int, read: tuple[ByteRange, bytes]) -> None:
        """Go on with the checksum of a frame, or begin it, if what was read follows on what is behind."""
        span, data = read
        done, crc = self._begun.get(frame, (part.start, 0))
        if span.start <= part.start:
            done, crc = part.start, 0
        if not span.start <= done < span.stop:
            return
        stop = min(span.stop, part.stop)
        crc = crc32c(data[done - span.start : stop - span.start], crc)
        if stop < part.stop:
            self._begun[frame] = (stop, crc)
            return
        self._begun.pop(frame, None)
        if crc != expected:
            name = self._record.name_uid if frame == _WHOLE else f"{self._record.name_uid}, frame {frame}"
            raise HashMismatchError(self._tar_uri, name, encode(expected), encode(crc))
