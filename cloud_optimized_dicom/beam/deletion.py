"""Deleting what was ingested, once it is certain that the very same bytes are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.beam.results import DEAD_LETTERS, RESULTS, dead_letter
from cloud_optimized_dicom.beam.stores import WorkerStores
from cloud_optimized_dicom.checksum import crc32c_of_stream
from cloud_optimized_dicom.errors import CODError, ObjectNotFoundError
from cloud_optimized_dicom.ingest.report import FileResult, is_retryable
from cloud_optimized_dicom.ingest.source_kinds import FileSource, ObjectSource
from cloud_optimized_dicom.series.look import Look
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.ingest.source_kinds import Source
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
    every byte of its tar; then each source is compared with its record (size and CRC32C), and an object is deleted only
    at the generation that was compared.
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


class _RefusalError(ValueError):
    """Why a source stays."""


class _Delete(beam.DoFn):
    def __init__(self, datastore_url: str) -> None:
        super().__init__()
        self._url = datastore_url

    def setup(self) -> None:
        """Open what the worker keeps."""
        self._stores = WorkerStores()

    def teardown(self) -> None:
        """Close it."""
        self._stores.close()

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
                if record is None:
                    raise _RefusalError("is not in its series")
                delete_source(self._stores.source(result.uri), record)
            except (CODError, OSError, ValueError) as error:
                yield _dead(result.uri, error)
            else:
                count("sources_deleted")
                yield DeletedSource(result.uri, key, record.instance_uid)

    def _verified(self, key: SeriesKey) -> dict[str, InstanceRecord]:
        """Return the records of a series whose every byte is as they say."""
        store = self._stores.store(self._url)
        look = Look.at(store, key)
        if look.document is None:
            raise _RefusalError("its series is not stored")
        report = verify_series(store, key)
        damage = next((finding for finding in report.findings if finding.damage), None)
        if damage is not None:
            raise _RefusalError(f"its series is damaged: {damage.kind}")
        if Look.at(store, key).document != look.document:
            raise _RefusalError("its series is being written")
        document = look.document.document
        # By their own UIDs: what is stored under a hashed one is still told by the one of the file.
        found = (document.get(uid) for uid in document.instances)
        return {record.instance_uid: record for record in found}


def _dead(uri: str, error: Exception) -> Any:
    reason = getattr(error, "reason", None) or str(error)
    return dead_letter(_STAGE, uri, reason, retryable=is_retryable(error))


def delete_source(source: Source, record: InstanceRecord) -> None:
    """Delete a source if it holds the bytes of a record; nothing happens where it is gone already.

    Raises
    ------
    ValueError
        If it holds others, or is of a kind that is never deleted: members of archives, files of web servers.
    StorageError
        If the store refuses.
    """
    if isinstance(source, FileSource):
        _delete_file(source, record)
    elif isinstance(source, ObjectSource) and source.span is None:
        _delete_object(source, record)
    else:
        raise _RefusalError("only objects and local files are deleted")


def _delete_file(source: FileSource, record: InstanceRecord) -> None:
    try:
        with source.path.open("rb") as stream:
            crc, size = crc32c_of_stream(stream)
    except FileNotFoundError:
        return
    _check(record, size, crc)
    source.path.unlink(missing_ok=True)


def _delete_object(source: ObjectSource, record: InstanceRecord) -> None:
    info = source.store.find(source.name)
    if info is None:
        return
    _check(record, info.size, info.crc32c)
    try:
        source.store.delete(source.name, version=info.version)
    except ObjectNotFoundError:
        return


def _check(record: InstanceRecord, size: int, crc32c: int | None) -> None:
    if (crc32c, size) != (record.crc32c, record.size):  # not `identity`: what was recompressed is not the source
        raise _RefusalError("is not what is stored: its size or CRC32C differs")
