"""The new bytes of a commit on their way up, out of sight, several segments at a time."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.errors import WriteUnknownError
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import SeekableReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloud_optimized_dicom.lock.lease import SeriesLock
    from cloud_optimized_dicom.storage.base import Attributes, ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload

_PIECE_BYTES = 1 << 20


def stage(store: ObjectStore, lock: SeriesLock, segments: Mapping[str, Payload], attributes: Attributes) -> None:
    """Write every segment as a new object.

    Raises
    ------
    WriteUnknownError
        If one of them may still land, whatever else went wrong.
    LockVerificationError
        If the lock was lost meanwhile.
    StorageError, OSError
        If a segment could not be written; no further one is begun then.
    """
    failed = threading.Event()

    def upload(name: str) -> None:
        if failed.is_set():
            return
        try:
            lock.check()  # what is staged after the lock was lost, nobody would sweep
            guarded = _Guarded(segments[name], lock.check)
            store.create(name, guarded, write_id=new_write_id(), attributes=attributes)
        except BaseException:
            failed.set()
            raise

    if len(segments) == 1 or store.uploads_at_once == 1:
        for name in segments:
            upload(name)
        return
    with ThreadPoolExecutor(store.uploads_at_once, "cod-upload") as pool:
        try:
            uploads = [pool.submit(upload, name) for name in segments]
        finally:
            pool.shutdown()  # waits: what is still going up when the lock is let go could never be swept
    errors = [error for error in (done.exception() for done in uploads) if error is not None]
    for error in sorted(errors, key=lambda error: not isinstance(error, WriteUnknownError)):
        raise error


@dataclass(frozen=True)
class _Guarded:
    """A payload whose reading ends with an error as soon as there is no use in it any more."""

    payload: Payload
    check: Callable[[], None]

    @property
    def size(self) -> int:
        return self.payload.size

    @property
    def crc32c(self) -> int:
        return self.payload.crc32c

    def open(self) -> BinaryIO:
        return io.BufferedReader(_GuardedReader(self.payload, self.check), _PIECE_BYTES)


class _GuardedReader(SeekableReader):
    def __init__(self, payload: Payload, check: Callable[[], None]) -> None:
        super().__init__(payload.size)
        self._stream, self._check = payload.open(), check

    def read_some(self, length: int) -> bytes:
        self._check()
        self._stream.seek(self._position)
        return self._stream.read(length)

    def close(self) -> None:
        self._stream.close()
        super().close()
