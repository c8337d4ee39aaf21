"""What the first bytes of a JPEG, JPEG-LS or JPEG 2000 frame claim, checked before a decoder believes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.dicom.decoders_pixels import PixelError

if TYPE_CHECKING:
    from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels

_SOI, _SOC_SIZ = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0c\x6a\x50\x20\x20"
_STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_HUFFMAN_DCT, _HUFFMAN_LOSSLESS = frozenset({0xC0, 0xC1, 0xC2}), 0xC3
_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
_DHT, _SOS, _EOI = 0xC4, 0xDA, 0xD9
_APP14 = 0xEE
_APPLICATION = frozenset(range(0xE0, 0xF0))  # APP0 to APP15
_TABLES_AND_TEXTS = _APPLICATION | {0xDB, 0xDD, 0xFE}  # and DQT, DRI, COM
_IN_A_SCAN = frozenset(range(0xD0, 0xD8)) | {0x00, 0xFF}
_SIZ = struct.Struct(">8LH B")
_SIZ_START = 8  # behind SOC, SIZ, Lsiz and Rsiz

_ALWAYS_ALLOWED_BYTES = 16 << 20
_NO_BOUND_BYTES = 512 << 20
_NO_BOUND_RATIO = 1 << 16


@dataclass(frozen=True, slots=True)
class Codestream:
    """The size and kind of picture that a frame claims to be.

    Parameters
    ----------
    rows
        0 where it comes behind the first scan only.
    components
        0 where boxes around the codestream may change their number.
    precision, is_signed
        Of the first component.
    max_samples_per_byte
        What the coding could reach at best; None where there is no bound.
    component_ids, jfif_at
        JPEG only: the identifiers of the components, and where a JFIF marker's name lies.
    """

    rows: int
    columns: int
    components: int
    precision: int
    is_signed: bool
    max_samples_per_byte: int | None = None
    component_ids: bytes = b""
    jfif_at: int | None = None


def parse_codestream(encoded: bytes) -> Codestream | None:
    """Return what a frame claims to be, or None where its start is neither JPEG's nor JPEG 2000's.

    Raises
    ------
    PixelError
        If it begins with JP2 boxes that lead nowhere.
    """
    if encoded.startswith(_SOI):
        return _parse_jpeg(encoded)
    start = _jp2_codestream(encoded) if encoded.startswith(_JP2_SIGNATURE) else 0
    if encoded[start : start + 4] != _SOC_SIZ or len(encoded) < start + _SIZ_START + _SIZ.size:
        return None
    width, height, left, top, *_, components, depth = _SIZ.unpack_from(encoded, start + _SIZ_START)
    return Codestream(
        rows=max(height - top, 0),
        columns=max(width - left, 0),
        components=components if start == 0 else 0,
        precision=(depth & 0x7F) + 1,
        is_signed=bool(depth & 0x80),
    )


def _jp2_codestream(encoded: bytes) -> int:
    """Return where the codestream begins, walking the boxes as pydicom does, which never comes back from some."""
    position = 12
    while position < len(encoded):
        length = int.from_bytes(encoded[position : position + 4], "big")
        if encoded[position + 4 : position + 8] == b"jp2c":
            return position + 8
        if length == 0:
            break
        position += length
    raise PixelError("the JP2 boxes lead to no codestream")


def _parse_jpeg(encoded: bytes) -> Codestream | None:
    """Walk the markers to the start of frame (ISO/IEC 10918-1 section B.2.2)."""
    position, jfif_at = 2, None
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:  # noqa: PLR2004 (what begins a marker)
        marker = encoded[position + 1]
        if marker == 0xFF or marker in _STANDALONE:  # noqa: PLR2004 (a fill byte)
            position += 1 if marker == 0xFF else 2  # noqa: PLR2004
            continue
        if marker in _STARTS_OF_FRAME:
            return _parse_start_of_frame(encoded, position, jfif_at)
        if marker in _APPLICATION and encoded[position + 4 : position + 8] == b"JFIF":
            jfif_at = position + 4
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return None


def _parse_start_of_frame(encoded: bytes, position: int, jfif_at: int | None) -> Codestream | None:
    head = encoded[position + 4 : position + 10]
    if len(head) < 6:  # noqa: PLR2004
        return None
    precision, rows, columns, components = struct.unpack(">BHHB", head)
    marker = encoded[position + 1]
    # A block of 64 samples takes a bit in the scan that begins it; a lossless sample takes one of its own.
    bound = 512 if marker in _HUFFMAN_DCT else 8 if marker == _HUFFMAN_LOSSLESS else None
    ids = encoded[position + 10 : position + 10 + 3 * components : 3]
    return Codestream(rows, columns, components, precision, False, bound, ids, jfif_at)  # noqa: FBT003


def require_plausible(encoded: bytes, codestream: Codestream | None, pixels: ImagePixels) -> Codestream:
    """Refuse a frame that cannot be what the header claims, before anything is allocated for it; return what it is.

    Raises
    ------
    PixelError
        If the codestream has another size than the header, or is far too short for it.

    Notes
    -----
    JPEG-LS and JPEG 2000 can say "nothing but black" of any size in a few bytes.  There, a frame of more than 512 MiB
    is believed up to a ratio of 65536.
    """
    if codestream is None:  # GDCM would end the process on some of these
        raise PixelError("it does not begin like a frame of its transfer syntax")
    components = codestream.components or pixels.samples_per_pixel
    claimed = codestream.rows * codestream.columns * components
    if codestream.rows and claimed != pixels.samples:
        raise PixelError("the codestream has not the size that Rows, Columns and Samples per Pixel say")
    if pixels.frame_bytes <= _ALWAYS_ALLOWED_BYTES:
        return codestream
    bound = codestream.max_samples_per_byte
    if bound is not None and pixels.samples > bound * len(encoded):
        raise PixelError("the frame is too short for its Rows and Columns")
    if pixels.frame_bytes > max(_NO_BOUND_BYTES, _NO_BOUND_RATIO * len(encoded)):
        raise PixelError("the frame is far too short for its Rows and Columns")
    return codestream


def require_sound_jpeg(encoded: bytes, pixels: ImagePixels) -> None:
    """Refuse a JPEG frame of one scan whose structure would end a process in which GDCM decodes it.

    Raises
    ------
    PixelError
        If a marker segment is not whole, the precision or a table makes no sense, or another segment than a restart
        follows the scan.
    """
    position = 2
    while position + 4 <= len(encoded):
        if encoded[position] != 0xFF:  # noqa: PLR2004 (what begins a marker)
            break
        marker = encoded[position + 1]
        stop = position + 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
        segment = encoded[position + 4 : stop]
        if stop > len(encoded) or stop < position + 4 or not _is_sound_segment(marker, segment, pixels):
            break
        if marker == _SOS:
            if _only_restarts(encoded, stop):
                return
            break
        position = stop
    raise PixelError("the JPEG markers are damaged")


def _is_sound_segment(marker: int, segment: bytes, pixels: ImagePixels) -> bool:
    if marker in _STARTS_OF_FRAME:
        fits = len(segment) == 6 + 3 * pixels.samples_per_pixel == 6 + 3 * segment[5]
        depth = pixels.dtype.itemsize * 8
        return fits and depth // 2 < segment[0] + (depth == 8) * 8 and segment[0] <= depth  # noqa: PLR2004
    if marker == _APP14 and segment.startswith(b"Adobe"):
        return segment[11:12] in {b"\0", b"\1"}  # how colours were transformed: not, or to YCbCr
    if marker == _DHT:
        return _are_sound_tables(segment)
    if marker == _SOS:
        return len(segment) == 4 + 2 * pixels.samples_per_pixel and segment[0] == pixels.samples_per_pixel
    return marker in _TABLES_AND_TEXTS


def _are_sound_tables(segment: bytes) -> bool:
    """Whether Huffman tables are whole and their codes fit (ISO/IEC 10918-1 section B.2.4.2)."""
    position = 0
    while position + 17 <= len(segment):
        counts = segment[position + 1 : position + 17]
        if sum(count << (16 - length) for length, count in enumerate(counts, 1)) > 1 << 16:
            return False
        position += 17 + sum(counts)
    return position == len(segment) > 0


def _only_restarts(encoded: bytes, start: int) -> bool:
    position = encoded.find(b"\xff", start)
    while 0 <= position < len(encoded) - 1:
        follower = encoded[position + 1]
        if follower == _EOI:
            return True
        if follower not in _IN_A_SCAN:
            return False
        position = encoded.find(b"\xff", position + (1 if follower == 0xFF else 2))  # noqa: PLR2004
    return True
