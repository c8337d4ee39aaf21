"""Exporting series on many workers: as trees of DICOM files, or as rows with frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.series import SeriesStage, SeriesWork
from cloud_optimized_dicom.catalogue.frames import FrameTable
from cloud_optimized_dicom.export.copy import copy_series
from cloud_optimized_dicom.ingest.report import is_retryable
from cloud_optimized_dicom.uid_hashing import find_uid_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.catalogue.selection import SelectedSeries
    from cloud_optimized_dicom.datastore import Datastore

Kind = Literal["dicom", "parquet"]


class ExportSeries(SeriesStage):
    """Export series; results: `CopiedSeries`, or `FrameRows`.

    Parameters
    ----------
    destination_url
        A folder that all workers see, or the URL of a store.
    kind
        ``"dicom"``: ``STUDY_UID/SERIES_UID/SOP_UID.dcm``, byte for byte; ``"parquet"``:
        ``STUDY_UID/SERIES_UID.parquet`` with a row per frame and its bytes as stored.
    hash_uid
        ``module:function`` of a function that gives each UID's replacement; importable on every worker.  Names and
        columns show what it gives.  The bytes of DICOM files are never changed, and still hold their own UIDs.

    Raises
    ------
    ValueError
        If `hash_uid` names no function.

    Notes
    -----
    Idempotent: what is there and equal is left alone.  Dead letters are series, and single instances of them.
    """

    def __init__(
        self, datastore_url: str, destination_url: str, *, kind: Kind = "dicom", hash_uid: str | None = None
    ) -> None:
        find_uid_hash(hash_uid)
        super().__init__(_Export(datastore_url, destination_url, kind, hash_uid))


class _Export(SeriesWork):
    def __init__(self, datastore_url: str, destination_url: str, kind: Kind, hash_uid: str | None) -> None:
        super().__init__("export", datastore_url)
        self._destination_url, self._kind, self._hash_uid = destination_url, kind, hash_uid

    def setup(self) -> None:
        """Open what the worker keeps."""
        super().setup()
        self._hash = find_uid_hash(self._hash_uid)

    def work(self, datastore: Datastore, selected: SelectedSeries) -> Iterator[Any]:
        """Yield what was done to a series, and what could not be had of it."""
        destination = self.stores.store(self._destination_url)
        key, uids = selected
        if self._kind == "parquet":
            table = FrameTable(datastore.store, key, uids=uids, hash_uid=self._hash)
            rows = table.write(destination)
            count("frames_exported", rows.rows)
            yield rows
            yield from self._refused(rows.failures)
            return
        copied = copy_series(datastore.store, key, destination, uids=uids, hash_uid=self._hash)
        count("files_exported", copied.written)
        count("files_present", copied.present)
        count("bytes_exported", copied.written_bytes)
        yield copied
        yield from self._refused(copied.failures)

    def _refused(self, failures: Iterable[tuple[str, Exception]]) -> Iterator[Any]:
        for uri, error in failures:
            yield self.refusal(uri, str(error), retryable=is_retryable(error))
