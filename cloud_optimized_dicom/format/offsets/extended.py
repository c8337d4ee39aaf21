"""A header that shows an Extended Offset Table, made from one that has none (PS3.3 section C.7.6.3.1.8)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES, ITEM, UNDEFINED_LENGTH, parse_item_header

if TYPE_CHECKING:
    from cloud_optimized_dicom.model import FrameTable

_ELEMENT = struct.Struct("<HH2s2xL")  # explicit VR with a length of 32 bits: PS3.5 table 7.1-1
_ITEM = struct.Struct("<HHL")
_GROUP = 0x7FE0
_OFFSETS, _LENGTHS, _TOTAL, _PIXELS = 0x0001, 0x0002, 0x0003, 0x0010
_TOTAL_BYTES = _ELEMENT.size + 8


def item_header(length: int) -> bytes:
    """Return the tag and length of an item (PS3.5 table 7.5-1), little endian as all encapsulated data is."""
    return _ITEM.pack(ITEM >> 16, ITEM & 0xFFFF, length)


def plan_extended_head(head: bytes, table: FrameTable) -> bytes | None:
    """Return `head` with an Extended Offset Table and its lengths, and an empty Basic Offset Table.

    Parameters
    ----------
    head
        The file up to the first byte of the first frame.
    table
        Its frames.

    Returns
    -------
    bytes or None
        What replaces `head`: it too ends behind the header of the first frame's item.  None where no such table may be
        shown: native or deflated pixel data, a frame of several fragments, a value that does not begin as PS3.5 section
        A.4 has it.

    Notes
    -----
    PS3.3 section C.7.6.3.1.8 asks for one fragment a frame and an empty Basic Offset Table.  Its offsets count from the
    first byte of the item behind that table, and lead to items' tags; its lengths are those of the frames, without the
    padding of an item.
    """
    start = table.pixel_data_offset
    if start is None or not table.rangeable or not table.offsets or len(head) != table.offsets[0]:
        return None
    if any(count != 1 for count in table.fragment_counts or ()) or not _is_encapsulated(head, start):
        return None
    first = table.offsets[0]
    offsets = struct.pack(f"<{len(table)}Q", *(offset - first for offset in table.offsets))
    lengths = struct.pack(f"<{len(table)}Q", *table.lengths)
    # Encapsulated Pixel Data Value Total Length comes between the two tables and the pixel data.
    split = start - _TOTAL_BYTES if _begins_element(head, start - _TOTAL_BYTES, _TOTAL, b"UV") else start
    return b"".join(
        (
            head[:split],
            _ELEMENT.pack(_GROUP, _OFFSETS, b"OV", len(offsets)) + offsets,
            _ELEMENT.pack(_GROUP, _LENGTHS, b"OV", len(lengths)) + lengths,
            head[split : start + _ELEMENT.size],
            item_header(0),
            head[first - HEADER_BYTES :],
        )
    )


def _begins_element(head: bytes, start: int, element: int, vr: bytes) -> bool:
    return start >= 0 and head[start : start + 6] == struct.pack("<HH", _GROUP, element) + vr


def _is_encapsulated(head: bytes, start: int) -> bool:
    """Whether the element at `start` is Pixel Data of undefined length: a table's item, then the first frame's."""
    value = start + _ELEMENT.size
    if len(head) < value + 2 * HEADER_BYTES:
        return False
    if not any(_begins_element(head, start, _PIXELS, vr) for vr in (b"OB", b"OW")):
        return False
    tag, length = parse_item_header(head[value : value + HEADER_BYTES], little_endian=True)
    frame_tag, _ = parse_item_header(head[-HEADER_BYTES:], little_endian=True)
    undefined: bool = _ELEMENT.unpack_from(head, start)[3] == UNDEFINED_LENGTH
    return undefined and tag == frame_tag == ITEM and value + 2 * HEADER_BYTES + length == len(head)
