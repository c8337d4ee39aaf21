"""Instances of one series as objects ``STUDY_UID/SERIES_UID/SOP_UID.dcm`` of any store."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.export.pieces import PIECE_BYTES
from cloud_optimized_dicom.export.report import ExportFailure
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.base import Attributes
from cloud_optimized_dicom.storage.payload import BytesPayload, FilePayload
from cloud_optimized_dicom.storage.put import holds, put
from cloud_optimized_dicom.uid_hashing import hash_instances, hash_key
from cloud_optimized_dicom.uids import check_uid, member_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uid_hashing import UidHash
    from cloud_optimized_dicom.uids import SeriesKey

_DICOM = Attributes(content_type="application/dicom")
_AT_A_TIME = 8


class CopiedSeries(NamedTuple):
    """What a copy of one series did: files that are new, or were there and equal, and those that could not be had."""

    series_uri: str
    written: int
    written_bytes: int
    present: int
    failures: tuple[ExportFailure, ...]


def copy_series(
    store: ObjectStore,
    key: SeriesKey,
    destination: ObjectStore,
    *,
    uids: frozenset[str] | None = None,
    hash_uid: UidHash | None = None,
) -> CopiedSeries:
    """Write instances of a series into another store, exactly as they are stored.

    Parameters
    ----------
    uids
        Only these instances; None: all.
    hash_uid
        What the names are made of instead of the UIDs.  The bytes are not changed: the files still hold theirs.

    Raises
    ------
    CODObjectNotFoundError, MetadataError
        If the series cannot be opened.  A damaged instance is a failure in the result.
    HashedUidsError, InvalidUidError
        If `hash_uid` does not give each of its instances a name.

    Notes
    -----
    Each instance's CRC32C is checked before its object appears; one that is there and equal is not read.  So a copy may
    be repeated, or made twice at the same time.  8 instances are copied at a time, each held in memory up to 8 MiB.
    """
    reader = SeriesReader.open(store, key)
    names = [uid for uid in reader.document.instances if uids is None or uid in uids]
    uri = store.url_of(key.folder)
    copy = _Copy(reader, destination, hash_key(hash_uid, key, uri), hash_instances(hash_uid, names, uri))
    with ThreadPoolExecutor(_AT_A_TIME, "cod-copy") as pool:
        outcomes = list(pool.map(copy.one, names))
    written = [outcome for outcome in outcomes if isinstance(outcome, int) and outcome >= 0]
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, ExportFailure))
    present = len(outcomes) - len(written) - len(failures)
    return CopiedSeries(uri, len(written), sum(written), present, failures)


_PRESENT = -1


class _Copy:
    def __init__(
        self, reader: SeriesReader, destination: ObjectStore, shown: SeriesKey, names: Mapping[str, str]
    ) -> None:
        self._reader, self._destination = reader, destination
        self._shown, self._names = shown, names

    def one(self, uid: str) -> int | ExportFailure:
        """Copy an instance; return its size, -1 where it was there, or why it could not be had."""
        try:
            record = self._reader.document.get(check_uid(uid, "instance"))
            name = f"{self._shown.study_uid}/{self._shown.series_uid}/{self._names[uid]}.dcm"
            if holds(self._destination.find(name), record.size, record.crc32c) or not self._write(name, record):
                return _PRESENT
        except CODError as error:
            return ExportFailure(member_uri(self._reader.tar_uri, uid), error)
        return record.size

    def _write(self, name: str, record: InstanceRecord) -> bool:
        if record.size <= PIECE_BYTES:
            return put(self._destination, name, BytesPayload(self._reader.read_instance(record)), _DICOM)
        with tempfile.NamedTemporaryFile(prefix="cod-") as file:
            for chunk in self._reader.iter_instance(record):
                file.write(chunk)
            file.flush()
            return put(self._destination, name, FilePayload(Path(file.name), record.size, record.crc32c), _DICOM)
