"""The frame table of one DICOM file."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.dicom.elements import scan_value
from cloud_optimized_dicom.dicom.header import PIXEL_DATA_TAGS
from cloud_optimized_dicom.dicom.source import EXPLICIT_BIG, DicomSource, open_source
from cloud_optimized_dicom.format.offsets.description import NATIVE_SYNTAXES, PixelDescription
from cloud_optimized_dicom.format.offsets.encapsulated import ExtendedTable, FragmentGroups, plan_encapsulated_frames
from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES, ITEM, join_items, parse_item_header
from cloud_optimized_dicom.format.offsets.native import plan_native_frames
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.dicom.elements import RawElement
    from cloud_optimized_dicom.format.offsets.reader import PositionedReader
    from cloud_optimized_dicom.model import FrameTable

_BYTE_BITS = 8
_PIXEL_DATA_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_ROWS, _COLUMNS, _BITS_ALLOCATED = 0x00280010, 0x00280011, 0x00280100


def build_frame_table(stream: BinaryIO, uri: str) -> FrameTable | None:
    """Return where the frames of a file lie, or None without pixel data.

    Parameters
    ----------
    stream
        Seekable; may be a ranged remote file: only element headers, item headers and the values that matter are read.

    Raises
    ------
    InstanceValidationError
        If it is no DICOM file.
    FrameTableError
        If the pixel data cannot be described.

    Notes
    -----
    Holds no CRC32Cs: they would cost a read of all pixel data.
    """
    with open_source(stream, uri) as source:
        elements = {element.tag: element for element in source.walk()}
        return plan_frame_table(source, elements, uri)


def is_swapped(vr: str | None, bits_allocated: int, transfer_syntax_uid: str) -> bool:
    """Whether native pixels of a byte or less lie in words whose bytes are swapped (PS3.5 2016b section A.3)."""
    return vr == "OW" and bits_allocated <= _BYTE_BITS and transfer_syntax_uid == EXPLICIT_BIG


def find_pixel_data(elements: Mapping[int, RawElement]) -> RawElement | None:
    """Return the (Float, Double Float) Pixel Data element of a dataset."""
    return next((elements[tag] for tag in sorted(PIXEL_DATA_TAGS, reverse=True) if tag in elements), None)


def plan_frame_table(source: DicomSource, elements: Mapping[int, RawElement], instance: str) -> FrameTable | None:
    """Return the frame table of a dataset whose top-level elements are known, or None without pixel data.

    Raises
    ------
    FrameTableError
        If the pixel data cannot be described.
    """
    pixels = find_pixel_data(elements)
    if pixels is None:
        return None
    description = _describe(source, elements, pixels)
    scan = pixels.scan
    if scan is None and description.transfer_syntax_uid not in NATIVE_SYNTAXES and _begins_with_item(source, pixels):
        scan = scan_value(
            source.reader,
            pixels.value,
            pixels.value + pixels.length,
            little_endian=source.encoding.little_endian,
        )
    if scan is None:
        swapped = is_swapped(pixels.vr, description.bits_allocated, source.transfer_syntax_uid)
        value = ByteRange.of(pixels.value, pixels.length)
        table = plan_native_frames(description, value, pixels.start, instance, unit_bytes=2 if swapped else 1)
    else:
        groups = FragmentGroups(source.reader, scan, little_endian=source.encoding.little_endian)
        table = plan_encapsulated_frames(groups, description, _extended_table(source, elements), pixels.start, instance)
    return replace(table, rangeable=not source.is_inflated)


def read_frame(reader: PositionedReader, table: FrameTable, frame: int) -> bytes:
    """Return a frame as it is encoded, its fragments joined."""
    span = table.span(frame)
    fragments = table.fragment_counts[frame] if table.fragment_counts else 1
    if fragments == 1:
        return reader.read(span.start, len(span))
    return join_items(reader.read(span.start - HEADER_BYTES, len(span) + HEADER_BYTES), fragments)


def _begins_with_item(source: DicomSource, pixels: RawElement) -> bool:
    """Whether a value of defined length is encapsulated all the same, against PS3.5 section A.4."""
    head = source.reader.read(pixels.value, 8)
    return len(head) == 8 and parse_item_header(head, little_endian=source.encoding.little_endian)[0] == ITEM  # noqa: PLR2004


def _describe(source: DicomSource, elements: Mapping[int, RawElement], pixels: RawElement) -> PixelDescription:
    def text(tag: int) -> str:
        element = elements.get(tag)
        return element.read(source.reader)[:64].decode("latin-1").strip(" \x00") if element else ""

    def number(tag: int) -> int:
        element = elements.get(tag)
        raw = element.read(source.reader)[:2] if element else b""
        form = "<H" if source.encoding.little_endian else ">H"
        return int(struct.unpack(form, raw)[0]) if len(raw) == 2 else 0  # noqa: PLR2004

    frames = text(_FRAMES)
    return PixelDescription(
        rows=number(_ROWS),
        columns=number(_COLUMNS),
        samples_per_pixel=number(_SAMPLES) or 1,
        bits_allocated=_PIXEL_DATA_BITS.get(pixels.tag, number(_BITS_ALLOCATED)),
        number_of_frames=int(frames) if frames.isascii() and frames.isdigit() and int(frames) > 0 else None,
        photometric_interpretation=text(_PHOTOMETRIC),
        transfer_syntax_uid=source.transfer_syntax_uid,
    )


def _extended_table(source: DicomSource, elements: Mapping[int, RawElement]) -> ExtendedTable | None:
    offsets, lengths = elements.get(_EXTENDED_OFFSETS), elements.get(_EXTENDED_LENGTHS)
    if offsets is None or lengths is None:
        return None
    return ExtendedTable.parse(
        offsets.read(source.reader), lengths.read(source.reader), little_endian=source.encoding.little_endian
    )
