"""Many files into many series: found, grouped, appended series by series, and accounted for one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.dicom.keys import read_series_key
from cloud_optimized_dicom.errors import CODError, InstanceValidationError
from cloud_optimized_dicom.events import FileDone, IngestPlanned, Outcome, emit
from cloud_optimized_dicom.ingest.archives import SourceFailure
from cloud_optimized_dicom.ingest.report import FileResult, IngestReport
from cloud_optimized_dicom.ingest.sources import iter_sources
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.append import AppendResult
    from cloud_optimized_dicom.events import Hook

    Append = Callable[[SeriesKey, Sequence[Instance]], AppendResult]
    """Appends instances to one series and commits."""


def iter_instances(
    sources: Iterable[str | os.PathLike[str] | Instance], client: Any, directory: Path
) -> Iterator[Instance | SourceFailure]:
    """Yield an instance for every file that the arguments name; `directory` takes what has to be unpacked."""
    for source in sources:
        if isinstance(source, Instance):
            yield source
            continue
        for found in iter_sources([source], client, temp_dir=directory):
            yield found if isinstance(found, SourceFailure) else Instance.from_source(found)


def ingest_by_series(
    instances: Iterable[Instance | SourceFailure], append: Append, hooks: Sequence[Hook]
) -> IngestReport:
    """Group instances by series and append each group; one bad file or series never stops the others."""
    results: list[FileResult] = []
    groups: dict[SeriesKey, list[tuple[int, Instance]]] = {}
    for instance in instances:
        key, failure = _grouped(instance)
        if key is not None and isinstance(instance, Instance):
            groups.setdefault(key, []).append((len(results), instance))
        results.append(failure)
    emit(hooks, IngestPlanned(len(results), len(groups)))
    for result in results:
        if result.series is None:
            emit(hooks, FileDone(result.uri, "error", 0))
    for key, members in groups.items():
        try:
            outcome = append(key, [instance for _, instance in members])
        except (CODError, OSError, ValueError) as error:
            for place, instance in members:
                results[place] = FileResult(instance.original_path, "error", key, reason=reason_of(error))
        else:
            for place, result in _accounted(key, members, outcome):
                results[place] = result
    return IngestReport(tuple(results))


def _grouped(instance: Instance | SourceFailure) -> tuple[SeriesKey | None, FileResult]:
    """Return the series of a file, and what the report says of it until it is appended (or for good)."""
    if isinstance(instance, SourceFailure):
        return None, FileResult(instance.uri, "error", reason=instance.reason)
    hints = instance.hints
    try:
        if hints.study_uid is not None and hints.series_uid is not None:
            key = SeriesKey(hints.study_uid, hints.series_uid)
        else:
            with instance.open() as stream:
                key = read_series_key(stream, instance.dicom_uri)
    except (CODError, OSError) as error:
        return None, FileResult(instance.original_path, "error", reason=reason_of(error))
    return key, FileResult(instance.original_path, "new", key)


def reason_of(error: Exception) -> str:
    """Return why; the file's own URI, which a report shows anyway, is left out."""
    return error.reason if isinstance(error, InstanceValidationError) else str(error)


def _accounted(
    key: SeriesKey, members: Sequence[tuple[int, Instance]], result: AppendResult
) -> Iterator[tuple[int, FileResult]]:
    outcomes: dict[int, tuple[Outcome, str | None]] = {id(instance): ("new", None) for instance in result.new}
    for instance in result.conflict:
        outcomes[id(instance)] = "conflict", "another file is stored under the same UID; that one stays"
    for instance, error in result.errors:
        outcomes[id(instance)] = "error", reason_of(error)
    for place, instance in members:
        # What is in none of the lists was stored before, or came twice in this very batch.
        outcome, reason = outcomes.get(id(instance), ("same", None))
        facts = instance.record or instance.facts
        uid = facts.instance_uid if facts else instance.hints.instance_uid
        size = facts.size if facts else instance.hints.size or 0
        yield place, FileResult(instance.original_path, outcome, key, uid, size, reason)
