"""Pipelines that store under hashed UIDs: grouped by them, reported by them, dead letters included."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.beam import (
    DeleteDependencies,
    GroupBySeries,
    IngestOptions,
    IngestSeries,
    ReadInventory,
)
from cloud_optimized_dicom.catalogue import Catalogue, update_catalogue
from pipelines.ingest import main
from tests.beam.archive import ROOT
from tests.beam.conftest import run_pipeline
from tests.core.bulk import write_many
from tests.hashed.functions import PSEUDONYM, Table, is_told, key_of, pseudonym
from tests.hashed.test_command import write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.core.conftest import Files

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def run(
    store: Path, function: Any, tables: Sequence[str] = (), sources: Sequence[str] = ()
) -> tuple[dict[str, Any], Any]:
    """Store files under what a function makes of their UIDs."""

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        rows = pipeline | ReadInventory(tables, sources=sources, uid_hash_func=function)
        grouped = rows.rows | GroupBySeries(function)
        options = IngestOptions(wait_seconds=0, uid_hash_func=function)
        done = grouped.series | IngestSeries(str(store), options)
        dead = (rows.dead_letters, grouped.dead_letters, done.dead_letters) | beam.Flatten()
        keys = grouped.series | beam.Keys()
        return {"keys": keys, "results": done.results, "dead": dead, "retryable": done.retryable}

    return run_pipeline(build)


@pytest.mark.parametrize("function", [pseudonym, PSEUDONYM], ids=["function", "name"])
def test_rows_are_grouped_and_stored_by_hashed_uids(function: Any, tmp_path: Path) -> None:
    """Hinted and unhinted rows of a series meet under its hashed key; a second run writes nothing."""
    first, second = write_many(tmp_path / "in", 2)
    table = str(write_rows(tmp_path / "rows.csv", first, 0, 1))
    sources = [str(first.paths[2]), *map(str, second.paths)]
    for outcome in ("new", "same"):
        found, _ = run(tmp_path / "store", function, [table], sources)
        assert sorted(found["keys"]) == sorted([key_of(first), key_of(second)])
        assert {result.outcome for result in found["results"]} == {outcome}
        assert {(result.series, result.instance_uid) for result in found["results"]} == {
            (key_of(files), pseudonym(uid)) for files in (first, second) for uid in files.uids
        }
        assert not any(is_told(files, repr(found)) for files in (first, second))
    assert set(Datastore(tmp_path / "store").series()) == {key_of(first), key_of(second)}
    assert all(report.ok for report in Datastore(tmp_path / "store").verify())


def test_what_cannot_be_hashed_is_a_dead_letter(tmp_path: Path) -> None:
    """Rows that the function refuses, hinted or not, die alone and without a UID."""
    known, unknown = write_many(tmp_path / "in", 2, instances=2)
    table = Table([known.series.uids.study, known.series.uids.series, *known.uids])
    rows = str(write_rows(tmp_path / "rows.csv", unknown, 0))
    found, _ = run(tmp_path / "store", table, [rows], [str(unknown.paths[1]), *map(str, known.paths)])
    assert len(found["results"]) == 2
    assert {letter.subject for letter in found["dead"]} == set(map(str, unknown.paths))
    assert {letter.reason for letter in found["dead"]} == {"its uid_hash_func raised KeyError"}
    assert not is_told(unknown, repr(found))


def test_rows_of_bigquery_are_named_by_hashed_uids(tmp_path: Path, files: Files) -> None:
    """A dead letter of a row without a file names the hash of the instance's UID."""
    cells = {"gcs_url": None, "SOPInstanceUID": files.uids[0], "crc32c_hash": ""}

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        rows = pipeline | ReadInventory(rows=beam.Create([cells]), uid_hash_func=PSEUDONYM)
        return {"dead": rows.dead_letters}

    found, _ = run_pipeline(build)
    (letter,) = found["dead"]
    assert letter.subject == f"row of instance {pseudonym(files.uids[0])}"
    assert not is_told(files, repr(found))


def test_sources_of_hashed_series_are_deleted(tmp_path: Path) -> None:
    """What is stored under hashed UIDs and verified may lose its source: results and records name it alike."""
    (files,) = write_many(tmp_path / "in", 1)

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        rows = pipeline | ReadInventory(sources=[str(tmp_path / "in")])
        grouped = rows.rows | GroupBySeries(PSEUDONYM)
        done = grouped.series | IngestSeries(str(tmp_path / "store"), IngestOptions(uid_hash_func=PSEUDONYM))
        deleted = done.results | DeleteDependencies(str(tmp_path / "store"))
        return {"results": deleted.results, "dead": deleted.dead_letters}

    found, _ = run_pipeline(build)
    assert {one.instance_uid for one in found["results"]} == {pseudonym(uid) for uid in files.uids}
    assert found["dead"] == []
    assert not any(path.exists() for path in files.paths)
    assert not is_told(files, repr(found))


def test_the_program_stores_under_hashed_uids(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--uid_hash` names the function; its reports hold hashed UIDs, and so does a catalogue of what it stored."""
    (files,) = write_many(tmp_path / "in", 1)
    store, report = tmp_path / "store", tmp_path / "report"
    arguments = ["--source", str(tmp_path / "in"), "--store", str(store), "--report", str(report)]
    assert main([*arguments, "--uid_hash", PSEUDONYM]) == 0
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("report-*"))
    lines = [json.loads(line) for line in written.splitlines()]
    assert {line["instance_uid"] for line in lines} == {pseudonym(uid) for uid in files.uids}
    assert not is_told(files, written + "".join(capfd.readouterr()))
    update_catalogue(Datastore(store), tmp_path / "tables")
    with Catalogue(tmp_path / "tables") as catalogue:
        rows = [list(catalogue.query(f"SELECT * FROM {table}")) for table in ("series", "instances")]
    assert len(rows[1]) == 3
    assert not is_told(files, repr(rows))
    with pytest.raises(SystemExit):
        main([*arguments, "--uid_hash", "no.such.module:x"])


def test_a_name_of_no_function_is_refused_before_anything_runs() -> None:
    """Transforms are not made with the name of a function that is none; those that are made travel to workers."""
    for make in (GroupBySeries, lambda name: IngestSeries("x", IngestOptions(uid_hash_func=name))):
        with pytest.raises(ValueError, match="function"):
            make("no.such.module:x")
        assert pickle.loads(pickle.dumps(make(PSEUDONYM))) is not None


@pytest.mark.slow
def test_worker_processes_find_the_function_by_its_name(tmp_path: Path) -> None:
    """With worker processes of Beam's own each finds the function, and a series is hashed alike by all of them."""
    many = write_many(tmp_path / "in", 3)
    command = [sys.executable, "-m", "pipelines.ingest", "--store", str(tmp_path / "store"), "--uid_hash", PSEUDONYM]
    command += ["--source", str(tmp_path / "in"), "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(Datastore(tmp_path / "store").series()) == {key_of(files) for files in many}
    assert not any(is_told(files, done.stdout) for files in many)
