"""Apache Beam transforms: whole archives in and out, on many workers.

They only wire: what happens to a file or a series is decided where it is for one machine.
"""

from __future__ import annotations

from importlib.util import find_spec

from cloud_optimized_dicom.errors import MissingDependencyError

if find_spec("apache_beam") is None:
    raise MissingDependencyError("a Beam pipeline", "beam")

from cloud_optimized_dicom.beam.bigquery import BigQueryRows
from cloud_optimized_dicom.beam.catalogue import CatalogueSeries
from cloud_optimized_dicom.beam.coders import SeriesKeyCoder
from cloud_optimized_dicom.beam.counters import MetricsHook, read_counters
from cloud_optimized_dicom.beam.deletion import Deleted, DeleteDependencies, DeletedSource
from cloud_optimized_dicom.beam.export import ExportSeries
from cloud_optimized_dicom.beam.grouping import GroupBySeries, Grouped
from cloud_optimized_dicom.beam.ingest import Ingested, IngestOptions, IngestSeries
from cloud_optimized_dicom.beam.inventory import Inventory, ReadInventory
from cloud_optimized_dicom.beam.migrate import MigrateSeries
from cloud_optimized_dicom.beam.recover import RecoverSeries
from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, RETRYABLE, DeadLetter, dead_letter
from cloud_optimized_dicom.beam.running import make_pipeline
from cloud_optimized_dicom.beam.selection import ReadSeries
from cloud_optimized_dicom.beam.series import Done, FoundSeries
from cloud_optimized_dicom.beam.verify import VerifySeries

__all__ = [
    "DEAD_LETTERS",
    "RESULTS",
    "RETRYABLE",
    "BigQueryRows",
    "CatalogueSeries",
    "DeadLetter",
    "DeleteDependencies",
    "Deleted",
    "DeletedSource",
    "Done",
    "ExportSeries",
    "FoundSeries",
    "GroupBySeries",
    "Grouped",
    "IngestOptions",
    "IngestSeries",
    "Ingested",
    "Inventory",
    "MetricsHook",
    "MigrateSeries",
    "ReadInventory",
    "ReadSeries",
    "RecoverSeries",
    "SeriesKeyCoder",
    "VerifySeries",
    "dead_letter",
    "make_pipeline",
    "read_counters",
]
