"""The rows that one series is in both tables."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.catalogue.columns import INSTANCE_ATTRIBUTES, OF_SERIES, Attribute
from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.uids import check_uid, member_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_TRANSFER_SYNTAX = "00020010"
_NUMBER_OF_FRAMES = "00280008"
_DATE_CHARS = 8

Row = dict[str, Any]


class SeriesRows(NamedTuple):
    """One series as a row of the one table, and its instances as rows of the other."""

    series: Row
    instances: list[Row]


def read_rows(store: ObjectStore, key: SeriesKey) -> SeriesRows:
    """Read a series' document and return its rows: one request.

    Raises
    ------
    CODObjectNotFoundError
        If the series is gone.
    MetadataError, UnsupportedVersionError
        If the document, or any record of it, cannot be understood.
    """
    document, version = read_document(store, key)
    return rows_of(store, key, document, version)


def rows_of(store: ObjectStore, key: SeriesKey, document: SeriesDocument, version: str) -> SeriesRows:
    """Return the rows of a series; one with hashed UIDs shows the hashes, and nothing that identifies anybody."""
    hashed = document.hashed_uids
    tar_uri = store.url_of(key.tar)
    uids = {"StudyInstanceUID": key.study_uid, "SeriesInstanceUID": key.series_uid}
    described: Row = {}
    instances: list[Row] = []
    for record in document.iter_records():
        header = _header(document, record)
        if not instances:
            described = _values(header, OF_SERIES, hashed=hashed)
        instances.append(uids | _instance(record, header, tar_uri, hashed=hashed))
    return SeriesRows(
        uids | described | _series(store, key, document, instances) | {"metadata_version": version}, instances
    )


def _header(document: SeriesDocument, record: InstanceRecord) -> dict[str, Any]:
    check_uid(record.name_uid, "instance")
    return header_of(document.uri, record)


def _series(store: ObjectStore, key: SeriesKey, document: SeriesDocument, instances: list[Row]) -> Row:
    tar = document.tar
    return {
        "NumberOfSeriesRelatedInstances": len(instances),
        "SOPClassUIDs": _distinct(row["SOPClassUID"] for row in instances),
        "TransferSyntaxUIDs": _distinct(row["TransferSyntaxUID"] for row in instances),
        "frames": sum(row["frames"] for row in instances),
        "size_bytes": sum(row["size_bytes"] for row in instances),
        "tar_size_bytes": tar.size if tar else None,
        "tar_generation": tar.generation if tar else None,
        "tar_crc32c": encode(tar.crc32c) if tar else None,
        "uri": store.url_of(key.folder),
        "tar_uri": store.url_of(key.tar),
        "hashed_uids": document.hashed_uids,
        "modified": max((row["modified"] for row in instances if row["modified"]), default=None),
    }


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})


def _instance(record: InstanceRecord, header: Mapping[str, Any], tar_uri: str, *, hashed: bool) -> Row:
    return {
        "SOPInstanceUID": record.name_uid,
        **_values(header, INSTANCE_ATTRIBUTES, hashed=hashed),
        "TransferSyntaxUID": first_value(header, _TRANSFER_SYNTAX),
        "has_pixeldata": record.has_pixeldata,
        "frames": _frames(record, header),
        "size_bytes": record.size,
        "crc32c": encode(record.crc32c),
        "start_byte": record.span.start,
        "end_byte": record.span.stop,
        "uri": member_uri(tar_uri, record.name_uid),
        "tar_uri": tar_uri,
        "original_path": None if hashed else record.original_path or None,
        "modified": record.modified,
    }


def _frames(record: InstanceRecord, header: Mapping[str, Any]) -> int:
    if not record.has_pixeldata:
        return 0
    table = record.frame_table
    if table is not None and table.trusted:
        return len(table)
    return max(1, int(number(header, _NUMBER_OF_FRAMES) or 1))


def _values(header: Mapping[str, Any], attributes: Iterable[Attribute], *, hashed: bool) -> Row:
    return {
        one.keyword: None if hashed and one.identifying else _value(header, one.tag, one.kind) for one in attributes
    }


def _value(header: Mapping[str, Any], tag: str, kind: str) -> Any:
    outer, _, inner = tag.partition(".")
    if inner:
        item = first_value(header, outer)
        return _value(item, inner, kind) if isinstance(item, dict) else None
    if kind == "integer":
        return _integer(header, tag)
    text = _text(header.get(tag))
    return _date(text) if kind == "date" else text


def _integer(header: Mapping[str, Any], tag: str) -> int | None:
    value = number(header, tag)
    # An IS is at most 2^31 - 1; what does not fit a column is no number of anything.
    return int(value) if value is not None and abs(value) < 1 << 62 else None


def _text(element: Any) -> str | None:
    values = element.get("Value") if isinstance(element, dict) else None
    texts = [_name(value) if isinstance(value, dict) else str(value) for value in values or () if value is not None]
    return "\\".join(texts) or None


def _name(value: Mapping[str, Any]) -> str:
    """Return the first representation that a person name has (PS3.18 section F.2.2)."""
    return next((str(value[group]) for group in ("Alphabetic", "Ideographic", "Phonetic") if value.get(group)), "")


def _date(text: str | None) -> date | None:
    if text is None or len(text) != _DATE_CHARS or not text.isdecimal():
        return None
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a DA has no time zone
    except ValueError:
        return None
