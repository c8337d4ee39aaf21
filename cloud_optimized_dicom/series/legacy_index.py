"""index.sqlite beside a series: set aside before a commit touches the tar, written anew behind the metadata.

It is derived data, and only older readers look at it.  What they must never find is an index of another tar.  An empty
file never is one: they then make an index of their own (design note 023).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    CODError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TransientStorageError,
)
from cloud_optimized_dicom.format.sqlite_index import dump_sqlite_index, index_of, parse_sqlite_index
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.metadata.document import Change, IndexChange, SeriesDocument
    from cloud_optimized_dicom.lock.lease import SeriesLock
    from cloud_optimized_dicom.series.commit import Base, Series
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_log = logging.getLogger(__name__)
_INDEX = Attributes(content_type="application/vnd.sqlite3")
_ATTEMPTS = 5


def with_index(series: Series, base: Base, change: Change, *, wanted: bool | None, tar_changes: bool) -> Change:
    """Return a change with what it means for the index; asks the store only where an older writer wrote the document.

    Parameters
    ----------
    wanted, tar_changes
        As of :func:`plan_index`.
    """
    document = base.document
    older = base.metadata is not None and document.tar is None
    present = document.legacy_index or (older and series.store.find(series.key.index) is not None)
    return replace(change, legacy_index=plan_index(document, wanted=wanted, present=present, tar_changes=tar_changes))


def plan_index(
    document: SeriesDocument, *, wanted: bool | None, present: bool, tar_changes: bool
) -> IndexChange | None:
    """Return what a commit does with the index.

    Parameters
    ----------
    document
        Before the commit.
    wanted
        True: the series gets one, if it has none; False: one that is there goes; None: one that is there is kept up to
        date.
    """
    if wanted is False:
        return "drop" if present else None
    if not wanted and not present:
        return None
    if tar_changes or not present:
        return "write"
    # A document of an older writer does not say that there is an index; once it names its tar, it has to.
    return None if document.legacy_index else "keep"


def set_aside(store: ObjectStore, key: SeriesKey, planned: IndexChange | None) -> str | None:
    """Empty the index (it is made where there is none), or delete it; return the version of the empty one.

    Parameters
    ----------
    planned
        As :func:`plan_index` decided.

    Raises
    ------
    StorageError
        If an index may be left that is about to be of another tar.

    Notes
    -----
    Always writes, even over an empty one: an index that a writer thought dead still has in hand is then refused.
    """
    if planned == "drop":
        store.delete_all([(key.index, None)])
    if planned != "write":
        return None
    for _ in range(_ATTEMPTS):
        found = store.find(key.index)
        try:
            return _put(store, key, b"", found.version if found else None)
        except (PreconditionFailedError, ObjectNotFoundError):
            continue
    raise TransientStorageError(store.url_of(key.index), "it kept changing")


def write_index(store: ObjectStore, key: SeriesKey, document: SeriesDocument, version: str | None) -> None:
    """Write the index of the tar that a document names, over the state of it that is given.

    Notes
    -----
    Refused where somebody else has written it meanwhile, it is written over that only as long as the document is the
    present one.  A failure is no failure of the commit: what stays is empty, which is right, too.
    """
    if document.tar is None:
        return
    data = dump_sqlite_index(document.iter_records(), document.tar.size)
    try:
        for _ in range(_ATTEMPTS):
            try:
                _put(store, key, data, version)
            except (PreconditionFailedError, ObjectNotFoundError):
                found = store.find(key.index)  # first the index, then the document: a commit writes them the same way
                version = found.version if found else None
                if read_document(store, key)[0].commits[-1:] != document.commits[-1:]:
                    return
            else:
                return
    except CODError as error:
        _log.warning("could not write %s: %s", store.url_of(key.index), type(error).__name__)


def renew_index(store: ObjectStore, key: SeriesKey, lock: SeriesLock) -> None:
    """Write the index of the present tar, for who holds the lock.

    Raises
    ------
    LockVerificationError
        If the lock was lost.
    """
    found = store.find(key.index)
    lock.renew()  # proves that no successor has set it aside before we looked
    write_index(store, key, read_document(store, key)[0], found.version if found else None)


def find_fault(store: ObjectStore, key: SeriesKey, document: SeriesDocument, tar_bytes: int) -> str | None:
    """Return what is wrong with the index of a tar, or None: an empty index is right, and so is none.

    Notes
    -----
    So is one of a tar of another size, which older readers notice, where an older writer answers for it; and one that
    names members besides those on record.
    """
    try:
        data = store.read_object(key.index).data
    except ObjectNotFoundError:
        return "older readers do not find it" if document.legacy_index else None
    found = parse_sqlite_index(data)
    if found is None:
        return "it is damaged" if data else None
    if found.tar_bytes != tar_bytes:
        return "it is of another tar" if document.legacy_index else None
    known = index_of(document.iter_records(), tar_bytes).members
    return None if known <= found.members else "it is of another tar"


def _put(store: ObjectStore, key: SeriesKey, data: bytes, version: str | None) -> str:
    payload, write_id = BytesPayload(data), new_write_id()
    if version is None:
        return store.create(key.index, payload, write_id=write_id, attributes=_INDEX).version
    return store.replace(key.index, payload, version=version, write_id=write_id, attributes=_INDEX).version
