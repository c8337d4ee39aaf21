"""A series' document as an object, as programs of this format's first library handle it.

A thin face of :class:`~cloud_optimized_dicom.format.metadata.document.SeriesDocument`, which `CODObject` works with.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import MetadataError
from cloud_optimized_dicom.format.metadata.document import SeriesDocument, parse_document
from cloud_optimized_dicom.format.metadata.record import dump_record
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.series.order import in_reading_order
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.uids import NestedUri, SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloud_optimized_dicom.model import InstanceRecord

_UIDS = ("study_uid", "series_uid")


@dataclass
class SeriesMetadata:
    """What metadata.json says of a series.

    Parameters
    ----------
    study_uid, series_uid
        Of the series' place: hashed ones where `hashed_uids`.
    instances
        Stored instances, by the UID that they are stored under.
    metadata_fields
        The custom fields at the top of the document.
    is_sorted
        Whether `instances` is in reading order.

    Notes
    -----
    What a document holds beyond these, at any level, is kept: :meth:`to_dict` of what :meth:`from_dict` made is equal
    to what was given.  Changing it changes nothing that is stored; `CODObject` does that.
    """

    study_uid: str
    series_uid: str
    hashed_uids: bool
    instances: dict[str, Instance] = field(default_factory=dict)
    metadata_fields: dict[str, Any] = field(default_factory=dict)
    is_sorted: bool = False
    _document: SeriesDocument | None = field(default=None, init=False, repr=False, compare=False)

    # -- from what is stored

    @classmethod
    def from_dict(
        cls, series_metadata_dict: Mapping[str, Any], uid_hash_func: Callable[[str], str] | None = None
    ) -> Self:
        """Return the metadata in a document's JSON, `CODObject.get_metadata()` for example.

        Parameters
        ----------
        uid_hash_func
            Given to the instances.

        Raises
        ------
        MetadataError
            If it is no document of a series.
        UnsupportedVersionError
            If a record is of a version that this release does not know.
        """
        return cls.from_bytes(json.dumps(series_metadata_dict).encode(), uid_hash_func)

    @classmethod
    def from_bytes(cls, bytes: bytes, uid_hash_func: Callable[[str], str] | None = None) -> Self:  # noqa: A002 - the fixed name
        """Return the metadata in the bytes of a metadata.json, gzip or plain; errors as :meth:`from_dict`."""
        return cls._of(parse_document("metadata.json", bytes), uid_hash_func, None)

    @classmethod
    def from_blob(cls, blob: Any, uid_hash_func: Callable[[str], str] | None = None) -> Self:
        """Return the metadata in a blob (``google.cloud.storage.Blob``), by one request; errors as :meth:`from_dict`.

        Raises
        ------
        CODObjectNotFoundError
            If there is none.
        ValueError
            If the blob is not named as a metadata.json is.
        """
        key = SeriesKey.parse(blob.name)
        if key is None or not blob.name.endswith(key.metadata):
            raise ValueError(
                f"{blob.name} is no metadata.json: ...studies/STUDY/series/SERIES/metadata.json is expected"
            )
        root = f"gs://{blob.bucket.name}/{blob.name.removesuffix(key.metadata)}"
        reader = SeriesReader.open(open_store(root, blob.client), key)
        return cls._of(reader.document, uid_hash_func, reader)

    @classmethod
    def _of(
        cls, document: SeriesDocument, uid_hash_func: Callable[[str], str] | None, reader: SeriesReader | None
    ) -> Self:
        prefix = "deid_" if document.hashed_uids else ""
        study, series = (str(document.raw[f"{prefix}{name}"]) for name in _UIDS)
        fields = {name: value for name, value in document.raw.items() if name not in document.own_keys}
        metadata = cls(study, series, document.hashed_uids, metadata_fields=fields)
        metadata._document = document
        for record in document.iter_records():
            reader = reader or _reader_of(document, record)
            instance = Instance.stored(record, reader)
            instance.uid_hash_func = uid_hash_func
            metadata.instances[record.name_uid] = instance
        return metadata

    # -- order

    def sort_instances(self, strict: bool = False) -> None:  # noqa: FBT001, FBT002 - as people write it
        """Bring the instances into reading order: by InstanceNumber, else by SliceLocation.

        Raises
        ------
        ValueError
            If `strict` and neither orders them; otherwise they stay as they are, and `is_sorted` is False.
        """
        by_uid = {uid: self._record(uid) for uid in self.instances}
        names = {id(record): uid for uid, record in by_uid.items()}
        try:
            records = in_reading_order(by_uid.values(), strict=True)
        except ValueError:
            self.is_sorted = False
            if strict:
                raise
            return
        self.instances = {names[id(record)]: self.instances[names[id(record)]] for record in records}
        self.is_sorted = True

    # -- as JSON

    def to_dict(self) -> dict[str, Any]:
        """Return the document.

        Raises
        ------
        ValueError
            If an instance is not stored: it has no place in the tar.
        """
        prefix = "deid_" if self.hashed_uids else ""
        before = self._document.raw if self._document is not None else {}
        cod = {**before.get("cod", {}), "instances": {uid: self._raw_record(uid) for uid in self.instances}}
        named = {f"{prefix}study_uid": self.study_uid, f"{prefix}series_uid": self.series_uid, "cod": cod}
        kept = {name: value for name, value in before.items() if name in named or name in self.metadata_fields}
        return {**kept, **named, **self.metadata_fields}

    def to_bytes(self) -> bytes:
        """Return the document as JSON in UTF-8; errors as :meth:`to_dict`."""
        return json.dumps(self.to_dict()).encode()

    def to_gzipped_json(self) -> bytes:
        """Return the document as a metadata.json is stored; errors as :meth:`to_dict`."""
        return gzip.compress(self.to_bytes(), mtime=0)

    def _record(self, uid: str) -> InstanceRecord:
        record = self.instances[uid].record
        if record is None:
            raise ValueError(f"instance {uid} is not stored")
        return record

    def _raw_record(self, uid: str) -> Mapping[str, Any]:
        record = self._record(uid)
        known = self._document.instances.get(uid) if self._document is not None else None
        # As it was written, with what this release knows nothing of, if it is still the same file.
        if known is not None and known.get("crc32c") == checksum.encode(record.crc32c):
            return known
        return dump_record(record)


def _reader_of(document: SeriesDocument, record: InstanceRecord) -> SeriesReader:
    """Return a reader of the series where a record says that it is: nothing else does."""
    nested = NestedUri.parse(record.uri)
    key = SeriesKey.parse(nested.tar) if nested else None
    if nested is None or key is None:
        raise MetadataError(document.uri, [f"cod.instances.{record.name_uid}.uri: names no instance of a series"])
    return SeriesReader(open_store(nested.tar.removesuffix(key.tar) or ".", None), key, document, "")
