"""Deleting the sources of stored instances, once it is certain that what they hold is stored."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    DependencyError,
    InstanceNotFoundError,
    InstanceValidationError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StaleReadError,
)
from cloud_optimized_dicom.ingest.parts import reason_of
from cloud_optimized_dicom.ingest.source_kinds import FileSource, GunzipSource, ObjectSource
from cloud_optimized_dicom.ingest.sources import source_of
from cloud_optimized_dicom.ranges import PARALLEL_READS
from cloud_optimized_dicom.series.look import Look
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.verify import raise_first_damage, verify_series
from cloud_optimized_dicom.uids import NestedUri, member_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.commit import Series
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_CHANGED = "changed after it was compared"
_OWN = ("studies/", ".cod/")  # where a datastore keeps what it consists of, and a local one its sidecars


@dataclass(frozen=True)
class Removable:
    """A source that may go, in the state in which it was compared.

    Parameters
    ----------
    uri
        As it was given.
    state
        The version of an object; of a file, what the file system tells it by.
    """

    uri: str
    source: FileSource | ObjectSource
    state: str

    def delete(self) -> bool:
        """Delete it; return False where it is gone already.

        Raises
        ------
        DependencyError
            If it is in another state by now; it stays then.
        StorageError
            If the store refuses.
        """
        source = self.source
        if isinstance(source, FileSource):
            state = _file_state(self.uri, source)
            if state is None:
                return False
            if state != self.state:
                raise DependencyError(self.uri, _CHANGED)
            source.path.unlink(missing_ok=True)
            return True
        try:
            source.store.delete(source.name, version=self.state)
        except ObjectNotFoundError:
            return False
        except PreconditionFailedError as error:
            raise DependencyError(self.uri, _CHANGED) from error
        return True


def verified_document(store: ObjectStore, key: SeriesKey) -> SeriesDocument:
    """Return the document of a series whose every byte is as it says.

    Raises
    ------
    CODObjectNotFoundError
        If there is no such series.
    TarMissingInstanceError, HashMismatchError, TarValidationError
        If what is stored is damaged.
    StaleReadError
        If the series was written meanwhile.
    """
    look = Look.at(store, key)
    if look.document is None:
        raise CODObjectNotFoundError(store.url_of(key.folder))
    raise_first_damage(verify_series(store, key), store.url_of(key.tar))
    after = Look.at(store, key)
    # What is decided will happen, though no byte of it shows yet: it may remove what was just verified.
    if after.document != look.document or look.intent is not None or after.intent is not None:
        raise StaleReadError(store.url_of(key.folder), "(all)", "the series was written while it was verified")
    return look.document.document


def verified_record(series: Series, name_uid: str, expected: InstanceRecord | None) -> InstanceRecord:
    """Return the record of an instance whose stored bytes are as it says; one read of them.

    Parameters
    ----------
    expected
        What was, or is to be, stored, where that is known.

    Raises
    ------
    DependencyError
        If it is not stored, or something else is.
    HashMismatchError, TarMissingInstanceError
        If its bytes are not those that were stored.
    """
    uri = member_uri(series.tar_uri, name_uid)
    try:
        reader = SeriesReader.open(series.store, series.key)
        record = reader.document.get(name_uid)
    except (CODObjectNotFoundError, InstanceNotFoundError) as error:
        raise DependencyError(uri, "is not stored, or not committed yet") from error
    if expected is not None and (record.crc32c, record.size) != (expected.crc32c, expected.size):
        raise DependencyError(uri, "holds another file, or this one is not committed yet")
    for _ in reader.iter_instance(record):
        pass
    return record


def check_source(source: Source, uri: str, record: InstanceRecord | None, store: ObjectStore) -> Removable | None:
    """Return a source that may be deleted, or None where it is gone already.

    Parameters
    ----------
    record
        Of the stored instance whose bytes it must hold: those of the file that was given, where other bytes are stored
        for it (recompressed).  None: it is not compared with anything.
    store
        The datastore, nothing of which is ever deleted.

    Raises
    ------
    DependencyError
        If it holds other bytes, is a part of the datastore, or is of a kind that is never deleted: members of archives,
        files of web servers and of fsspec's file systems.
    StorageError
        If the store refuses.
    """
    if isinstance(source, FileSource):
        _check_outside(uri, str(source.path), store, local=True)
        if record is None and not source.path.is_absolute():
            raise DependencyError(uri, "a relative path may name another file by now: compare it, or give a whole path")
        state = _file_state(uri, source)
        if state is not None and record is not None:
            with _opened(uri, source) as stream:
                _compare(uri, record, *checksum.crc32c_of_stream(stream))
        return None if state is None else Removable(uri, source, state)
    if not isinstance(source, ObjectSource) or source.span is not None:
        raise DependencyError(uri, "only objects and local files are deleted")
    _check_outside(uri, source.store.url_of(source.name), store, local="://" not in source.store.url)
    info = source.store.find(source.name)
    if info is None:
        return None
    if record is not None:
        found = ObjectSource.of(source.store, info)
        if info.crc32c is None or isinstance(found, GunzipSource):
            with _opened(uri, found) as stream:
                _compare(uri, record, *checksum.crc32c_of_stream(stream))
        else:
            _compare(uri, record, info.crc32c, info.size)
    return Removable(uri, source, info.version)


def delete_dependencies(
    store: ObjectStore,
    owed: Iterable[tuple[InstanceRecord, Sequence[str]]],
    open_source: Callable[[str], Source] | None = None,
    *,
    dryrun: bool,
    validate_blob_hash: bool,
) -> list[str]:
    """Delete what stored instances were made of; return the URIs of what was there.

    Parameters
    ----------
    owed
        Records of instances whose stored bytes have been verified, each with its dependencies.
    open_source
        From a URI to its source; None: with the client of the datastore.
    dryrun
        Compare everything and delete nothing.
    validate_blob_hash
        Whether a dependency must hold the very file that was given.  Where an instance has several, they were made into
        the file; then only the one that it was read from, if it is among them, can be compared.

    Raises
    ------
    DependencyError
        If one of them must stay.  Nothing has been deleted then, unless it changed after it was compared.
    StorageError
        If a store refuses.
    """
    opened = open_source or partial(source_of, client=store.client, stores={})
    compared: dict[str, InstanceRecord | None] = {}
    for record, dependencies in owed:
        for uri in dependencies:
            is_file = len(dependencies) == 1 or uri == record.original_path
            compared[uri] = (record if validate_blob_hash and is_file else None) or compared.get(uri)

    def check(item: tuple[str, InstanceRecord | None]) -> Removable | None:
        uri, record = item
        if NestedUri.parse(uri) is not None:
            raise DependencyError(uri, "members of archives are not deleted")
        return check_source(_source(uri, opened), uri, record, store)

    if not compared:
        return []
    with ThreadPoolExecutor(min(len(compared), PARALLEL_READS)) as pool:
        found = [removable for removable in pool.map(check, compared.items()) if removable is not None]
        if dryrun:
            return [removable.uri for removable in found]
        deleted = list(pool.map(Removable.delete, found))
    return [removable.uri for removable, was_there in zip(found, deleted, strict=True) if was_there]


def _source(uri: str, opened: Callable[[str], Source]) -> Source:
    try:
        return opened(uri)
    except InstanceValidationError as error:
        raise DependencyError(uri, error.reason) from error


def _opened(uri: str, source: Source) -> BinaryIO:
    try:
        return source.open()
    except InstanceValidationError as error:
        raise DependencyError(uri, error.reason) from error


def _file_state(uri: str, source: FileSource) -> str | None:
    try:
        found = source.path.stat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DependencyError(uri, reason_of(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise DependencyError(uri, "not a regular file")
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _check_outside(uri: str, place: str, store: ObjectStore, *, local: bool) -> None:
    """Refuse what is a part of the datastore, by whichever name of a local folder it is called."""
    root, places = store.url, {place}
    if local and "://" not in root:
        folder, name = os.path.split(place)
        root = os.path.realpath(root)
        places = {os.path.realpath(place), str(Path(os.path.realpath(folder), name))}
    for found in places:
        if found.startswith(tuple(f"{root}/{own}" for own in _OWN)):
            raise DependencyError(uri, "is a part of the datastore")


def _compare(uri: str, record: InstanceRecord, crc32c: int, size: int) -> None:
    if (crc32c, size) != record.identity:
        raise DependencyError(uri, "is not what is stored: its size or CRC32C differs")
