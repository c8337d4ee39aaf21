"""The data elements of one dataset, as they lie in the file (PS3.5 section 7.1), without decoding a value.

Reads what pydicom reads, in the same lenient way, but never a value: a walk costs memory for positions only, and a
length that claims more than the file has costs nothing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from cloud_optimized_dicom.dicom.vr import find_public_vr
from cloud_optimized_dicom.format.offsets.items import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED_LENGTH,
    ItemScan,
    parse_item_header,
    scan_items,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

    _Parser = Callable[[bytes, int], tuple[int, str | None, int, int] | None]

_HEADER_BYTES = 8
_LONG_HEADER_BYTES = 12
_CAPTURED_BYTES = 1024
_VIEW_BYTES = _LONG_HEADER_BYTES + _CAPTURED_BYTES
_IMPLICIT = {True: struct.Struct("<HHL"), False: struct.Struct(">HHL")}
_EXPLICIT = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
_LONG = {True: struct.Struct("<L"), False: struct.Struct(">L")}
_VRS = {str(vr).encode(): str(vr) for vr in STANDARD_VR}
LONG_VRS = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)
"""Those whose length is told in four bytes, where the VR is told (PS3.5 table 7.1-1)."""


class RawElement(NamedTuple):
    """A data element's place in the file.

    Parameters
    ----------
    vr
        As in the file, which may be no VR at all; None where the file does not say.
    start, value, stop
        First byte of the tag, of the value, and of what follows the element.
    length
        Bytes of the value that are there; without the sequence delimiter, where its length is undefined.
    declared
        The length that the header claims; `UNDEFINED_LENGTH` for undefined.
    data
        The value, where it is small; else it has to be read.
    scan
        The items of a value of undefined length that is no sequence.
    """

    tag: int
    vr: str | None
    start: int
    value: int
    length: int
    stop: int
    declared: int
    data: bytes | None = None
    scan: ItemScan | None = None

    @property
    def is_undefined_length(self) -> bool:
        """Whether only a delimiter ends the value."""
        return self.declared == UNDEFINED_LENGTH

    @property
    def is_cut(self) -> bool:
        """Whether the file, or what the element lies in, ends within the value."""
        return self.length < self.declared if not self.is_undefined_length else bool(self.scan and self.scan.problem)

    def read(self, reader: PositionedReader) -> bytes:
        """Return the value."""
        return reader.read(self.value, self.length) if self.data is None else self.data


class Encoding(NamedTuple):
    """How a dataset is written: implicit or explicit VR, little or big endian."""

    implicit: bool
    little_endian: bool


def detect_implicit(reader: PositionedReader, start: int, encoding: Encoding, *, is_item: bool = False) -> bool:
    """Return whether the dataset at `start` is implicit VR, whatever its transfer syntax says.

    Notes
    -----
    A VR is two capital letters; as the upper half of a length they would mean gigabytes.  An item may be implicit
    within an explicit dataset (PS3.5 section 6.2.2), not the other way round.
    """
    if is_item and encoding.implicit:
        return True
    vr = reader.read(start + 4, 2)
    if len(vr) < 2:  # noqa: PLR2004
        return encoding.implicit
    return not all(0x40 < letter < 0x5B for letter in vr)  # noqa: PLR2004


class _Header(NamedTuple):
    tag: int
    vr: str | None
    size: int
    length: int


def _parse_header(buffer: bytes, at: int, encoding: Encoding) -> _Header | None:
    """Return the header of the element at `at`, or None where less than a header is left."""
    header = _PARSERS[encoding](buffer, at)
    return None if header is None else _Header(*header)


def _explicit_parser(*, little_endian: bool) -> _Parser:
    unpack, unpack_long = _EXPLICIT[little_endian].unpack_from, _LONG[little_endian].unpack_from
    parse_implicit = _implicit_parser(little_endian=little_endian)

    def parse(buffer: bytes, at: int) -> tuple[int, str | None, int, int] | None:
        try:
            group, element, code, length = unpack(buffer, at)
            vr = _VRS.get(code)
            if vr in LONG_VRS:
                return group << 16 | element, vr, _LONG_HEADER_BYTES, unpack_long(buffer, at + _HEADER_BYTES)[0]
        except struct.error:
            return None
        if vr is not None:
            return group << 16 | element, vr, _HEADER_BYTES, length
        if b"AA" <= code <= b"ZZ":
            return group << 16 | element, code.decode("latin-1"), _HEADER_BYTES, length
        # Elements with no VR at all occur within explicit datasets; delimiters are among them.
        return parse_implicit(buffer, at)

    return parse


def _implicit_parser(*, little_endian: bool) -> _Parser:
    unpack = _IMPLICIT[little_endian].unpack_from

    def parse(buffer: bytes, at: int) -> tuple[int, str | None, int, int] | None:
        try:
            group, element, length = unpack(buffer, at)
        except struct.error:
            return None
        return group << 16 | element, None, _HEADER_BYTES, length

    return parse


_PARSERS = {
    Encoding(implicit, little): (_implicit_parser if implicit else _explicit_parser)(little_endian=little)
    for implicit in (False, True)
    for little in (False, True)
}
"""One function an encoding: (tag, VR, bytes of the header, length) of the element at a place, None at a cut header."""


def _undefined_vr(reader: PositionedReader, tag: int, vr: str | None, value: int, encoding: Encoding) -> str | None:
    """Return the VR of an element of undefined length: UN is a sequence then, and so is what begins with an item."""
    if vr == "UN":
        return "SQ"
    if vr is not None:
        return vr
    vr = find_public_vr(tag)
    if vr is None:
        first = reader.read(value, _HEADER_BYTES)
        if len(first) == _HEADER_BYTES and parse_item_header(first, little_endian=encoding.little_endian)[0] == ITEM:
            return "SQ"
    return vr


class Extent(NamedTuple):
    """Where a dataset lies.

    Parameters
    ----------
    start, limit
        Its first byte, and the position that nothing may be read behind.
    length
        Of an item of defined length; None: up to a delimiter or `limit`.
    """

    start: int
    limit: int
    length: int | None = None


class DatasetWalk:
    """The elements of one dataset, in file order.

    Parameters
    ----------
    group
        Stop before the first element of another group.
    on_sequence
        Called with each sequence of undefined length (no `stop` yet); returns the first byte behind it.

    Attributes
    ----------
    position
        First byte behind what was walked so far.
    problem
        Why the walk had to end early, or empty.
    """

    def __init__(
        self,
        reader: PositionedReader,
        encoding: Encoding,
        extent: Extent,
        *,
        group: int | None = None,
        on_sequence: Callable[[RawElement], int] | None = None,
    ) -> None:
        self.reader = reader
        self.encoding = encoding
        self.limit = extent.limit
        self.position = extent.start
        self.problem = ""
        self._stop = extent.limit if extent.length is None else min(extent.start + extent.length, extent.limit)
        self._group = group
        self._on_sequence = on_sequence

    def __iter__(self) -> Iterator[RawElement]:
        parse, limit, group = _PARSERS[self.encoding], self.limit, self._group
        buffer, base, last = b"", 0, -1  # `buffer` begins at `base` and serves every element up to `last`
        while (position := self.position) < self._stop:
            if position > last:
                buffer, at = self.reader.view(position, _VIEW_BYTES)
                base = position - at
                last = base + len(buffer) - _VIEW_BYTES
            header = parse(buffer, position - base)
            if header is None or position + header[2] > limit:
                self.problem = "the data ends within an element's header"
                self.position = limit
                return
            tag, vr, size, length = header
            value = position + size
            if tag == ITEM_END:
                self.position = value
                return
            if group is not None and tag >> 16 != group:
                return
            if length == UNDEFINED_LENGTH:
                element = self._undefined(tag, vr, value)
            else:
                stop = value + length if length <= limit - value else limit
                data = buffer[value - base : stop - base] if length <= _CAPTURED_BYTES else None
                # The constructor of a named tuple is a Python function, which would be a fifth of the walk.
                fields = (tag, vr, position, value, stop - value, stop, length, data, None)
                element = tuple.__new__(RawElement, fields)
            self.position = element.stop
            yield element

    def _undefined(self, tag: int, vr: str | None, value: int) -> RawElement:
        vr = _undefined_vr(self.reader, tag, vr, value, self.encoding)
        element = RawElement(tag, vr, self.position, value, 0, value, UNDEFINED_LENGTH)
        if vr == "SQ":
            stop = (self._on_sequence or self._skip)(element)
            return element._replace(length=stop - value, stop=stop)
        scan = scan_value(self.reader, value, self.limit, little_endian=self.encoding.little_endian)
        return element._replace(length=scan.value_stop - value, stop=scan.stop, scan=scan)

    def _skip(self, element: RawElement) -> int:
        return skip_sequence(self.reader, element.value, self.limit, self.encoding)


def scan_value(reader: PositionedReader, start: int, limit: int, *, little_endian: bool) -> ItemScan:
    """Return the items of a value of undefined length, whose end is searched for where the items do not lead to it."""
    scan = scan_items(reader, start, limit, little_endian=little_endian)
    if not scan.problem:
        return scan
    pattern = struct.pack("<HH" if little_endian else ">HH", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF)
    found = reader.find(pattern, start, limit)
    if found < 0:
        return scan
    last = scan.starts[-1] + scan.lengths[-1] if len(scan) else start
    if found < last:  # within an item that is whole: the pattern is pixels
        return scan
    return ItemScan(
        scan.starts, scan.lengths, found, min(found + _HEADER_BYTES, limit), scan.problem, is_cut=scan.is_cut
    )


def skip_sequence(reader: PositionedReader, start: int, limit: int, encoding: Encoding) -> int:
    """Return the first byte behind a sequence of undefined length, however deep it nests, without recursion."""
    # One entry per open sequence or item: the encoding of its elements, and whether it is an item.
    opened: list[tuple[Encoding, bool]] = [(encoding, False)]
    position = start
    while opened:
        inner, is_item = opened[-1]
        buffer, at = reader.view(position, _LONG_HEADER_BYTES)
        header = _parse_header(buffer, at, inner if is_item else inner._replace(implicit=True))
        if header is None or position + header.size > limit:
            return limit
        position += header.size
        if header.tag == (ITEM_END if is_item else SEQUENCE_END):
            opened.pop()
        elif header.length != UNDEFINED_LENGTH:
            position += header.length
        elif is_item:
            opened.append((inner, False))
        else:
            implicit = detect_implicit(reader, position, inner, is_item=True)
            opened.append((inner._replace(implicit=implicit), True))
    return min(position, limit)
