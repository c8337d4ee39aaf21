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
from cloud_optimized_dicom.series.files import open_range_file
from cloud_optimized_dicom.storage.base import PARALLEL_READS
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cloud_optimized_dicom.ingest.source_kinds import Source

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

    Notes
    -----
    A row whose hints name study and series is believed: its file is not opened here, and checked when it is stored.  Of
    the others a header is read, by ranges, behind a shuffle of their own.
    """

    def expand(self, rows: Any) -> Grouped:
        """Return series and dead letters."""
        files = rows | "archives" >> ExpandArchives()
        split = files.rows | "by hints" >> beam.ParDo(_KeyByHints()).with_outputs(_UNHINTED, main=RESULTS)
        read = (
            split[_UNHINTED]
            | "spread" >> beam.Reshuffle()
            | "several" >> beam.BatchElements(min_batch_size=PARALLEL_READS, max_batch_size=_BATCH_ROWS)
            | "by headers" >> beam.ParDo(_KeyByHeader()).with_outputs(DEAD_LETTERS, main=RESULTS)
        )
        keyed = (split[RESULTS], read[RESULTS]) | "keyed" >> beam.Flatten()
        dead = (files.dead_letters, read[DEAD_LETTERS]) | "dead letters" >> beam.Flatten()
        return Grouped(keyed | "group" >> GroupKeyed(), dead)


class GroupKeyed(beam.PTransform):
    """Group ``(SeriesKey, InventoryRow)`` by key; the key's coder is deterministic, whatever Beam infers."""

    def expand(self, keyed: Any) -> Any:
        """Return ``(SeriesKey, iterable of InventoryRow)``."""
        return keyed | beam.Map(_same).with_output_types(tuple[SeriesKey, InventoryRow]) | beam.GroupByKey()


def _same(pair: tuple[SeriesKey, InventoryRow]) -> tuple[SeriesKey, InventoryRow]:
    return pair


class _KeyByHints(beam.DoFn):
    def process(self, row: InventoryRow) -> Iterable[Any]:
        hints = row.hints
        if hints.study_uid is None or hints.series_uid is None:
            yield beam.pvalue.TaggedOutput(_UNHINTED, row)
        else:
            yield SeriesKey(hints.study_uid, hints.series_uid), row


class _KeyByHeader(beam.DoFn):
    """Reads the headers of many files at a time: each is a round trip or two, and hardly any work."""

    def setup(self) -> None:
        """Open what the worker keeps."""
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
                reason = getattr(key, "reason", None) or str(key)
                yield dead_letter(_STAGE, row.uri, reason, retryable=is_retryable(key))

    def _key(self, row: InventoryRow) -> SeriesKey | Exception:
        try:
            return read_source_key(self._stores.source(row.uri))
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
