"""From rows of a query, or loose instances, to the series that they belong to."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.cod_object import CODObject
from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.ranges import PARALLEL_READS
from cloud_optimized_dicom.storage.urls import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_log = logging.getLogger(__name__)


def query_result_to_instances(
    query_result: Mapping[str, Any], uid_hash_func: Callable[[str], str] | None = None
) -> list[Instance]:
    """Return the instances of one row of a query that grouped files by series.

    Parameters
    ----------
    query_result
        ``{"study_uid": ..., "series_uid": ..., "files": [{"file_uri": ..., "size": ..., "crc32c": ..., "instance_uid":
        ...}, ...]}``.  Everything but the files' URIs is optional, and becomes hints.
    uid_hash_func
        Given to the instances.

    Returns
    -------
    list of Instance
        Each depends on its file; nothing has been read.

    Raises
    ------
    ValueError
        If there are no files, or a file without a URI.
    """
    files = query_result.get("files")
    if files is None:
        raise ValueError('a row of a query is {"files": [{"file_uri": ...}, ...]}')
    study, series = query_result.get("study_uid"), query_result.get("series_uid")
    instances = []
    for file in files:
        uri, size = file.get("file_uri"), file.get("size")
        if not uri:
            raise ValueError("a file without a file_uri")
        hints = Hints(
            size=None if size is None else int(size),
            crc32c=file.get("crc32c"),
            instance_uid=file.get("instance_uid"),
            series_uid=series,
            study_uid=study,
        )
        instances.append(Instance(uri, [uri], hints, uid_hash_func=uid_hash_func))
    return instances


def query_result_to_codobjects(
    client: Any,
    query_result: Mapping[str, Any],
    datastore_path: str,
    validate_datastore_path: bool = True,  # noqa: FBT001, FBT002 - as people write it
    mode: Any = "a",
) -> list[tuple[CODObject, list[Instance]]]:
    """Return the series of a row of a query, each with its instances.

    Parameters
    ----------
    client
        A ``google.cloud.storage.Client`` for ``gs://``, of the datastore and of the files.
    query_result
        As of :func:`query_result_to_instances`.
    validate_datastore_path
        Raise at once for a path that names no store; else its series are left out, with a line in the log.

    Raises
    ------
    ValueError
        If the row is none.
    StorageError
        If `datastore_path` names no store.
    """
    if validate_datastore_path:
        open_store(datastore_path, client)
    instances = query_result_to_instances(query_result)
    return list(instances_to_codobj_tuples(client, instances, datastore_path, mode=mode))


def instances_to_codobj_tuples(
    client: Any,
    instances: Iterable[Instance],
    datastore_path: str,
    empty_lock_override_age: float | None = None,
    mode: Any = "a",
) -> Iterator[tuple[CODObject, list[Instance]]]:
    """Yield every series that instances belong to, with its instances, in the order of their UIDs.

    Parameters
    ----------
    client
        For ``gs://``: also given to instances that have none of their own.
    empty_lock_override_age, mode
        As of `CODObject`.

    Notes
    -----
    What is hinted is believed here; a file without hints of its study and series is read, many at a time, and left out
    with a line in the log where that fails.  Series are of hashed UIDs where all their instances have a
    `uid_hash_func`.  Each is to be entered with ``with``, which takes its lock; ingests of many files are better off
    with ``Datastore.ingest``.
    """
    groups: dict[tuple[str, str], list[Instance]] = {}
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        pairs = pool.map(lambda instance: (_series_of(instance, client), instance), list(instances))
        for uids, instance in pairs:
            if uids is not None:
                groups.setdefault(uids, []).append(instance)
    for uids, members in sorted(groups.items()):
        hashed = all(instance.uid_hash_func is not None for instance in members)
        try:
            study, series = map(members[0].hash_uid, uids) if hashed else uids
            cod = CODObject(
                *(datastore_path, client, study, series, mode),
                hashed_uids=hashed,
                empty_lock_override_age=empty_lock_override_age,
            )
        except (CODError, ValueError) as error:
            _log.warning("left out a series of %d instances: %s", len(members), type(error).__name__)
            continue
        yield cod, members


def _series_of(instance: Instance, client: Any) -> tuple[str, str] | None:
    if client is not None:
        instance.transport_params.setdefault("client", client)
    try:
        return (
            instance.study_uid(trust_hints_if_available=True),
            instance.series_uid(trust_hints_if_available=True),
        )
    except (CODError, OSError, ValueError) as error:
        _log.warning("left out %s: %s", instance.original_path, type(error).__name__)
        return None
