"""Inventories in BigQuery: rows of a query or a table, by the same rules as the rows of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam

from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.errors import HashedUidsError, InvalidUidError
from cloud_optimized_dicom.ingest.archives import SourceFailure
from cloud_optimized_dicom.ingest.inventory import InventoryRow
from cloud_optimized_dicom.ingest.inventory.rows import SAMPLE_ROWS, columns_of, parse_row
from cloud_optimized_dicom.ingest.inventory.tables import Record
from cloud_optimized_dicom.uid_hashing import find_uid_hash, hash_uid
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloud_optimized_dicom.ingest.inventory.columns import Columns
    from cloud_optimized_dicom.uid_hashing import UidHash

_STAGE = "inventory"
_TABLE = "rows"  # what dead letters call a table that has no name


class BigQueryRows(beam.PTransform):
    """Read the rows of a query or of a table, as dicts; to be given to `ReadInventory`.

    Parameters
    ----------
    query
        In GoogleSQL; the project of the pipeline pays for it.
    table
        ``project:dataset.table``, read as it is at that moment.

    Notes
    -----
    BigQuery exports the rows to the pipeline's ``--temp_location``, which has to be in Google Cloud Storage.
    """

    def __init__(self, query: str | None = None, table: str | None = None) -> None:
        super().__init__()
        if (query is None) == (table is None):
            raise ValueError("either a query or a table")
        self._query, self._table = query, table

    def expand(self, begin: Any) -> Any:
        """Return the rows."""
        from apache_beam.io.gcp.bigquery import ReadFromBigQuery  # noqa: PLC0415 - loads its SDK; few pipelines need it

        if self._query is not None:
            return begin | ReadFromBigQuery(query=self._query, use_standard_sql=True)
        return begin | ReadFromBigQuery(table=self._table)


class MapRows(beam.PTransform):
    """From dicts, whose keys are the names of columns, to `InventoryRow` and dead letters, both tagged.

    Parameters
    ----------
    columns
        Which column means what, where its name does not tell.
    uid_hash_func
        As of :class:`~cloud_optimized_dicom.beam.ingest.IngestOptions`; dead letters name rows by hashed UIDs then.

    Notes
    -----
    Like the beginning of a file, a sample of the rows tells which columns there are, and how checksums are written.
    Rows without a column that says where files are give one dead letter together.
    """

    def __init__(self, columns: Mapping[str, str], uid_hash_func: UidHash | str | None = None) -> None:
        super().__init__()
        find_uid_hash(uid_hash_func)
        self._columns, self._uid_hash_func = dict(columns), uid_hash_func

    def expand(self, rows: Any) -> Any:
        """Return rows and dead letters, by tag."""
        sample = rows | "sample" >> beam.combiners.Sample.FixedSizeGlobally(SAMPLE_ROWS)
        known = sample | "columns" >> beam.FlatMap(_resolved, self._columns).with_outputs(DEAD_LETTERS, main=RESULTS)
        mapped = rows | "map" >> beam.FlatMap(
            _mapped, beam.pvalue.AsList(known[RESULTS]), self._uid_hash_func
        ).with_output_types(InventoryRow).with_outputs(DEAD_LETTERS, main=RESULTS)
        dead = (known[DEAD_LETTERS], mapped[DEAD_LETTERS]) | "dead" >> beam.Flatten()
        return {RESULTS: mapped[RESULTS], DEAD_LETTERS: dead}


def _resolved(sample: Sequence[Mapping[str, Any]], given: Mapping[str, str]) -> Iterator[Any]:
    names = list(dict.fromkeys(name for cells in sample for name in cells))
    if not names:
        return
    try:
        yield columns_of(names, sample, given)
    except ValueError as error:
        yield dead_letter(_STAGE, _TABLE, str(error))


def _mapped(cells: Mapping[str, Any], known: Sequence[Columns], uid_hash_func: UidHash | str | None) -> Iterator[Any]:
    for columns in known:  # one, or none where a dead letter has told why
        row = _parsed("row", columns, cells)
        if isinstance(row, SourceFailure) and (uid := _told_uid(columns, cells, uid_hash_func)):
            row = _parsed(f"row of instance {uid}", columns, cells)
        if isinstance(row, SourceFailure):
            yield dead_letter(_STAGE, row.uri, row.reason)
        elif row is not None:
            yield row


def _parsed(place: str, columns: Columns, cells: Mapping[str, Any]) -> InventoryRow | SourceFailure | None:
    return parse_row(place, columns, Record(place, dict(cells)))


def _told_uid(columns: Columns, cells: Mapping[str, Any], uid_hash_func: UidHash | str | None) -> str | None:
    """Return the UID that a row may be named by: nothing but a UID, whatever that column holds, and a hashed one."""
    uid: Any = cells.get(columns.instance_uid) if columns.instance_uid else None
    if not is_uid(uid):
        return None
    hash_function = find_uid_hash(uid_hash_func)
    try:
        return str(uid) if hash_function is None else hash_uid(hash_function, uid, "row")
    except (HashedUidsError, InvalidUidError):
        return None
