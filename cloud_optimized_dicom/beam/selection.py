"""Which series of a datastore a pipeline is about: all, those of certain UIDs, or those that a query names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam

from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.series import FoundSeries
from cloud_optimized_dicom.beam.stores import StoresFn
from cloud_optimized_dicom.catalogue import Catalogue, select_uids
from cloud_optimized_dicom.catalogue.selection import SelectedSeries
from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.errors import CODError, CODObjectNotFoundError
from cloud_optimized_dicom.ingest.report import is_retryable
from cloud_optimized_dicom.series.reader import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from cloud_optimized_dicom.uids import SeriesKey

_STAGE = "selection"
_FOUND = "found"


class ReadSeries(beam.PTransform):
    """Find the series of a datastore; gives `FoundSeries`.

    Parameters
    ----------
    uids
        Only these studies, series and instances; empty: all.
    catalogue_url, sql
        Instead of listing: the series, or the instances, that the rows of a query name; see
        :func:`~cloud_optimized_dicom.catalogue.select_uids`.

    Raises
    ------
    ValueError
        If there is a query without a catalogue, or a catalogue without a query.

    Notes
    -----
    UIDs are looked for among studies and series first, which the listing shows.  Only where some are left over, as
    those of instances are, the metadata of every series is read.  A UID that nothing has is a dead letter.
    """

    def __init__(
        self, datastore_url: str, uids: Sequence[str] = (), catalogue_url: str | None = None, sql: str | None = None
    ) -> None:
        super().__init__()
        if (catalogue_url is None) != (sql is None):
            raise ValueError("a query needs a catalogue, and a catalogue a query")
        self._url, self._uids = datastore_url, frozenset(uids)
        self._catalogue_url, self._sql = catalogue_url, sql

    def expand(self, begin: Any) -> FoundSeries:
        """Return the series, spread over the workers, and what there is none of."""
        if self._catalogue_url is not None:
            found = begin | beam.Create([(self._catalogue_url, self._sql)]) | "ask" >> beam.FlatMap(_selected)
        else:
            found = (
                begin
                | beam.Create([None])
                | "list studies" >> beam.ParDo(_ListStudies(self._url))
                | "spread studies" >> beam.Reshuffle()
                | "list series" >> beam.ParDo(_ListSeries(self._url))
            )
        spread = found | "spread series" >> beam.Reshuffle()
        if not self._uids:
            return FoundSeries(spread, begin | "no dead letters" >> beam.Create([]))
        return self._chosen(begin, found, spread)

    def _chosen(self, begin: Any, found: Any, spread: Any) -> FoundSeries:
        named = found | "names" >> beam.FlatMap(_names, self._uids) | "named" >> beam.combiners.ToSet()
        left = (
            begin | "asked" >> beam.Create([self._uids]) | "left" >> beam.Map(_without, beam.pvalue.AsSingleton(named))
        )
        chosen = spread | "choose" >> beam.ParDo(
            _Choose(self._url, self._uids), beam.pvalue.AsSingleton(left)
        ).with_outputs(_FOUND, DEAD_LETTERS, main=RESULTS)
        inside = chosen[_FOUND] | "inside" >> beam.combiners.ToSet()
        nowhere = left | "nowhere" >> beam.FlatMap(_nowhere, beam.pvalue.AsSingleton(inside)).with_outputs(
            DEAD_LETTERS, main=RESULTS
        )
        dead = (chosen[DEAD_LETTERS], nowhere[DEAD_LETTERS]) | "dead letters" >> beam.Flatten()
        return FoundSeries(chosen[RESULTS], dead)


def _selected(asked: tuple[str, str]) -> Sequence[SelectedSeries]:
    with Catalogue(asked[0]) as catalogue:
        return select_uids(catalogue, asked[1])


class _Listing(StoresFn):
    def __init__(self, datastore_url: str) -> None:
        super().__init__()
        self._url = datastore_url

    @property
    def datastore(self) -> Datastore:
        """The datastore, with the worker's connections."""
        return Datastore(self.stores.store(self._url))


class _ListStudies(_Listing):
    def process(self, _: None) -> Iterator[str]:
        """Yield the UIDs of the studies."""
        yield from self.datastore.studies()


class _ListSeries(_Listing):
    def process(self, study_uid: str) -> Iterator[Any]:
        """Yield the series of a study."""
        for key in self.datastore.series(study_uid, incomplete=True):
            yield SelectedSeries(key, None)


# -- by UIDs


def _names(selected: SelectedSeries, uids: frozenset[str]) -> frozenset[str]:
    return uids & {selected.key.study_uid, selected.key.series_uid}


def _without(uids: frozenset[str], found: AbstractSet[str]) -> frozenset[str]:
    return uids - found


def _nowhere(left: frozenset[str], found: AbstractSet[str]) -> Iterator[Any]:
    for uid in sorted(left - found):
        yield dead_letter(_STAGE, uid, "nothing has this UID")


class _Choose(_Listing):
    """Keeps what is named, and looks for the UIDs that no study or series has in the series."""

    def __init__(self, datastore_url: str, uids: frozenset[str]) -> None:
        super().__init__(datastore_url)
        self._uids = uids

    def process(self, selected: SelectedSeries, left: frozenset[str]) -> Iterator[Any]:
        """Yield a series, or what is meant of it, and the UIDs that were found in it."""
        is_named = bool(_names(selected, self._uids))
        if is_named:
            yield selected
        try:
            found = self._instances(selected, left)
        except CODError as error:
            uri = self.datastore.store.url_of(selected.key.folder)
            yield dead_letter(_STAGE, uri, str(error), retryable=is_retryable(error))
            return
        for uid in found:
            yield beam.pvalue.TaggedOutput(_FOUND, uid)
        if found and not is_named:
            yield SelectedSeries(selected.key, found)

    def _instances(self, selected: SelectedSeries, left: frozenset[str]) -> frozenset[str]:
        if not left or selected.instance_uids is not None:
            return left & (selected.instance_uids or frozenset())
        return left.intersection(self._stored(selected.key))

    def _stored(self, key: SeriesKey) -> AbstractSet[str]:
        try:
            document, _ = read_document(self.datastore.store, key)
        except CODObjectNotFoundError:  # of which only a tar is left
            return frozenset()
        return frozenset(document.instances)
