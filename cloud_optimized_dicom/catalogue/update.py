"""Building and updating a catalogue: list, bring each partition up to date, publish, tidy."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloud_optimized_dicom.catalogue.manifest import (
    TABLES,
    Found,
    Manifest,
    PartitionFiles,
    find_manifest,
    is_table_file,
    partition_of,
    publish,
    write_lists,
)
from cloud_optimized_dicom.catalogue.partition import CatalogueFailure, Listed, PartitionTask, update_partition
from cloud_optimized_dicom.errors import ConflictError, PreconditionFailedError, StorageError
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from cloud_optimized_dicom.catalogue.partition import PartitionResult
    from cloud_optimized_dicom.datastore import Datastore
    from cloud_optimized_dicom.storage.base import ObjectStore

SERIES_A_PARTITION = 4000
"""About how many series a partition gets where the caller does not say how many partitions there are to be."""

MAX_PARTITIONS = 1024
_PUBLISH_SECONDS = 5.0
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class CatalogueReport:
    """What an update did.

    Parameters
    ----------
    uri
        Where the catalogue is.
    series, instances
        Rows of the two tables now.
    read, kept, removed
        Series that were new or changed, that were as they are on record, and that are no more.
    partitions
        How many partitions have rows.
    failures
        Series that could not be read.
    """

    uri: str
    series: int
    instances: int
    read: int
    kept: int
    removed: int
    partitions: int
    failures: tuple[CatalogueFailure, ...]

    @property
    def ok(self) -> bool:
        """Whether every series is in the catalogue as it is."""
        return not self.failures

    @classmethod
    def of(cls, uri: str, manifest: Manifest, results: Iterable[PartitionResult]) -> CatalogueReport:
        """Return the report of a manifest that was published and of how its partitions came about."""
        results = list(results)
        return cls(
            uri,
            sum(files.series_rows for files in manifest.files.values()),
            sum(files.instance_rows for files in manifest.files.values()),
            sum(result.read for result in results),
            sum(result.kept for result in results),
            sum(result.removed for result in results),
            len(manifest.files),
            tuple(failure for result in results for failure in result.failures),
        )


@dataclass(frozen=True)
class UpdatePlan:
    """What an update is to do; it pickles.

    Parameters
    ----------
    base
        The manifest that was found.
    manifest
        What the results are to be put into: that of `base`, or an empty one.
    tasks
        One per partition that has series, or had some.
    leftovers
        Files, and their versions, that no manifest names: of runs that died, and those that the last run replaced.
    write_id
        Of the publication, for who has to be able to repeat it.
    """

    catalogue: ObjectStore
    base: Found
    manifest: Manifest
    tasks: tuple[PartitionTask, ...]
    leftovers: tuple[tuple[str, str | None], ...]
    write_id: str


def plan_update(
    store: ObjectStore, catalogue: ObjectStore, *, partitions: int | None = None, rebuild: bool = False
) -> UpdatePlan:
    """List a datastore and return what its catalogue needs; nothing is written.

    Raises
    ------
    StorageError
        If the catalogue is that of another datastore, or has another number of partitions, and is not to be rebuilt.
    MetadataError
        If its manifest is damaged.
    """
    base = find_manifest(catalogue)
    present = [(info.name, info.version) for table in TABLES for info in catalogue.list(f"{table}/")]
    listed = list(_iter_listed(store))
    manifest = base.manifest
    if manifest is None or rebuild:
        auto = min(MAX_PARTITIONS, max(1, -(-len(listed) // SERIES_A_PARTITION)))
        manifest = Manifest(store.url, partitions or auto, {})
    elif manifest.datastore != store.url:
        raise StorageError(catalogue.url, f"is the catalogue of {manifest.datastore}; it can be rebuilt")
    elif partitions not in {None, manifest.partitions}:
        raise StorageError(catalogue.url, f"has {manifest.partitions} partitions; it can be rebuilt with others")
    named = base.manifest.names if base.manifest else set()
    leftovers = tuple((name, version) for name, version in present if is_table_file(name) and name not in named)
    tasks = tuple(_iter_tasks(store, catalogue, manifest, listed))
    return UpdatePlan(catalogue, base, manifest, tasks, leftovers, new_write_id())


def _iter_listed(store: ObjectStore) -> Iterator[Listed]:
    for info in store.list("studies/"):
        if info.name.endswith("/metadata.json"):
            key = SeriesKey.parse(info.name)
            if key is not None and key.metadata == info.name:
                yield Listed(key.study_uid, key.series_uid, info.version)


def _iter_tasks(
    store: ObjectStore, catalogue: ObjectStore, manifest: Manifest, listed: Iterable[Listed]
) -> Iterator[PartitionTask]:
    groups: dict[int, list[Listed]] = {number: [] for number in manifest.files}
    for one in listed:
        groups.setdefault(partition_of(one.study_uid, manifest.partitions), []).append(one)
    for number, members in sorted(groups.items()):
        yield PartitionTask(store, catalogue, number, tuple(members), manifest.files.get(number))


def publish_results(plan: UpdatePlan, results: Iterable[PartitionResult]) -> CatalogueReport:
    """Make all results of a plan visible in one step, and tidy up; it may be repeated.

    Raises
    ------
    PreconditionFailedError
        If another run has published since the plan was made; nothing has changed.
    """
    results = list(results)
    manifest = plan.manifest.changed(_files_of(results))
    if manifest != plan.base.manifest:
        publish(plan.catalogue, plan.base, manifest, plan.write_id)
    tidy(plan, manifest)
    return CatalogueReport.of(plan.catalogue.url, manifest, results)


def tidy(plan: UpdatePlan, manifest: Manifest) -> None:
    """Delete what the plan found to be left over, and bring the lists of files up to date.

    Notes
    -----
    Files that this update has replaced stay until the next one: who opened the catalogue before it goes on reading.
    """
    names = manifest.names
    plan.catalogue.delete_all([found for found in plan.leftovers if found[0] not in names])
    write_lists(plan.catalogue, manifest)


def _files_of(results: Iterable[PartitionResult]) -> dict[int, PartitionFiles | None]:
    return {result.number: result.files for result in results}


def update_catalogue(
    datastore: Datastore,
    destination: str | os.PathLike[str] | ObjectStore,
    *,
    partitions: int | None = None,
    workers: int = 8,
    rebuild: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CatalogueReport:
    """Build the catalogue of a datastore, or bring it up to date.

    Parameters
    ----------
    destination
        Where it is: a local folder, or the URL of any store.
    partitions
        In how many parts a first build cuts the tables; None: one per 4000 series.
    workers
        How many series are read at a time; the metadata of so many is held, and no more.
    rebuild
        Read every series, whatever the catalogue knows.
    progress
        Called with the number of series read and the number of those that may have to be.

    Returns
    -------
    CatalogueReport
        A series that cannot be read is a failure in it, and stops no other.

    Raises
    ------
    StorageError
        If the catalogue is that of another datastore, or a store fails.
    ConflictError
        If other runs keep publishing at the same time.
    MissingDependencyError
        Without the extra ``export``.

    Notes
    -----
    One listing tells which metadata.json have another version than the catalogue was made from: only these are read.
    A partition becomes visible as a whole, with both its tables, by one conditional write of ``catalogue.json``; a run
    that dies leaves the catalogue as it was, or with some partitions done, and the next one goes on.
    """
    catalogue = open_store(destination)
    for _ in range(_ATTEMPTS):
        plan = plan_update(datastore.store, catalogue, partitions=partitions, rebuild=rebuild)
        try:
            return _Update(plan, progress).run(max(1, workers))
        except PreconditionFailedError:
            continue  # another run was faster: go on from what it has published
    raise ConflictError(catalogue.url, "other runs keep publishing this catalogue")


class _Update:
    def __init__(self, plan: UpdatePlan, progress: Callable[[int, int], None] | None) -> None:
        self._plan, self._progress = plan, progress
        self._done, self._total = 0, sum(len(task.listed) for task in plan.tasks)
        # A new number of partitions shares no file with the old one: then everything is published at once.
        self._at_once = plan.manifest is not plan.base.manifest and plan.base.manifest is not None

    def run(self, workers: int) -> CatalogueReport:
        results: list[PartitionResult] = []
        plan, told = self._plan, time.monotonic()
        for task in self._plan.tasks:
            results.append(update_partition(task, workers, self._advance))
            self._done += results[-1].kept
            if not self._at_once and time.monotonic() - told > _PUBLISH_SECONDS:
                plan, told = self._publish(plan, results), time.monotonic()
        return publish_results(plan, results)

    def _publish(self, plan: UpdatePlan, results: list[PartitionResult]) -> UpdatePlan:
        """Make visible what is done so far; return the plan to go on with."""
        manifest = plan.manifest.changed(_files_of(results))
        if manifest == plan.base.manifest:
            return plan
        base = publish(plan.catalogue, plan.base, manifest, new_write_id())
        return replace(plan, base=base, manifest=manifest)

    def _advance(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
