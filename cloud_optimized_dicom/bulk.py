"""Many files into many series: read ahead, grouped, appended series by series, and accounted for one by one.

Files are gathered by series until there are no more, or until what is held of them has grown too large; then every
series that has some is written, several at a time.  What is held of a file is its record and, of a remote one, a
temporary copy: so each file is fetched once, and neither memory nor disk grows with the number of files.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from cloud_optimized_dicom.append import Appender, AppendOptions, AppendResult, reason_of
from cloud_optimized_dicom.errors import CODError, InstanceValidationError
from cloud_optimized_dicom.events import FileDone, IngestPlanned, InstanceRecompressed, emit
from cloud_optimized_dicom.fates import Fate, outcomes_of
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.archives import SourceFailure
from cloud_optimized_dicom.ingest.hooks import NotFiles, OneAtATime, told_of_hooks
from cloud_optimized_dicom.ingest.plan import known_by_hints, plan_instance
from cloud_optimized_dicom.ingest.report import FileResult, IngestReport, is_retryable
from cloud_optimized_dicom.ingest.sources import iter_sources, source_of
from cloud_optimized_dicom.ingest.workshop import Item, Job, Prepared, Workshop
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.series.commit import Series
from cloud_optimized_dicom.series.look import Look
from cloud_optimized_dicom.series.maintenance import recover_series
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.uids import SeriesKey, member_uri

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.events import Event, Hook
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.lock.lease import SeriesLock
    from cloud_optimized_dicom.model import DicomFacts
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uid_hashing import UidHash

SERIES_AT_ONCE = 8
"""How many series are written at a time."""

HELD_BYTES = 4 << 30
"""How much room copies, recompressed files and unpacked archives may take of what is not stored yet."""

HELD_RECORD_BYTES = 256 << 20
"""The same for what is kept in memory of files that are not stored yet."""

_INSTANCE_BYTES = 2048  # what an instance takes of which nothing is known but its hints
_UNKNOWN_BYTES = 1 << 20  # what a remote file is taken for whose size nobody told
_LISTED_AHEAD = 20_000  # sources that are known before the first of them is read, so that progress has an end


@dataclass(frozen=True)
class BulkOptions:
    """How to ingest.

    Parameters
    ----------
    append
        How each series is appended to.
    wait_seconds
        How long to wait for a series that another writer holds.
    tar_storage_class
        Of new tars; None: the bucket's default.
    held_bytes, held_record_bytes
        How much may be held, on disk and in memory, of files that are not stored yet: half of it is gathered while the
        other half is written.  Files that are read ahead come on top, up to half a gigabyte of them.
    lease_seconds
        How long others respect our lock of a series once we have died.
    recovery_wait_seconds
        How long to wait, where nothing is to be written to a series, for the writer whose lock or segments lie there.
        A dead one's lock is taken away; one that lives is let be.
    """

    append: AppendOptions = field(default_factory=AppendOptions)
    wait_seconds: float = 0
    tar_storage_class: str | None = None
    held_bytes: int = HELD_BYTES
    held_record_bytes: int = HELD_RECORD_BYTES
    lease_seconds: float = LockOptions.lease_seconds
    recovery_wait_seconds: float = 0


def iter_instances(
    sources: Iterable[str | os.PathLike[str] | Instance | SourceFailure],
    client: Any,
    directory: Path,
    uid_hash_func: UidHash | None = None,
) -> Iterator[Instance | SourceFailure]:
    """Yield an instance for every file that the arguments name.

    Parameters
    ----------
    directory
        Takes what has to be unpacked.
    uid_hash_func
        Of the instances that have none of their own.
    """
    stores: dict[str, ObjectStore] = {}
    opener = partial(_opened, client, stores)
    given: WeakValueDictionary[int, Instance] = WeakValueDictionary()
    for source in sources:
        if isinstance(source, Instance):
            # One that is given twice is two files of one name: each has a fate, and a copy, of its own.
            instance = copy.copy(source) if given.get(id(source)) is source else source
            given[id(source)] = source
            instance.open_by(opener)
            instance.uid_hash_func = instance.uid_hash_func or uid_hash_func
            yield instance
            continue
        if isinstance(source, SourceFailure):
            yield source
            continue
        for found in iter_sources([source], client, temp_dir=directory):
            yield found if isinstance(found, SourceFailure) else Instance.from_source(found, Hints(), uid_hash_func)


def _opened(client: Any, stores: dict[str, ObjectStore], uri: str, _none: Any) -> Source:
    return source_of(uri, client, stores)


@dataclass(slots=True)
class _Held:
    """What is gathered and not written yet."""

    groups: dict[SeriesKey, list[tuple[int, Instance]]] = field(default_factory=dict)
    on_disk: int = 0
    in_memory: int = 0

    def add(self, key: SeriesKey, place: int, instance: Instance, options: BulkOptions) -> None:
        self.groups.setdefault(key, []).append((place, instance))
        prepared, recompresses = instance.prepared, options.append.compress is not None
        self.in_memory += _INSTANCE_BYTES
        if prepared is not None:
            self.in_memory += prepared.record_bytes
            self.on_disk += prepared.facts.size if recompresses else prepared.copy_bytes
        elif recompresses or "://" in instance.dicom_uri:  # copied with its series, if its hints do not spare that
            self.on_disk += _UNKNOWN_BYTES if instance.known_size is None else instance.known_size

    def exceeds(self, options: BulkOptions) -> bool:
        """Return whether it is time to write: at half of what may be held, for as much is being written meanwhile."""
        return 2 * self.on_disk > options.held_bytes or 2 * self.in_memory > options.held_record_bytes


class BulkIngest:
    """One ingest into one store.

    Parameters
    ----------
    workshop
        Reads the files; open until the ingest is over.
    hooks
        Called one at a time, from whatever thread.
    """

    def __init__(
        self, store: ObjectStore, workshop: Workshop, options: BulkOptions, hooks: Sequence[Hook] = ()
    ) -> None:
        self._store, self._workshop, self._options = store, workshop, options
        self._recompressions: Counter[str] = Counter()
        self._saved_bytes = 0
        self._hooks = [OneAtATime([self._count, *hooks])]
        self._results: list[FileResult | None] = []
        self._last: dict[SeriesKey, Future[None]] = {}
        self._locks: set[SeriesLock] = set()
        self._writing, self._changed = 0, threading.Condition()

    def run(self, instances: Iterable[Instance | SourceFailure]) -> IngestReport:
        """Store every instance, each in its series; one bad file or series never stops the others."""
        with told_of_hooks(), ThreadPoolExecutor(SERIES_AT_ONCE, "cod-series") as pool:
            try:
                self._gather(instances, pool)
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)  # waits: what is being committed is committed, nothing else is
                with self._changed:  # a thread that was interrupted in its birth is one that the pool knows nothing of
                    self._changed.wait_for(lambda: not self._writing)
                raise
        files = tuple(result for result in self._results if result is not None)
        return IngestReport(files, dict(self._recompressions), self._saved_bytes)

    def _count(self, event: Event, /) -> None:
        if isinstance(event, InstanceRecompressed):
            self._recompressions[event.reason] += 1
            self._saved_bytes += event.saved_bytes

    def _gather(self, instances: Iterable[Instance | SourceFailure], pool: ThreadPoolExecutor) -> None:
        held = _Held()
        for item, prepared in self._workshop.prepare_all(self._announced(instances), self._job):
            place = len(self._results)
            self._results.append(None)
            try:
                key = self._key(item, prepared)
            except (CODError, OSError, ValueError) as error:
                self._failed(place, item, prepared, error)
                continue
            if isinstance(item, Instance):
                held.add(key, place, item, self._options)
            if held.exceeds(self._options):
                self._write(held, pool)
                held = _Held()
        self._write(held, pool)
        for done in list(self._last.values()):
            done.result()

    def _announced(self, instances: Iterable[Instance | SourceFailure]) -> Iterator[Instance | SourceFailure]:
        """Pass the files on, saying how many there are before the first is read, and when these are all."""
        known: deque[Instance | SourceFailure] = deque()
        files = size = unpacked = 0
        for instance in instances:
            known.append(instance)
            files, size = files + 1, size + _size_of(instance)
            unpacked += 0 if isinstance(instance, SourceFailure) else instance.temporary_bytes
            if len(known) == _LISTED_AHEAD or 2 * unpacked > self._options.held_bytes:
                emit(self._hooks, IngestPlanned(files, size, complete=False))
                yield from _drained(known)
                unpacked = 0
        emit(self._hooks, IngestPlanned(files, size, complete=True))
        yield from _drained(known)

    def _stop(self) -> None:
        """Let every series that is not decided yet be given up."""
        self._workshop.stop()
        for lock in list(self._locks):
            lock.give_up("the ingest was interrupted")

    # -- to which series a file belongs

    def _job(self, item: Instance | SourceFailure) -> Job | None:
        """Return what has to be read to know the series of a file: nothing, where it is hinted."""
        if isinstance(item, SourceFailure):
            return None
        if item.prepared is None and item.hints.study_uid is not None and item.hints.series_uid is not None:
            return None
        uri_of = partial(self._uri_of, item)
        return Job(item.source, item.hints, uri_of, item.facts, self._options.append.compress)

    def _uri_of(self, item: Instance, facts: DicomFacts) -> str:
        return member_uri(self._store.url_of(item.stored_key(facts).tar), item.stored_uid(facts.instance_uid))

    def _key(self, item: Instance | SourceFailure, prepared: Prepared | Exception | None) -> SeriesKey:
        if isinstance(item, SourceFailure):
            raise InstanceValidationError(item.uri, item.reason)
        if isinstance(prepared, Exception):
            raise item.told(prepared)
        if prepared is None:
            return item.stored_key(item.hints)
        key = item.stored_key(prepared.facts)
        item.prepared = prepared
        return key

    # -- writing

    def _write(self, held: _Held, pool: ThreadPoolExecutor) -> None:
        """Begin to write what is held, once what was held before it is written."""
        wait(self._last.values())
        for done in self._last.values():
            done.result()
        self._last = {}
        if len(held.groups) == 1:  # nothing to do beside it, and here Ctrl-C ends even a request that is under way
            self._write_series(*held.groups.popitem())
            return
        self._last = {key: pool.submit(self._write_beside, key, members) for key, members in held.groups.items()}

    def _write_beside(self, key: SeriesKey, members: Sequence[tuple[int, Instance]]) -> None:
        with self._changed:
            self._workshop.check()
            self._writing += 1
        try:
            self._write_series(key, members)
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def _write_series(self, key: SeriesKey, members: Sequence[tuple[int, Instance]]) -> None:
        outcomes: dict[int, Fate] = {}
        unknown = [instance for _, instance in members]
        try:
            look = Look.at(self._store, key)
            after = look.decided
            documents = (after,) if look.intent is None else (after, look.stored)
            unknown = [one for one in unknown if not all(self._is_stored(one, document) for document in documents)]
            if look.has_leftovers(key) and all(self._is_stored(instance, after) for instance in unknown):
                wait_seconds, lease_seconds = self._options.recovery_wait_seconds, self._options.lease_seconds
                done = recover_series(self._store, key, wait_seconds=wait_seconds, lease_seconds=lease_seconds)
                if done.outcome == "finished":  # else what was only decided may never be stored
                    unknown = []
            if unknown:
                outcomes = outcomes_of(self._append(key, look, unknown), unknown)
        except (CODError, OSError, ValueError) as error:
            self._workshop.check()  # a lock that we gave up ourselves is no error of the files
            outcomes = {id(instance): Fate.of(error) for instance in unknown}
        for place, instance in members:
            self._done(place, instance, key, outcomes.get(id(instance)))

    def _is_stored(self, instance: Instance, document: SeriesDocument | None) -> bool:
        """Return whether an instance is in a document, by its hints or by what was measured."""
        if document is None or document.hashed_uids != instance.is_hashed:
            return False
        prepared = instance.prepared
        uid = instance.find_stored_uid(instance.hints if prepared is None else prepared.facts)
        record = None if uid is None else document.find(uid)
        if prepared is None:
            return known_by_hints(instance.hints, record)
        return plan_instance(prepared.facts, record, None) == "same"

    def _append(self, key: SeriesKey, look: Look, instances: Sequence[Instance]) -> AppendResult:
        options = self._options
        lock = LockOptions(options.lease_seconds, options.wait_seconds, pause=self._workshop.pause)
        hashed = instances[0].is_hashed if look.stored is None else look.stored.hashed_uids
        writing = TransactionOptions(hashed_uids=hashed, lock=lock, tar_storage_class=options.tar_storage_class)
        transaction = Transaction.begin(self._store, key, writing, look)
        with self._stoppable(transaction):
            result = self._staged(transaction, instances)
            transaction.commit(self._hooks)
        return result

    @contextmanager
    def _stoppable(self, transaction: Transaction) -> Iterator[None]:
        lock = transaction.lock
        if lock is None:
            yield
            return
        self._locks.add(lock)
        try:
            yield
        finally:
            self._locks.discard(lock)

    def _staged(self, transaction: Transaction, instances: Sequence[Instance]) -> AppendResult:
        try:
            base = transaction.base
            version = base.metadata.version if base.metadata is not None else None
            key = transaction.series.key
            reader = None if version is None else SeriesReader(self._store, key, base.document, version)
            appender = Appender(transaction, reader, self._workshop, [NotFiles(self._hooks)])
            result = appender.append(instances, self._options.append)
            self._workshop.check()
        except BaseException:
            transaction.rollback()
            raise
        return result

    # -- accounting

    def _failed(
        self, place: int, item: Instance | SourceFailure, prepared: Prepared | Exception | None, error: Exception
    ) -> None:
        if isinstance(prepared, Prepared):
            prepared.discard()
        uri = item.uri if isinstance(item, SourceFailure) else item.original_path
        self._finish(place, FileResult(uri, "error", reason=reason_of(error), retryable=is_retryable(error)))

    def _done(self, place: int, instance: Instance, key: SeriesKey, fate: Fate | None) -> None:
        """Account for a file whose fate is known (None: the first look found it stored), and delete its copy."""
        prepared, instance.prepared = instance.prepared, None
        facts = prepared.facts if prepared is not None else instance.hints
        if prepared is not None:
            prepared.discard()
        uid = instance.find_stored_uid(facts)
        if fate is None and uid is not None:
            instance.stored_in(Series(self._store, key), uid)
        outcome, reason, retryable = fate or Fate("same")
        size_bytes = facts.size or 0
        self._finish(place, FileResult(instance.original_path, outcome, key, uid, size_bytes, reason, retryable))

    def _finish(self, place: int, result: FileResult) -> None:
        self._results[place] = result
        study_uid, series_uid = (result.series.study_uid, result.series.series_uid) if result.series else (None, None)
        done = FileDone(
            *(result.uri, result.outcome, result.size_bytes),
            *(study_uid, series_uid, result.instance_uid, result.reason),
        )
        emit(self._hooks, done)


def _size_of(item: Instance | SourceFailure) -> int:
    return 0 if isinstance(item, SourceFailure) else item.known_size or 0


def _drained(items: deque[Item]) -> Iterator[Item]:
    """Yield and forget: what became of an instance, its header too, must not be held on to."""
    while items:
        yield items.popleft()
