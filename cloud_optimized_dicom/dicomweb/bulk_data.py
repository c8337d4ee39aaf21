"""Large values of headers: URLs for them, and what those name."""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import pydicom
from pydicom.errors import InvalidDicomError

from cloud_optimized_dicom.dicom.header import PIXEL_DATA_TAGS
from cloud_optimized_dicom.dicom.source import DEFLATED_SYNTAXES
from cloud_optimized_dicom.errors import CODError, InstanceValidationError
from cloud_optimized_dicom.format.dicom_json import first_value
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.bulk_data import BulkDataPlace, read_bulk_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader

_TRANSFER_SYNTAX = "00020010"
_RANGE = re.compile(r"\?offset=([0-9]+)&length=([0-9]+)", re.ASCII)
_PATH = re.compile(r"/[0-9A-Fa-f]{8}(?:/[0-9]+/[0-9A-Fa-f]{8})*", re.ASCII)


def located(header: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return a header whose BulkDataURIs are below `url`.

    Notes
    -----
    By place in the file, where the header says it; older writers did not: by tags and item numbers.
    """
    return {tag: _located(element, url, f"/{tag}") for tag, element in header.items()}


def _located(element: Any, url: str, path: str) -> Any:
    if not isinstance(element, dict):
        return element
    if "BulkDataURI" in element:
        return {**element, "BulkDataURI": f"{url}{_place_of(element['BulkDataURI']) or path}"}
    values = element.get("Value")
    if element.get("vr") != "SQ" or not isinstance(values, list):
        return element
    items = [
        {tag: _located(inner, url, f"{path}/{number}/{tag}") for tag, inner in item.items()}
        if isinstance(item, dict)
        else item
        for number, item in enumerate(values)
    ]
    return {**element, "Value": items}


def _place_of(uri: Any) -> str:
    try:
        span = BulkDataPlace.parse(uri).span if isinstance(uri, str) else None
    except ValueError:
        return ""
    return "" if span is None else f"?offset={span.start}&length={len(span)}"


def read_value(reader: SeriesReader, record: InstanceRecord, asked: str) -> bytes:
    """Return the value that a URL of :func:`located` names.

    Raises
    ------
    ValueError
        If it names none.
    """
    match = _RANGE.fullmatch(asked)
    if match is not None:
        span = ByteRange.of(int(match[1]), int(match[2]))
        is_inflated = first_value(header_of(reader.document.uri, record), _TRANSFER_SYNTAX) in DEFLATED_SYNTAXES
        if span.stop > record.size and not is_inflated:
            raise ValueError("the instance has no such value: it ends before")
        return read_bulk_data(reader, record, BulkDataPlace(record.name_uid, span))
    if _PATH.fullmatch(asked) is None:
        raise ValueError("bulk data are named by ?offset=N&length=M, or by tags and item numbers")
    try:
        with reader.open_instance(record) as stream:
            found: Any = _read_part(stream, int(asked[1:9], 16))
            *path, last = asked[1:].split("/")
            for tag, item in zip(path[::2], path[1::2], strict=True):
                found = found[int(tag, 16)].value[int(item)]
            value = found.get_item(int(last, 16)).value
    except CODError:  # some are LookupErrors, or the like
        raise
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("the instance has no such value") from error
    except (ValueError, EOFError, NotImplementedError, InvalidDicomError, struct.error, zlib.error):
        raise InstanceValidationError(record.uri, "its dataset cannot be read") from None  # pydicom's text may quote it
    if not isinstance(value, bytes):
        raise ValueError("this value is no bulk data")  # noqa: TRY004 - of the request
    return value


def _read_part(stream: BinaryIO, tag: int) -> Any:
    """Return the dataset of a file with one of its top-level elements; others are passed over, pixels not read."""
    creator = tag & 0xFFFF0000 | tag >> 8 & 0xFF  # tells whether a private element is a sequence (PS3.5 section 7.8.1)
    return pydicom.dcmread(
        stream, force=True, specific_tags=[creator, tag], stop_before_pixels=tag < min(PIXEL_DATA_TAGS)
    )
