"""Store the files of an inventory, or of a prefix, in a datastore: ``python -m pipelines.ingest --help``.

On this machine by default; on Dataflow, with ``--runner=DataflowRunner`` and its flags.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import apache_beam as beam

from cloud_optimized_dicom.append import AppendOptions, parse_target
from cloud_optimized_dicom.beam import (
    BigQueryRows,
    DeleteDependencies,
    GroupBySeries,
    Ingested,
    IngestOptions,
    IngestSeries,
    ReadInventory,
)
from cloud_optimized_dicom.dicom.transcode.model import Target
from cloud_optimized_dicom.errors import MissingDependencyError
from cloud_optimized_dicom.ingest.inventory import parse_columns
from cloud_optimized_dicom.uid_hashing import find_uid_hash
from pipelines.over_series import add_switch, make_parser, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _columns(text: str) -> Mapping[str, str]:
    try:
        return parse_columns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def make_options() -> argparse.ArgumentParser:
    """Return the parser of our options."""
    parser = make_parser("ingest", __doc__)
    add = parser.add_argument
    add("--inventory", action="append", default=[], metavar="TABLE", help="CSV, JSON Lines or Parquet; or a folder")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--bigquery_sql", metavar="QUERY", help="an inventory that BigQuery is asked for, in GoogleSQL")
    rows.add_argument("--bigquery_table", metavar="PROJECT:DATASET.TABLE", help="an inventory that is such a table")
    add("--columns", type=_columns, default={}, metavar="MEANING=COLUMN,...", help="where names do not tell")
    add("--source", action="append", default=[], help="a file, folder, prefix, pattern or archive to be listed")
    add_switch(parser, "--delete_sources", "delete what is stored and verified to be the very same bytes")
    add_switch(parser, "--treat_metadata_diffs_as_same", "take files with the stored pixels for stored")
    add("--compress", choices=[each.value for each in Target], help="recompress new instances to it, without loss")
    add(
        "--uid_hash",
        metavar="MODULE:FUNCTION",
        help="store under what this function makes of each UID; every worker imports it",
    )
    add("--storage_class", metavar="CLASS", help="of new tars: NEARLINE, ARCHIVE ... (default: the bucket's)")
    add("--wait_seconds", type=float, default=IngestOptions.wait_seconds, help="for a series that another one writes")
    add("--lease_seconds", type=float, default=IngestOptions.lease_seconds, help="how long a dead worker's lock holds")
    add("--attempts", type=int, default=IngestOptions.attempts, help="how often a file is tried (default: %(default)s)")
    add("--batch_bytes", type=int, default=IngestOptions.batch_bytes, help="written at a time (default: %(default)s)")
    add("--temp_dir", help="where a worker keeps copies of the files that it is writing")
    return parser


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return our options, and the flags that are Beam's."""
    parser = make_options()
    known, flags = parser.parse_known_args(argv)
    if not (known.inventory or known.source or known.bigquery_sql or known.bigquery_table):
        parser.error("what to store? Name an --inventory, a --source, or --bigquery_sql or --bigquery_table")
    try:
        find_uid_hash(known.uid_hash)
        known.compress = parse_target(known.compress or False)
    except (MissingDependencyError, ValueError) as error:
        parser.error(str(error))
    return known, flags


def build(pipeline: beam.Pipeline, known: argparse.Namespace) -> Ingested:
    """Wire the pipeline."""
    options = IngestOptions(
        AppendOptions(known.treat_metadata_diffs_as_same, compress=known.compress),
        known.wait_seconds,
        known.lease_seconds,
        known.attempts,
        batch_bytes=known.batch_bytes,
        temp_dir=known.temp_dir,
        tar_storage_class=known.storage_class,
        uid_hash_func=known.uid_hash,
    )
    asked = known.bigquery_sql or known.bigquery_table
    rows = BigQueryRows(known.bigquery_sql, known.bigquery_table) if asked else None
    inventory = pipeline | "read" >> ReadInventory(known.inventory, known.columns, known.source, rows, known.uid_hash)
    grouped = inventory.rows | "by series" >> GroupBySeries(known.uid_hash)
    done = grouped.series | "ingest" >> IngestSeries(known.store, options)
    dead = [inventory.dead_letters, grouped.dead_letters, done.dead_letters]
    if known.delete_sources:
        dead.append((done.results | "delete sources" >> DeleteDependencies(known.store)).dead_letters)
    return Ingested(done.results, dead | beam.Flatten(), done.retryable)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the counters, and return the exit code."""
    known, flags = parse(argv)
    return run(known, flags, lambda pipeline: build(pipeline, known))


if __name__ == "__main__":
    sys.exit(main())
