"""The new bytes of a commit on their way up, out of sight, several segments at a time."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.errors import StorageError, WriteUnknownError
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import SeekableReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from cloud_optimized_dicom.lock.lease import SeriesLock
    from cloud_optimized_dicom.storage.base import Attributes, ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload

_PIECE_BYTES = 256 << 10


def stage(store: ObjectStore, lock: SeriesLock, segments: Mapping[str, Payload], attributes: Attributes) -> None:
    """Write every segment as a new object; once one has failed, or we are interrupted, none goes on.

    Raises
    ------
    WriteUnknownError
        If one of them may still land, whatever else went wrong.
    LockVerificationError
        If the lock was lost meanwhile.
    StorageError, OSError
        If a segment could not be written.
    """
    staging = _Staging(store, lock, attributes)
    if len(segments) == 1 or store.uploads_at_once == 1:
        for name, payload in segments.items():
            staging.upload(name, payload)
        return
    uploads: list[Future[None]] = []
    # Leaving the pool waits for all: what is still going up when the lock is let go could never be swept.
    with ThreadPoolExecutor(store.uploads_at_once, "cod-upload") as pool:
        try:
            uploads += (pool.submit(staging.upload, name, payload) for name, payload in segments.items())
            wait(uploads)
        except BaseException:
            staging.failed.set()
            wait(uploads)
            if any(isinstance(done.exception(), WriteUnknownError) for done in uploads):
                lock.abandon()  # one may still land: the lock must stay to say so
            raise
    errors = [error for error in (done.exception() for done in uploads) if error is not None]
    for error in sorted(errors, key=_gravity):
        raise error


class _Staging:
    """The uploads of one commit: the first that fails breaks the others off."""

    def __init__(self, store: ObjectStore, lock: SeriesLock, attributes: Attributes) -> None:
        self._store, self._lock, self._attributes = store, lock, attributes
        self.failed = threading.Event()

    def upload(self, name: str, payload: Payload) -> None:
        try:
            self._check()  # what is staged after the lock was lost, nobody would sweep
            guarded = _Guarded(payload, self._check)
            self._store.create(name, guarded, write_id=new_write_id(), attributes=self._attributes)
        except _UselessError:
            self._lock.check()
            raise
        except BaseException:
            self.failed.set()
            raise

    def _check(self) -> None:
        if self.failed.is_set() or self._lock.lost:
            raise _UselessError(self._lock.uri, self._lock.lost or "another segment could not be written")


def _gravity(error: BaseException) -> int:
    """Sort what says most to the front; what was only broken off says nothing."""
    return 0 if isinstance(error, WriteUnknownError) else 2 if isinstance(error, _UselessError) else 1


class _UselessError(StorageError):
    """An upload that was broken off.  A storage error, so that a store in doubt about an earlier attempt says that."""


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
