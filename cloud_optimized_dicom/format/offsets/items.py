"""The items of an undefined-length value: a basic offset table and fragments (PS3.5 section A.4, table A.4-1)."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
UNDEFINED_LENGTH = 0xFFFFFFFF
HEADER_BYTES = 8
"""Tag and length of an item (PS3.5 table 7.5-1)."""

_HEADER = {True: struct.Struct("<HHL"), False: struct.Struct(">HHL")}


@dataclass(frozen=True, slots=True)
class ItemScan:
    """Every complete item of a value.

    Parameters
    ----------
    starts, lengths
        Per item, its first value byte and its length; the basic offset table's item is the first.
    value_stop
        Where the items end: the sequence delimiter's first byte, if there is one.
    stop
        First byte behind the value, its sequence delimiter included.
    problem
        Why the scan ended, or empty where a sequence delimiter ended it.
    is_cut
        Whether there is more behind the last whole item that could not be read as items.
    """

    starts: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    value_stop: int = 0
    stop: int = 0
    problem: str = ""
    is_cut: bool = False

    def __len__(self) -> int:
        return len(self.starts)


def parse_item_header(header: bytes, *, little_endian: bool) -> tuple[int, int]:
    """Return (tag, length) of the 8 bytes of an item's header."""
    group, element, length = _HEADER[little_endian].unpack(header)
    return group << 16 | element, length


def scan_items(reader: PositionedReader, start: int, limit: int, *, little_endian: bool = True) -> ItemScan:
    """Return the items from `start` up to the sequence delimiter, reading nothing but their headers.

    Notes
    -----
    Never raises on damaged data: the scan holds what is whole, and says in `problem` why it ended there.
    """
    starts, lengths = array("Q"), array("Q")
    position = start
    while True:
        header = reader.probe(position, HEADER_BYTES) if position + HEADER_BYTES <= limit else b""
        if len(header) < HEADER_BYTES:
            return ItemScan(starts, lengths, limit, limit, "the sequence delimiter is missing")
        tag, length = parse_item_header(header, little_endian=little_endian)
        if tag == SEQUENCE_END:
            return ItemScan(starts, lengths, position, position + HEADER_BYTES)
        problem = _item_problem(tag, length, limit - position - HEADER_BYTES)
        if problem:
            return ItemScan(starts, lengths, limit, limit, problem, is_cut=True)
        starts.append(position + HEADER_BYTES)
        lengths.append(length)
        position += HEADER_BYTES + length


def _item_problem(tag: int, length: int, left: int) -> str:
    if tag != ITEM:
        return "something that is no item lies among the items"
    if length == UNDEFINED_LENGTH:
        return "an item has no length"
    return "the file ends within an item" if length > left else ""


def join_items(items: bytes, fragments: int) -> bytes:
    """Return the values of consecutive items, one after the other.

    Parameters
    ----------
    items
        From the first item's header to the last item's end, in either byte order.
    fragments
        How many items there must be.

    Raises
    ------
    ValueError
        If the bytes are anything else.
    """
    little_endian = items[:4] == struct.pack("<HH", ITEM >> 16, ITEM & 0xFFFF)
    parts: list[bytes] = []
    position = 0
    while position + HEADER_BYTES <= len(items):
        tag, length = parse_item_header(items[position : position + HEADER_BYTES], little_endian=little_endian)
        position += HEADER_BYTES
        if tag != ITEM or position + length > len(items):
            break
        parts.append(items[position : position + length])
        position += length
    if position != len(items) or len(parts) != fragments:
        raise ValueError(f"not {fragments} items")
    return b"".join(parts)
