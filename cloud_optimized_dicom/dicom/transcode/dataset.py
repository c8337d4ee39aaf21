"""Everything of a file but its pixels, as explicit VR little endian, the way encapsulated data must be (PS3.5 A.4).

Values are never decoded.  An explicit little endian dataset is copied as it lies there.  Of any other, the element
headers are written anew, with the VR that a reader of the source would use (so that both files read alike), and big
endian numbers are swapped; what would not read alike is refused.

What changes: Transfer Syntax UID, Photometric Interpretation and Planar Configuration, where the plan says so.
What goes: the offset tables of the old pixel data, and the retired lengths that would be wrong (group lengths, PS3.5
section 7.2, and Length to End).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloud_optimized_dicom.dicom.elements import LONG_VRS, DatasetWalk, Encoding, Extent, RawElement, detect_implicit
from cloud_optimized_dicom.dicom.header import MAX_DEPTH
from cloud_optimized_dicom.dicom.transcode.plan import PHOTOMETRIC, PIXEL_DATA, PLANAR
from cloud_optimized_dicom.dicom.values import BINARY_VRS, CONVERTED_VRS
from cloud_optimized_dicom.dicom.vr import AMBIGUOUS_VRS, disambiguate_vr, resolve_vr
from cloud_optimized_dicom.format.offsets.items import ITEM, SEQUENCE_END, UNDEFINED_LENGTH, parse_item_header
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloud_optimized_dicom.dicom.source import DicomSource
    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

    Piece = bytes | ByteRange
    """Bytes to write, or bytes of the source to copy."""

_LONG = struct.Struct("<HH2s2xL")  # PS3.5 table 7.1-1
_SHORT = struct.Struct("<HH2sH")  # PS3.5 table 7.1-2
_ITEM = struct.Struct("<HHL")
_WRITABLE_VRS = CONVERTED_VRS | BINARY_VRS | {"SQ"}
_LARGEST_SHORT = 0xFFFF
_WORD_BYTES = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4} | dict.fromkeys(
    ("FD", "OD", "OV", "SV", "UV"), 8
)
_MAX_SWAPPED_BYTES = 64 << 20
_ITEM_END = _ITEM.pack(0xFFFE, 0xE00D, 0)
_SEQUENCE_END = _ITEM.pack(0xFFFE, 0xE0DD, 0)
_EXPLICIT_LITTLE = Encoding(implicit=False, little_endian=True)

_LENGTH_TO_END = 0x00080001
_IMAGE_GROUP_LENGTH, _PIXEL_GROUP_LENGTH = 0x00280000, 0x7FE00000
_OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
_SIGNATURES = frozenset({0x4FFE0001, 0xFFFAFFFA})
_PIXEL_REPRESENTATION, _LUT_DESCRIPTOR = 0x00280103, 0x00283002
_GROUP_LENGTH, _SYNTAX = 0x00020000, 0x00020010
_MAGIC = b"DICM"


class NotExactError(Exception):
    """The dataset cannot be written in another encoding without changing what it says; the text says why."""


@dataclass(frozen=True)
class Changes:
    """What the plan writes anew.

    Parameters
    ----------
    planar_configuration
        None where it stays.
    """

    transfer_syntax_uid: str
    photometric_interpretation: str
    planar_configuration: int | None


@dataclass(frozen=True)
class Surroundings:
    """What comes before and behind the pixel data, in the order of the new file."""

    head: tuple[Piece, ...]
    tail: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """Of both together."""
        return sum(map(len, self.head + self.tail))


def plan_surroundings(source: DicomSource, elements: Sequence[RawElement], changes: Changes) -> Surroundings:
    """Return the new file around its pixel data.

    Parameters
    ----------
    elements
        All top-level elements, in file order.

    Raises
    ------
    NotExactError
        If it cannot be done without changing what the dataset says.
    """
    _check(elements)
    index = next(number for number, element in enumerate(elements) if element.tag == PIXEL_DATA)
    writer = _Writer(source.reader, source.encoding, _scope(source.reader, source.encoding, elements))
    kept = _Kept(source, elements, changes, writer)
    return Surroundings(
        (_preamble(source), _meta(source, changes.transfer_syntax_uid), *kept.pieces(elements[:index])),
        tuple(kept.pieces(elements[index + 1 :])),
    )


def _check(elements: Sequence[RawElement]) -> None:
    tags = {element.tag for element in elements}
    if len(tags) != len(elements):
        raise NotExactError("an element occurs twice")
    if tags & _SIGNATURES:
        raise NotExactError("the dataset is signed digitally")
    if any(element.is_cut for element in elements):
        raise NotExactError("the file is damaged")


def _preamble(source: DicomSource) -> bytes:
    head = source.reader.read(0, 132)
    return head if head[128:] == _MAGIC else bytes(128) + _MAGIC


def _meta(source: DicomSource, transfer_syntax_uid: str) -> bytes:
    """Return the file meta information with another transfer syntax, everything else as it was."""
    if source.command or source.meta_encoding != _EXPLICIT_LITTLE or _SYNTAX not in source.meta:
        raise NotExactError("the file meta information is missing or not written as PS3.10 wants it")
    parts = []
    for tag, element in source.meta.items():
        if tag == _SYNTAX:
            value = transfer_syntax_uid.encode("ascii")
            parts.append(_element(tag, "UI", value + b"\0" * (len(value) % 2)))
        elif tag != _GROUP_LENGTH:
            parts.append(source.reader.read(element.start, element.stop - element.start))
    return _element(_GROUP_LENGTH, "UL", struct.pack("<L", sum(map(len, parts)))) + b"".join(parts)


def _element(tag: int, vr: str, value: bytes) -> bytes:
    return _header(tag, vr, len(value)) + value


def _header(tag: int, vr: str, length: int) -> bytes:
    group, element = tag >> 16, tag & 0xFFFF
    if vr in LONG_VRS:
        return _LONG.pack(group, element, vr.encode(), length)
    if length > _LARGEST_SHORT:
        raise NotExactError("a value is too long for its VR")
    return _SHORT.pack(group, element, vr.encode(), length)


class _Kept:
    """The top-level elements that stay, or change as planned."""

    def __init__(self, source: DicomSource, elements: Sequence[RawElement], changes: Changes, writer: _Writer) -> None:
        self._source = source
        self._writer = writer
        self._raw = source.encoding == _EXPLICIT_LITTLE
        self._new = self._changed(elements, changes)
        self._dropped = {_LENGTH_TO_END, _PIXEL_GROUP_LENGTH} | _OFFSET_TABLES
        if self._new:
            self._dropped.add(_IMAGE_GROUP_LENGTH)

    def _changed(self, elements: Sequence[RawElement], changes: Changes) -> dict[int, bytes]:
        reader = self._source.reader
        new: dict[int, bytes] = {}
        for element in elements:
            if element.tag == PHOTOMETRIC:
                value = changes.photometric_interpretation.encode("ascii")
                if element.read(reader).strip(b" \0") != value:
                    new[PHOTOMETRIC] = _element(PHOTOMETRIC, "CS", value + b" " * (len(value) % 2))
            elif element.tag == PLANAR and changes.planar_configuration is not None:
                value = struct.pack("<H", changes.planar_configuration)
                order = "<H" if self._source.encoding.little_endian else ">H"
                if element.read(reader) != struct.pack(order, changes.planar_configuration):
                    new[PLANAR] = _element(PLANAR, "US", value)
        return new

    def pieces(self, elements: Sequence[RawElement]) -> Iterable[Piece]:
        """Yield what is written of some elements; neighbours that are copied as one range."""
        start = stop = 0  # of what is copied as one
        for element in elements:
            if self._raw and element.tag not in self._dropped and element.tag not in self._new:
                if element.start != stop:
                    yield from _range(start, stop)
                    start = element.start
                stop = element.stop
                continue
            yield from _range(start, stop)
            start = stop = element.stop
            if element.tag in self._new:
                yield self._new[element.tag]
            elif element.tag not in self._dropped:
                yield from self._writer.element(element)
        yield from _range(start, stop)


def _range(start: int, stop: int) -> Iterable[ByteRange]:
    return (ByteRange(start, stop),) if start < stop else ()


@dataclass(frozen=True)
class _Scope:
    """What decides on VRs in a dataset, and in those nested in it."""

    elements: Mapping[int, RawElement]
    is_signed: bool
    lut_entries: int | None
    depth: int


def _scope(
    reader: PositionedReader, encoding: Encoding, elements: Sequence[RawElement], parent: _Scope | None = None
) -> _Scope:
    by_tag = {element.tag: element for element in elements}
    representation, descriptor = by_tag.get(_PIXEL_REPRESENTATION), by_tag.get(_LUT_DESCRIPTOR)
    entries = descriptor.read(reader)[:2] if descriptor else b""
    return _Scope(
        by_tag,
        is_signed=b"\x01" in representation.read(reader) if representation else bool(parent and parent.is_signed),
        lut_entries=int.from_bytes(entries, "little" if encoding.little_endian else "big") if entries else None,
        depth=parent.depth + 1 if parent else 0,
    )


class _Writer:
    """Elements of an implicit or big endian dataset in explicit VR little endian."""

    def __init__(self, reader: PositionedReader, encoding: Encoding, scope: _Scope) -> None:
        self._reader = reader
        self._encoding = encoding
        self._scope = scope

    def element(self, element: RawElement) -> list[Piece]:
        """Return what is written of an element; nothing of a group length, which is retired and would be wrong."""
        if element.tag & 0xFFFF == 0:
            return []
        vr = self._vr(element)
        if vr == "SQ":
            return self._sequence(element)
        if element.is_undefined_length:
            raise NotExactError("a value of undefined length is no sequence")
        return [_header(element.tag, vr, element.length), self._value(vr, element)]

    def _vr(self, element: RawElement) -> str:
        vr = resolve_vr(element.vr, element.tag, element.length, self._creator)
        if vr in AMBIGUOUS_VRS:
            vr = disambiguate_vr(
                vr,
                element.tag,
                is_signed=self._scope.is_signed,
                is_undefined_length=element.is_undefined_length,
                lut_entries=self._scope.lut_entries,
            )
        if vr not in _WRITABLE_VRS:
            raise NotExactError("an element has no VR that can be written")
        return vr

    def _creator(self, tag: int) -> str:
        element = self._scope.elements.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF)
        if element is None or element.length > _LARGEST_SHORT:
            return ""
        return element.read(self._reader).decode("latin-1").rstrip("\0 ")  # a dictionary knows ASCII creators only

    def _value(self, vr: str, element: RawElement) -> Piece:
        if self._encoding.little_endian:
            return ByteRange.of(element.value, element.length)
        size = _WORD_BYTES.get(vr, 1)
        if vr == "UN" and element.length:
            raise NotExactError("the byte order within a value of VR UN is not known")
        if element.length % size or element.length > _MAX_SWAPPED_BYTES:
            raise NotExactError("a big endian value does not consist of whole numbers, or is too large")
        raw = element.read(self._reader)
        return raw if size == 1 else np.frombuffer(raw, f">u{size}").astype(f"<u{size}").tobytes()

    def _sequence(self, element: RawElement) -> list[Piece]:
        if self._scope.depth >= MAX_DEPTH:
            raise NotExactError("sequences are nested too deep")
        pieces: list[Piece] = []
        position = element.value
        while position < element.stop:
            header = self._reader.read(position, 8)
            if len(header) < 8:  # noqa: PLR2004 (PS3.5 table 7.5-1)
                raise NotExactError("a sequence is damaged")
            tag, length = parse_item_header(header, little_endian=self._encoding.little_endian)
            position += 8
            if tag == SEQUENCE_END and element.is_undefined_length:
                break
            if tag != ITEM:
                raise NotExactError("a sequence is damaged")
            item, position = self._item(position, element.stop, length)
            pieces += item
        if not element.is_undefined_length:
            return [_header(element.tag, "SQ", sum(map(len, pieces))), *pieces]
        return [_header(element.tag, "SQ", UNDEFINED_LENGTH), *pieces, _SEQUENCE_END]

    def _item(self, start: int, limit: int, length: int) -> tuple[list[Piece], int]:
        if detect_implicit(self._reader, start, self._encoding, is_item=True) != self._encoding.implicit and length:
            raise NotExactError("an item is encoded unlike the dataset that it is in")
        walk = DatasetWalk(
            self._reader, self._encoding, Extent(start, limit, None if length == UNDEFINED_LENGTH else length)
        )
        elements = list(walk)
        if walk.problem or any(element.is_cut for element in elements):
            raise NotExactError("a sequence is damaged")
        scope = _scope(self._reader, self._encoding, elements, self._scope)
        inner = _Writer(self._reader, self._encoding, scope)
        pieces = [piece for element in elements for piece in inner.element(element)]
        if length == UNDEFINED_LENGTH:
            return [_ITEM.pack(0xFFFE, 0xE000, UNDEFINED_LENGTH), *pieces, _ITEM_END], walk.position
        return [_ITEM.pack(0xFFFE, 0xE000, sum(map(len, pieces))), *pieces], start + length
