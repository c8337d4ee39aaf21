"""Stages whose elements are stored series: which series, and what is common to whatever is done to one."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam

from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.stores import WorkerStores
from cloud_optimized_dicom.catalogue import Catalogue, select_uids
from cloud_optimized_dicom.catalogue.selection import SelectedSeries
from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.ingest.report import is_retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloud_optimized_dicom.uids import SeriesKey


class Done(NamedTuple):
    """What a stage over series gives; every series is in one of the two.

    Attributes
    ----------
    results
        What was done, a value per series; its type is the stage's.
    dead_letters
        `DeadLetter`: series that it could not be done to.
    """

    results: Any
    dead_letters: Any


class ReadSeries(beam.PTransform):
    """Find the series of a datastore, as `SelectedSeries`: the key, and the instances that are meant (None: all).

    Parameters
    ----------
    uids
        Only series of these studies, and these series; empty: all.
    catalogue_url, sql
        Instead of listing: the series, or the instances, that the rows of a query name; see
        :func:`~cloud_optimized_dicom.catalogue.select_uids`.
    """

    def __init__(
        self, datastore_url: str, uids: Sequence[str] = (), catalogue_url: str | None = None, sql: str | None = None
    ) -> None:
        super().__init__()
        if (catalogue_url is None) != (sql is None):
            raise ValueError("a query needs a catalogue, and a catalogue a query")
        self._url, self._uids = datastore_url, frozenset(uids)
        self._catalogue_url, self._sql = catalogue_url, sql

    def expand(self, begin: Any) -> Any:
        """Return the series, spread over the workers."""
        if self._catalogue_url is not None:
            found = begin | beam.Create([(self._catalogue_url, self._sql)]) | "ask" >> beam.FlatMap(_selected)
        else:
            found = (
                begin
                | beam.Create([self._url])
                | "list studies" >> beam.FlatMap(_studies)
                | "spread studies" >> beam.Reshuffle()
                | "list series" >> beam.FlatMap(_series, self._url)
            )
        wanted = found | "wanted" >> beam.Filter(_is_wanted, self._uids)
        return wanted | "spread series" >> beam.Reshuffle()


def _selected(asked: tuple[str, str]) -> Sequence[SelectedSeries]:
    with Catalogue(asked[0]) as catalogue:
        return select_uids(catalogue, asked[1])


def _studies(datastore_url: str) -> Iterator[str]:
    return Datastore(datastore_url).studies()


def _series(study_uid: str, datastore_url: str) -> Iterator[SelectedSeries]:
    for key in Datastore(datastore_url).series(study_uid, incomplete=True):
        yield SelectedSeries(key, None)


def _is_wanted(selected: SelectedSeries, uids: frozenset[str]) -> bool:
    return not uids or not uids.isdisjoint({selected.key.study_uid, selected.key.series_uid})


class SeriesStage(beam.PTransform):
    """Something that is done to series, one at a time, by a function of `SeriesWork`."""

    def __init__(self, work: SeriesWork) -> None:
        super().__init__()
        self._work = work

    def expand(self, series: Any) -> Done:
        """Return results and dead letters."""
        done = series | beam.ParDo(self._work).with_outputs(DEAD_LETTERS, main=RESULTS)
        return Done(done[RESULTS], done[DEAD_LETTERS])


class SeriesWork(beam.DoFn, ABC):
    """The frame of such a function: stores of the worker's own, errors as dead letters.

    Parameters
    ----------
    stage
        What dead letters call it.
    """

    def __init__(self, stage: str, datastore_url: str) -> None:
        super().__init__()
        self._stage, self._url = stage, datastore_url

    def setup(self) -> None:
        """Open what the worker keeps."""
        self._stores = WorkerStores()

    def teardown(self) -> None:
        """Close it."""
        self._stores.close()

    def process(self, element: SelectedSeries | SeriesKey) -> Iterator[Any]:
        """Do it to one series."""
        selected = element if isinstance(element, SelectedSeries) else SelectedSeries(element, None)
        store = self._stores.store(self._url)
        try:
            yield from self.work(Datastore(store), selected)
        except (CODError, OSError) as error:
            yield self.refusal(store.url_of(selected.key.folder), str(error), retryable=is_retryable(error))

    def refusal(self, uri: str, reason: str, *, retryable: bool) -> Any:
        """Return a dead letter."""
        return dead_letter(self._stage, uri, reason, retryable=retryable)

    @abstractmethod
    def work(self, datastore: Datastore, selected: SelectedSeries) -> Iterator[Any]:
        """Yield results, or refusals."""


def function_of(name: str) -> Callable[[str], str]:
    """Return the function that ``module:function`` names.

    Raises
    ------
    ValueError
        If there is none; the module must be importable on every worker.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} names no function: module:function does") from error
    if not callable(found):
        raise ValueError(f"{name} is no function")  # noqa: TRY004 - one error for whatever is wrong with the name
    return found  # type: ignore[no-any-return]
