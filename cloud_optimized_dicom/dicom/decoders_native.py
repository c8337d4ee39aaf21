"""Frames that need no codec: native ones, and run lengths (PS3.5 section 8.1.1 and annex G)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.decoders_pixels import PixelError, UnsupportedPixelError
from cloud_optimized_dicom.dicom.frames import is_swapped
from cloud_optimized_dicom.dicom.source import EXPLICIT_BIG
from cloud_optimized_dicom.format.offsets.description import SUBSAMPLED_INTERPRETATIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels

_RLE_HEADER = struct.Struct("<16L")
_MAX_SEGMENTS = 15
_MAX_RUN, _RUN_BYTES = 128, 2
_NO_OPERATION = 128


def decode_native(encoded: bytes, pixels: ImagePixels, transfer_syntax_uid: str, frame_index: int) -> NDArray[Any]:
    """Return a native frame as an array, in the byte order of its transfer syntax.

    Parameters
    ----------
    encoded
        Every byte (or, swapped, every word) that holds a part of the frame.
    frame_index
        Decides where in its first byte or word the frame begins; 0 for a frame that has its bytes to itself.

    Raises
    ------
    PixelError
        If there are fewer bytes than the frame has.

    Notes
    -----
    Pixels of a byte or a bit in big endian words (OW) lie swapped; pixel 0 of a word of bits is its lowest bit (PS3.5
    2016b sections 8.1.1 and A.3).
    """
    unit_bits = 8
    if is_swapped(pixels.vr, pixels.bits_allocated, transfer_syntax_uid):
        unit_bits = 16
        encoded = np.frombuffer(encoded[: len(encoded) // 2 * 2], np.uint16).byteswap().tobytes()
    subsampled = _is_subsampled(pixels, len(encoded))
    count = pixels.samples // 3 * 2 if subsampled else pixels.samples
    first_bit = frame_index * count * pixels.bits_allocated % unit_bits
    if len(encoded) * 8 < first_bit + count * pixels.bits_allocated:
        raise PixelError("the frame has fewer bytes than its Rows and Columns need")
    if pixels.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(encoded, np.uint8), bitorder="little", count=first_bit + count)
        return pixels.shaped(bits[first_bit:], by_plane=pixels.by_plane)
    dtype = pixels.dtype.newbyteorder(">" if transfer_syntax_uid == EXPLICIT_BIG else "<")
    flat = np.frombuffer(encoded, dtype, count, first_bit // 8).copy()
    if subsampled:
        return pixels.without_unused_bits(pixels.shaped(_upsampled(flat), by_plane=False))
    shaped = pixels.shaped(flat, by_plane=pixels.by_plane)
    return shaped if pixels.is_float else pixels.without_unused_bits(shaped)


def fill_native(out: NDArray[Any], encoded: bytes, pixels: ImagePixels, transfer_syntax_uid: str) -> bool:
    """Put a native frame into an array in one pass; return False, `out` unchanged, where that takes more than one.

    Notes
    -----
    One pass serves grey-scale frames of whole bytes in little endian, which are most of what is native.
    """
    simple = pixels.samples_per_pixel == 1 and pixels.bits_allocated > 1 and transfer_syntax_uid != EXPLICIT_BIG
    if not simple or out.dtype != pixels.dtype or len(encoded) < pixels.frame_bytes:
        return False
    source = np.frombuffer(encoded, pixels.dtype.newbyteorder("<"), pixels.samples).reshape(out.shape)
    shift = 0 if pixels.is_float else pixels.bits_allocated - pixels.bits_stored
    if shift == 0:
        out[...] = source
    else:
        np.left_shift(source, shift, out=out)
        np.right_shift(out, shift, out=out)
    return True


def _is_subsampled(pixels: ImagePixels, encoded_bytes: int) -> bool:
    """Whether a frame has 2 samples a pixel; some writers label full-resolution data so (PS3.3 C.7.6.3.1.2)."""
    if pixels.photometric_interpretation not in SUBSAMPLED_INTERPRETATIONS or pixels.samples_per_pixel == 1:
        return False
    if pixels.columns % 2:
        raise PixelError("subsampled chrominance needs an even number of columns")
    return encoded_bytes < pixels.frame_bytes


def _upsampled(flat: NDArray[Any]) -> NDArray[Any]:
    """Return Y1 Cb Cr Y2 Cb Cr of Y1 Y2 Cb Cr (PS3.3 section C.7.6.3.1.2)."""
    pairs = flat.reshape(-1, 4)
    return np.ascontiguousarray(pairs[:, [0, 2, 3, 1, 2, 3]]).reshape(-1)


def decode_rle(encoded: bytes, pixels: ImagePixels) -> NDArray[Any]:
    """Return a frame of run lengths as an array (PS3.5 annex G).

    Raises
    ------
    PixelError
        If its segments are not those of the frame.
    UnsupportedPixelError
        If its pixels are bits.

    Notes
    -----
    What a segment holds beyond its part of the frame is left out.
    """
    if pixels.bits_allocated == 1:
        raise UnsupportedPixelError("run lengths of 1-bit pixels")
    width = pixels.dtype.itemsize
    if len(encoded) < _RLE_HEADER.size:
        raise PixelError("the RLE header is cut")
    segments, *offsets = _RLE_HEADER.unpack_from(encoded)
    if segments != pixels.samples_per_pixel * width or segments > _MAX_SEGMENTS:
        raise PixelError("the number of RLE segments is not that of the bytes of a pixel")
    if pixels.frame_bytes > len(encoded) * _MAX_RUN // _RUN_BYTES:
        raise PixelError("the frame is too short for its Rows and Columns")
    plane = pixels.rows * pixels.columns
    planes = np.empty((pixels.samples_per_pixel, plane, width), np.uint8)
    bounds = [*offsets[:segments], len(encoded)]
    for segment in range(segments):
        unpacked = _unpacked(encoded[bounds[segment] : bounds[segment + 1]], plane)
        sample, byte = divmod(segment, width)
        planes[sample, :, width - 1 - byte] = np.frombuffer(unpacked, np.uint8)  # most significant bytes come first
    little = planes.reshape(-1).view(pixels.dtype.newbyteorder("<"))
    return pixels.without_unused_bits(pixels.shaped(little.astype(pixels.dtype), by_plane=True))


def _unpacked(segment: bytes, size: int) -> bytes:
    """Return the first `size` bytes of a PackBits segment."""
    parts: list[bytes] = []
    position = found = 0
    while found < size and position < len(segment):
        control = segment[position]
        position += 1
        if control < _NO_OPERATION:
            part = segment[position : position + control + 1]
            position += control + 1
        elif control > _NO_OPERATION:
            part = segment[position : position + 1] * (257 - control)
            position += 1
        else:
            continue
        parts.append(part)
        found += len(part)
    if found < size:
        raise PixelError("an RLE segment ends too early")
    return b"".join(parts)[:size]
