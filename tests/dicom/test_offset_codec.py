"""The JSON form of frame tables: what comes back, what is not trusted, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_optimized_dicom.errors import FrameTableError
from cloud_optimized_dicom.format.offsets.codec import dump_offset_tables, parse_offset_tables
from cloud_optimized_dicom.model import FrameTable

COUNTS = st.integers(0, 1 << 40)


@st.composite
def tables(draw: st.DrawFn) -> FrameTable:
    """Draw any table that we may write."""
    frames = draw(st.integers(0, 5))

    def column(values: st.SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(st.lists(values, min_size=frames, max_size=frames)))

    return FrameTable(
        column(COUNTS),
        column(COUNTS),
        fragment_counts=column(st.integers(1, 9)) if draw(st.booleans()) else None,
        crc32cs=column(st.integers(0, 2**32 - 1)) if draw(st.booleans()) else None,
        pixel_data_offset=draw(st.none() | COUNTS),
        rangeable=draw(st.booleans()),
    )


@given(tables())
def test_tables_survive_json(table: FrameTable) -> None:
    """Read back exactly the table that was written."""
    assert parse_offset_tables(json.loads(json.dumps(dump_offset_tables(table)))) == table


def test_the_json_form() -> None:
    """Write the names that the format fixes."""
    table = FrameTable((100, 200), (50, 60), (1, 2), (0, 1), 80)
    assert dump_offset_tables(table) == {
        "FrameTableVersion": 1,
        "CustomOffsetTable": [100, 200],
        "CustomOffsetTableLengths": [50, 60],
        "FragmentCounts": [1, 2],
        "FrameCrc32c": ["AAAAAA==", "AAAAAQ=="],
        "PixelDataOffset": 80,
    }


def test_no_table_is_empty_both_ways() -> None:
    """Write nothing for no table, and read nothing from null and from an empty object."""
    assert dump_offset_tables(None) == {}
    assert parse_offset_tables({}) is None
    assert parse_offset_tables(None) is None


def test_deflated_tables_show_older_readers_nothing() -> None:
    """Put the positions of an inflated file under keys that older readers do not know."""
    document = dump_offset_tables(FrameTable((1,), (2,), rangeable=False))
    assert document["Rangeable"] is False
    assert not {"CustomOffsetTable", "CustomOffsetTableLengths"} & document.keys()


@pytest.mark.parametrize("version", [None, 0, 2, "1", True, 1.5])
def test_other_versions_are_not_trusted(version: object) -> None:
    """Read tables of older and newer writers, but do not trust them."""
    document: dict[str, Any] = {"CustomOffsetTable": [8], "CustomOffsetTableLengths": [4]}
    if version is not None:
        document["FrameTableVersion"] = version
    table = parse_offset_tables(document)
    assert table == FrameTable((8,), (4,), trusted=False)


@pytest.mark.parametrize(
    "change",
    [
        {"CustomOffsetTable": None},
        {"CustomOffsetTable": [1, 2]},
        {"CustomOffsetTable": [-1]},
        {"CustomOffsetTable": [True]},
        {"CustomOffsetTable": [1.0]},
        {"CustomOffsetTable": "1"},
        {"CustomOffsetTableLengths": []},
        {"CustomOffsetTableLengths": {"0": 1}},
        {"FragmentCounts": [0]},
        {"FragmentCounts": [1, 1]},
        {"FrameCrc32c": ["?"]},
        {"FrameCrc32c": [7]},
        {"FrameCrc32c": []},
        {"PixelDataOffset": -4},
        {"PixelDataOffset": "80"},
        {"Rangeable": False},
    ],
)
def test_malformed_tables_are_refused(change: dict[str, Any]) -> None:
    """Refuse lists of different lengths and anything that is not a position."""
    document = {"FrameTableVersion": 1, "CustomOffsetTable": [1], "CustomOffsetTableLengths": [1]}
    with pytest.raises(FrameTableError):
        parse_offset_tables(document | change)


def test_a_document_without_offsets_is_refused() -> None:
    """Refuse a table that has a version and nothing else."""
    with pytest.raises(FrameTableError, match="no offsets"):
        parse_offset_tables({"FrameTableVersion": 1})
