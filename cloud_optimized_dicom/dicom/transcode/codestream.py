"""Whether a compressed frame is as lossless as its transfer syntax claims, by the markers at its start.

A decoder of anything else may round as it likes, so its pixels must not be taken for the source's.
"""

from __future__ import annotations

import struct

from cloud_optimized_dicom.dicom.transcode.plan import JPEG2000_LOSSLESS, JPEG_LOSSLESS, JPEGLS_LOSSLESS

_SOF3, _SOF55, _SOS = 0xC3, 0xF7, 0xDA  # JPEG: ISO/IEC 10918-1 table B.1, JPEG-LS: ISO/IEC 14495-1 table C.1
_OTHER_SOFS = frozenset(range(0xC0, 0xD0)) - {_SOF3, 0xC4, 0xC8, 0xCC}
_COD, _QCD, _SOT = 0x52, 0x5C, 0x90  # ISO/IEC 15444-1 table A.2
_TRANSFORMATION = 9  # its place in a COD segment behind the length; 1 is the reversible 5-3 (table A.20)
_REVERSIBLE = 1


def is_lossless(frame: bytes, transfer_syntax_uid: str) -> bool:
    """Return whether the frame is coded without loss; True for syntaxes that know no other way.

    Parameters
    ----------
    frame
        One frame, its fragments joined.
    """
    if transfer_syntax_uid in JPEG_LOSSLESS:
        markers = _segments(frame, _SOS)
        return _SOF3 in markers and not _OTHER_SOFS & markers.keys()
    if transfer_syntax_uid == JPEGLS_LOSSLESS:
        markers = _segments(frame, _SOS)
        scan = markers.get(_SOS, b"")
        # Behind Ns and its components come NEAR, ILV and the point transform (ISO/IEC 14495-1 section C.2.3).
        near = scan[1 + 2 * scan[0] :][:1] if scan else b""
        return _SOF55 in markers and near == b"\0"
    if transfer_syntax_uid in JPEG2000_LOSSLESS:
        start = max(frame[:256].find(b"\xff\x4f\xff\x51"), 0)  # a few writers leave the JP2 boxes around it
        markers = _segments(frame[start:], _SOT)
        style, quantization = markers.get(_COD, b""), markers.get(_QCD, b"")
        return style[_TRANSFORMATION : _TRANSFORMATION + 1] == bytes([_REVERSIBLE]) and _is_unquantized(quantization)
    return True


def _is_unquantized(segment: bytes) -> bool:
    return bool(segment) and segment[0] & 0x1F == 0


def _segments(frame: bytes, last: int) -> dict[int, bytes]:
    """Return the first segment of each marker, without its length, up to and with the marker `last`."""
    found: dict[int, bytes] = {}
    position = 2  # behind SOI or SOC, which stand alone
    while position + 4 <= len(frame) and frame[position] == 0xFF:  # noqa: PLR2004 (what begins a marker)
        marker = frame[position + 1]
        if marker == 0xFF:  # noqa: PLR2004 (a fill byte)
            position += 1
            continue
        length = struct.unpack_from(">H", frame, position + 2)[0]
        found.setdefault(marker, frame[position + 4 : position + 2 + length])
        if marker == last:
            break
        position += 2 + length
    return found
