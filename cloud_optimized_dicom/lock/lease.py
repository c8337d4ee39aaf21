"""Holding the lock of one series: acquire, take over, renew, decide, let go.

Safety comes from the store's preconditions; the lock saves wasted work.  All ages are by the store's clock.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.errors import (
    LockAcquisitionError,
    LockVerificationError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageError,
)
from cloud_optimized_dicom.lock.record import Intent, LockRecord, dump_lock, parse_lock
from cloud_optimized_dicom.storage.base import Attributes, new_write_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore, ReadResult
    from cloud_optimized_dicom.uids import SeriesKey

_log = logging.getLogger(__name__)
_ATTRIBUTES = Attributes(content_type="application/json", content_encoding="gzip")
_RENEWALS_PER_LEASE = 3
_WAIT_SECONDS = 0.25
_MAX_WAIT_SECONDS = 5.0
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class LockOptions:
    """How to take the lock.

    Parameters
    ----------
    lease_seconds
        How long others respect the lock after its last renewal.
    wait_seconds
        How long to wait for another writer before giving up.
    empty_lock_override_age
        Hours after which an older writer's lock that holds no instances is taken over; None: never.
    override_instances
        Whether that goes for one that holds instances, too: an operator has looked.
    pause
        Sleeps so many seconds between two attempts; what it raises ends the wait.
    """

    lease_seconds: float = 120
    wait_seconds: float = 0
    empty_lock_override_age: float | None = None
    override_instances: bool = False
    pause: Callable[[float], None] = time.sleep


def owner_name() -> str:
    """Return who we are, for people who look at a lock: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class SeriesLock:
    """A lock that was acquired, and the intent that was found in it.

    Attributes
    ----------
    inherited
        The decided commit of a dead holder; whoever holds the lock finishes it first, then calls :meth:`clear`.
    """

    def __init__(self, store: ObjectStore, key: SeriesKey, record: LockRecord, *, hashed_uids: bool) -> None:
        self._store, self._key, self._record, self._hashed = store, key, record, hashed_uids
        self._mutex = threading.Lock()
        self._version: str | None = None
        self._stop = threading.Event()
        self._beat: threading.Thread | None = None
        self.inherited = record.intent
        self.lost: str | None = None

    @property
    def uri(self) -> str:
        """Where the lock blob is."""
        return self._store.url_of(self._key.lock)

    @property
    def version(self) -> str | None:
        """The version that is held; it moves along with every renewal.  None once released."""
        return self._version

    @property
    def acquisition_id(self) -> str | None:
        """What this acquisition is called in the blob; renewals do not change it."""
        return self._record.write_id

    def create(self) -> None:
        """Make the blob; `PreconditionFailedError` if there is one."""
        body = dump_lock(self._record, self._key, hashed_uids=self._hashed)
        info = self._store.create(self._key.lock, body, write_id=new_write_id(), attributes=_ATTRIBUTES)
        self._version = info.version

    def take_over(self, version: str) -> None:
        """Write over an expired lock, carrying its intent along; `PreconditionFailedError` if it moved on."""
        self._version = version
        self._replace()

    def give_up(self, reason: str) -> None:
        """Let the commit that is under way fail, if it is not decided yet; for another thread than the writer's."""
        self.lost = self.lost or reason

    def check(self) -> None:
        """Raise `LockVerificationError` if a renewal has found the lock lost, or it was given up; asks nobody."""
        if self.lost:
            raise LockVerificationError(self.uri, self.lost)

    def renew(self) -> None:
        """Prove that the lock is still ours.

        Raises
        ------
        LockVerificationError
            If it is not.
        """
        self._write(lambda record: record)

    def decide(self, intent: Intent) -> None:
        """Write the intent: from here on the commit will happen.

        Raises
        ------
        LockVerificationError
            If the lock was taken over (a lost response may hide that the intent landed before that).
        WriteUnknownError
            If it cannot be known whether the intent landed.
        """
        self._write(lambda record: replace(record, intent=intent))

    def clear(self) -> None:
        """Drop an intent that is finished."""
        self._write(lambda record: replace(record, intent=None))
        self.inherited = None

    def release(self, tidy: Sequence[str] = (), *, hold_seconds: float = 0) -> None:
        """Delete the blob, if it is still ours, and with it the objects named in `tidy`; not before some seconds.

        Notes
        -----
        A failure here is no failure of the commit: a lock that stays expires, and what it left is swept by the next
        writer.
        """
        try:
            time.sleep(hold_seconds)
        finally:
            self._release(tidy)

    def _release(self, tidy: Sequence[str]) -> None:
        self.stop_renewing()
        with self._mutex:
            version, self._version = self._version, None
            objects: list[tuple[str, str | None]] = [(name, None) for name in tidy]
            if version is not None:
                objects.append((self._key.lock, version))
            try:
                self._store.delete_all(objects)
            except StorageError as error:
                _log.warning("could not tidy up behind the lock %s: %s", self.uri, type(error).__name__)

    def end(self) -> None:
        """Let go after a failure: release, unless an inherited intent is not finished; that one must stay."""
        if self.inherited is None:
            self.release()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Leave the blob where it is: it is the recovery record of a commit that was decided."""
        self.stop_renewing()
        self._version = None

    # -- renewal in the background

    def start_renewing(self) -> None:
        """Renew at a third of the lease, until :meth:`release`, :meth:`abandon` or :meth:`stop_renewing`."""
        beat = threading.Thread(target=self._renew_until_stopped, name="cod-lock-renewal", daemon=True)
        beat.start()  # a thread that could not be started cannot be waited for
        self._beat = beat

    def stop_renewing(self) -> None:
        """Stop the background renewal and wait for one that is under way."""
        self._stop.set()
        if self._beat is not None and self._beat is not threading.current_thread():
            self._beat.join()
            self._beat = None

    def _renew_until_stopped(self) -> None:
        pause = (self._record.lease_seconds or LockOptions.lease_seconds) / _RENEWALS_PER_LEASE
        while not self._stop.wait(pause):
            try:
                self.renew()
            except LockVerificationError:
                return  # self.lost says why; the transaction sees it before its next write
            except StorageError as error:
                _log.warning("could not renew the lock %s: %s", self.uri, type(error).__name__)

    # -- conditional writes of the blob

    def _replace(self, record: LockRecord | None = None) -> None:
        body = dump_lock(record or self._record, self._key, hashed_uids=self._hashed)
        version = self._version
        if version is None:
            raise LockVerificationError(self.uri, "it was released")
        info = self._store.replace(
            self._key.lock, body, version=version, write_id=new_write_id(), attributes=_ATTRIBUTES
        )
        self._version = info.version
        self._record = record or self._record

    def _write(self, change: Callable[[LockRecord], LockRecord]) -> None:
        # What is written is made under the mutex: a renewal that had to wait must not write what was true before.
        with self._mutex:
            self.check()
            try:
                self._replace(change(self._record))
            except (PreconditionFailedError, ObjectNotFoundError) as error:
                self.lost = "another writer took it over"
                raise LockVerificationError(self.uri, self.lost) from error


class Listing(NamedTuple):
    """What a list of a series showed: the names of the objects in its folder, and the tar."""

    names: tuple[str, ...]
    tar: ObjectInfo | None


@dataclass(frozen=True)
class Acquisition:
    """A lock that is held, and what was there before it was: pending segments, an error.log, the tar."""

    lock: SeriesLock
    listed: tuple[str, ...]
    error_log: bool
    tar: ObjectInfo | None


def acquire(
    store: ObjectStore,
    key: SeriesKey,
    options: LockOptions,
    *,
    hashed_uids: bool,
    listed: Listing | None = None,
) -> Acquisition:
    """Take the lock of a series, waiting for another writer where the options say so.

    Parameters
    ----------
    listed
        What a list of the series showed a moment ago; it spares the first attempt's own.

    Raises
    ------
    LockAcquisitionError
        If it stays held by another writer.

    Notes
    -----
    Every attempt lists the series' folder before its conditional write: only segments that were there *before* the lock
    was taken may be swept, because what appears later may belong to a live holder.
    """
    deadline = time.monotonic() + options.wait_seconds
    pause = _WAIT_SECONDS
    while True:
        found = list_series(store, key) if listed is None else listed
        listed = None
        try:
            lock = _attempt(store, key, options, hashed_uids=hashed_uids)
        except LockAcquisitionError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            options.pause(min(left, pause * random.uniform(0.5, 1.5)))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 1.5, _MAX_WAIT_SECONDS)
            continue
        if lock is not None:
            pending = tuple(name for name in found.names if name.startswith(key.pending))
            return Acquisition(lock, pending, key.error_log in found.names, found.tar)


def list_series(store: ObjectStore, key: SeriesKey) -> Listing:
    """List all objects of a series: one request."""
    names: list[str] = []
    tar = None
    for info in store.list_between(*key.names):
        if info.name == key.tar:
            tar = info
        else:
            names.append(info.name)
    return Listing(tuple(names), tar)


def _new_record(options: LockOptions, intent: Intent | None) -> LockRecord:
    acquired = datetime.now(UTC).isoformat()  # for people; no decision is made by it
    return LockRecord(owner_name(), new_write_id(), acquired, options.lease_seconds, intent)


def _attempt(store: ObjectStore, key: SeriesKey, options: LockOptions, *, hashed_uids: bool) -> SeriesLock | None:
    """Try once; return None where the lock was released between our two looks, so that another try is due at once."""
    fresh = SeriesLock(store, key, _new_record(options, None), hashed_uids=hashed_uids)
    try:
        fresh.create()
    except PreconditionFailedError:
        pass
    else:
        return fresh
    try:
        found = store.read_object(key.lock)
    except ObjectNotFoundError:
        return None
    record = parse_lock(store.url_of(key.lock), found.data)
    if not may_take_over(record, found, options):
        raise busy(store.url_of(key.lock), record, found)
    taken = SeriesLock(store, key, _new_record(options, record.intent), hashed_uids=hashed_uids)
    try:
        taken.take_over(found.info.version)
    except (PreconditionFailedError, ObjectNotFoundError):
        raise busy(store.url_of(key.lock), record, found) from None
    _log.info("took over the expired lock %s", taken.uri)
    return taken


def age_seconds(found: ReadResult) -> float:
    """Return how long ago a lock blob was last written, by the clock of the server that served it."""
    return (found.served_at - found.info.updated).total_seconds()


def may_take_over(record: LockRecord, found: ReadResult, options: LockOptions) -> bool:
    """Return whether a lock may be written over: its lease has run out, or an older writer's is overridden."""
    if record.lease_seconds is not None:
        return age_seconds(found) > record.lease_seconds
    hours = options.empty_lock_override_age
    if hours is None or (record.holds_instances and not options.override_instances):
        return False
    return age_seconds(found) >= hours * _SECONDS_PER_HOUR


def busy(uri: str, record: LockRecord, found: ReadResult) -> LockAcquisitionError:
    """Return the error for a lock that another writer holds."""
    return LockAcquisitionError(uri, record.owner, age_seconds(found), record.expires(found.info.updated))
