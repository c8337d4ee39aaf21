"""Deleting what was ingested, once it is certain that the very same bytes are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.stores import StoresFn
from cloud_optimized_dicom.errors import CODError, DependencyError, TarValidationError
from cloud_optimized_dicom.ingest.dependencies import check_source, verified_document
from cloud_optimized_dicom.ingest.report import FileResult, is_retryable
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.model import InstanceRecord

_STAGE = "deletion"


@dataclass(frozen=True, slots=True)
class DeletedSource:
    """A source that is not there any more; another attempt of the same worker may have deleted it."""

    uri: str
    series: SeriesKey
    instance_uid: str


class Deleted(NamedTuple):
    """What a deletion gives.

    Attributes
    ----------
    results
        `DeletedSource`.
    dead_letters
        `DeadLetter`: sources that are still there, and why.
    """

    results: Any
    dead_letters: Any


class DeleteDependencies(beam.PTransform):
    """Delete the sources of stored files: `FileResult` of an ingest, with the outcome "new" or "same".

    Parameters
    ----------
    datastore_url
        Where they are stored.

    Notes
    -----
    Runs behind a shuffle, so that only results which the runner has kept are acted on.  Each series is verified first,
    every byte of its tar; then each source is compared with what was stored of it (size and CRC32C), and an object is
    deleted only at the generation that was compared.
    """

    def __init__(self, datastore_url: str) -> None:
        super().__init__()
        self._url = datastore_url

    def expand(self, results: Any) -> Deleted:
        """Return what was deleted, and what was not."""
        found = (
            results
            | "of series" >> beam.Map(_keyed).with_output_types(tuple[SeriesKey, FileResult])
            | "behind the commits" >> beam.GroupByKey()
            | "delete" >> beam.ParDo(_Delete(self._url)).with_outputs(DEAD_LETTERS, main=RESULTS)
        )
        return Deleted(found[RESULTS], found[DEAD_LETTERS])


def _keyed(result: FileResult) -> tuple[SeriesKey, FileResult]:
    if result.series is None:
        raise ValueError("only files that are stored can be deleted")
    return result.series, result


class _Delete(StoresFn):
    def __init__(self, datastore_url: str) -> None:
        super().__init__()
        self._url = datastore_url

    def process(self, element: tuple[SeriesKey, Iterable[FileResult]]) -> Iterator[Any]:
        """Delete the sources of a series."""
        key, results = element
        try:
            records = self._verified(key)
        except (CODError, OSError, ValueError) as error:
            for result in results:
                yield _dead(result.uri, error)
            return
        for result in results:
            record = records.get(result.instance_uid or "")
            try:
                self._delete(result.uri, record)
            except (CODError, OSError, ValueError) as error:
                yield _dead(result.uri, error)
            else:
                count("sources_deleted")
                yield DeletedSource(result.uri, key, result.instance_uid or "")

    def _verified(self, key: SeriesKey) -> dict[str, InstanceRecord]:
        """Return the records of a series whose every byte is as they say."""
        document = verified_document(self.stores.store(self._url), key)
        # By the UIDs that they are stored under, as results tell them: those may be hashed.
        return {record.name_uid: record for record in document.iter_records()}

    def _delete(self, uri: str, record: InstanceRecord | None) -> None:
        if record is None:
            raise DependencyError(uri, "is not in its series")
        removable = check_source(self.stores.source(uri), uri, record, self.stores.store(self._url))
        if removable is not None:
            removable.delete()


def _dead(uri: str, error: Exception) -> Any:
    reason = getattr(error, "reason", None) or str(error)
    if isinstance(error, TarValidationError):
        reason = f"its series is damaged: {reason}"
    return dead_letter(_STAGE, uri, reason, retryable=is_retryable(error))
