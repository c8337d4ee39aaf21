"""What answers consist of: media types, multipart bodies, frames as they travel (PS3.18 sections 8.6 and 8.7)."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels
from cloud_optimized_dicom.dicom.frames import is_swapped
from cloud_optimized_dicom.dicom.source import DEFLATED_SYNTAXES, EXPLICIT_BIG, EXPLICIT_LITTLE
from cloud_optimized_dicom.dicom.transcode.plan import ENCAPSULATED_UNCOMPRESSED, UNCOMPRESSED_SYNTAXES
from cloud_optimized_dicom.format.dicom_json import without_non_finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DICOM, DICOM_JSON, OCTET_STREAM = "application/dicom", "application/dicom+json", "application/octet-stream"

_META_GROUP, _TRANSFER_SYNTAX, _AVAILABLE_TRANSFER_SYNTAX = "0002", "00020010", "00083002"
_LINE = b"\r\n"
_PREFIX = "1.2.840.10008.1.2."
# PS3.18 section 8.7.3.3.2: what a frame of a compressed transfer syntax is called by itself.
_FRAME_TYPES = {
    "image/jpeg": ("4.50", "4.51", "4.57", "4.70"),
    "image/jls": ("4.80", "4.81"),
    "image/jp2": ("4.90", "4.91"),
    "image/jpx": ("4.92", "4.93"),
    "image/jphc": ("4.201", "4.202", "4.203"),
    "image/jxl": ("4.110", "4.111", "4.112"),
    "image/dicom-rle": ("5",),
}
_TYPE_OF = {f"{_PREFIX}{suffix}": name for name, suffixes in _FRAME_TYPES.items() for suffix in suffixes}


class Part(NamedTuple):
    """One of the parts of a body: what it is, and the URL that names it alone."""

    content_type: str
    body: bytes
    location: str = ""


class DicomwebResponse(NamedTuple):
    """An answer.

    Attributes
    ----------
    status
        Of HTTP.
    content_type
        With its parameters.
    parts
        What it consists of; all there is, where the answer is no multipart one.
    """

    status: int
    content_type: str
    body: bytes
    parts: tuple[Part, ...] = ()


def json_response(headers: Sequence[Mapping[str, Any]]) -> DicomwebResponse:
    """Return an answer in DICOM JSON (PS3.18 Annex F)."""
    try:
        text = json.dumps(headers, ensure_ascii=False, allow_nan=False)
    except ValueError:  # an older writer's header: JSON has neither NaN nor infinity
        text = json.dumps(without_non_finite(headers), ensure_ascii=False, allow_nan=False)
    return DicomwebResponse(200, DICOM_JSON, text.encode())


def as_dataset(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header as it travels: without the file's own group 0002, of which only the transfer syntax is told.

    That is Available Transfer Syntax UID, (0008,3002); elements in ascending order (PS3.18 section F.2.2).
    """
    syntax = header.get(_TRANSFER_SYNTAX)
    told = {} if syntax is None else {_AVAILABLE_TRANSFER_SYNTAX: syntax}
    return {tag: value for tag, value in sorted({**header, **told}.items()) if not tag.startswith(_META_GROUP)}


def multipart_response(parts: Sequence[Part]) -> DicomwebResponse:
    """Return an answer of one part or more, ``multipart/related`` (PS3.18 section 8.6.1.2, RFC 2387)."""
    boundary = uuid.uuid4().hex
    body = bytearray()
    for part in parts:
        body += f"--{boundary}\r\nContent-Type: {part.content_type}\r\n".encode()
        if part.location:
            body += f"Content-Location: {part.location}\r\n".encode()
        body += _LINE + part.body + _LINE
    body += f"--{boundary}--\r\n".encode()
    kind = parts[0].content_type.partition(";")[0]
    content_type = f'multipart/related; type="{kind}"; boundary={boundary}'
    return DicomwebResponse(200, content_type, bytes(body), tuple(parts))


def frame_part(
    frame: bytes, number: int, header: Mapping[str, Any], transfer_syntax_uid: str, location: str = ""
) -> Part:
    """Return a frame (0-based) as it travels: encoded as it is stored, or bare pixels in little endian."""
    if transfer_syntax_uid in DEFLATED_SYNTAXES or transfer_syntax_uid in UNCOMPRESSED_SYNTAXES:
        pixels = little_endian_pixels(frame, number, header, transfer_syntax_uid)
        return Part(f"{OCTET_STREAM}; transfer-syntax={EXPLICIT_LITTLE}", pixels, location)
    kind = _TYPE_OF.get(transfer_syntax_uid, OCTET_STREAM)
    return Part(f"{kind}; transfer-syntax={transfer_syntax_uid}", frame, location)


def little_endian_pixels(frame: bytes, number: int, header: Mapping[str, Any], transfer_syntax_uid: str) -> bytes:
    """Return the pixels of a native frame, from its first bit on, in little endian.

    Notes
    -----
    Native frames are packed without padding, so one of bits may begin within a byte (PS3.5 section 8.1.1), and one of
    bytes in big endian words within a word (PS3.5 2016b section A.3).  Encapsulated ones have an item each, padded to
    even length (PS3.5 section A.4.11).
    """
    pixels = ImagePixels.of(header)
    unit_bits = 8
    if is_swapped(pixels.vr, pixels.bits_allocated, transfer_syntax_uid):
        unit_bits = 16
        frame = _swapped(frame, 2)
    elif transfer_syntax_uid == EXPLICIT_BIG and pixels.bits_allocated > unit_bits:
        frame = _swapped(frame, pixels.bits_allocated // 8)
    if min(pixels.rows, pixels.columns, pixels.bits_allocated) < 1:
        return frame  # all that is known
    bits = pixels.rows * pixels.columns * max(1, pixels.samples_per_pixel) * pixels.bits_allocated
    if bits % unit_bits == 0:
        return frame[: bits // 8]  # shorter, where pixels share their chrominance
    first = 0 if transfer_syntax_uid == ENCAPSULATED_UNCOMPRESSED else number * bits % unit_bits
    if first % 8 == 0 and bits % 8 == 0:
        return frame[first // 8 : (first + bits) // 8]
    found = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[first : first + bits]
    return np.packbits(found, bitorder="little").tobytes()


def _swapped(data: bytes, width: int) -> bytes:
    """Return whole words of `width` bytes with their bytes in the other order."""
    return np.frombuffer(data[: len(data) // width * width], np.uint8).reshape(-1, width)[:, ::-1].tobytes()
