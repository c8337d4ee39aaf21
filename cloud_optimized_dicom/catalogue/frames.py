"""Frames as rows: a Parquet file per series, or Arrow record batches, with the bytes of each frame."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.catalogue.columns import schema_of
from cloud_optimized_dicom.catalogue.extras import pyarrow
from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.base import Attributes
from cloud_optimized_dicom.storage.payload import FilePayload
from cloud_optimized_dicom.storage.put import put
from cloud_optimized_dicom.uid_hashing import hash_instances, hash_key
from cloud_optimized_dicom.uids import check_uid, member_uri

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uid_hashing import UidHash
    from cloud_optimized_dicom.uids import SeriesKey

_PARQUET = Attributes(content_type="application/vnd.apache.parquet")
_BATCH_BYTES = 16 << 20
_TEXTS = (("SOPClassUID", "00080016"), ("TransferSyntaxUID", "00020010"), ("PhotometricInterpretation", "00280004"))
_NUMBERS = (
    ("InstanceNumber", "00200013"),
    ("Rows", "00280010"),
    ("Columns", "00280011"),
    ("SamplesPerPixel", "00280002"),
    ("BitsAllocated", "00280100"),
    ("BitsStored", "00280101"),
    ("PixelRepresentation", "00280103"),
)


class FrameRows(NamedTuple):
    """What became of one series: rows written, whether the file is new, and what could not be had, by instance URI."""

    series_uri: str
    rows: int
    written: bool
    failures: tuple[tuple[str, Exception], ...]


def frame_columns() -> tuple[tuple[str, str], ...]:
    """Return names and types of the columns but `data`, the frame's bytes as stored."""
    uids = (("StudyInstanceUID", "string"), ("SeriesInstanceUID", "string"), ("SOPInstanceUID", "string"))
    attributes = (*((name, "string") for name, _ in _TEXTS), *((name, "int64") for name, _ in _NUMBERS))
    return (*uids, *attributes, ("frame", "int64"))


class FrameTable:
    """The frames of one series as rows.

    Parameters
    ----------
    uids
        Only these instances; None: all.
    hash_uid
        What is shown instead of the study's, series' and instances' UIDs.

    Raises
    ------
    CODObjectNotFoundError, MetadataError
        If the series cannot be opened.
    HashedUidsError, InvalidUidError
        If `hash_uid` does not give each of its instances a UID.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: SeriesKey,
        *,
        uids: frozenset[str] | None = None,
        hash_uid: UidHash | None = None,
    ) -> None:
        self._reader = SeriesReader.open(store, key)
        self._frames = FrameReader(self._reader)
        names = [uid for uid in self._reader.document.instances if uids is None or uid in uids]
        uri = store.url_of(key.folder)
        self._names, self._key = hash_instances(hash_uid, names, uri), hash_key(hash_uid, key, uri)
        self.schema = schema_of(frame_columns()).append(pyarrow().field("data", pyarrow().large_binary()))
        self.failures: list[tuple[str, Exception]] = []

    def iter_batches(self) -> Iterator[Any]:
        """Yield Arrow record batches of about 16 MiB; instances that cannot be read are added to `failures`."""
        rows: list[dict[str, Any]] = []
        size = 0
        for uid in self._names:
            for row in self._iter_rows(uid):
                rows.append(row)
                size += len(row["data"])
                if size >= _BATCH_BYTES:
                    yield self._batch(rows)
                    rows, size = [], 0
        if rows:
            yield self._batch(rows)

    def _batch(self, rows: list[dict[str, Any]]) -> Any:
        return pyarrow().RecordBatch.from_pylist(rows, self.schema)

    def _iter_rows(self, uid: str) -> Iterator[dict[str, Any]]:
        try:
            record = self._reader.document.get(check_uid(uid, "instance"))
            table = self._frames.table(record)
            if table is None:
                return
            shown = self._shown(record)
            step = max(1, _BATCH_BYTES * len(table) // max(record.size, 1))
            for first in range(0, len(table), step):
                numbers = range(first, min(first + step, len(table)))
                for frame, data in zip(numbers, self._frames.read(record, numbers), strict=True):
                    yield shown | {"frame": frame, "data": data}
        except (CODError, ValueError) as error:  # a ValueError: a number of the header is none
            self.failures.append((member_uri(self._reader.tar_uri, uid), error))

    def _shown(self, record: InstanceRecord) -> dict[str, Any]:
        header = header_of(self._reader.document.uri, record)
        numbers = {name: number(header, tag) for name, tag in _NUMBERS}
        return {
            "StudyInstanceUID": self._key.study_uid,
            "SeriesInstanceUID": self._key.series_uid,
            "SOPInstanceUID": self._names[record.name_uid],
            **{name: first_value(header, tag) for name, tag in _TEXTS},
            **{name: None if value is None else int(value) for name, value in numbers.items()},
        }

    def write(self, destination: ObjectStore) -> FrameRows:
        """Write ``STUDY_UID/SERIES_UID.parquet``, in one step; nothing happens where it holds the same already."""
        key, rows = self._reader.key, 0
        with tempfile.NamedTemporaryFile(prefix="cod-") as file:
            with pyarrow("parquet").ParquetWriter(file.name, self.schema, compression="zstd") as writer:
                for batch in self.iter_batches():
                    writer.write_batch(batch)
                    rows += batch.num_rows
            name = f"{self._key.study_uid}/{self._key.series_uid}.parquet"
            written = bool(rows) and put(destination, name, FilePayload.of(Path(file.name)), _PARQUET)
        return FrameRows(self._reader.store.url_of(key.folder), rows, written, tuple(self.failures))
