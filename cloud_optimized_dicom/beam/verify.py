"""Verifying series on many workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.series import SeriesStage, SeriesWork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.catalogue.selection import SelectedSeries
    from cloud_optimized_dicom.datastore import Datastore
    from cloud_optimized_dicom.series.findings import VerifyReport


class VerifySeries(SeriesStage):
    """Verify series (of :class:`~cloud_optimized_dicom.beam.selection.ReadSeries`, or keys); results: `VerifyReport`.

    Parameters
    ----------
    deep, sample
        As of :meth:`cloud_optimized_dicom.Datastore.verify`.

    Notes
    -----
    A damaged series is a result like any other: `damaged` says so.
    """

    def __init__(self, datastore_url: str, *, deep: bool = False, sample: int | None = None) -> None:
        super().__init__(_Verify(datastore_url, deep, sample))


class _Verify(SeriesWork):
    def __init__(self, datastore_url: str, deep: bool, sample: int | None) -> None:  # noqa: FBT001
        super().__init__("verify", datastore_url)
        self._deep, self._sample = deep, sample

    def work(self, datastore: Datastore, selected: SelectedSeries) -> Iterator[VerifyReport]:
        """Yield the report of a series."""
        for report in datastore.verify([selected.key], deep=self._deep, sample=self._sample):
            count("series_verified")
            count("series_damaged", int(report.damaged))
            count("bytes_verified", report.bytes_checked)
            yield report
