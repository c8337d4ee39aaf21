"""One instance on its way in: its parts in any order, then its checksum, then its name."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import combine_all, crc32c, encode
from cloud_optimized_dicom.errors import HashMismatchError
from cloud_optimized_dicom.export.pieces import part_count

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.export.folder import ExportFolder
    from cloud_optimized_dicom.export.pieces import Part
    from cloud_optimized_dicom.model import InstanceRecord


class Arrival:
    """The file that an instance becomes, at `path`.  Threads may bring its parts."""

    def __init__(self, folder: ExportFolder, path: Path, tar_uri: str, record: InstanceRecord) -> None:
        self.path, self.record = path, record
        self._folder, self._tar_uri = folder, tar_uri
        self._sums: dict[int, tuple[int, int]] = {}
        self._mutex = threading.Lock()
        self._part_file = folder.new_part()
        self.ended = False

    def put(self, part: Part, data: bytes) -> bool:
        """Take one part; return whether this was the last, and the file is in its place.

        Raises
        ------
        HashMismatchError
            If all parts are there and are not what was stored; nothing is left of them.
        OSError
            If they cannot be written.
        """
        crc, count = crc32c(data), part_count(self.record.size)
        if count == 1:
            self._check(crc)
        self._write(data, part.span.start)
        with self._mutex:
            self._sums[part.number] = crc, len(data)
            if self.ended or len(self._sums) < count:
                return False
        self._check(combine_all([self._sums[number] for number in range(count)])[0])
        self._folder.publish(self._part_file, self.path, self.record)
        self.ended = True
        return True

    def give_up(self) -> bool:
        """Drop what has arrived; return False where somebody else did so before."""
        with self._mutex:
            first, self.ended = not self.ended, True
        with suppress(FileNotFoundError):
            self._part_file.unlink()
        return first

    def _check(self, found: int) -> None:
        if found != self.record.crc32c:
            raise HashMismatchError(self._tar_uri, self.record.name_uid, encode(self.record.crc32c), encode(found))

    def _write(self, data: bytes, start: int) -> None:
        descriptor = os.open(self._part_file, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                written = os.pwrite(descriptor, rest, start)
                rest, start = rest[written:], start + written
        finally:
            os.close(descriptor)
