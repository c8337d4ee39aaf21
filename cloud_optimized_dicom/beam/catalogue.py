"""A catalogue built by many workers: each brings whole partitions up to date, and one publishes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import apache_beam as beam

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.series import Done
from cloud_optimized_dicom.beam.stores import StoresFn
from cloud_optimized_dicom.catalogue.partition import PartitionTask, update_partition
from cloud_optimized_dicom.catalogue.update import UpdatePlan, plan_update, publish_results
from cloud_optimized_dicom.errors import PreconditionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.catalogue.partition import PartitionResult

_STAGE = "catalogue"
_TASKS = "tasks"
_READERS = 8


class CatalogueSeries(beam.PTransform):
    """Build the catalogue of a datastore or bring it up to date; the result is one `CatalogueReport`.

    Parameters
    ----------
    partitions
        In how many parts a first build cuts the tables: as many workers are of use.  None: one per 4000 series.
    rebuild
        Read every series, whatever the catalogue knows.

    Notes
    -----
    Dead letters are series that cannot be read, and a catalogue that another run has published meanwhile.  Workers
    write files under names of their own; nothing of them is visible before all of them are published in one step, so
    bundles may be retried or run twice.  What such a bundle leaves, the next run deletes.
    """

    def __init__(
        self, datastore_url: str, catalogue_url: str, *, partitions: int | None = None, rebuild: bool = False
    ) -> None:
        super().__init__()
        self._plan = _Plan(datastore_url, catalogue_url, partitions, rebuild)

    def expand(self, begin: Any) -> Done:
        """Return the report and the dead letters."""
        planned = begin | beam.Create([None]) | "plan" >> beam.ParDo(self._plan).with_outputs(_TASKS, main=RESULTS)
        # Behind a shuffle a plan stays what it is, however often what follows is tried.
        plan = planned[RESULTS] | "keep the plan" >> beam.Reshuffle()
        parts = planned[_TASKS] | "spread" >> beam.Reshuffle() | "update" >> beam.ParDo(_Update()) | beam.Reshuffle()
        published = plan | "publish" >> beam.FlatMap(_publish, beam.pvalue.AsList(parts)).with_outputs(
            DEAD_LETTERS, main=RESULTS
        )
        return Done(published[RESULTS], published[DEAD_LETTERS])


class _Plan(StoresFn):
    def __init__(self, datastore_url: str, catalogue_url: str, partitions: int | None, rebuild: bool) -> None:  # noqa: FBT001
        super().__init__()
        self._datastore_url, self._catalogue_url = datastore_url, catalogue_url
        self._partitions, self._rebuild = partitions, rebuild

    def process(self, _: None) -> Iterator[Any]:
        """Yield what is to be done; the tasks, which name every series, one by one."""
        stores = self.stores.store(self._datastore_url), self.stores.store(self._catalogue_url)
        plan = plan_update(*stores, partitions=self._partitions, rebuild=self._rebuild)
        yield replace(plan, tasks=())
        for task in plan.tasks:
            yield beam.pvalue.TaggedOutput(_TASKS, task)


class _Update(StoresFn):
    def process(self, task: PartitionTask) -> Iterator[Any]:
        """Bring a partition up to date, with the worker's connections and not those that travelled with the task."""
        datastore, catalogue = (self.stores.store(store.url) for store in (task.datastore, task.catalogue))
        result = update_partition(replace(task, datastore=datastore, catalogue=catalogue), _READERS)
        count("series_read", result.read)
        count("series_kept", result.kept)
        yield result


def _publish(plan: UpdatePlan, results: Iterable[PartitionResult]) -> Iterator[Any]:
    try:
        report = publish_results(plan, results)
    except PreconditionFailedError:
        yield dead_letter(_STAGE, plan.catalogue.url, "another run has published it meanwhile", retryable=True)
        return
    for uri, error in report.failures:
        yield dead_letter(_STAGE, uri, str(error))
    yield report
