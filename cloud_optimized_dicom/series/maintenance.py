"""For operators: what locks there are, finishing what dead writers left, and letting go of a lock by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cloud_optimized_dicom.errors import (
    CODError,
    CODObjectNotFoundError,
    LockAcquisitionError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from cloud_optimized_dicom.lock.lease import Acquisition, LockOptions, acquire, age_seconds
from cloud_optimized_dicom.lock.record import parse_lock
from cloud_optimized_dicom.model import TarState
from cloud_optimized_dicom.series.commit import METADATA, TAR, Series
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.series.recovery import localised, recover
from cloud_optimized_dicom.storage.base import ConcatSource, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.lock.record import Intent
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

RecoveryOutcome = Literal["finished", "swept", "nothing", "busy", "failed"]
"""A decided commit was finished; leftovers were swept; there was nothing to do; a live writer is at work; it failed."""


@dataclass(frozen=True, slots=True)
class LockState:
    """A lock as it lies in the store.

    Parameters
    ----------
    owner
        Host and process, or None for an older writer's lock.
    age_seconds
        Since it was last written, by the server's clock.
    expires
        When its lease ends; None for an older writer's lock, which has none.
    expired
        Whether the next writer takes it over by itself.
    decided
        The write id of the commit that it holds decided but, perhaps, unfinished; else None.
    """

    uri: str
    key: SeriesKey
    owner: str | None
    age_seconds: float
    expires: datetime | None
    expired: bool
    decided: str | None
    holds_instances: bool


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """What a recovery did to one series."""

    series_uri: str
    outcome: RecoveryOutcome
    reason: str | None = None


def find_lock(store: ObjectStore, key: SeriesKey) -> LockState | None:
    """Return the lock of a series, or None if there is none."""
    try:
        found = store.read_object(key.lock)
    except ObjectNotFoundError:
        return None
    uri = store.url_of(key.lock)
    record = parse_lock(uri, found.data)
    age = age_seconds(found)
    return LockState(
        uri=uri,
        key=key,
        owner=record.owner,
        age_seconds=age,
        expires=record.expires(found.info.updated),
        expired=record.lease_seconds is not None and age > record.lease_seconds,
        decided=record.intent.write_id if record.intent is not None else None,
        holds_instances=record.holds_instances,
    )


def recover_series(
    store: ObjectStore,
    key: SeriesKey,
    *,
    wait_seconds: float = 0,
    lease_seconds: float = LockOptions.lease_seconds,
) -> RecoveryResult:
    """Finish what a dead writer of one series decided, and sweep what it left; a live writer is left alone.

    Parameters
    ----------
    wait_seconds
        How long to wait for another writer.
    lease_seconds
        How long others respect our own lock once we have died.

    Notes
    -----
    Takes the lock as any writer does: nothing happens to a series whose lock is held, and two recoveries at once do no
    harm.  A series without lock and pending segments costs one list.
    """
    uri = store.url_of(key.folder)
    names = {info.name for info in store.list(f"{key.folder}/")}
    if key.lock not in names and not any(name.startswith(key.pending) for name in names):
        return RecoveryResult(uri, "nothing")
    try:
        options = LockOptions(lease_seconds, wait_seconds)
        acquisition = acquire(store, key, options, hashed_uids=_hashed(store, key))
        finished = _settle(Series(store, key), acquisition)
    except LockAcquisitionError as error:
        return RecoveryResult(uri, "busy", str(error))
    except CODError as error:
        return RecoveryResult(uri, "failed", str(error))
    return RecoveryResult(uri, "finished" if finished else "swept")


def unlock_series(store: ObjectStore, key: SeriesKey) -> RecoveryResult:
    """Let go of a lock that no living writer holds, an older writer's too; a decided commit is finished first.

    Notes
    -----
    Never just deletes: the lock is taken over by a conditional write, so a writer that is alive after all finds out
    before it decides anything.

    Raises
    ------
    LockAcquisitionError
        If a lease of ours has not run out yet: that writer may be alive.
    """
    uri = store.url_of(key.folder)
    if find_lock(store, key) is None:
        return RecoveryResult(uri, "nothing")
    options = LockOptions(empty_lock_override_age=0, override_instances=True)
    acquisition = acquire(store, key, options, hashed_uids=_hashed(store, key))
    return RecoveryResult(uri, "finished" if _settle(Series(store, key), acquisition) else "swept")


def _settle(series: Series, acquisition: Acquisition) -> bool:
    lock = acquisition.lock
    try:
        lock.start_renewing()
        finished = recover(series, acquisition)
    except BaseException:
        lock.end()
        raise
    lock.release()
    return finished


def _hashed(store: ObjectStore, key: SeriesKey) -> bool:
    try:
        return read_document(store, key)[0].hashed_uids
    except CODError:
        return False


def iter_locks(store: ObjectStore, keys: Iterable[SeriesKey]) -> Iterator[LockState]:
    """Yield the locks of the series given."""
    for key in keys:
        state = find_lock(store, key)
        if state is not None:
            yield state


def discard_intent(store: ObjectStore, key: SeriesKey, *, wait_seconds: float = 0) -> RecoveryResult:
    """Give up a decided commit whose staged segments have vanished; the only way to drop an intent.

    Raises
    ------
    LockAcquisitionError
        If another writer holds the lock.

    Notes
    -----
    A commit whose segments are all there is finished instead: nothing decided is given up that can be carried out.

    Both objects are fenced first, so that nobody who still believes in the intent can carry it out any more: the tar is
    concatenated onto itself (or an empty one is made where there was none), the metadata is rewritten.  If a fence is
    refused, the commit has gone on meanwhile, and is finished instead.
    """
    uri = store.url_of(key.folder)
    series = Series(store, key)
    options = LockOptions(wait_seconds=wait_seconds)
    acquisition = acquire(store, key, options, hashed_uids=_hashed(store, key))
    lock = acquisition.lock
    try:
        if lock.inherited is None:
            lock.release()
            return RecoveryResult(uri, "nothing")
        intent = localised(series, lock.inherited)
        if all(store.find(source.name) for source in intent.sources) or not _fence(series, intent):
            finished = recover(series, acquisition)
            lock.release()
            return RecoveryResult(uri, "finished" if finished else "swept")
        lock.clear()
        store.delete_all([(name, None) for name in acquisition.listed])
    except BaseException:
        lock.end()
        raise
    lock.release()
    return RecoveryResult(uri, "swept", f"commit {intent.write_id} was given up")


def _fence(series: Series, intent: Intent) -> bool:
    """Move tar and metadata on to new versions of the same bytes; return False if the tar has moved on already."""
    try:
        tar = _fence_tar(series, intent) if intent.result is not None else None
        document, version = read_document(series.store, series.key)
    except (PreconditionFailedError, ObjectNotFoundError):
        return False
    except CODObjectNotFoundError:
        return True  # there was no series before: an empty tar is fence enough
    _fence_metadata(series, document, version, tar)
    return True


def _fence_tar(series: Series, intent: Intent) -> ObjectInfo:
    name, base = series.key.tar, intent.base_tar
    if base is None:
        return series.store.create(name, BytesPayload(b""), write_id=new_write_id(), attributes=TAR)
    source = ConcatSource(name, base.version)
    return series.store.concat(name, [source], version=base.version, write_id=new_write_id(), attributes=TAR)


def _fence_metadata(series: Series, document: SeriesDocument, version: str, tar: ObjectInfo | None) -> None:
    if tar is not None:
        document = document.with_tar(TarState(tar.version, tar.size, series.tar_crc32c(tar)))
    series.store.replace(
        series.key.metadata,
        BytesPayload(document.dump()),
        version=version,
        write_id=new_write_id(),
        attributes=METADATA,
    )
