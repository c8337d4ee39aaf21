"""Appending to an object of a local store in place, so that it costs the new bytes and not the old ones.

Order of steps, under the lock that all writers of the name hold:

1. The entry in force is marked as growing: whatever follows its bytes is not of the object.  From here to step 4 every
   reader, and everybody after a crash, sees the object as it was.
2. What a dead writer left behind its end is cut off, and the new bytes are added.
3. They are flushed to the device.
4. The entry of the longer object takes the place of the marked one.  This is the commit point.

Bytes of the object are never written to.  A file that has a second name (a snapshot made of links, say) is left alone.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import combine
from cloud_optimized_dicom.errors import WriteUnknownError
from cloud_optimized_dicom.storage import _rules as rules
from cloud_optimized_dicom.storage import local_files as files

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectInfo
    from cloud_optimized_dicom.storage.local_objects import LocalObjects, Opened, WriteRequest
    from cloud_optimized_dicom.storage.local_sidecars import Entry

MOST_BYTES = 1 << 30
"""Up to here bytes are added in place: the lock is held meanwhile, and a few other names share it."""


def grow(objects: LocalObjects, write: WriteRequest) -> ObjectInfo | None:
    """Append sources to the object that is the first of them, in place.

    Returns
    -------
    ObjectInfo or None
        None where that cannot be done, or does not pay; nothing has changed then.

    Raises
    ------
    PreconditionFailedError, ObjectNotFoundError
        If the object, or a source, is not what the write names.
    StorageError
        If the device fails; the object is as it was.
    WriteUnknownError
        If it fails at the commit point.
    """
    first, *tails = write.sources
    if first.name != write.name or write.version is None or not tails:
        return None
    url = objects.url_of(write.name)
    with files.writing_errors(url), objects.locked(write.name), objects.open(write.name) as opened:
        if ours := objects.judge(write, opened):
            return ours
        rules.check_source(url, opened.info.version, first.version)
        if opened.entry is None or opened.entry.crc32c is None or os.fstat(opened.descriptor).st_nlink > 1:
            return None
        parts = [_measured(objects, source.name, source.version) for source in tails]
        added = sum(size for size, _ in parts)
        if any(crc is None for _, crc in parts) or not 0 < added <= min(MOST_BYTES, opened.info.size):
            return None
        return _add(objects, write, opened, opened.entry)


def _measured(objects: LocalObjects, name: str, version: str | None) -> tuple[int, int | None]:
    with objects.open(name) as opened:
        rules.check_source(objects.url_of(name), opened.info.version, version)
        return opened.info.size, opened.info.crc32c


def _add(objects: LocalObjects, write: WriteRequest, present: Opened, before: Entry) -> ObjectInfo:
    descriptor = objects.open_to_grow(write.name)
    try:
        if not os.path.samestat(os.fstat(descriptor), os.fstat(present.descriptor)):
            raise OSError("the file was replaced by somebody who holds no lock")
        objects.write_entry(write.name, replace(before, growing=True))
        try:
            crc = _copy(objects, write, descriptor, before)
            os.fsync(descriptor)
        except BaseException:
            _undo(objects, write.name, descriptor, before)
            raise
        entry = objects.new_entry(write, descriptor, crc)
        try:
            objects.write_entry(write.name, entry)
        except OSError as error:  # in place, perhaps, and perhaps not for good
            raise WriteUnknownError(objects.url_of(write.name), write.write_id, "flushing failed") from error
    finally:
        os.close(descriptor)
    return entry.info(write.name)


def _copy(objects: LocalObjects, write: WriteRequest, descriptor: int, before: Entry) -> int:
    """Add the bytes of the sources behind the object's own; return the CRC32C of it all."""
    os.ftruncate(descriptor, before.size)
    os.lseek(descriptor, before.size, os.SEEK_SET)
    crc = before.crc32c or 0
    for source in write.sources[1:]:
        with objects.open(source.name) as opened:
            rules.check_source(objects.url_of(source.name), opened.info.version, source.version)
            files.copy_all(opened.descriptor, descriptor, opened.info.size)
            crc = combine(crc, opened.info.crc32c or 0, opened.info.size)
    return crc


def _undo(objects: LocalObjects, name: str, descriptor: int, before: Entry) -> None:
    """Cut off what was added; where even that fails, the mark stays, and says all that is needed."""
    try:
        os.ftruncate(descriptor, before.size)
        os.fsync(descriptor)
        objects.write_entry(name, replace(before, mtime_ns=os.fstat(descriptor).st_mtime_ns))
    except OSError:
        return
