"""Stages whose elements are stored series: what is common to whatever is done to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam

from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.stores import StoresFn
from cloud_optimized_dicom.catalogue.selection import SelectedSeries
from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.ingest.report import is_retryable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.uids import SeriesKey


class FoundSeries(NamedTuple):
    """What a search for series gives; every stage over series takes it as it is.

    Attributes
    ----------
    series
        `SelectedSeries`: the key, and the instances that are meant (None: all).
    dead_letters
        `DeadLetter`: UIDs that nothing has, and series of which it cannot be known.
    """

    series: Any
    dead_letters: Any

    def __or__(self, stage: Any) -> Any:
        """Apply a stage, as to a collection: Beam alone would take a stage for one pipeline only."""
        return self.series.pipeline.apply(stage, self)


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


class SeriesStage(beam.PTransform):
    """Something that is done to series, one at a time, by a function of `SeriesWork`.

    Notes
    -----
    Of a `FoundSeries` the dead letters are passed on.
    """

    def __init__(self, work: SeriesWork) -> None:
        super().__init__()
        self._work = work

    def expand(self, series: Any) -> Done:
        """Return results and dead letters."""
        found = series if isinstance(series, FoundSeries) else FoundSeries(series, None)
        done = found.series | beam.ParDo(self._work).with_outputs(DEAD_LETTERS, main=RESULTS)
        dead = done[DEAD_LETTERS]
        if found.dead_letters is not None:
            dead = (found.dead_letters, dead) | "dead letters" >> beam.Flatten()
        return Done(done[RESULTS], dead)


class SeriesWork(StoresFn, ABC):
    """The frame of such a function: stores of the worker's own, errors as dead letters.

    Parameters
    ----------
    stage
        What dead letters call it.
    """

    def __init__(self, stage: str, datastore_url: str) -> None:
        super().__init__()
        self._stage, self._url = stage, datastore_url

    def process(self, element: SelectedSeries | SeriesKey) -> Iterator[Any]:
        """Do it to one series."""
        selected = element if isinstance(element, SelectedSeries) else SelectedSeries(element, None)
        store = self.stores.store(self._url)
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
