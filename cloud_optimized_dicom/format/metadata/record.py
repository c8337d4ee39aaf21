"""One instance's record, versions 1 and 2, as JSON and as :class:`~cloud_optimized_dicom.model.InstanceRecord`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import FrameTableError, MetadataError, UnsupportedVersionError
from cloud_optimized_dicom.format.dicom_json import (
    PIXEL_DATA_TAGS,
    TAG_SERIES_INSTANCE_UID,
    TAG_SOP_INSTANCE_UID,
    TAG_STUDY_INSTANCE_UID,
    first_value,
    unpack_header,
)
from cloud_optimized_dicom.format.offsets.codec import dump_offset_tables, parse_offset_tables
from cloud_optimized_dicom.model import FrameTable, InstanceRecord
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "2.0"


def record_version(raw: Mapping[str, Any]) -> str:
    """Return the version of a record; a missing one means 1.0."""
    version = raw.get("version")
    return "1.0" if version is None else str(version)


def check_version(uri: str, raw: Mapping[str, Any]) -> str:
    """Return the version of a record if this release can read it.

    Raises
    ------
    UnsupportedVersionError
        Otherwise.
    """
    version = record_version(raw)
    if version.partition(".")[0] not in {"1", "2"}:
        raise UnsupportedVersionError(uri, version if len(version) <= 16 else "?")  # noqa: PLR2004
    return version


class _Fields:
    """Typed access to a record's JSON that remembers what was wrong."""

    def __init__(self, uri: str, path: str, raw: Mapping[str, Any]) -> None:
        self.uri, self.path, self.raw = uri, path, raw
        self.problems: list[str] = []

    def get(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = self.raw.get(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            self.problems.append(f"{self.path}.{name}: missing or not a {getattr(kind, '__name__', 'text or number')}")
            return default
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.raw.get(name) or []
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self.problems.append(f"{self.path}.{name}: not a list of texts")
        return ()

    def crc32c(self, name: str, *, required: bool) -> int | None:
        value = self.raw.get(name)
        if value is None and not required:
            return None
        try:
            return checksum.decode(value if isinstance(value, str) else "")
        except ValueError:
            self.problems.append(f"{self.path}.{name}: not a base64 CRC32C")
            return None

    def start(self) -> int:
        headers = self.raw.get("headers")
        start = headers.get("start_byte") if isinstance(headers, dict) else None
        if not isinstance(start, int) or start < 0:
            self.problems.append(f"{self.path}.headers.start_byte: missing or not a position")
            return 0
        return start


def _v1_uid(fields: _Fields, tag: str) -> str:
    header = fields.raw.get("metadata")
    value = first_value(header, tag) if isinstance(header, dict) else None
    if isinstance(value, str):
        return value
    fields.problems.append(f"{fields.path}.metadata.{tag}: missing")
    return ""


def _identity(fields: _Fields, version: str) -> tuple[str, str, str, bool]:
    if version.startswith("1"):
        header = fields.get("metadata", dict, {})
        has_pixeldata = any(tag in header for tag in PIXEL_DATA_TAGS)
        tags = (TAG_SOP_INSTANCE_UID, TAG_SERIES_INSTANCE_UID, TAG_STUDY_INSTANCE_UID)
        instance, series, study = (_v1_uid(fields, tag) for tag in tags)
        return instance, series, study, has_pixeldata
    instance, series, study = (fields.get(name, str, "") for name in ("instance_uid", "series_uid", "study_uid"))
    return instance, series, study, fields.get("has_pixeldata", bool, default=False)


def _frame_table(fields: _Fields) -> FrameTable | None:
    try:
        return parse_offset_tables(fields.raw.get("offset_tables"))
    except FrameTableError:
        # A table that cannot be understood is worth as much as none: readers rebuild it from the bytes.
        return FrameTable((), (), trusted=False)


def parse_record(uri: str, name_uid: str, raw: Mapping[str, Any]) -> InstanceRecord:
    """Return the record stored under `name_uid` in the document at `uri`.

    Raises
    ------
    MetadataError
        Naming every field that is missing or of the wrong type.
    UnsupportedVersionError
        For a version that this release does not know.
    """
    version = check_version(uri, raw)
    fields = _Fields(uri, f"cod.instances.{name_uid if is_uid(name_uid) else '?'}", raw)
    instance_uid, series_uid, study_uid, has_pixeldata = _identity(fields, version)
    record = InstanceRecord(
        name_uid=name_uid,
        instance_uid=instance_uid,
        series_uid=series_uid,
        study_uid=study_uid,
        has_pixeldata=has_pixeldata,
        start=fields.start(),
        size=fields.get("size", int, 0),
        crc32c=fields.crc32c("crc32c", required=True) or 0,
        uri=fields.get("uri", str, ""),
        packed_header=fields.get("metadata", (str, dict), ""),
        frame_table=_frame_table(fields) if has_pixeldata else None,
        version=version,
        original_path=str(raw.get("original_path") or ""),
        dependencies=fields.texts("dependencies"),
        diff_hash_dupe_paths=fields.texts("diff_hash_dupe_paths"),
        modified=_parse_time(raw.get("modified_datetime")),
        source_size=raw.get("source_size"),
        source_crc32c=fields.crc32c("source_crc32c", required=False),
    )
    if not is_uid(name_uid):  # it becomes a file name
        fields.problems.append(f"{fields.path}: not a UID")
    if record.size < 0:
        fields.problems.append(f"{fields.path}.size: negative")
    if fields.problems:
        raise MetadataError(uri, fields.problems)
    return record


def header_of(uri: str, record: InstanceRecord) -> dict[str, Any]:
    """Return the header in a record of the document at `uri`, as a dict of tags.

    Raises
    ------
    MetadataError
        If it cannot be unpacked; the text holds no value of the header.
    """
    try:
        return unpack_header(record.packed_header)
    except ValueError as error:
        raise MetadataError(uri, [f"cod.instances.{record.name_uid}.metadata: {error}"]) from error


def _parse_time(text: Any) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed and parsed.tzinfo is None else parsed


def dump_record(record: InstanceRecord) -> dict[str, Any]:
    """Return the JSON of a new record, version 2."""
    raw: dict[str, Any] = {
        "instance_uid": record.instance_uid,
        "series_uid": record.series_uid,
        "study_uid": record.study_uid,
        "has_pixeldata": record.has_pixeldata,
        "metadata": record.packed_header,
        "uri": record.uri,
        "headers": {"start_byte": record.start, "end_byte": record.start + record.size},
        "offset_tables": dump_offset_tables(record.frame_table),
        "crc32c": checksum.encode(record.crc32c),
        "size": record.size,
        "original_path": record.original_path,
        "dependencies": list(record.dependencies),
        "diff_hash_dupe_paths": list(record.diff_hash_dupe_paths),
        "version": VERSION,
        "modified_datetime": record.modified.isoformat() if record.modified else None,
    }
    if record.source_crc32c is not None:
        raw["source_crc32c"] = checksum.encode(record.source_crc32c)
        raw["source_size"] = record.source_size
    return raw


def moved(raw: Mapping[str, Any], start: int) -> dict[str, Any]:
    """Return a record's JSON with its bytes at another place of the tar; everything else stays as it was."""
    headers = {**(raw.get("headers") or {}), "start_byte": start, "end_byte": start + int(raw["size"])}
    return {**raw, "headers": headers}


def with_duplicate_path(raw: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """Return a record's JSON that also names a differing duplicate's URI."""
    paths = list(raw.get("diff_hash_dupe_paths") or [])
    return {**raw, "diff_hash_dupe_paths": [*paths, uri] if uri not in paths else paths}
