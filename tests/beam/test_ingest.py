"""Ingests as pipelines, in this process: what is stored, what is told, what is asked of the server."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import apache_beam as beam
import pytest
from apache_beam import coders

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.beam import (
    DeleteDependencies,
    GroupBySeries,
    IngestOptions,
    IngestSeries,
    ReadInventory,
    SeriesKeyCoder,
)
from cloud_optimized_dicom.ingest.report import FileResult
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.uids import SeriesKey
from pipelines.ingest import main
from tests.beam.conftest import Bucket, finish_pipeline, run_ingest, run_pipeline, upload_series, write_inventory

if TYPE_CHECKING:
    from pathlib import Path


def stored(url: str) -> dict[str, int]:
    """Return how many instances each series of a sound datastore has."""
    datastore = Datastore(url)
    reports = list(datastore.verify())
    assert [finding for report in reports for finding in report.findings] == []
    return {str(key): report.instances for key, report in zip(datastore.series(), reports, strict=True)}


def test_every_row_ends_in_one_output(bucket: Bucket, tmp_path: Path) -> None:
    """Good rows are stored, bad ones are dead letters with a reason each, and nothing is in two outputs."""
    rows = upload_series(bucket, 2, 2)
    missing, text = rows[0].uri + "x", bucket.put("in/notes.txt", b"no DICOM at all")
    lines = [row.cells for row in rows]
    lines[3][4] = rows[0].series_uid  # a series that it is not of
    lines += [["", "1", "", "", "", ""], [missing, *lines[0][1:]], [text, "", "", "", "", ""]]
    done = run_ingest(bucket.store, [write_inventory(tmp_path / "inventory.csv", lines)])
    assert done.outcomes == {"new": sorted(row.uri for row in rows[:3])}
    assert set(done.dead) == {f"{tmp_path}/inventory.csv line 6", missing, text, rows[3].uri}
    assert "series_uid" in done.dead[rows[3].uri]
    assert {letter.stage for letter in done.dead_letters} == {"inventory", "grouping", "ingest"}
    assert done.retryable == []
    assert sorted(stored(bucket.store).values()) == [1, 2]
    counted = {name: done.counters[name] for name in ("results", "dead_letters", "files_new", "headers_read")}
    assert counted == {"results": 3, "dead_letters": 4, "files_new": 3, "headers_read": 1}
    assert done.counters["bytes_new"] == sum(len(row.data) for row in rows[:3])


def test_a_second_run_writes_nothing_and_fetches_no_source(bucket: Bucket, tmp_path: Path) -> None:
    """An inventory that claims UIDs and checksums is answered from the stored documents."""
    rows = upload_series(bucket, 3, 2)
    table = write_inventory(tmp_path / "inventory.csv", [row.cells for row in rows])
    run_ingest(bucket.store, [table])
    bucket.server.reset_counters()
    done = run_ingest(bucket.store, [table])
    assert done.outcomes == {"same": sorted(row.uri for row in rows)}
    requests = bucket.server.counters()
    assert [record for record in requests if record.object_name.startswith("in/")] == []
    asked = Counter((record.operation, record.object_name) for record in requests)
    documents = {f"store/studies/{row.study_uid}/series/{row.series_uid}/metadata.json" for row in rows}
    assert asked == {("objects.list", ""): 3} | {("objects.download", name): 1 for name in documents}


def test_what_is_written_is_told_in_distributions(bucket: Bucket, tmp_path: Path) -> None:
    """The sizes of files, and the instances and bytes of series, are distributions: one value per event."""
    rows = upload_series(bucket, 2, 3)[:5]
    table = write_inventory(tmp_path / "inventory.csv", [row.cells for row in rows])

    def build(pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
        grouped = (pipeline | ReadInventory([table])).rows | GroupBySeries()
        return {"results": (grouped.series | IngestSeries(bucket.store)).results}

    _, result = finish_pipeline(build)
    found = {one.key.metric.name: one.result for one in result.metrics().query()["distributions"]}
    sizes = [len(row.data) for row in rows]
    told = {name: (each.count, each.sum, each.min, each.max) for name, each in found.items()}
    assert told["file_bytes"] == (5, sum(sizes), min(sizes), max(sizes))
    assert told["series_instances"] == (2, 5, 2, 3)
    tars = [info.size for info in Datastore(bucket.store).store.list() if info.name.endswith(".tar")]
    assert told["series_bytes"] == (2, sum(tars), min(tars), max(tars))


def test_files_without_hints_are_grouped_by_the_start_of_their_header(bucket: Bucket) -> None:
    """Of a prefix that is listed, grouping reads one block of each file, and each file is fetched once."""
    rows = upload_series(bucket, 1, 1)
    big = CtSeries(2, rows=512, columns=512, seed=9)
    bucket.put("in/big.dcm", big.instance(0))
    bucket.server.reset_counters()
    done = run_ingest(bucket.store, sources=[f"gs://{bucket.name}/in/"])
    assert len(done.outcomes["new"]) == 2
    assert done.counters["headers_read"] == 2
    small, large = len(rows[0].data), len(big.instance(0))
    assert sorted(bucket.fetched("in/")) == sorted([small, small, 64 << 10, large])


def test_archives_are_taken_apart(tmp_path: Path) -> None:
    """The members of a zip are files like others."""
    ct = CtSeries(2, rows=16, columns=16)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for index, data in enumerate(ct):
            archive.writestr(f"{index}.dcm", data)
    table = write_inventory(tmp_path / "inventory.csv", [[str(tmp_path / "a.zip"), "", "", "", "", ""]])
    done = run_ingest(str(tmp_path / "store"), [table])
    assert done.outcomes == {"new": [f"{tmp_path}/a.zip://{index}.dcm" for index in range(2)]}
    assert sorted(stored(str(tmp_path / "store")).values()) == [2]


def test_every_element_may_come_several_times(bucket: Bucket, tmp_path: Path) -> None:
    """Rows that are delivered three times are stored once, and each delivery is told."""
    rows = upload_series(bucket, 2, 2)
    table = write_inventory(tmp_path / "inventory.csv", [row.cells for row in rows])
    done = run_ingest(bucket.store, [table], copies=3)
    assert {outcome: len(uris) for outcome, uris in done.outcomes.items()} == {"new": 4, "same": 8}
    assert sorted(stored(bucket.store).values()) == [2, 2]


def test_every_bundle_may_run_again(bucket: Bucket, tmp_path: Path) -> None:
    """What a bundle stored when it first ran, it recognises when it is run again."""
    rows = upload_series(bucket, 2, 2)
    table = write_inventory(tmp_path / "inventory.csv", [row.cells for row in rows])
    done = run_ingest(bucket.store, [table], flags=["--direct_runner_bundle_repeat=1"])
    # What a repeated bundle gave before is dropped, as after a failure; the bundle that keeps results repeats, too.
    assert {(result.outcome, result.uri) for result in done.results} == {("same", row.uri) for row in rows}
    assert sorted(stored(bucket.store).values()) == [2, 2]


@pytest.mark.parametrize("limit", [{"batch_files": 2}, {"batch_bytes": 20_000}, {"batch_bytes": 1}])
def test_a_large_series_is_committed_in_parts(tmp_path: Path, limit: dict[str, int]) -> None:
    """However large a series is, what is written at a time is bounded, and all of it is stored."""
    ct = CtSeries(5, rows=16, columns=16)
    for index, data in enumerate(ct):
        (tmp_path / f"{index}.dcm").write_bytes(data)
    done = run_ingest(str(tmp_path / "store"), sources=[str(tmp_path / "*.dcm")], **limit)
    each = len(ct.instance(0))
    files = limit.get("batch_files", max(1, limit.get("batch_bytes", 0) // each))
    assert done.counters["commits"] == -(-5 // files)
    assert len(done.outcomes["new"]) == 5
    assert list(stored(str(tmp_path / "store")).values()) == [5]


def test_a_held_series_is_handed_back_and_the_others_are_stored(tmp_path: Path) -> None:
    """Files of a series that a living writer holds are tried again, then handed back, and stored by the next run."""
    url = str(tmp_path / "store")
    for seed in range(2):
        (tmp_path / f"{seed}.dcm").write_bytes(CtSeries(1, rows=16, columns=16, seed=seed).instance(0))
    uids = CtSeries(1, rows=16, columns=16, seed=1).uids
    with CODObject(url, None, uids.study, uids.series, "a"):
        done = run_ingest(url, sources=[str(tmp_path / "*.dcm")], attempts=3)
    assert done.outcomes == {"new": [str(tmp_path / "0.dcm")]}
    assert [(letter.subject, letter.retryable) for letter in done.retryable] == [(str(tmp_path / "1.dcm"), True)]
    assert (done.dead, done.counters["tried_again"], done.counters["retryable"]) == ({}, 2, 1)
    again = run_ingest(url, sources=[str(tmp_path / "*.dcm")])
    assert again.outcomes == {"same": [str(tmp_path / "0.dcm")], "new": [str(tmp_path / "1.dcm")]}
    assert list(stored(url).values()) == [1, 1]


_DYING = """
import os, signal, sys
from cloud_optimized_dicom import CODObject
with CODObject(sys.argv[1], None, sys.argv[2], sys.argv[3], "a", lease_seconds=3):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_dead_workers_lock_goes_though_nothing_is_left_to_be_stored(tmp_path: Path) -> None:
    """A worker that died after its commit leaves a lock; the run that finds all files stored takes it away."""
    url, source = str(tmp_path / "store"), str(tmp_path / "a.dcm")
    ct = CtSeries(1, rows=16, columns=16)
    (tmp_path / "a.dcm").write_bytes(ct.instance(0))
    run_ingest(url, sources=[source])
    died = subprocess.run([sys.executable, "-c", _DYING, url, ct.uids.study, ct.uids.series], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(list(Datastore(url).locks())) == 1
    done = run_ingest(url, sources=[source], lease_seconds=5)
    assert done.outcomes == {"same": [source]}
    assert list(Datastore(url).locks()) == []
    assert list(stored(url).values()) == [1]


def test_a_conflict_is_a_dead_letter(tmp_path: Path) -> None:
    """A file whose UID is taken by another one is told, and what is stored stays."""
    url = str(tmp_path / "store")
    data = CtSeries(1, rows=16, columns=16).instance(0)
    (tmp_path / "a.dcm").write_bytes(data)
    run_ingest(url, sources=[str(tmp_path / "a.dcm")])
    (tmp_path / "b.dcm").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = run_ingest(url, sources=[str(tmp_path / "b.dcm")])
    assert list(done.dead) == [str(tmp_path / "b.dcm")]
    assert "another file is stored under the same UID" in done.dead[str(tmp_path / "b.dcm")]


def test_a_table_that_cannot_be_used_is_a_dead_letter(tmp_path: Path) -> None:
    """A table without a column of files, and one that is missing, stop nobody else."""
    (tmp_path / "a.csv").write_text("colour\nred\n", encoding="ascii")
    done = run_ingest(str(tmp_path / "store"), [str(tmp_path / "a.csv"), str(tmp_path / "none.csv")])
    assert set(done.dead) == {str(tmp_path / "a.csv"), str(tmp_path / "none.csv")}
    assert done.results == []


def test_sources_are_deleted_once_the_same_bytes_are_stored(bucket: Bucket, tmp_path: Path) -> None:
    """Only sources whose size and checksum are those of the stored file go; all others stay, with a reason."""
    rows = upload_series(bucket, 1, 3)
    table = write_inventory(tmp_path / "inventory.csv", [row.cells for row in rows])
    done = run_ingest(bucket.store, [table])
    bucket.put("in/0/1.dcm", rows[1].data[:-1] + b"?")  # replaced since
    strange = FileResult(rows[2].uri, "same", done.results[0].series, "1.2.3")

    def build(pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
        wanted = [result for result in done.results if result.uri != rows[2].uri]
        deleted = pipeline | beam.Create([*wanted, strange]) | DeleteDependencies(bucket.store)
        return {"results": deleted.results, "dead_letters": deleted.dead_letters}

    found, counters = run_pipeline(build)
    assert [result.uri for result in found["results"]] == [rows[0].uri]
    assert {letter.subject: letter.reason for letter in found["dead_letters"]} == {
        rows[1].uri: "is not what is stored: its size or CRC32C differs",
        rows[2].uri: "is not in its series",
    }
    assert bucket.names("in/") == ["in/0/1.dcm", "in/0/2.dcm"]
    assert counters["sources_deleted"] == 1
    assert [letter.subject for letter in run_pipeline(build)[0]["dead_letters"]] == [rows[1].uri, rows[2].uri]


def test_nothing_is_deleted_where_the_stored_bytes_are_damaged(tmp_path: Path) -> None:
    """A series that does not verify keeps all its sources."""
    url = str(tmp_path / "store")
    (tmp_path / "a.dcm").write_bytes(CtSeries(1, rows=16, columns=16).instance(0))
    done = run_ingest(url, sources=[str(tmp_path / "a.dcm")])
    (key,) = Datastore(url).series()
    tar = tmp_path / "store" / key.tar
    data = bytearray(tar.read_bytes())
    data[-600] ^= 1
    tar.write_bytes(data)

    def build(pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
        deleted = pipeline | beam.Create(done.results) | DeleteDependencies(url)
        return {"results": deleted.results, "dead_letters": deleted.dead_letters}

    found, _ = run_pipeline(build)
    assert found["results"] == []
    assert "its series is damaged" in found["dead_letters"][0].reason
    assert (tmp_path / "a.dcm").exists()


def test_equal_keys_have_equal_bytes() -> None:
    """The coder of series keys is registered, deterministic, and undoes itself."""
    key = SeriesKey("1.2.3", "4.5")
    coder = coders.registry.get_coder(SeriesKey)
    assert coder == SeriesKeyCoder()
    assert coder.is_deterministic()
    assert coder.encode(key) == b"1.2.3/4.5"
    assert coder.decode(coder.encode(key)) == key


def test_transforms_pickle() -> None:
    """Transforms and their options cross to workers."""
    transform = pickle.loads(pickle.dumps(IngestSeries("gs://bucket/store", IngestOptions(attempts=2))))
    assert isinstance(transform, IngestSeries)
    assert isinstance(pickle.loads(pickle.dumps(GroupBySeries())), GroupBySeries)


def test_without_beam_its_extra_is_named() -> None:
    """The package works without Beam; asking for its transforms says what to install."""
    script = """
import sys, importlib.machinery
class Absent(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "apache_beam" else super().find_spec(name, path, target)
sys.meta_path[-1] = Absent
import cloud_optimized_dicom
from cloud_optimized_dicom.errors import MissingDependencyError
try:
    import cloud_optimized_dicom.beam
except MissingDependencyError as error:
    print(error.extra)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "beam"


def test_the_command_tells_what_became_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pipeline's exit code says whether all files are stored, its reports hold one line a file."""
    (tmp_path / "a.dcm").write_bytes(CtSeries(1, rows=16, columns=16).instance(0))
    store, report = str(tmp_path / "store"), str(tmp_path / "report")
    arguments = ["--store", store, "--source", str(tmp_path / "*.dcm"), "--report", report]
    assert main(arguments) == 0
    (tmp_path / "b.dcm").write_text("not DICOM", encoding="ascii")
    assert main(arguments) == 1
    assert '"dead_letters": 1' in capsys.readouterr().out
    lines = {path.name.split("-")[1]: path.read_text().splitlines() for path in tmp_path.glob("report-*")}
    assert {name: len(found) for name, found in lines.items()} == {"results": 1, "dead_letters": 1, "retryable": 0}


def test_the_command_deletes_what_it_has_stored_and_verified(tmp_path: Path) -> None:
    """With its flag, a source that is stored goes, in the same run; a file that is no instance stays."""
    (tmp_path / "a.dcm").write_bytes(CtSeries(1, rows=16, columns=16).instance(0))
    (tmp_path / "b.dcm").write_text("not DICOM", encoding="ascii")
    url = str(tmp_path / "store")
    assert main(["--store", url, "--source", str(tmp_path / "*.dcm"), "--delete_sources"]) == 1
    assert list(stored(url).values()) == [1]
    assert [path.name for path in tmp_path.glob("*.dcm")] == ["b.dcm"]


def test_the_command_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag has its line of help, and Beam's are pointed at."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for flag in ("--store", "--inventory", "--columns", "--source", "--report", "--delete_sources", "--runner"):
        assert flag in text
    with pytest.raises(SystemExit) as ended:
        main(["--store", "somewhere"])
    assert ended.value.code == 2
