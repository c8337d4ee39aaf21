"""The state that a writer starts from, checked: what a transaction does first, once it holds the lock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    ErrorLogExistsError,
    HashedUidsError,
    TarMissingInstanceError,
    TarValidationError,
)
from cloud_optimized_dicom.format.metadata.document import SeriesDocument
from cloud_optimized_dicom.lock.record import ObjectState
from cloud_optimized_dicom.series.commit import Base, Series, quarantine
from cloud_optimized_dicom.series.state import describes

if TYPE_CHECKING:
    from cloud_optimized_dicom.lock.lease import Acquisition, SeriesLock
    from cloud_optimized_dicom.series.look import SeenDocument
    from cloud_optimized_dicom.series.transaction import TransactionOptions
    from cloud_optimized_dicom.storage.base import ObjectInfo


def check_not_quarantined(series: Series, acquisition: Acquisition, options: TransactionOptions) -> None:
    """Raise `ErrorLogExistsError` for a series that writers have to leave alone."""
    if acquisition.error_log and not options.override_errors:
        raise ErrorLogExistsError(series.store.url_of(series.key.error_log))


def checked_base(
    series: Series,
    lock: SeriesLock | None,
    options: TransactionOptions,
    seen: SeenDocument | None,
    tar: ObjectInfo | None,
) -> Base:
    """Return what there is of a series.

    Parameters
    ----------
    lock
        None where none is held; what does not agree is then not quarantined.

    Raises
    ------
    CODObjectNotFoundError
        If there is nothing, and nothing may be made.
    HashedUidsError
        If hashed UIDs are asked for of a series that is not one of them.
    TarValidationError
        If tar and metadata do not agree.
    LockVerificationError
        If the lock was lost, which explains that.
    """
    if seen is None:
        store, key = series.store, series.key
        if not options.create_if_missing:
            raise CODObjectNotFoundError(store.url_of(key.folder))
        empty = SeriesDocument.empty(store.url_of(key.metadata), key, hashed_uids=options.hashed_uids)
        return _agreeing(series, Base(empty, None, tar), lock)
    check_hashed_uids(seen.document, wanted=options.hashed_uids)
    return _agreeing(series, Base(seen.document, seen.state, tar), lock)


def check_hashed_uids(document: SeriesDocument, *, wanted: bool) -> None:
    """Raise `HashedUidsError` where hashed UIDs are asked for of a series that shows its own; not the other way round.

    Notes
    -----
    A document says by itself that its UIDs are hashed, so nobody has to know in order to read it.
    """
    if wanted and not document.hashed_uids:
        folder = document.uri.removesuffix("/metadata.json")
        raise HashedUidsError(folder, "hashed_uids was asked for, and the series is not one of hashed UIDs")


def _agreeing(series: Series, base: Base, lock: SeriesLock | None) -> Base:
    """Return the base if its tar is the one that the document was written for; raise otherwise."""
    recorded, tar = base.document.tar, base.tar
    if recorded is None:
        if tar is None and base.document.instances:
            raise TarMissingInstanceError(
                series.tar_uri, next(iter(base.document.instances)), "the tar is missing, the metadata is not"
            )
        if tar is not None and tar.size < max((r.span.stop for r in base.document.iter_records()), default=0):
            if lock is not None:
                lock.renew()  # as below
            raise TarValidationError(series.tar_uri, "the tar is shorter than the metadata says")
        known = tar is not None and tar.crc32c is not None and base.metadata is not None
        return replace(base, adopted=ObjectState(tar.version, tar.size, tar.crc32c)) if tar and known else base
    if tar is not None and tar.version == recorded.generation:
        return base
    if tar is not None and describes(recorded, series.store, series.key, tar):
        # A copied or restored store: same bytes, other versions.
        return replace(base, adopted=ObjectState(tar.version, recorded.size, recorded.crc32c))
    reason = "the tar is missing" if tar is None else "the tar is not the one that the metadata was written for"
    if lock is not None:
        lock.renew()  # raises if the lock was lost, which then explains the disagreement
        quarantine(series, reason)
    raise TarValidationError(series.tar_uri, reason)
