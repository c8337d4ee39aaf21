"""A record as one of another version: version 1 has the header itself, version 2 packs it and names what is in it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.errors import MetadataError
from cloud_optimized_dicom.format.dicom_json import (
    PIXEL_DATA_TAGS,
    TAG_SERIES_INSTANCE_UID,
    TAG_SOP_INSTANCE_UID,
    TAG_STUDY_INSTANCE_UID,
    first_value,
    pack_header,
    unpack_header,
    without_non_finite,
)
from cloud_optimized_dicom.format.metadata.record import VERSION, parse_record, record_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.model import InstanceRecord

INLINE_VERSION = "1.0"
"""Records whose header is JSON in the document, for readers that cannot unpack one."""

_NAMED = {
    "instance_uid": TAG_SOP_INSTANCE_UID,
    "series_uid": TAG_SERIES_INSTANCE_UID,
    "study_uid": TAG_STUDY_INSTANCE_UID,
}
_HAS_PIXELDATA = "has_pixeldata"


def as_version(raw: Mapping[str, Any], version: str) -> Mapping[str, Any]:
    """Return a record's JSON in a version, `INLINE_VERSION` or `VERSION`; what else is in it stays, in its order.

    Raises
    ------
    ValueError
        If its header cannot be unpacked.
    """
    if _is_of(raw, version):
        return raw
    return _inlined(raw) if version == INLINE_VERSION else _packed(raw)


def must_convert(uri: str, name_uid: str, raw: Mapping[str, Any], version: str) -> bool:
    """Return whether a record has to be converted to be of a version; nothing that is read from it may change by that.

    Raises
    ------
    MetadataError
        If a record of that version cannot say what this one says.
    """
    if _is_of(raw, version):
        return False
    try:
        converted = as_version(raw, version)
    except ValueError:
        raise MetadataError(uri, [f"cod.instances.{name_uid}.metadata: not a header"]) from None
    before, after = (_without_form(parse_record(uri, name_uid, record)) for record in (raw, converted))
    if before != after:
        raise MetadataError(uri, [f"cod.instances.{name_uid}: a record of version {version} cannot say what it says"])
    return True


def _dump_header(header: Mapping[str, Any]) -> bytes:
    """Return the JSON of a header as an ingest writes it."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes a JSON escape


def _is_of(raw: Mapping[str, Any], version: str) -> bool:
    return record_version(raw).partition(".")[0] == version.partition(".")[0]


def _inlined(raw: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in raw.items() if name not in {*_NAMED, _HAS_PIXELDATA}}
    # An older writer's header may hold NaN or infinity, which no document may.
    return kept | {"metadata": without_non_finite(unpack_header(raw["metadata"])), "version": INLINE_VERSION}


def _packed(raw: Mapping[str, Any]) -> dict[str, Any]:
    header = unpack_header(raw["metadata"])
    named: dict[str, Any] = {name: first_value(header, tag) for name, tag in _NAMED.items()}
    named[_HAS_PIXELDATA] = any(tag in header for tag in PIXEL_DATA_TAGS)
    return named | dict(raw) | {"metadata": pack_header(_dump_header(header)), "version": VERSION}


def _without_form(record: InstanceRecord) -> InstanceRecord:
    return replace(record, version="", packed_header="")
