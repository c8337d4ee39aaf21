"""Bringing series of older writers to the present format, on many workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.series import SeriesStage, SeriesWork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.catalogue.selection import SelectedSeries
    from cloud_optimized_dicom.datastore import Datastore
    from cloud_optimized_dicom.series.migrate import MetadataVersion


class MigrateSeries(SeriesStage):
    """Migrate series; results: `RepairResult`, whose `actions` are empty where nothing had to be done.

    Parameters
    ----------
    to
        As `Datastore.migrate`.
    dry_run
        Write nothing.
    wait_seconds
        How long to wait for a series that another writer holds; after that it is a retryable dead letter.
    """

    def __init__(
        self, datastore_url: str, *, to: MetadataVersion | None = None, dry_run: bool = False, wait_seconds: float = 60
    ) -> None:
        super().__init__(_Migrate(datastore_url, {"to": to, "dry_run": dry_run, "wait_seconds": wait_seconds}))


class _Migrate(SeriesWork):
    def __init__(self, datastore_url: str, options: dict[str, Any]) -> None:
        super().__init__("migrate", datastore_url)
        self._options = options

    def work(self, datastore: Datastore, selected: SelectedSeries) -> Iterator[Any]:
        """Yield what was done to a series."""
        for result in datastore.migrate([selected.key], **self._options):
            if result.reason is not None:
                yield self.refusal(result.series_uri, result.reason, retryable=result.busy)
                continue
            done = "series_to_migrate" if self._options["dry_run"] else "series_migrated"
            count(done if result.actions else "series_as_they_should_be")
            yield result
