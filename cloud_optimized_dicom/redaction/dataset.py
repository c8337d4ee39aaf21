"""The dataset of a redacted file around its pixel data: raw, in the source's encoding, but for what has to change.

Values are never decoded, so that everything that a redaction does not concern stays as it was, well-formed or not.
What goes by itself: the retired group lengths (PS3.5 section 7.2) and Length to End, which would be wrong, other
forms of the pixel data, and what the preamble holds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.dicom.elements import LONG_VRS, DatasetWalk, Encoding, Extent, RawElement, detect_implicit
from cloud_optimized_dicom.dicom.header import MAX_DEPTH, PIXEL_DATA_TAGS
from cloud_optimized_dicom.dicom.vr import find_public_vr
from cloud_optimized_dicom.format.offsets.items import (
    HEADER_BYTES,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED_LENGTH,
    parse_item_header,
)
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from cloud_optimized_dicom.dicom.source import DicomSource
    from cloud_optimized_dicom.dicom.transcode.dataset import Piece
    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

_ICON, _PIXEL_PROVIDER = 0x00880200, 0x00287FE0
_LENGTH_TO_END = 0x00080001
_IMPLICIT_LITTLE = Encoding(implicit=True, little_endian=True)
PREVIEWS = frozenset({_ICON, _PIXEL_PROVIDER}) | PIXEL_DATA_TAGS
"""What shows pixels, or says where they are, within a sequence."""
_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"


class DamagedSequenceError(Exception):
    """A sequence that may hold a preview of the pixels cannot be read."""


class NewElement(NamedTuple):
    """An element to write: its value in the byte order of the source, of even length."""

    vr: str
    value: bytes


class NewItem(NamedTuple):
    """An item to add at the end of a sequence: elements of short VRs (PS3.5 table 7.1-2), by tag."""

    elements: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Edits:
    """What changes at the top level.

    Parameters
    ----------
    new
        Elements that are replaced or added.
    items
        Sequences that get one more item.
    dropped
        Elements that go.
    """

    new: Mapping[int, NewElement]
    items: Mapping[int, NewItem]
    dropped: frozenset[int]


@dataclass(frozen=True)
class Frame:
    """What comes before and behind the Pixel Data element, as pieces of the new file."""

    head: tuple[Piece, ...]
    tail: tuple[Piece, ...]


def plan_dataset(source: DicomSource, elements: Sequence[RawElement], pixels: RawElement, edits: Edits) -> Frame:
    """Return the edited file around its pixel data.

    Parameters
    ----------
    elements
        All top-level elements, in file order, each tag once.
    pixels
        The one that holds the pixels.

    Raises
    ------
    DamagedSequenceError
        If a sequence has to be changed and cannot be read.
    """
    editor = _Editor(source, edits, {element.tag for element in elements})
    index = elements.index(pixels)
    head = [*editor.pieces(elements[:index]), *editor.added(None)]
    tail = editor.pieces(elements[index + 1 :])
    return Frame((*_before_dataset(source), *head), tuple(tail))


def _before_dataset(source: DicomSource) -> tuple[Piece, ...]:
    """Return the preamble, empty, and the file meta information.

    Notes
    -----
    Another format's header in the preamble (PS3.10 section 7.1) says where the pixels were: what lies there now is
    something else.
    """
    if source.reader.read(_PREAMBLE_BYTES, len(_MAGIC)) != _MAGIC:
        return (ByteRange(0, source.dataset_start),)
    return (bytes(_PREAMBLE_BYTES), ByteRange(_PREAMBLE_BYTES, source.dataset_start))


def element_header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Return the header of an element (PS3.5 section 7.1)."""
    order = "<" if encoding.little_endian else ">"
    group, number = tag >> 16, tag & 0xFFFF
    if encoding.implicit:
        return struct.pack(f"{order}HHL", group, number, length)
    if vr in LONG_VRS:
        return struct.pack(f"{order}HH2s2xL", group, number, vr.encode(), length)
    return struct.pack(f"{order}HH2sH", group, number, vr.encode(), length)


def padded_text(text: bytes) -> bytes:
    """Return a text value, padded to even length."""
    return text + b" " * (len(text) % 2)


class _Editor:
    def __init__(self, source: DicomSource, edits: Edits, present: AbstractSet[int]) -> None:
        self._reader = source.reader
        self._encoding = source.encoding
        self._dropped = edits.dropped | PREVIEWS | {_LENGTH_TO_END}
        self._edits = edits
        self._changing = edits.new.keys() | edits.items.keys()
        self._waiting = sorted(self._changing - present)

    def pieces(self, elements: Iterable[RawElement]) -> list[Piece]:
        """Return what is written of some elements, with what is added between them."""
        pieces: list[Piece] = []
        for element in elements:
            tag = element.tag
            pieces += self.added(tag)
            if tag in self._changing:
                pieces += self._changed(tag, element)
            elif tag & 0xFFFF and tag not in self._dropped:
                pieces += self._kept(element)
        return pieces

    def added(self, limit: int | None) -> list[Piece]:
        """Return the elements that were not there and belong before a tag; with None, all that are left."""
        pieces: list[Piece] = []
        while self._waiting and (limit is None or self._waiting[0] < limit):
            pieces += self._changed(self._waiting.pop(0), None)
        return pieces

    def _changed(self, tag: int, element: RawElement | None) -> list[Piece]:
        if tag in self._edits.new:
            vr, value = self._edits.new[tag]
            return [element_header(tag, vr, len(value), self._encoding), value]
        # A sequence of VR UN has its items in implicit VR little endian (PS3.5 section 6.2.2).
        is_unknown = element is not None and _is_unknown(self._reader, element, self._encoding)
        encoding = _IMPLICIT_LITTLE if is_unknown else self._encoding
        kept: list[Piece] = []
        if element is not None and element.length:
            ending = HEADER_BYTES if element.is_undefined_length else 0
            kept = [ByteRange(element.value, element.stop - ending)]
        item = b"".join(
            element_header(number, vr, len(padded_text(text.encode())), encoding) + padded_text(text.encode())
            for number, vr, text in self._edits.items[tag].elements
        )
        return [
            element_header(tag, "UN" if is_unknown else "SQ", UNDEFINED_LENGTH, self._encoding),
            *kept,
            _marker(ITEM, len(item), encoding) + item,
            _marker(SEQUENCE_END, 0, encoding),
        ]

    def _kept(self, element: RawElement) -> list[Piece]:
        if _may_show_pixels(self._reader, element, self._encoding):
            return _without_previews(self._reader, element, self._encoding, 0)
        return [ByteRange(element.start, element.stop)]


def _marker(tag: int, length: int, encoding: Encoding) -> bytes:
    return element_header(tag, "", length, Encoding(implicit=True, little_endian=encoding.little_endian))


def _is_unknown(reader: PositionedReader, element: RawElement, encoding: Encoding) -> bool:
    """Whether the VR in the file is UN; a walk calls it a sequence where its length is undefined."""
    return not encoding.implicit and reader.read(element.start + 4, 2) == b"UN"


def _may_show_pixels(reader: PositionedReader, element: RawElement, encoding: Encoding) -> bool:
    """Whether an element is a sequence with the tag of a preview somewhere in it."""
    vr = element.vr or find_public_vr(element.tag)
    if vr not in {"SQ", "UN", None}:
        return False
    inner = _IMPLICIT_LITTLE if _is_unknown(reader, element, encoding) else encoding
    head = reader.read(element.value, HEADER_BYTES)
    is_sequence = len(head) == HEADER_BYTES and parse_item_header(head, little_endian=inner.little_endian)[0] == ITEM
    order = "<HH" if inner.little_endian else ">HH"
    patterns = (struct.pack(order, tag >> 16, tag & 0xFFFF) for tag in PREVIEWS)
    return is_sequence and any(reader.find(text, element.value, element.stop) >= 0 for text in patterns)


def _without_previews(reader: PositionedReader, element: RawElement, encoding: Encoding, depth: int) -> list[Piece]:
    """Return a sequence without the previews in its items, all lengths undefined."""
    if depth > MAX_DEPTH:
        raise DamagedSequenceError
    is_unknown = _is_unknown(reader, element, encoding)
    inner = _IMPLICIT_LITTLE if is_unknown else encoding
    pieces: list[Piece] = [element_header(element.tag, "UN" if is_unknown else "SQ", UNDEFINED_LENGTH, encoding)]
    position = element.value
    while position < element.stop:
        head = reader.read(position, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            raise DamagedSequenceError
        tag, length = parse_item_header(head, little_endian=inner.little_endian)
        position += HEADER_BYTES
        if tag == SEQUENCE_END and element.is_undefined_length:
            break
        if tag != ITEM:
            raise DamagedSequenceError
        extent = Extent(position, element.stop, None if length == UNDEFINED_LENGTH else length)
        implicit = detect_implicit(reader, position, inner, is_item=True)
        item, end = _item_without_previews(reader, extent, inner._replace(implicit=implicit), depth)
        pieces += [_marker(ITEM, UNDEFINED_LENGTH, inner), *item, _marker(ITEM_END, 0, inner)]
        position = end if length == UNDEFINED_LENGTH else position + length
    return [*pieces, _marker(SEQUENCE_END, 0, inner)]


def _item_without_previews(
    reader: PositionedReader, extent: Extent, encoding: Encoding, depth: int
) -> tuple[list[Piece], int]:
    walk = DatasetWalk(reader, encoding, extent)
    pieces: list[Piece] = []
    for element in walk:
        if element.is_cut:
            raise DamagedSequenceError
        if element.tag in PREVIEWS or element.tag & 0xFFFF == 0:
            continue
        if _may_show_pixels(reader, element, encoding):
            pieces += _without_previews(reader, element, encoding, depth + 1)
        else:
            pieces.append(ByteRange(element.start, element.stop))
    if walk.problem:
        raise DamagedSequenceError
    return pieces, walk.position
