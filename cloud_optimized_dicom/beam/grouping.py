"""Which series a file belongs to: by its hints, or by the first kilobytes of the file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.inventory import ExpandArchives
from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.stores import WorkerStores
from cloud_optimized_dicom.dicom.keys import read_series_key
from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.ingest.inventory import InventoryRow
from cloud_optimized_dicom.ingest.report import is_retryable
from cloud_optimized_dicom.ingest.source_kinds import ObjectSource
from cloud_optimized_dicom.ranges import PARALLEL_READS
from cloud_optimized_dicom.series.files import open_range_file
from cloud_optimized_dicom.uid_hashing import find_uid_hash, hash_key
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.uid_hashing import UidHash

_STAGE = "grouping"
_UNHINTED = "unhinted"
_BATCH_ROWS = 8 * PARALLEL_READS
_BLOCK_BYTES = 64 << 10  # in most files the UIDs of the series stand in the first of these


class Grouped(NamedTuple):
    """What a grouping gives.

    Attributes
    ----------
    series
        ``(SeriesKey, iterable of InventoryRow)``, each series once.
    dead_letters
        `DeadLetter`: files whose series cannot be known.
    """

    series: Any
    dead_letters: Any


class GroupBySeries(beam.PTransform):
    """Bring the rows of each series together.

    Parameters
    ----------
    uid_hash_func
        As of :class:`~cloud_optimized_dicom.beam.ingest.IngestOptions`; the keys are then of hashed UIDs.

    Raises
    ------
    ValueError
        If it names no function.

    Notes
    -----
    A row whose hints name study and series is believed: its file is not opened here, and checked when it is stored.  Of
    the others a header is read, by ranges, behind a shuffle of their own.
    """

    def __init__(self, uid_hash_func: UidHash | str | None = None) -> None:
        super().__init__()
        find_uid_hash(uid_hash_func)
        self._uid_hash_func = uid_hash_func

    def expand(self, rows: Any) -> Grouped:
        """Return series and dead letters."""
        files = rows | "archives" >> ExpandArchives()
        split = files.rows | "by hints" >> beam.ParDo(_KeyByHints(self._uid_hash_func)).with_outputs(
            _UNHINTED, DEAD_LETTERS, main=RESULTS
        )
        read = (
            split[_UNHINTED]
            | "spread" >> beam.Reshuffle()
            | "several" >> beam.BatchElements(min_batch_size=PARALLEL_READS, max_batch_size=_BATCH_ROWS)
            | "by headers" >> beam.ParDo(_KeyByHeader(self._uid_hash_func)).with_outputs(DEAD_LETTERS, main=RESULTS)
        )
        keyed = (split[RESULTS], read[RESULTS]) | "keyed" >> beam.Flatten()
        dead = (files.dead_letters, split[DEAD_LETTERS], read[DEAD_LETTERS]) | "dead letters" >> beam.Flatten()
        return Grouped(keyed | "group" >> GroupKeyed(), dead)


class GroupKeyed(beam.PTransform):
    """Group ``(SeriesKey, InventoryRow)`` by key; the key's coder is deterministic, whatever Beam infers."""

    def expand(self, keyed: Any) -> Any:
        """Return ``(SeriesKey, iterable of InventoryRow)``."""
        return keyed | beam.Map(_same).with_output_types(tuple[SeriesKey, InventoryRow]) | beam.GroupByKey()


def _same(pair: tuple[SeriesKey, InventoryRow]) -> tuple[SeriesKey, InventoryRow]:
    return pair


class _Keying(beam.DoFn):
    """A function that tells which series a row is stored in."""

    def __init__(self, uid_hash_func: UidHash | str | None) -> None:
        super().__init__()
        self._uid_hash_func = uid_hash_func

    def setup(self) -> None:
        """Open what the worker keeps."""
        self._hash = find_uid_hash(self._uid_hash_func)

    def stored(self, key: SeriesKey, row: InventoryRow) -> SeriesKey:
        """Return the key of the series that is stored in the place of the file's own."""
        return hash_key(self._hash, key, row.uri)

    def refusal(self, row: InventoryRow, error: Exception) -> Any:
        """Return a dead letter."""
        reason = getattr(error, "reason", None) or str(error)
        return dead_letter(_STAGE, row.uri, reason, retryable=is_retryable(error))


class _KeyByHints(_Keying):
    def process(self, row: InventoryRow) -> Iterable[Any]:
        hints = row.hints
        if hints.study_uid is None or hints.series_uid is None:
            yield beam.pvalue.TaggedOutput(_UNHINTED, row)
            return
        try:
            yield self.stored(SeriesKey(hints.study_uid, hints.series_uid), row), row
        except CODError as error:
            yield self.refusal(row, error)


class _KeyByHeader(_Keying):
    """Reads the headers of many files at a time: each is a round trip or two, and hardly any work."""

    def setup(self) -> None:
        """Open what the worker keeps."""
        super().setup()
        self._stores = WorkerStores()
        self._pool = ThreadPoolExecutor(PARALLEL_READS, "cod-header")

    def teardown(self) -> None:
        """Close it."""
        self._pool.shutdown()
        self._stores.close()

    def process(self, rows: Sequence[InventoryRow]) -> Iterator[Any]:
        """Give each row its key."""
        count("headers_read", len(rows))
        for row, key in zip(rows, self._pool.map(self._key, rows), strict=True):
            if isinstance(key, SeriesKey):
                yield key, row
            else:
                yield self.refusal(row, key)

    def _key(self, row: InventoryRow) -> SeriesKey | Exception:
        try:
            return self.stored(read_source_key(self._stores.source(row.uri)), row)
        except (CODError, OSError, ValueError) as error:
            return error


def read_source_key(source: Source) -> SeriesKey:
    """Return the series of a file; of a plain object only the first blocks are fetched.

    Raises
    ------
    InstanceValidationError
        If it is no DICOM file, or one without usable UIDs.
    StorageError
        If the store refuses.
    """
    if not isinstance(source, ObjectSource) or source.span is not None:
        with source.open() as stream:
            return read_series_key(stream, source.uri)
    info = source.store.stat(source.name)
    found = ObjectSource.of(source.store, info)
    if not isinstance(found, ObjectSource):  # gzip has to be unpacked from the front
        return read_source_key(found)
    store, name, version = source.store, source.name, info.version
    with open_range_file(
        lambda span: store.read(name, span, version=version), info.size, _BLOCK_BYTES, whole_bytes=_BLOCK_BYTES
    ) as stream:
        return read_series_key(stream, source.uri)
