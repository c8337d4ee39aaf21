"""metadata.json as a value, and changes to it."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import InstanceNotFoundError, MetadataError
from cloud_optimized_dicom.format.json_stream import dump_gzip, iter_text, parse_object
from cloud_optimized_dicom.format.metadata.record import VERSION, check_version, parse_record
from cloud_optimized_dicom.format.metadata.versions import INLINE_VERSION, as_version
from cloud_optimized_dicom.format.tar import padded
from cloud_optimized_dicom.model import InstanceRecord, TarState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloud_optimized_dicom.uids import SeriesKey

IndexChange = Literal["write", "keep", "drop"]
"""It is written for the tar that the commit leaves; it stays, and the document says from now on that there is one; it
is deleted."""

COMMITS_KEPT = 32
_RECORDS_KEPT = 256  # parsed ones; what reads frame after frame of a slide parses its table once
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_LEVEL = 5  # base64 of zstd gains a quarter from Huffman coding alone; higher levels only cost time


@dataclass(frozen=True)
class Change:
    """What a commit does to a document: the difference, so that an append stays as small as what it adds.

    Parameters
    ----------
    add
        Records (JSON) by the UID they are stored under; one that exists is replaced in place.
    remove
        UIDs to drop.
    set_fields, remove_fields
        Custom fields at the top of the document.
    legacy_index
        What becomes of index.sqlite.  None: there is none, or it stays, and the document says so already.
    record_version
        The version that all records get, and later ones as well; None: the one that the document says.
    """

    add: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    set_fields: Mapping[str, Any] = field(default_factory=dict)
    remove_fields: tuple[str, ...] = ()
    legacy_index: IndexChange | None = None
    record_version: str | None = None

    def __bool__(self) -> bool:
        changed = self.add or self.remove or self.set_fields or self.remove_fields
        return bool(changed) or self.legacy_index is not None or self.record_version is not None

    def dump(self) -> dict[str, Any]:
        """Return the change as JSON, but for the records it adds: a lock blob has those as its instances."""
        return {
            "remove": list(self.remove),
            "fields": {"set": dict(self.set_fields), "remove": list(self.remove_fields)},
            "legacy_index": self.legacy_index,
            "record_version": self.record_version,
        }

    @classmethod
    def parse(cls, raw: Mapping[str, Any], add: Mapping[str, Mapping[str, Any]]) -> Change:
        """Return the change that :meth:`dump` gave, with the records that it adds."""
        fields = raw["fields"]
        own = raw.get("legacy_index"), raw.get("record_version")
        return cls(add, tuple(raw["remove"]), fields["set"], tuple(fields["remove"]), *own)


@dataclass(frozen=True)
class SeriesDocument:
    """A metadata.json.  `raw` is its JSON and is never changed; the properties are views of it."""

    uri: str
    raw: Mapping[str, Any]

    @classmethod
    def empty(cls, uri: str, key: SeriesKey, *, hashed_uids: bool) -> SeriesDocument:
        """Return the document of a series that holds nothing."""
        prefix = "deid_" if hashed_uids else ""
        uids = {f"{prefix}study_uid": key.study_uid, f"{prefix}series_uid": key.series_uid}
        return cls(uri, {**uids, "cod": {"instances": {}}})

    @property
    def hashed_uids(self) -> bool:
        """Whether the UIDs of its name are hashes made by the caller."""
        return "deid_study_uid" in self.raw

    @property
    def instances(self) -> Mapping[str, Mapping[str, Any]]:
        """The records' JSON by the UID they are stored under, in the document's order."""
        instances: Mapping[str, Mapping[str, Any]] = self.raw["cod"]["instances"]
        return instances

    @cached_property
    def _records(self) -> dict[str, InstanceRecord]:
        return {}

    def find(self, uid: str) -> InstanceRecord | None:
        """Return a record, or None."""
        record = self._records.get(uid)
        if record is None and uid in self.instances:
            if len(self._records) >= _RECORDS_KEPT:
                self._records.clear()
            record = self._records[uid] = parse_record(self.uri, uid, self.instances[uid])
        return record

    def get(self, uid: str) -> InstanceRecord:
        """Return a record.

        Raises
        ------
        InstanceNotFoundError
            If there is none of that UID.
        """
        record = self.find(uid)
        if record is None:
            raise InstanceNotFoundError(uid, self.uri.removesuffix("/metadata.json"))
        return record

    def iter_records(self) -> Iterator[InstanceRecord]:
        """Yield all records in the document's order."""
        for uid, raw in self.instances.items():
            yield parse_record(self.uri, uid, raw)

    @cached_property
    def tar(self) -> TarState | None:
        """The tar as the last commit left it; None in documents of older writers."""
        raw = self.raw["cod"].get("tar")
        if not isinstance(raw, dict):
            return None
        try:
            return TarState(str(raw["generation"]), int(raw["size"]), checksum.decode(raw["crc32c"]))
        except (KeyError, TypeError, ValueError) as error:
            raise MetadataError(self.uri, ["cod.tar: not a generation, size and CRC32C"]) from error

    @property
    def commits(self) -> tuple[str, ...]:
        """Write ids of the last commits, newest last."""
        return tuple(self.raw["cod"].get("commits", ()))

    @property
    def legacy_index(self) -> bool:
        """Whether every commit writes index.sqlite anew; older writers, who always do, do not say so."""
        return self.raw["cod"].get("legacy_index") is True

    @property
    def record_version(self) -> str:
        """The version that records are written in: 2, unless version 1 was asked for."""
        return INLINE_VERSION if self.raw["cod"].get("record_version") == INLINE_VERSION else VERSION

    @property
    def members_end(self) -> int:
        """Where the last recorded member ends within the tar, its padding included, in bytes."""
        return max((padded(record.span.stop) for record in self.iter_records()), default=0)

    def find_field(self, name: str) -> Any:
        """Return a custom field, or None."""
        return self.raw.get(name) if name not in self.own_keys else None

    @property
    def own_keys(self) -> frozenset[str]:
        """The top-level keys that are not custom fields."""
        return frozenset({"cod", "study_uid", "series_uid", "deid_study_uid", "deid_series_uid"})

    def applied(self, change: Change, tar: TarState | None, write_id: str) -> SeriesDocument:
        """Return the document after a commit: changed, with the tar it leaves and its id at the end of the log."""
        cod = {**self.raw["cod"], "instances": self._instances_after(change)}
        if tar is not None:
            cod["tar"] = _dump_tar(tar)
        if change.legacy_index is not None:
            cod["legacy_index"] = True
        if change.legacy_index == "drop":
            del cod["legacy_index"]
        if change.record_version is not None:
            cod["record_version"] = change.record_version
        if change.record_version == VERSION:
            del cod["record_version"]
        cod["commits"] = [*self.commits, write_id][-COMMITS_KEPT:]
        raw = {name: value for name, value in self.raw.items() if name not in change.remove_fields}
        raw.update(change.set_fields)
        raw["cod"] = cod
        return SeriesDocument(self.uri, raw)

    def _instances_after(self, change: Change) -> dict[str, Mapping[str, Any]]:
        dropped = set(change.remove) - set(change.add)
        instances = {uid: raw for uid, raw in self.instances.items() if uid not in dropped}
        instances.update(change.add)
        version = change.record_version or self.record_version
        if change.record_version is not None:
            return {uid: as_version(raw, version) for uid, raw in instances.items()}
        if version == INLINE_VERSION:  # records of version 1 that are none of ours stay as they are in other documents
            instances.update({uid: as_version(instances[uid], version) for uid in change.add})
        return instances

    def with_tar(self, tar: TarState) -> SeriesDocument:
        """Return the document with another state of the tar, and nothing else changed."""
        return SeriesDocument(self.uri, {**self.raw, "cod": {**self.raw["cod"], "tar": _dump_tar(tar)}})

    def dump(self) -> bytes:
        """Return the stored bytes: gzip of compact JSON, the same for the same document."""
        return dump_gzip(self.raw, level=_GZIP_LEVEL)


def _dump_tar(tar: TarState) -> dict[str, Any]:
    return {"generation": tar.generation, "size": tar.size, "crc32c": checksum.encode(tar.crc32c)}


def parse_json_object(uri: str, data: bytes) -> dict[str, Any]:
    """Return a JSON object from its bytes, gzip or plain.

    Raises
    ------
    MetadataError
        If the bytes are damaged or no JSON object; the error repeats none of them.
    """
    raw = io.BytesIO(data)
    try:
        return parse_object(iter_text(gzip.GzipFile(fileobj=raw) if data[:2] == _GZIP_MAGIC else raw))
    except (OSError, EOFError, zlib.error):
        raise MetadataError(uri, ["the gzip stream is damaged or cut off"]) from None
    except (ValueError, RecursionError):
        raise MetadataError(uri, ["not a JSON object in UTF-8"]) from None


def parse_document(uri: str, data: bytes, key: SeriesKey | None = None) -> SeriesDocument:
    """Return the document in the stored bytes of a metadata.json.

    Parameters
    ----------
    key
        The series that the document must be of, where the caller knows it.

    Raises
    ------
    MetadataError
        If the bytes are damaged, or the document is not one of a series, or of another series.
    UnsupportedVersionError
        If a record is of a version that this release does not know.
    """
    raw = parse_json_object(uri, data)
    cod = raw.get("cod")
    instances = cod.get("instances") if isinstance(cod, dict) else None
    if not isinstance(instances, dict) or not all(isinstance(record, dict) for record in instances.values()):
        raise MetadataError(uri, ["cod.instances: missing or not an object of objects"])
    study, series = (raw.get(f"deid_{name}", raw.get(name)) for name in ("study_uid", "series_uid"))
    if not isinstance(study, str) or not isinstance(series, str):
        raise MetadataError(uri, ["study_uid or series_uid is missing"])
    if key is not None and (study, series) != (key.study_uid, key.series_uid):
        raise MetadataError(uri, ["study_uid and series_uid are not those of its place"])
    for record in instances.values():
        check_version(uri, record)
    return SeriesDocument(uri, raw)
