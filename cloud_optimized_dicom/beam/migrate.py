"""Bringing series of older writers to the present format, on many workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.series import SeriesStage, SeriesWork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.catalogue.selection import SelectedSeries
    from cloud_optimized_dicom.datastore import Datastore


class MigrateSeries(SeriesStage):
    """Migrate series; results: `RepairResult`, whose `actions` are empty where nothing had to be done.

    Parameters
    ----------
    dry_run
        Write nothing.
    wait_seconds
        How long to wait for a series that another writer holds; after that it is a retryable dead letter.
    """

    def __init__(self, datastore_url: str, *, dry_run: bool = False, wait_seconds: float = 60) -> None:
        super().__init__(_Migrate(datastore_url, dry_run, wait_seconds))


class _Migrate(SeriesWork):
    def __init__(self, datastore_url: str, dry_run: bool, wait_seconds: float) -> None:  # noqa: FBT001
        super().__init__("migrate", datastore_url)
        self._dry_run, self._wait_seconds = dry_run, wait_seconds

    def work(self, datastore: Datastore, selected: SelectedSeries) -> Iterator[Any]:
        """Yield what was done to a series."""
        results = datastore.migrate([selected.key], dry_run=self._dry_run, wait_seconds=self._wait_seconds)
        for result in results:
            if result.reason is not None:
                yield self.refusal(result.series_uri, result.reason, retryable=result.busy)
                continue
            done = "series_to_migrate" if self._dry_run else "series_migrated"
            count(done if result.actions else "series_as_they_should_be")
            yield result
