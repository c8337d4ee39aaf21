"""Finishing what dead writers decided, on many workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.series import SeriesStage, SeriesWork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.catalogue.selection import SelectedSeries
    from cloud_optimized_dicom.datastore import Datastore


class RecoverSeries(SeriesStage):
    """Recover series; results: `RecoveryResult`.  One that a living writer holds is a retryable dead letter."""

    def __init__(self, datastore_url: str, *, wait_seconds: float = 0) -> None:
        super().__init__(_Recover(datastore_url, wait_seconds))


class _Recover(SeriesWork):
    def __init__(self, datastore_url: str, wait_seconds: float) -> None:
        super().__init__("recover", datastore_url)
        self._wait_seconds = wait_seconds

    def work(self, datastore: Datastore, selected: SelectedSeries) -> Iterator[Any]:
        """Yield what was done to a series."""
        for result in datastore.recover([selected.key], wait_seconds=self._wait_seconds):
            if result.outcome in {"busy", "failed"}:
                yield self.refusal(result.series_uri, result.reason or "", retryable=result.outcome == "busy")
                continue
            count(f"series_{result.outcome}")
            yield result
