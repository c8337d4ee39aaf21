"""Storing the files of series: sub-batches of bounded size, one committer for each series."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue

from cloud_optimized_dicom.append import AppendOptions
from cloud_optimized_dicom.beam.counters import MetricsHook, count
from cloud_optimized_dicom.beam.grouping import GroupKeyed
from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, RETRYABLE, DeadLetter
from cloud_optimized_dicom.beam.stores import WorkerStores
from cloud_optimized_dicom.bulk import BulkIngest, BulkOptions
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.uid_hashing import find_uid_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.ingest.inventory import InventoryRow
    from cloud_optimized_dicom.ingest.report import FileResult
    from cloud_optimized_dicom.instance import Instance
    from cloud_optimized_dicom.uid_hashing import UidHash
    from cloud_optimized_dicom.uids import SeriesKey

_STAGE = "ingest"
_UNKNOWN_BYTES = 1 << 20  # what a file is taken for whose size nobody told


@dataclass(frozen=True)
class IngestOptions:
    """How to ingest.

    Parameters
    ----------
    append
        How each series is appended to.
    wait_seconds
        How long an attempt waits for a series that another writer holds.
    lease_seconds
        How long others respect a dead worker's lock.
    attempts
        How often a file is tried; between two attempts lies a shuffle.  All of them together wait longer than a lease,
        so that a run which follows a killed one ends without leftovers.
    batch_files, batch_bytes, batch_series
        How much is written at a time.  A larger series is committed in parts; smaller ones are written side by side.
    temp_dir
        Where copies of remote files go, up to twice `batch_bytes` for each thread that a worker has; None: the default.
    tar_storage_class
        Of new tars; None: the bucket's default.
    uid_hash_func
        For series of hashed UIDs, as of :meth:`Datastore.ingest`: a function that pickles, or ``module:function`` in a
        module that every worker can import.  Rows are grouped by the same one.
    """

    append: AppendOptions = field(default_factory=AppendOptions)
    wait_seconds: float = 60
    lease_seconds: float = LockOptions.lease_seconds
    attempts: int = 3
    batch_files: int = 4000
    batch_bytes: int = 2 << 30
    batch_series: int = 64
    temp_dir: str | None = None
    tar_storage_class: str | None = None
    uid_hash_func: UidHash | str | None = None


class Ingested(NamedTuple):
    """What an ingest gives; every row is in one of the three, once.

    Attributes
    ----------
    results
        `FileResult` with the outcome "new" or "same": the file is stored.
    dead_letters
        `DeadLetter`: files that are not stored, and would not be next time.
    retryable
        `DeadLetter`: files whose series could not be written in any attempt, another writer being at it for example.
    """

    results: Any
    dead_letters: Any
    retryable: Any


class IngestSeries(beam.PTransform):
    """Store grouped rows (of :class:`~cloud_optimized_dicom.beam.grouping.GroupBySeries`) in a datastore.

    Parameters
    ----------
    datastore_url
        ``gs://bucket/prefix`` or a directory that all workers see.

    Raises
    ------
    ValueError
        If the options name a hash function that is none.

    Notes
    -----
    Idempotent: a file that is stored already is "same", so bundles may be retried, or run twice at the same time.
    """

    def __init__(self, datastore_url: str, options: IngestOptions | None = None) -> None:
        super().__init__()
        self._url, self._options = datastore_url, options or IngestOptions()
        find_uid_hash(self._options.uid_hash_func)

    def expand(self, series: Any) -> Ingested:
        """Return results, dead letters, and what is left to be tried."""
        attempts = max(1, self._options.attempts)
        results, dead = [], []
        left = None
        for attempt in range(1, attempts + 1):
            if left is not None:
                series = left | f"regroup {attempt}" >> GroupKeyed()
            function = _Ingest(self._url, self._options, is_last=attempt == attempts)
            done = series | f"ingest {attempt}" >> beam.ParDo(function).with_outputs(
                DEAD_LETTERS, RETRYABLE, main=RESULTS
            )
            results.append(done[RESULTS])
            dead.append(done[DEAD_LETTERS])
            left = done[RETRYABLE]
        return Ingested(
            tuple(results) | "results" >> beam.Flatten(), tuple(dead) | "dead letters" >> beam.Flatten(), left
        )


class _Row(NamedTuple):
    """A row, and where Beam had it."""

    key: SeriesKey
    row: InventoryRow
    timestamp: Any
    window: Any


@dataclass(slots=True)
class _Batch:
    """Rows that are to be written together."""

    rows: list[_Row] = field(default_factory=list)
    size_bytes: int = 0
    series: int = 0

    def add(self, row: _Row) -> None:
        if not self.rows or self.rows[-1].key != row.key:
            self.series += 1
        self.rows.append(row)
        self.size_bytes += _size_of(row.row)

    def has_room(self, row: _Row, options: IngestOptions) -> bool:
        """Return whether a row still fits; one always does."""
        return not self.rows or (
            len(self.rows) < options.batch_files
            and self.size_bytes + _size_of(row.row) <= options.batch_bytes
            and (self.series < options.batch_series or self.rows[-1].key == row.key)
        )


def _size_of(row: InventoryRow) -> int:
    return _UNKNOWN_BYTES if row.hints.size is None else row.hints.size


class _Ingest(beam.DoFn):
    """Writes what a bundle brings, in batches: what is smaller waits for more until the bundle ends."""

    def __init__(self, datastore_url: str, options: IngestOptions, *, is_last: bool) -> None:
        super().__init__()
        self._url, self._options, self._is_last = datastore_url, options, is_last

    def setup(self) -> None:
        """Open what the worker keeps."""
        self._exit, self._bundle = ExitStack(), ExitStack()
        self._stores = WorkerStores(self._options.temp_dir)
        self._exit.callback(self._stores.close)
        self._hook = MetricsHook()
        self._hash = find_uid_hash(self._options.uid_hash_func)
        self._batch = _Batch()

    def teardown(self) -> None:
        """Close it."""
        self._bundle.close()
        self._exit.close()

    def start_bundle(self) -> None:
        """Forget what a bundle that failed has left; its workshop was stopped, for good."""
        self._bundle.close()
        # One process: the runner has as many workers as there are processors.
        self._workshop = self._bundle.enter_context(Workshop(self._stores.scratch, 1))
        self._batch = _Batch()

    def process(
        self,
        element: tuple[SeriesKey, Iterable[InventoryRow]],
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        """Take the rows of a series, and write whatever is a full batch."""
        key, rows = element
        for row in rows:
            item = _Row(key, row, timestamp, window)
            if not self._batch.has_room(item, self._options):
                yield from self._write()
            self._batch.add(item)

    def finish_bundle(self) -> Iterator[Any]:
        """Write the rest."""
        yield from self._write()
        self._bundle.close()

    def _write(self) -> Iterator[Any]:
        batch, self._batch = self._batch, _Batch()
        if not batch.rows:
            return
        options = BulkOptions(
            self._options.append,
            self._options.wait_seconds,
            self._options.tar_storage_class,
            held_bytes=self._options.batch_bytes,
            lease_seconds=self._options.lease_seconds,
            # Behind its commit a dead worker leaves its lock: where all is stored no writer comes to take it away.
            recovery_wait_seconds=max(self._options.wait_seconds, self._options.lease_seconds),
        )
        # A shuffle leaves no order; by name, what is read together lies together, and equal batches make equal tars.
        rows = sorted(batch.rows, key=lambda item: (item.key, item.row.uri))
        ingest = BulkIngest(self._stores.store(self._url), self._workshop, options, [self._hook])
        report = ingest.run(self._instance(item.row) for item in rows)
        self._hook.flush()
        for item, result in zip(rows, report.files, strict=True):
            yield self._output(item, result)

    def _instance(self, row: InventoryRow) -> Instance:
        instance = self._stores.instance(row)
        instance.uid_hash_func = self._hash
        return instance

    def _output(self, item: _Row, result: FileResult) -> Any:
        if result.outcome in {"new", "same"}:
            count(RESULTS)
            return WindowedValue(result, item.timestamp, (item.window,))
        is_due_again = result.retryable and not self._is_last
        tag = RETRYABLE if result.retryable else DEAD_LETTERS
        count("tried_again" if is_due_again else tag)
        value = (item.key, item.row) if is_due_again else _dead(result)
        return beam.pvalue.TaggedOutput(tag, WindowedValue(value, item.timestamp, (item.window,)))


def _dead(result: FileResult) -> DeadLetter:
    return DeadLetter(_STAGE, result.uri, result.reason or result.outcome, result.retryable)
