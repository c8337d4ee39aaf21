"""Decide, then do: the five steps of a commit (design page *Locks and commits*).

All bytes go up first, out of sight.  One conditional write, the intent in the lock blob, decides.  What is left after
it can be done by anybody, any number of times, with the same result; :func:`finish` is that part, for the writer itself
and for every successor.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import combine_all, crc32c
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    CommitUnknownError,
    ConflictError,
    LockVerificationError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StaleReadError,
    StorageError,
    TarValidationError,
    WriteUnknownError,
)
from cloud_optimized_dicom.format.metadata.document import COMMITS_KEPT, Change, SeriesDocument
from cloud_optimized_dicom.lock.record import Intent, ObjectState, TarResult, parse_lock
from cloud_optimized_dicom.model import TarState
from cloud_optimized_dicom.series.legacy_index import set_aside, write_index
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.series.staging import stage
from cloud_optimized_dicom.series.state import tar_crc32c
from cloud_optimized_dicom.storage.base import Attributes, ConcatSource, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.lock.lease import SeriesLock
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.uids import SeriesKey

_log = logging.getLogger(__name__)
TAR = Attributes(content_type="application/x-tar")
METADATA = Attributes(content_type="application/json", content_encoding="gzip")


@dataclass(frozen=True)
class TarPlan:
    """The tar that a commit makes.

    Parameters
    ----------
    keep
        Whether the present tar comes first, as it is (an append).
    segments
        The bytes to stage, in order.
    storage_class
        Of the segments and of the tar: sources of a concatenation must be of one.
    hold_seconds
        How much longer the lock is held once the tar is visible.
    """

    keep: bool
    segments: tuple[Payload, ...]
    storage_class: str | None = None
    hold_seconds: float = 0


@dataclass(frozen=True)
class Base:
    """The state that a change is made for, as the holder of the lock found it; None stands for an absent object.

    Parameters
    ----------
    adopted
        The tar, where the document does not name it yet: a copied store, or an older writer's.  The next commit records
        it, whatever else it does.
    """

    document: SeriesDocument
    metadata: ObjectState | None
    tar: ObjectInfo | None
    adopted: ObjectState | None = None


@dataclass(frozen=True)
class Series:
    """A series as its objects in a store."""

    store: ObjectStore
    key: SeriesKey

    @property
    def tar_uri(self) -> str:
        """Where the tar is."""
        return self.store.url_of(self.key.tar)

    def tar_crc32c(self, tar: ObjectInfo) -> int:
        """Return the CRC32C of the tar in the state given."""
        return tar_crc32c(self.store, self.key, tar)


def commit(series: Series, lock: SeriesLock, base: Base, plan: TarPlan | None, change: Change) -> SeriesDocument:
    """Make one change visible; return the document that holds it, as it was decided.

    Parameters
    ----------
    lock
        Held, without an intent in it.  It is released by a success, and by every failure before the decision; it stays,
        as the recovery record, after a failure behind the decision.
    plan
        None where the tar stays as it is.

    Raises
    ------
    LockVerificationError
        If the lock was lost before the decision: nothing visible has changed, then or later.
    CommitUnknownError
        If it cannot be known whether the decision landed.
    ConflictError
        If a writer outside the protocol changed the series between our reading and our writing.
    StorageError
        If the store failed.  Before the decision nothing has changed; behind it the next writer finishes the commit.
    """
    write_id = new_write_id()
    names = [series.key.segment(write_id, number) for number in range(len(plan.segments) if plan else 0)]
    uri = series.store.url_of(series.key.folder)
    try:
        if plan is not None:
            attributes = replace(TAR, storage_class=plan.storage_class)
            stage(series.store, lock, dict(zip(names, plan.segments, strict=True)), attributes)
        intent = _intent(series, base, plan, names, change, write_id)
    except WriteUnknownError as error:
        lock.abandon()  # a segment may still land: whoever sweeps next must find a lock that says so
        raise CommitUnknownError(uri, write_id) from error
    except BaseException as error:
        let_go(lock, error, names)
        raise
    try:
        decided_here = _decide(series, lock, intent, base)
    except LockVerificationError:
        lock.release(tidy=names)
        raise
    except StorageError as error:
        lock.abandon()
        raise CommitUnknownError(uri, write_id) from error
    except BaseException:
        lock.abandon()  # interrupted, perhaps behind the decision: its segments must stay
        raise
    document, committed = _carry_out(series, lock, intent, base, decided_here=decided_here)
    if committed:
        lock.release(tidy=names, hold_seconds=plan.hold_seconds if plan else 0)
    else:
        lock.abandon()  # the holder of the lock finishes it, and needs the segments for that
    return document or _as_decided(intent, base)


def let_go(lock: SeriesLock, error: BaseException, names: Sequence[str] = ()) -> None:
    """Release the lock after a failure before the decision.

    Raises
    ------
    LockVerificationError
        If the lock was lost, where that explains the failure: the tar that was being read is gone, or another.
    """
    try:
        if isinstance(error, StorageError | StaleReadError | TarValidationError):
            with suppress(StorageError):  # a store that fails now explains the failure as well
                lock.renew()
    finally:
        lock.release(tidy=names)


def _carry_out(
    series: Series, lock: SeriesLock, intent: Intent, base: Base, *, decided_here: bool
) -> tuple[SeriesDocument | None, bool]:
    """Do what was decided; return the document, where we wrote it, and whether the commit is complete."""
    lock.stop_renewing()  # losing the lock costs nothing any more
    try:
        after = finish(series, intent, base.document) if decided_here else None
        return after, after is not None or _is_committed(series, lock, intent, base)
    except BaseException:
        lock.abandon()
        raise


def _as_decided(intent: Intent, base: Base) -> SeriesDocument:
    """Return the document as we decided it; whoever carried that out knows the tar's version, we do not."""
    tar = TarState("", intent.result.size, intent.result.crc32c) if intent.result else None
    return base.document.applied(intent.change, tar, intent.write_id)


# -- step 1


def _intent(
    series: Series, base: Base, plan: TarPlan | None, names: list[str], change: Change, write_id: str
) -> Intent:
    if plan is None:
        return Intent(write_id, base.metadata, base.adopted, (), None, change, base.document.hashed_uids)
    tar = base.tar
    base_tar = ObjectState(tar.version, tar.size, series.tar_crc32c(tar)) if tar else None
    sources = [ConcatSource(name) for name in names]
    parts = [(segment.crc32c, segment.size) for segment in plan.segments]
    if plan.keep and base_tar is not None:
        sources.insert(0, ConcatSource(series.key.tar, base_tar.version))
        parts.insert(0, (base_tar.crc32c or 0, base_tar.size))
    crc, size = combine_all(parts)
    result = TarResult(size, crc, plan.storage_class)
    return Intent(write_id, base.metadata, base_tar, tuple(sources), result, change, base.document.hashed_uids)


# -- step 2


def _decide(series: Series, lock: SeriesLock, intent: Intent, base: Base) -> bool:
    """Write the intent; return False where it turns out that it was decided and a successor has it."""
    try:
        lock.decide(intent)
    except LockVerificationError:
        # A lost response may hide that we had decided before the takeover.  First the lock, then the document: the
        # other way round a successor could move the intent from one to the other between the two looks.
        if _in_lock(series, intent) or _in_document(series, intent, base):
            return False
        raise
    return True


def _in_lock(series: Series, intent: Intent, besides: str | None = None) -> bool:
    """Return whether the lock holds the intent; not where the lock is still that of the acquisition `besides`."""
    try:
        found = series.store.read_object(series.key.lock)
    except ObjectNotFoundError:
        return False
    record = parse_lock(series.store.url_of(series.key.lock), found.data)
    mine = record.intent is not None and record.intent.write_id == intent.write_id
    return mine and (besides is None or record.write_id != besides)


def _in_document(series: Series, intent: Intent, base: Base) -> bool:
    """Return whether the document's log names the intent; raise if it cannot say any more."""
    try:
        document, version = read_document(series.store, series.key)
    except CODObjectNotFoundError:
        return False
    if intent.write_id in document.commits:
        return True
    moved_on = intent.base_metadata is None or version != intent.base_metadata.version
    # A log that still names the commit before ours would name ours too.
    reaches_back = bool(set(base.document.commits[-1:]) & set(document.commits))
    if moved_on and not reaches_back and len(document.commits) >= COMMITS_KEPT:
        raise CommitUnknownError(series.store.url_of(series.key.folder), intent.write_id)
    return False


def _is_committed(series: Series, lock: SeriesLock, intent: Intent, base: Base) -> bool:
    """Return whether somebody else finished what we decided; False where the holder of the lock is about to.

    Raises
    ------
    ConflictError
        If nobody will: the lock is still ours, or was let go, and the log does not name us.
    """
    if _in_document(series, intent, base):
        return True
    # A lock that is still ours has nobody else behind it.
    if _in_lock(series, intent, besides=lock.acquisition_id):
        return False
    if _in_document(series, intent, base):  # finished between the two looks
        return True
    raise ConflictError(series.store.url_of(series.key.folder), "metadata or tar changed without a commit of ours")


# -- steps 3 and 4


def finish(series: Series, intent: Intent, document: SeriesDocument | None = None) -> SeriesDocument | None:
    """Do what an intent decided: the tar, then the metadata.  Idempotent, and fenced by the versions it was made for.

    Parameters
    ----------
    document
        The document at the intent's base, where the caller has it; otherwise it is read.

    Returns
    -------
    SeriesDocument or None
        The document written, or None where a successor has done all this already.
    """
    aside = set_aside(series.store, series.key, intent.change.legacy_index)  # before it is of another tar
    tar = _adopted(intent)
    if intent.result is not None:
        tar = _finish_tar(series, intent, intent.result)
        if tar is None:
            return None
    if document is None:
        document = _base_document(series, intent)
        if document is None:
            return None
    after = document.applied(intent.change, tar, intent.write_id)
    if not _write_metadata(series, intent, after):
        return None
    if aside is not None:
        write_index(series.store, series.key, after, aside)
    return after


def _adopted(intent: Intent) -> TarState | None:
    """Return the state to record of a tar that stays as it is; None where the document has it already."""
    base = intent.base_tar
    return TarState(base.version, base.size, base.crc32c or 0) if base is not None else None


def _finish_tar(series: Series, intent: Intent, result: TarResult) -> TarState | None:
    version = intent.base_tar.version if intent.base_tar else None
    try:
        info = series.store.concat(
            series.key.tar,
            intent.sources,
            version=version,
            write_id=intent.write_id,
            attributes=replace(TAR, storage_class=result.storage_class),
        )
    except (PreconditionFailedError, ObjectNotFoundError) as error:
        present = series.store.find(series.key.tar)
        if present is None or (present.size, series.tar_crc32c(present)) != (result.size, result.crc32c):
            if isinstance(error, ObjectNotFoundError) and (present.version if present else None) == version:
                raise _vanished(series, intent) from error
            return None
        info = present
    if (info.size, series.tar_crc32c(info)) != (result.size, result.crc32c):
        raise _quarantined(series, f"commit {intent.write_id} made a tar with another size or CRC32C than it decided")
    return TarState(info.version, result.size, result.crc32c)


def _base_document(series: Series, intent: Intent) -> SeriesDocument | None:
    """Return the document that the intent was made for, or None if the series has moved on from it."""
    try:
        document, version = read_document(series.store, series.key)
    except CODObjectNotFoundError:
        if intent.base_metadata is not None:
            return None
        uri = series.store.url_of(series.key.metadata)
        return SeriesDocument.empty(uri, series.key, hashed_uids=intent.hashed_uids)
    if intent.base_metadata is None or version != intent.base_metadata.version:
        return None
    return document


def _write_metadata(series: Series, intent: Intent, document: SeriesDocument) -> bool:
    payload = BytesPayload(document.dump())
    write_id, name = intent.write_id, series.key.metadata
    try:
        if intent.base_metadata is None:
            series.store.create(name, payload, write_id=write_id, attributes=METADATA)
        else:
            version = intent.base_metadata.version
            series.store.replace(name, payload, version=version, write_id=write_id, attributes=METADATA)
    except (PreconditionFailedError, ObjectNotFoundError):
        return False
    return True


# -- what must not happen


def _vanished(series: Series, intent: Intent) -> TarValidationError:
    reason = f"a staged segment of the decided commit {intent.write_id} has vanished"
    return _quarantined(series, f"{reason}; `cod recover --discard-intent` gives that commit up")


def _quarantined(series: Series, reason: str) -> TarValidationError:
    quarantine(series, reason)
    return TarValidationError(series.tar_uri, reason)


def quarantine(series: Series, reason: str) -> None:
    """Leave an error.log, so that writers stop until somebody has looked; a log that is there already stays."""
    _log.error("quarantined %s: %s", series.store.url_of(series.key.folder), reason)
    try:
        series.store.create(
            series.key.error_log,
            BytesPayload(reason.encode("utf-8")),
            write_id=new_write_id(),
            attributes=Attributes(content_type="text/plain"),
        )
    except PreconditionFailedError:
        return
    except StorageError as error:
        _log.warning("could not write %s: %s", series.key.error_log, type(error).__name__)


def metadata_state(data: bytes, version: str) -> ObjectState:
    """Return the state of a metadata.json whose bytes were read."""
    return ObjectState(version, len(data), crc32c(data))
