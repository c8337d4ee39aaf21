"""Inventories in BigQuery: rows of a query or a table, by the same rules as the rows of a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import apache_beam as beam

from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.ingest.archives import SourceFailure
from cloud_optimized_dicom.ingest.inventory import InventoryRow
from cloud_optimized_dicom.ingest.inventory.rows import SAMPLE_ROWS, columns_of, parse_row
from cloud_optimized_dicom.ingest.inventory.tables import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloud_optimized_dicom.ingest.inventory.columns import Columns

_STAGE = "inventory"
_UID = re.compile(r"[0-9.]{1,64}")
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

    Notes
    -----
    Like the beginning of a file, a sample of the rows tells which columns there are, and how checksums are written.
    Rows without a column that says where files are give one dead letter together.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        super().__init__()
        self._columns = dict(columns)

    def expand(self, rows: Any) -> Any:
        """Return rows and dead letters, by tag."""
        sample = rows | "sample" >> beam.combiners.Sample.FixedSizeGlobally(SAMPLE_ROWS)
        known = sample | "columns" >> beam.FlatMap(_resolved, self._columns).with_outputs(DEAD_LETTERS, main=RESULTS)
        mapped = rows | "map" >> beam.FlatMap(_mapped, beam.pvalue.AsList(known[RESULTS])).with_output_types(
            InventoryRow
        ).with_outputs(DEAD_LETTERS, main=RESULTS)
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


def _mapped(cells: Mapping[str, Any], known: Sequence[Columns]) -> Iterator[Any]:
    for columns in known:  # one, or none where a dead letter has told why
        uid = cells.get(columns.instance_uid) if columns.instance_uid else None
        # Nothing but a UID may be told, whatever that column holds.
        place = f"row of instance {uid}" if _UID.fullmatch(str(uid)) else "row"
        row = parse_row(place, columns, Record(place, dict(cells)))
        if isinstance(row, SourceFailure):
            yield dead_letter(_STAGE, row.uri, row.reason)
        elif row is not None:
            yield row
