"""Finishing what a dead writer decided, and sweeping what it left: what every holder of a lock does first."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import ConflictError, ObjectNotFoundError
from cloud_optimized_dicom.series.commit import finish, metadata_state
from cloud_optimized_dicom.series.legacy_index import renew_index
from cloud_optimized_dicom.series.reader import read_document

if TYPE_CHECKING:
    from cloud_optimized_dicom.lock.lease import Acquisition, SeriesLock
    from cloud_optimized_dicom.lock.record import Intent, ObjectState
    from cloud_optimized_dicom.series.commit import Series

_log = logging.getLogger(__name__)


def recover(series: Series, acquisition: Acquisition) -> bool:
    """Finish an inherited intent, clear it, sweep the segments that were listed before the lock was taken.

    Returns
    -------
    bool
        Whether there was an intent to finish.

    Notes
    -----
    Idempotent and fenced: safe for two at once, and beside the writer that was thought dead.  Only what was listed
    *before* the lock was taken is swept: what appeared later may belong to a live holder.
    """
    intent = acquisition.lock.inherited
    if intent is not None:
        _log.info("finishing commit %s of %s", intent.write_id, series.store.url_of(series.key.folder))
        if finish(series, localised(series, intent)) is None:
            _check_complete(series, acquisition.lock, intent)
            if intent.change.legacy_index == "write":  # who wrote the metadata may have died right behind that
                renew_index(series.store, series.key, acquisition.lock)
        acquisition.lock.clear()
    if acquisition.listed:
        series.store.delete_all([(name, None) for name in acquisition.listed])
    return intent is not None


def _check_complete(series: Series, lock: SeriesLock, intent: Intent) -> None:
    document, _ = read_document(series.store, series.key)
    if intent.write_id not in document.commits:
        lock.renew()  # raises if the lock was lost: then others have finished it, and the log may have forgotten it
        raise ConflictError(
            series.store.url_of(series.key.folder),
            f"the decided commit {intent.write_id} can no longer be finished: a writer outside the protocol broke in",
        )


def localised(series: Series, intent: Intent) -> Intent:
    """Return an intent with the versions of this bucket, where its lock was copied here along with its series.

    Notes
    -----
    A copied intent names versions that never existed here.  Sizes and CRC32Cs then tell whether the objects are those
    that it was made for; if they are not, the versions are left as they are and every step of it is refused.
    """
    return _with_local_tar(series, replace(intent, base_metadata=_local_metadata(series, intent.base_metadata)))


def _local_metadata(series: Series, base: ObjectState | None) -> ObjectState | None:
    if base is None:
        return None
    try:
        found = series.store.read_object(series.key.metadata)
    except ObjectNotFoundError:
        return base
    present = metadata_state(found.data, found.info.version)
    return present if (present.size, present.crc32c) == (base.size, base.crc32c) else base


def _with_local_tar(series: Series, intent: Intent) -> Intent:
    base = intent.base_tar
    present = series.store.find(series.key.tar) if base is not None else None
    if base is None or present is None or present.version == base.version:
        return intent
    if (present.size, series.tar_crc32c(present)) != (base.size, base.crc32c):
        return intent
    result = intent.result
    if result is not None and (result.size, result.crc32c) == (base.size, base.crc32c):
        return intent  # the bytes do not change: this may be the result already, which must not be made twice
    sources = tuple(
        source._replace(version=present.version) if source.name == series.key.tar else source
        for source in intent.sources
    )
    return replace(intent, base_tar=replace(base, version=present.version), sources=sources)
