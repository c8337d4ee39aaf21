"""The header of one instance as metadata.json keeps it: DICOM JSON (PS3.18 Annex F), zstd, base64."""

from __future__ import annotations

import base64
import binascii
import json
import math
import threading
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping

TAG_SOP_INSTANCE_UID = "00080018"
TAG_STUDY_INSTANCE_UID = "0020000D"
TAG_SERIES_INSTANCE_UID = "0020000E"
PIXEL_DATA_TAGS = ("7FE00010", "7FE00008", "7FE00009")
"""Pixel Data, Float Pixel Data, Double Float Pixel Data (PS3.3 section C.7.6.24)."""

_MAX_HEADER_BYTES = 1 << 30
_LEVEL = 9


class _PerThread(threading.local):
    """A compressor that is not made anew for every header; two threads may not use one at the same time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)


_per_thread = _PerThread()


def pack_header(header: bytes) -> str:
    """Return the stored form of a header given as UTF-8 JSON."""
    return base64.b64encode(_per_thread.compressor.compress(header)).decode("ascii")


def unpack_header(packed: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a header as a dict of tags, from its stored form (v2: text; v1: the document itself).

    Raises
    ------
    ValueError
        If it is neither; the message holds no value of the header.
    """
    if not isinstance(packed, str):
        return dict(packed)
    try:
        document = json.loads(unpack_header_bytes(packed))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError("the header is not JSON") from None  # the chained error would quote the header
    if not isinstance(document, dict):
        raise ValueError("the header is not a JSON object")  # noqa: TRY004 - the caller maps ValueError
    return document


def unpack_header_bytes(packed: str) -> bytes:
    """Return a header's JSON bytes from its stored text.

    Raises
    ------
    ValueError
        If the text is not base64 of one zstd frame.
    """
    try:
        raw = base64.b64decode(packed, validate=True)
        return zstandard.ZstdDecompressor().decompressobj().decompress(raw) if raw else b""
    except (binascii.Error, zstandard.ZstdError) as error:
        raise ValueError("the header is not base64 of zstd") from error


def first_value(header: Mapping[str, Any], tag: str) -> Any:
    """Return the first value of a tag, or None where the tag is absent or empty."""
    element = header.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def number(header: Mapping[str, Any], tag: str) -> float | None:
    """Return the first value of a tag as a number, or None where it is absent or no number."""
    try:
        return float(first_value(header, tag))
    except (TypeError, ValueError):
        return None


def without_non_finite(value: Any) -> Any:
    """Return a JSON value with null for every NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
