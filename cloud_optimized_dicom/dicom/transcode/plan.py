"""Whether an image may be recompressed, and to what: decided from its description, without a pixel.

A source is *lossy*, and never touched, where its transfer syntax allows that decoders disagree or that something was
lost: baseline and extended JPEG, near-lossless JPEG-LS, the JPEG 2000 and HTJ2K syntaxes that are not lossless only,
JPEG XL but for its lossless one, video.  Lossy Image Compression (0028,2110) is history, not encoding: pixels that were
lossy once and now lie in a native or lossless syntax are exact values, are recompressed bit for bit, and keep that
element.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cloud_optimized_dicom.dicom.frames import is_swapped
from cloud_optimized_dicom.dicom.transcode.model import Kept, PixelFormat, Reason, Target, TranscodePlan
from cloud_optimized_dicom.format.offsets.description import NATIVE_SYNTAXES, VIDEO_SYNTAXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.dicom.elements import RawElement
    from cloud_optimized_dicom.dicom.source import DicomSource

ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
JPEGLS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG2000_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"})
RLE_LOSSLESS = "1.2.840.10008.1.2.5"

UNCOMPRESSED_SYNTAXES = NATIVE_SYNTAXES | {ENCAPSULATED_UNCOMPRESSED}
LOSSLESS_SYNTAXES = JPEG_LOSSLESS | JPEG2000_LOSSLESS | {JPEGLS_LOSSLESS, RLE_LOSSLESS}
LOSSY_SYNTAXES = (
    frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 93, 111, 112, 203)) | VIDEO_SYNTAXES
)

MAX_FRAME_BYTES = 1 << 29
"""The largest frame, decoded: a header of a few bytes may claim gigabytes."""

PIXEL_DATA = 0x7FE00010
PHOTOMETRIC, PLANAR = 0x00280004, 0x00280006
_SAMPLES, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH_BIT, _REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_RGB = frozenset({"RGB", "YBR_RCT"})
_FEWEST_BITS = {Target.JPEGLS: 2}  # ISO/IEC 14495-1 section C.2.2
_COLOUR_SAMPLES = 3


def read_pixel_format(source: DicomSource, elements: Mapping[int, RawElement]) -> PixelFormat:
    """Return the pixel format of a dataset whose top-level elements are known."""

    def text(tag: int) -> str:
        element = elements.get(tag)
        return element.read(source.reader)[:64].decode("latin-1").strip(" \x00") if element else ""

    def number(tag: int) -> int | None:
        element = elements.get(tag)
        raw = element.read(source.reader) if element and element.length == 2 else b""  # noqa: PLR2004
        return int(struct.unpack("<H" if source.encoding.little_endian else ">H", raw)[0]) if raw else None

    frames = text(_FRAMES)
    pixels = elements.get(PIXEL_DATA)
    allocated = number(_ALLOCATED) or 0
    return PixelFormat(
        rows=number(_ROWS) or 0,
        columns=number(_COLUMNS) or 0,
        samples_per_pixel=number(_SAMPLES) or 0,
        bits_allocated=allocated,
        bits_stored=number(_STORED) or 0,
        high_bit=number(_HIGH_BIT) or 0,
        is_signed=number(_REPRESENTATION) == 1,
        planar_configuration=number(PLANAR),
        photometric_interpretation=text(PHOTOMETRIC),
        number_of_frames=int(frames) if frames.isascii() and frames.isdigit() and int(frames) > 0 else 1,
        transfer_syntax_uid=source.transfer_syntax_uid,
        is_little_endian=source.encoding.little_endian,
        is_swapped=pixels is not None and is_swapped(pixels.vr, allocated, source.transfer_syntax_uid),
    )


def plan_transcode(image: PixelFormat, target: Target) -> TranscodePlan | Kept:
    """Return how to recompress an image, or why it stays as it is.

    Notes
    -----
    Only what PS3.5 section 8.2 and its tables allow for the target, and what every common decoder reads back exactly:
    8 or 16 bits allocated, one grey sample or three of RGB or YBR_FULL.
    """
    syntax = image.transfer_syntax_uid
    if syntax in LOSSY_SYNTAXES:
        return Kept(Reason.LOSSY, "the transfer syntax is not lossless")
    if syntax == target.transfer_syntax_uid:
        return Kept(Reason.NOT_SMALLER, "it has this transfer syntax already")
    if syntax not in UNCOMPRESSED_SYNTAXES | LOSSLESS_SYNTAXES:
        return Kept(Reason.UNSUPPORTED, "the transfer syntax is not known")
    problem = _format_problem(image, target) or _colour_problem(image)
    if problem:
        return Kept(Reason.UNSUPPORTED, problem)
    if image.samples_per_pixel == 1:
        return TranscodePlan(target, image, image.photometric_interpretation, None)
    photometric = image.photometric_interpretation
    if photometric in _RGB:
        photometric = "YBR_RCT" if target.has_colour_transform else "RGB"
    # RLE is always colour by plane (PS3.5 section G.2); the others are written colour by pixel.
    return TranscodePlan(target, image, photometric, 1 if target is Target.RLE else 0)


def _format_problem(image: PixelFormat, target: Target) -> str:
    checks = (
        (image.bits_allocated in {8, 16}, f"{image.bits_allocated} bits are allocated to a sample"),
        (_FEWEST_BITS.get(target, 1) <= image.bits_stored <= image.bits_allocated,
         f"{image.bits_stored} bits are stored in {image.bits_allocated}"),
        (image.high_bit == image.bits_stored - 1, "the stored bits are not the lowest"),
        (image.rows > 0 and image.columns > 0, "Rows or Columns is missing"),
        (image.frame_bytes <= MAX_FRAME_BYTES, f"a frame is larger than {MAX_FRAME_BYTES} bytes"),
        (not (image.is_swapped and image.frame_bytes % 2), "frames begin within a big endian word"),
    )  # fmt: skip
    return next((problem for fits, problem in checks if not fits), "")


def _colour_problem(image: PixelFormat) -> str:
    photometric = image.photometric_interpretation
    if image.samples_per_pixel == 1:
        return "" if photometric in _GREY else "the photometric interpretation does not fit one sample"
    if image.samples_per_pixel != _COLOUR_SAMPLES or photometric not in _RGB | {"YBR_FULL"}:
        return "the photometric interpretation and samples per pixel are not grey, RGB or YBR_FULL"
    if image.is_signed:
        return "colour samples are signed"
    if image.planar_configuration not in {0, 1}:
        return "Planar Configuration is missing"
    if photometric == "YBR_RCT" and image.transfer_syntax_uid not in JPEG2000_LOSSLESS:
        return "the photometric interpretation does not fit the transfer syntax"
    return ""
