"""Inventories whose rows are dicts, as BigQuery gives them: the same rules as for the rows of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.beam import BigQueryRows, GroupBySeries, IngestSeries, ReadInventory
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.beam.conftest import run_pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.beam import DeadLetter
    from cloud_optimized_dicom.ingest.inventory import InventoryRow


def read(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None
) -> tuple[list[InventoryRow], list[DeadLetter]]:
    """Return what becomes of rows: those of the inventory by URI, and the dead letters by subject."""

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        inventory = pipeline | ReadInventory(columns=columns, rows=beam.Create(rows))
        return {"rows": inventory.rows, "dead_letters": inventory.dead_letters}

    found, _ = run_pipeline(build)
    by_subject = sorted(found["dead_letters"], key=lambda letter: letter.subject)
    return sorted(found["rows"], key=lambda row: row.uri), by_subject


def test_rows_are_read_as_those_of_a_file_are() -> None:
    """Names of columns are recognised as IDC's table and a table of objects have them; claims become hints."""
    idc = {
        "gcs_url": "gs://idc/1.dcm",
        "instance_size": 526,
        "crc32c_hash": "DUoRhQ==",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "SOPInstanceUID": "1.2.3.4",
        "PatientID": "of no concern",
    }
    (row,), dead = read([idc])
    hints = row.hints
    assert (row.uri, hints.size, hints.crc32c) == ("gs://idc/1.dcm", 526, "DUoRhQ==")
    assert (hints.study_uid, hints.series_uid, hints.instance_uid) == ("1.2", "1.2.3", "1.2.3.4")
    assert dead == []
    rows, dead = read([{"bucket": "b", "name": name, "md5": None} for name in ("a b.dcm", "folder/")])
    assert ([row.uri for row in rows], dead) == (["gs://b/a b.dcm"], [])


def test_bad_rows_are_dead_letters_and_the_others_go_on() -> None:
    """A row without a file, and one whose claim cannot be, are told with their instance."""
    good = {"uri": "gs://b/a.dcm", "SOPInstanceUID": "1.2"}
    rows, dead = read([good, {"uri": None, "SOPInstanceUID": "1.3"}, {"uri": "gs://b/c", "SOPInstanceUID": "no UID"}])
    assert [row.uri for row in rows] == ["gs://b/a.dcm"]
    assert [letter.subject for letter in dead] == ["gs://b/c", "row of instance 1.3"]
    assert {letter.stage for letter in dead} == {"inventory"}
    assert "no UID" not in dead[0].reason  # it could be anything


HASHED: list[str] = []


def noted(uid: str) -> str:
    """Return another UID, and take note."""
    HASHED.append(uid)
    return "2.25.1"


def test_only_rows_that_fail_are_hashed() -> None:
    """A hash function names the instances of dead letters, and is not called for the rows that go on."""
    HASHED.clear()
    sizes = {"1.2": 1, "1.3": "large", "1.4": None}
    rows = [{"uri": f"gs://b/{uid}", "size": size, "SOPInstanceUID": uid} for uid, size in sizes.items()]

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        inventory = pipeline | ReadInventory(rows=beam.Create(rows), uid_hash_func=f"{__name__}:noted")
        return {"rows": inventory.rows, "dead_letters": inventory.dead_letters}

    found, _ = run_pipeline(build)
    assert sorted(row.uri for row in found["rows"]) == ["gs://b/1.2", "gs://b/1.4"]
    (letter,) = found["dead_letters"]
    assert letter.reason.startswith("row of instance 2.25.1")
    assert HASHED == ["1.3"]


def test_other_names_are_given() -> None:
    """A column that nobody recognises is named; where it is missing, all rows together are one dead letter."""
    odd = [{"place": f"gs://b/{number}.dcm", "check": "00000010"} for number in range(3)]
    rows, _ = read(odd, {"uri": "place", "crc32c:hex": "check"})
    assert [(row.uri, row.hints.crc32c) for row in rows] == [(f"gs://b/{n}.dcm", "AAAAEA==") for n in range(3)]
    for columns, reason in (({}, "has no column that says where a file is"), ({"uri": "where"}, "no column 'where'")):
        rows, dead = read(odd, columns)
        assert rows == []
        assert [reason in letter.reason for letter in dead] == [True]


def test_how_checksums_are_written_is_told_by_a_sample() -> None:
    """Digits that could be either hexadecimal or decimal are read as their neighbours must be."""
    rows, dead = read([{"uri": f"gs://b/{crc}", "crc32c": crc} for crc in ("00000010", "0d4a1185")])
    assert ([row.hints.crc32c for row in rows], dead) == (["AAAAEA==", "DUoRhQ=="], [])


def test_a_table_without_rows_is_none() -> None:
    """Of nothing comes nothing, not even a dead letter."""
    assert read([]) == ([], [])


def test_what_rows_name_is_stored(tmp_path: Path) -> None:
    """Rows go through an ingest like those of a file, beside other sources."""
    ct = CtSeries(3, rows=16, columns=16)
    for index, data in enumerate(ct):
        (tmp_path / f"{index}.dcm").write_bytes(data)
    claims = {"StudyInstanceUID": ct.uids.study, "SeriesInstanceUID": ct.uids.series}
    rows = [{"uri": str(tmp_path / f"{index}.dcm"), **claims} for index in range(2)]

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        inventory = pipeline | ReadInventory(sources=[str(tmp_path / "2.dcm")], rows=beam.Create(rows))
        grouped = inventory.rows | GroupBySeries()
        return {"results": (grouped.series | IngestSeries(str(tmp_path / "store"))).results}

    found, counters = run_pipeline(build)
    assert [result.outcome for result in found["results"]] == ["new"] * 3
    assert counters["headers_read"] == 1
    assert [report.instances for report in Datastore(str(tmp_path / "store")).verify()] == [3]


def test_a_query_or_a_table_is_asked_for() -> None:
    """Both, or none, is an error before anything runs; one becomes Beam's own reading of BigQuery."""
    for given in ({}, {"query": "SELECT 1", "table": "project:dataset.table"}):
        with pytest.raises(ValueError, match="either a query or a table"):
            BigQueryRows(**given)
    for rows in (BigQueryRows(query="SELECT gcs_url FROM t"), BigQueryRows(table="project:dataset.table")):
        pipeline = beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(["--temp_location=gs://b/t"]))
        pipeline | ReadInventory(rows=rows)
        names = _names_of(pipeline)
        assert any("ReadFromBigQuery" in name for name in names)


def _names_of(pipeline: beam.Pipeline) -> list[str]:
    names: list[str] = []

    class Visitor(beam.pipeline.PipelineVisitor):
        def enter_composite_transform(self, transform_node: Any) -> None:
            names.append(transform_node.full_label)

        def visit_transform(self, transform_node: Any) -> None:
            names.append(transform_node.full_label)

    pipeline.visit(Visitor())
    return names
