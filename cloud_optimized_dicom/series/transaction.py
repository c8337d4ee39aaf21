"""Changing one series: the only thing that holds its lock.  What is staged is consumed by one commit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.errors import InstanceNotFoundError, LockVerificationError
from cloud_optimized_dicom.events import SeriesCommitted, emit
from cloud_optimized_dicom.format.metadata.document import Change, SeriesDocument
from cloud_optimized_dicom.format.metadata.record import dump_record, with_duplicate_path
from cloud_optimized_dicom.lock.lease import LockOptions, SeriesLock, acquire
from cloud_optimized_dicom.series.commit import Base, Series, TarPlan, commit, let_go
from cloud_optimized_dicom.series.companion import THUMBNAIL, StagedThumbnail, settle_thumbnail
from cloud_optimized_dicom.series.legacy_index import with_index
from cloud_optimized_dicom.series.look import find_tar, read_seen
from cloud_optimized_dicom.series.old_tar import members_end, prefix, window
from cloud_optimized_dicom.series.opening import check_not_quarantined, checked_base
from cloud_optimized_dicom.series.packing import (
    SEGMENT_BYTES,
    NewMember,
    member_payload,
    pack_kept,
    pack_new,
    segmented,
)
from cloud_optimized_dicom.series.recovery import recover
from cloud_optimized_dicom.series.seal import END_BYTES, HOLD_SECONDS, sealed
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloud_optimized_dicom.events import Hook
    from cloud_optimized_dicom.lock.record import ObjectState
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.look import Look
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.uids import SeriesKey


@dataclass(frozen=True)
class TransactionOptions:
    """How to open a series for writing.

    Parameters
    ----------
    replace
        Start empty and replace what is there (mode "w").
    hashed_uids
        Whether a new document gets ``deid_`` keys.
    create_if_missing
        Whether a series that does not exist may be made.
    override_errors
        Whether to write in spite of an error.log.
    locked
        False: look and stage only; such a transaction cannot commit.
    tar_storage_class
        Of a tar that is written anew; None: that of the tar before it, or the store's default.  A tar that is appended
        to keeps its own.
    segment_bytes
        How large a staged segment gets before the next one starts; None: what suits the store.
    legacy_index
        Whether index.sqlite is written (True), dropped (False), or kept up to date where there is one (None).
    """

    replace: bool = False
    hashed_uids: bool = False
    create_if_missing: bool = True
    override_errors: bool = False
    locked: bool = True
    lock: LockOptions = field(default_factory=LockOptions)
    tar_storage_class: str | None = None
    segment_bytes: int | None = None
    legacy_index: bool | None = None


class Transaction:
    """One change of one series, staged here and committed as a whole.

    Notes
    -----
    Made by :meth:`begin`, which takes the lock, finishes what a dead writer had decided, and reads the present state.
    :meth:`commit` or :meth:`rollback` ends it.
    """

    def __init__(self, series: Series, base: Base, lock: SeriesLock | None, options: TransactionOptions) -> None:
        self.series, self.base, self.lock, self._options = series, base, lock, options
        self.new: dict[str, NewMember] = {}
        self._removed: set[str] = set(base.document.instances) if options.replace else set()
        self._touched: dict[str, dict[str, Any]] = {}
        self._edited: set[str] = set()
        self.at_hand: dict[str, Payload] = {}
        self._set: dict[str, Any] = {}
        self._thumbnail: StagedThumbnail | None = None
        self._adopting = self._trimming = self._sealing = self._thumbnail_stays = False
        self._record_version: str | None = None
        self._unset: set[str] = _custom_fields(base.document) if options.replace else set()

    @classmethod
    def begin(
        cls, store: ObjectStore, key: SeriesKey, options: TransactionOptions, look: Look | None = None
    ) -> Transaction:
        """Open a series for writing.

        Parameters
        ----------
        look
            What was seen of the series a moment ago; it spares requests, and is not relied on.

        Raises
        ------
        LockAcquisitionError
            If another writer holds the lock.
        ErrorLogExistsError
            If the series is quarantined.
        CODObjectNotFoundError
            If it does not exist and may not be made.
        TarValidationError
            If tar and metadata do not agree; an error.log is left where nothing else explains it.
        """
        series = Series(store, key)
        if not options.locked:
            seen = read_seen(store, key)
            return cls(series, checked_base(series, None, options, seen, store.find(key.tar)), None, options)
        listed = look.listing if look is not None else None
        acquisition = acquire(store, key, options.lock, hashed_uids=options.hashed_uids, listed=listed)
        lock = acquisition.lock
        try:
            lock.start_renewing()
            check_not_quarantined(series, acquisition, options)
            recover(series, acquisition)
            seen = read_seen(store, key, look.document if look is not None else None)
            tar = find_tar(store, key, seen, acquisition.tar)
            return cls(series, checked_base(series, lock, options, seen, tar), lock, options)
        except BaseException:
            lock.end()
            raise

    # -- what is staged

    @property
    def document(self) -> SeriesDocument:
        """The document as it would be committed now; places in a tar that is not packed yet are provisional."""
        added = {uid: dump_record(member.record) for uid, member in self.new.items()}
        return self.base.document.applied(self._change({**self._touched, **added}), None, "staged")

    def find(self, uid: str) -> InstanceRecord | None:
        """Return the record of an instance that the series would hold, or None."""
        if uid in self.new:
            return self.new[uid].record
        return None if uid in self._removed else self.base.document.find(uid)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all instances that the series would hold."""
        stored = {**self.base.document.instances, **self._touched}
        kept = (int(raw["size"]) for uid, raw in stored.items() if uid not in self._removed)
        return sum(kept) + sum(member.payload.size for member in self.new.values())

    def add(self, member: NewMember) -> None:
        """Stage a new instance."""
        if member.record.name_uid in self.base.document.instances:
            self.drop_thumbnail()  # it shows what this one replaces
        self.new[member.record.name_uid] = member

    def add_duplicate_path(self, uid: str, path: str) -> None:
        """Stage the URI of a differing duplicate of a stored instance."""
        raw = self._touched.get(uid) or self.base.document.instances[uid]
        self._touched[uid] = with_duplicate_path(raw, path)

    def touch(self, uid: str, raw: dict[str, Any]) -> None:
        """Stage the JSON of a record whose bytes are in the tar already."""
        self._touched[uid] = raw

    def have(self, uid: str, payload: Payload) -> None:
        """Note that a stored instance's bytes are at hand: should the tar be written anew, they need not be read."""
        self.at_hand[uid] = payload

    def edit(self, uid: str, payload: Payload, raw: dict[str, Any]) -> None:
        """Stage other bytes for a stored instance, in its place among the others.

        Parameters
        ----------
        raw
            The JSON of its record, complete but for its place in the tar.
        """
        self._edited.add(uid)
        self.have(uid, payload)
        self.touch(uid, raw)

    def adopt(self, tar: ObjectState) -> None:
        """Stage that the document names the present tar, as it is."""
        self.base = replace(self.base, adopted=tar)
        self._adopting = True

    def drop_end_blocks(self) -> bool:
        """Stage that the tar is written anew without its end-of-archive blocks; return whether it has any.

        Raises
        ------
        TarValidationError
            If something other than zeros lies behind the last member.
        """
        tar = self.base.tar
        self._trimming = tar is not None and self._members_end(tar) < tar.size
        return self._trimming

    def set_record_version(self, version: str) -> None:
        """Stage that all records become ones of a version, and that later ones are written in it."""
        self._record_version = version

    def seal(self) -> None:
        """Stage that the tar ends in end-of-archive blocks; nothing where there is no tar."""
        self._sealing = True

    def remove(self, uids: Iterable[str]) -> None:
        """Stage the removal of instances; all of them or none.

        Raises
        ------
        InstanceNotFoundError
            If the series does not hold one of them.
        """
        uids = list(dict.fromkeys(uids))
        for uid in uids:
            if self.find(uid) is None:
                raise InstanceNotFoundError(uid, self.series.store.url_of(self.series.key.folder))
        self.drop_thumbnail()
        for uid in uids:
            if self.new.pop(uid, None) is None:
                self._removed.add(uid)
                self._touched.pop(uid, None)

    def set_field(self, name: str, value: Any) -> None:
        """Stage a custom field; `ValueError` if it is no JSON value."""
        try:
            self._set[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise ValueError(f"field {name} is no JSON value") from None  # the chained error would quote it
        self._unset.discard(name)

    def remove_field(self, name: str) -> None:
        """Stage the removal of a custom field."""
        self._set.pop(name, None)
        self._unset.add(name)

    def set_thumbnail(self, thumbnail: StagedThumbnail) -> None:
        """Stage the thumbnail of the series as it is staged now."""
        self.set_field(THUMBNAIL, thumbnail.document)
        self._thumbnail, self._thumbnail_stays = thumbnail, False

    def keep_thumbnail(self, document: dict[str, Any]) -> None:
        """Stage what the document says of the thumbnail, which stays as it is."""
        self.set_field(THUMBNAIL, document)
        self._thumbnail_stays = self._thumbnail is None  # else the one that is staged is the one that stays

    def drop_thumbnail(self) -> None:
        """Stage that the series has no thumbnail, because what it shows is no more."""
        self.remove_field(THUMBNAIL)
        self._thumbnail, self._thumbnail_stays = None, False

    # -- how it ends

    def commit(self, hooks: Iterable[Hook] = ()) -> SeriesDocument:
        """Make what is staged visible, all of it in one step, and release the lock.

        Raises
        ------
        LockVerificationError, CommitUnknownError, ConflictError, StorageError
            As :func:`cloud_optimized_dicom.series.commit.commit`.
        """
        if self.lock is None:
            raise LockVerificationError(self.series.store.url_of(self.series.key.lock), "it was never taken")
        try:
            plan, records = self._plan()
            change = self._change(records)
            idle = plan is None and not change and not self._adopting
            if not idle or self._options.legacy_index is not None:
                wanted, tar_changes = self._options.legacy_index, plan is not None
                change = with_index(self.series, self.base, change, wanted=wanted, tar_changes=tar_changes)
            if self._thumbnail_changes:
                store, key = self.series.store, self.series.key
                settle_thumbnail(store, key, self.base.document, self._thumbnail, self.lock.renew)
        except BaseException as error:
            let_go(self.lock, error)
            raise
        if idle and not change:
            self.lock.release()
            return self.base.document
        document = commit(self.series, self.lock, self.base, plan, change)
        tar_bytes = document.tar.size if document.tar else 0
        uri = self.series.store.url_of(self.series.key.folder)
        emit(hooks, SeriesCommitted(uri, document.commits[-1], len(document.instances), tar_bytes))
        return document

    def rollback(self, error: BaseException | None = None) -> None:
        """Drop what is staged and release the lock; nothing visible has changed.

        Parameters
        ----------
        error
            What went wrong while the series was being read.

        Raises
        ------
        LockVerificationError
            If the lock was lost, and that explains the error.
        """
        self.new.clear()
        if self.lock is not None and error is not None:
            let_go(self.lock, error)
        elif self.lock is not None:
            self.lock.release()

    # -- the plan

    @property
    def _thumbnail_changes(self) -> bool:
        """Whether a thumbnail may have to go, named by the document or not, or comes."""
        overwritten = self._options.replace and self.base.tar is not None
        return not self._thumbnail_stays and (THUMBNAIL in {*self._set, *self._unset} or overwritten)

    def _change(self, records: Mapping[str, Mapping[str, Any]]) -> Change:
        removed = tuple(uid for uid in self.base.document.instances if uid in self._removed and uid not in records)
        unset = tuple(sorted(self._unset & set(self.base.document.raw)))
        return Change(records, removed, dict(self._set), unset, record_version=self._record_version)

    def _plan(self) -> tuple[TarPlan | None, dict[str, dict[str, Any]]]:
        """Return the tar to make and the records that change with it."""
        if self._removed or self._edited or (self._options.replace and self.base.tar is not None):
            return self._rewrite()
        tar = self.base.tar
        if not self.new and not self._trimming and not (tar and self._lacks_end_blocks(tar)):
            return None, dict(self._touched)
        if tar is None:
            packed = pack_new(self.new.values(), 0, self._segment_bytes)
            return self._tar_plan(packed.segments, self._new_class), {**self._touched, **packed.records}
        end = self._members_end(tar)
        packed = pack_new(self.new.values(), end, self._segment_bytes)
        records = {**self._touched, **packed.records}
        if end == tar.size:
            return self._tar_plan(packed.segments, tar.storage_class, keep=True), records
        # The tar ends in end-of-archive blocks, which must never come to lie in the middle: write it anew without them.
        segments = (prefix(self.series, tar, end) if end else BytesPayload(b""), *packed.segments)
        return self._tar_plan(segments, self._new_class), records

    def _tar_plan(self, segments: tuple[Payload, ...], storage_class: str | None, *, keep: bool = False) -> TarPlan:
        if self._sealing:
            return TarPlan(keep, sealed(segments), storage_class, HOLD_SECONDS)
        return TarPlan(keep, segments, storage_class)

    def _lacks_end_blocks(self, tar: ObjectInfo) -> bool:
        return self._sealing and tar.size - self._members_end(tar) < END_BYTES

    def _rewrite(self) -> tuple[TarPlan, dict[str, dict[str, Any]]]:
        document = self.base.document
        kept = [
            (document.get(uid), self._touched.get(uid, raw))
            for uid, raw in document.instances.items()
            if uid not in self._removed
        ]
        kept.sort(key=lambda pair: pair[0].start)  # the order of the old tar, so that it is read once, front to back
        tar = self.base.tar
        payloads, records = pack_kept(kept, window(self.series, tar), self.at_hand) if tar and kept else ([], {})
        start = sum(payload.size for payload in payloads)
        added = pack_new(self.new.values(), start)
        records.update(added.records)
        payloads += [member_payload(member.record, member.payload) for member in self.new.values()]
        segments = segmented(payloads, self._segment_bytes) or (BytesPayload(b""),)
        return self._tar_plan(segments, self._new_class), records

    @property
    def _new_class(self) -> str | None:
        kept = self.base.tar.storage_class if self.base.tar else None
        return self._options.tar_storage_class or kept

    @property
    def _segment_bytes(self) -> int | None:
        if self._options.segment_bytes is not None:
            return self._options.segment_bytes
        return SEGMENT_BYTES if self.series.store.uploads_at_once > 1 else None

    def _members_end(self, tar: ObjectInfo) -> int:
        return members_end(self.series, self.base, tar)


def _custom_fields(document: SeriesDocument) -> set[str]:
    return set(document.raw) - document.own_keys
