"""The JSON form of a frame table: ``offset_tables`` of a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import FrameTableError
from cloud_optimized_dicom.model import FrameTable

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1

_OFFSETS = "CustomOffsetTable"
_LENGTHS = "CustomOffsetTableLengths"
_INFLATED_OFFSETS = "InflatedOffsetTable"
_INFLATED_LENGTHS = "InflatedOffsetTableLengths"
_WHERE = "offset_tables"


def dump_offset_tables(table: FrameTable | None) -> dict[str, object]:
    """Return the JSON form; empty without a table.

    Notes
    -----
    The positions of a deflated instance count in its inflated file and go under keys of their own: a reader that does
    not know them finds no table, instead of serving bytes of the deflated file.
    """
    if table is None:
        return {}
    document: dict[str, object] = {"FrameTableVersion": VERSION}
    if not table.rangeable:
        document["Rangeable"] = False
    document[_OFFSETS if table.rangeable else _INFLATED_OFFSETS] = list(table.offsets)
    document[_LENGTHS if table.rangeable else _INFLATED_LENGTHS] = list(table.lengths)
    if table.fragment_counts is not None:
        document["FragmentCounts"] = list(table.fragment_counts)
    if table.crc32cs is not None:
        document["FrameCrc32c"] = [checksum.encode(crc) for crc in table.crc32cs]
    if table.pixel_data_offset is not None:
        document["PixelDataOffset"] = table.pixel_data_offset
    return document


def parse_offset_tables(document: Mapping[str, object] | None) -> FrameTable | None:
    """Return the table of a JSON form, or None if there is none.

    Notes
    -----
    A table of another version than ours, or of none, comes back as not trusted.

    Raises
    ------
    FrameTableError
        If it is malformed: not integers, negative, lists of different lengths, a CRC32C that is none.
    """
    if not document:
        return None
    inflated = document.get("Rangeable") is False
    if (_INFLATED_OFFSETS if inflated else _OFFSETS) not in document:
        raise FrameTableError(_WHERE, "there are no offsets")
    offsets = _integers(document, _INFLATED_OFFSETS if inflated else _OFFSETS)
    version = document.get("FrameTableVersion")
    return FrameTable(
        offsets,
        _integers(document, _INFLATED_LENGTHS if inflated else _LENGTHS, count=len(offsets)),
        fragment_counts=_fragment_counts(document, len(offsets)),
        crc32cs=_crc32cs(document, len(offsets)),
        pixel_data_offset=_position(document.get("PixelDataOffset")),
        rangeable=not inflated,
        trusted=version == VERSION and not isinstance(version, bool),
    )


def _list(document: Mapping[str, object], key: str, count: int | None) -> list[Any]:
    values = document.get(key)
    if not isinstance(values, list):
        raise FrameTableError(_WHERE, f"{key} is not a list")
    if count is not None and len(values) != count:
        raise FrameTableError(_WHERE, f"{key} has {len(values)} entries for {count} frames")
    return values


def _integers(document: Mapping[str, object], key: str, *, count: int | None = None, least: int = 0) -> tuple[int, ...]:
    values = _list(document, key, count)
    if any(type(value) is not int or value < least for value in values):
        raise FrameTableError(_WHERE, f"{key} holds something other than integers from {least} on")
    return tuple(values)


def _fragment_counts(document: Mapping[str, object], frames: int) -> tuple[int, ...] | None:
    if document.get("FragmentCounts") is None:
        return None
    return _integers(document, "FragmentCounts", count=frames, least=1)


def _crc32cs(document: Mapping[str, object], frames: int) -> tuple[int, ...] | None:
    if document.get("FrameCrc32c") is None:
        return None
    values = _list(document, "FrameCrc32c", frames)
    try:
        return tuple(checksum.decode(value) for value in values)
    except (ValueError, TypeError) as error:
        raise FrameTableError(_WHERE, "FrameCrc32c holds something that is no CRC32C") from error


def _position(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise FrameTableError(_WHERE, "PixelDataOffset is not a position")
    return value
