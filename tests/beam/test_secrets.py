"""Rows whose URIs hold passwords or signatures: dead letters name their files without them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pytest

from cloud_optimized_dicom.beam import GroupBySeries, ReadInventory
from tests.beam.conftest import run_pipeline

if TYPE_CHECKING:
    from pathlib import Path


def no_hash(uid: str) -> str:
    """Refuse a UID."""
    raise KeyError(uid)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("http://127.0.0.1:9/x.dcm?X-Goog-Signature=s3cret&part=1", "http://127.0.0.1:9/x.dcm?part=1"),
        ("nope://me:s3cret@h/x.dcm", "nope://h/x.dcm"),
    ],
)
def test_no_dead_letter_tells_a_secret(uri: str, public: str, tmp_path: Path) -> None:
    """A file whose header cannot be read or hashed, and one of which a table claims what cannot be, is told without."""
    rows: list[dict[str, Any]] = [
        {"uri": uri, "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"},  # its UIDs are hashed
        {"uri": uri},  # its header is read
        {"uri": uri, "size": "large"},
    ]
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        inventory = pipeline | ReadInventory([str(table)], rows=beam.Create(rows))
        grouped = inventory.rows | GroupBySeries(f"{__name__}:no_hash")
        return {"inventory": inventory.dead_letters, "grouping": grouped.dead_letters}

    found, _ = run_pipeline(build)
    assert [letter.subject for letter in found["inventory"]] == [public] * 2
    assert [letter.subject for letter in found["grouping"]] == [public] * 4
    assert {letter.reason for letter in found["grouping"]} >= {"its uid_hash_func raised KeyError"}
    assert "s3cret" not in repr(found)
