"""From tables and prefixes to rows, each naming one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam

from cloud_optimized_dicom.beam.bigquery import MapRows
from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.stores import StoresFn
from cloud_optimized_dicom.errors import InventoryError, StorageError
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.archives import SourceFailure, is_archive, refusal_of
from cloud_optimized_dicom.ingest.inventory import InventoryRow, iter_inventory, iter_row_sources
from cloud_optimized_dicom.ingest.public_uri import public_uri
from cloud_optimized_dicom.ingest.sources import iter_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloud_optimized_dicom.uid_hashing import UidHash

_STAGE = "inventory"
_NO_SECRETS = "pipelines record and pass on URIs without them; give the workers credentials instead"


class Inventory(NamedTuple):
    """What a reading of inventories gives.

    Attributes
    ----------
    rows
        `InventoryRow`: a file, and what is claimed of it.
    dead_letters
        `DeadLetter`: rows that name no file, and tables that cannot be used.
    """

    rows: Any
    dead_letters: Any


class ReadInventory(beam.PTransform):
    """Read the files that tables name, or that lie at given places, as `InventoryRow`.

    Parameters
    ----------
    tables
        CSV, JSON Lines, JSON or Parquet files, or folders, prefixes or patterns of such; each file is read by one
        worker, front to back.
    columns
        Which column means what; see :func:`~cloud_optimized_dicom.ingest.inventory.parse_columns`.
    sources
        Files, folders, prefixes, patterns and archives to be listed; each of them by one worker.  What the listing
        tells (sizes, checksums) become hints.
    rows
        A transform that gives the rows of another table as dicts, whose keys are names of columns:
        :class:`~cloud_optimized_dicom.beam.bigquery.BigQueryRows`, or any of Beam's.
    uid_hash_func
        As of :class:`~cloud_optimized_dicom.beam.ingest.IngestOptions`; for the dead letters of such rows, which are
        named by UIDs.  Hints stay those of the files.
    """

    def __init__(
        self,
        tables: Sequence[str] = (),
        columns: Mapping[str, str] | None = None,
        sources: Sequence[str] = (),
        rows: Any = None,
        uid_hash_func: UidHash | str | None = None,
    ) -> None:
        super().__init__()
        for place in (*tables, *sources):
            if _holds_secrets(place):
                raise ValueError(f"{public_uri(place)} was given with a password or signature: {_NO_SECRETS}")
        self._tables, self._columns, self._sources = tuple(tables), dict(columns or {}), tuple(sources)
        self._rows, self._uid_hash_func = rows, uid_hash_func

    def expand(self, begin: Any) -> Inventory:
        """Return rows and dead letters."""
        tables = (
            begin
            | "tables" >> beam.Create(self._tables)
            | "find tables" >> beam.ParDo(_FindTables()).with_outputs(DEAD_LETTERS, main=RESULTS)
        )
        # Many files of one folder are found at once; only after a shuffle are they read by many workers.
        rows = (
            tables[RESULTS]
            | "spread tables" >> beam.Reshuffle()
            | "read tables" >> _with_dead_letters(_ReadTable(self._columns))
        )
        listed = (
            begin
            | "places" >> beam.Create(self._sources)
            | "spread places" >> beam.Reshuffle()
            | "list places" >> _with_dead_letters(_ListSources())
        )
        found, dead = [rows[RESULTS], listed[RESULTS]], [each[DEAD_LETTERS] for each in (tables, rows, listed)]
        if self._rows is not None:
            mapped = begin | "query" >> self._rows | "rows" >> MapRows(self._columns, self._uid_hash_func)
            found.append(mapped[RESULTS])
            dead.append(mapped[DEAD_LETTERS])
        return Inventory(found | "all rows" >> beam.Flatten(), dead | "all dead letters" >> beam.Flatten())


def _holds_secrets(uri: str) -> bool:
    return public_uri(uri) not in {uri, uri.partition("#")[0]}


def _with_dead_letters(function: beam.DoFn) -> Any:
    return beam.ParDo(function).with_output_types(InventoryRow).with_outputs(DEAD_LETTERS, main=RESULTS)


class _FindTables(beam.DoFn):
    """From a place to the tables there."""

    def process(self, place: str) -> Iterator[Any]:
        for found in iter_sources([place]):
            yield dead_letter(_STAGE, found.uri, found.reason) if isinstance(found, SourceFailure) else found.uri


class _ReadTable(beam.DoFn):
    """From a table to its rows, archives among them taken apart."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        super().__init__()
        self._columns = dict(columns)

    def process(self, table: str) -> Iterator[Any]:
        try:
            for row in iter_inventory(table, self._columns):
                yield dead_letter(_STAGE, row.uri, row.reason) if isinstance(row, SourceFailure) else row
        except InventoryError as error:
            yield dead_letter(_STAGE, error.uri, error.reason)


class ExpandArchives(beam.PTransform):
    """Replace rows that name zip and tar archives by rows of their members, of which nothing is claimed."""

    def expand(self, rows: Any) -> Inventory:
        """Return rows and dead letters."""
        found = rows | _with_dead_letters(_Expand())
        return Inventory(found[RESULTS], found[DEAD_LETTERS])


class _Expand(StoresFn):
    def process(self, row: InventoryRow) -> Iterator[Any]:
        if not is_archive(row.uri) and refusal_of(row.uri) is None:
            yield row
            return
        if _holds_secrets(row.uri):
            yield dead_letter(_STAGE, row.uri, f"an archive with a password or signature: {_NO_SECRETS}")
            return
        with self.stores.folder() as folder:
            for found in iter_row_sources(row, None, self.stores.sources, folder):
                if isinstance(found, SourceFailure):
                    yield dead_letter(_STAGE, found.uri, found.reason)
                else:
                    source, hints = found
                    yield InventoryRow(source.uri, hints)


class _ListSources(StoresFn):
    """From a place to the files there."""

    def process(self, place: str) -> Iterator[Any]:
        try:
            with self.stores.folder() as folder:
                for found in iter_sources([place], None, folder):
                    if isinstance(found, SourceFailure):
                        yield dead_letter(_STAGE, found.uri, found.reason)
                    else:
                        yield InventoryRow(found.uri, Hints(found.size, found.crc32c))
        except StorageError as error:
            yield dead_letter(_STAGE, place, error.reason)
