"""Whole ingests, as they are run: the command, worker processes, an inventory of thousands, and all that goes wrong."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.catalogue import Catalogue, update_catalogue
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.sizes import IDC_INSTANCES
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from cloud_optimized_dicom.uids import SeriesKey
from tests.beam.archive import (
    INSTANCES,
    LARGEST,
    SERIES,
    Archive,
    kill_all,
    kill_worker,
    upload_archive,
)
from tests.catalogue.conftest import contents, memory
from tests.export.conftest import tree

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KILLS, LEFT_ALONE = 10, {3, 7}  # after these kills the rest of the run goes on; after the others it is killed, too


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Return the archive, in a bucket of a server of its own."""
    with GcsServer() as server:
        name = f"cod-archive-{uuid.uuid4().hex}"
        server.create_bucket(name)
        yield upload_archive(server, name, tmp_path_factory.mktemp("archive"))


def finish(run: subprocess.Popen[bytes]) -> tuple[int, dict[str, int]]:
    """Wait for a run; return its exit code and its counters."""
    out, _ = run.communicate()
    return run.returncode, json.loads(out)


def lines_of(report: Path, name: str) -> list[Any]:
    """Return the lines of one report."""
    return [
        json.loads(line)
        for path in sorted(report.parent.glob(f"{report.name}-{name}-*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def run_to_its_end(archive: Archive, name: str, store: str, report: Path, *flags: str) -> dict[str, int]:
    """Run a pipeline over all that is stored, see that nothing is left out, and return its counters."""
    code, counters = finish(archive.start_pipeline(name, store, report, *flags))
    assert (code, lines_of(report, "dead_letters")) == (0, [])
    return counters


def check_reports(archive: Archive, report: Path, copies: int = 1) -> Counter[str]:
    """Check that the dead letters are the bad rows and nothing is left over; return the outcomes of the others."""
    dead = Counter(line["subject"] for line in lines_of(report, "dead_letters"))
    assert dead == Counter(dict.fromkeys(archive.bad, copies))
    assert lines_of(report, "retryable") == []
    return Counter(line["outcome"] for line in lines_of(report, "results"))


def test_series_are_as_large_as_those_of_idc(archive: Archive) -> None:
    """Sizes are drawn from IDC's distribution, cut at its end; more than two thousand instances come of it."""
    assert len(archive.stored) == SERIES
    assert sum(map(len, archive.stored.values())) >= INSTANCES
    drawn = sorted(archive.drawn)
    share_of_ones = drawn.count(1) / len(drawn)
    assert drawn[len(drawn) // 2] == IDC_INSTANCES.p50
    assert drawn[round(0.9 * len(drawn))] == min(IDC_INSTANCES.p90, LARGEST) == drawn[-1]
    assert 0.5 <= share_of_ones <= 0.6
    for share in (0.6, 0.7):  # between the median and the cut the line is IDC's
        assert drawn[round(share * len(drawn))] == pytest.approx(IDC_INSTANCES.at(share), rel=0.5)


def test_everything_is_stored_once_and_a_second_run_does_nothing(archive: Archive, tmp_path: Path) -> None:
    """Files are stored, bad rows told; again, nothing is written or fetched; then all of it is had back."""
    count = sum(map(len, archive.stored.values()))
    store = archive.store("once")
    code, counters = finish(archive.start(store, tmp_path / "first"))
    assert (code, counters["results"], counters["dead_letters"]) == (1, count, len(archive.bad))
    assert check_reports(archive, tmp_path / "first") == {"new": count}
    before = archive.versions(store)
    archive.server.reset_counters()
    assert finish(archive.start(store, tmp_path / "second"))[1]["files_same"] == count
    assert check_reports(archive, tmp_path / "second") == {"same": count}
    requests = archive.server.counters()
    assert archive.versions(store) == before
    # The bad rows claim series, which are locked, and let go, to see whether those files can be stored by now.
    locked = [request.object_name for request in requests if request.operation == "objects.insert"]
    assert {name.rpartition("/")[2] for name in locked} <= {".gradient.lock"}
    assert len(locked) <= len(archive.bad)
    assert [request for request in requests if re.fullmatch(r"in/\d+\.dcm", request.object_name)] == []
    check_what_comes_back(archive, store, tmp_path)


def check_what_comes_back(archive: Archive, store: str, folder: Path) -> None:
    """Check by the other pipelines that a store is sound and has the files byte for byte, and nothing else."""
    sizes = {name: len(instances) for name, instances in archive.stored.items()}
    counters = run_to_its_end(archive, "verify", store, folder / "verified")
    assert (counters["series_verified"], counters["series_damaged"]) == (len(sizes), 0)
    reports = lines_of(folder / "verified", "results")
    assert {report["series_uri"].removeprefix(f"{store}/"): report["instances"] for report in reports} == sizes
    assert [finding for report in reports for finding in report["findings"]] == []

    counters = run_to_its_end(archive, "export", store, folder / "exported", "--destination", str(folder / "files"))
    assert counters["files_exported"] == len(archive.files)
    found = {name: data for name, data in tree(folder / "files").items() if not name.startswith(".cod/")}
    assert found == archive.files

    tables = str(folder / "tables")
    run_to_its_end(archive, "catalogue", store, folder / "listed", "--catalogue", tables, "--partitions", "4")
    with Catalogue(tables) as catalogue:
        series = "SELECT StudyInstanceUID, SeriesInstanceUID, NumberOfSeriesRelatedInstances FROM series"
        assert {SeriesKey(*row[:2]).folder: row[2] for row in catalogue.query(series)} == sizes
        instances = "SELECT StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID FROM instances"
        assert sorted(f"{'/'.join(row)}.dcm" for row in catalogue.query(instances)) == sorted(archive.files)
    alone = memory()
    with closing(archive.server.client()) as client:
        update_catalogue(Datastore(store, client), alone)
    assert contents(open_store(tables)) == contents(alone)
    archive.check_objects(store)


def wait_for_objects(archive: Archive, store: str, run: subprocess.Popen[bytes], count: int) -> None:
    """Wait until a run has written so many objects more."""
    due = len(archive.versions(store)) + count
    while len(archive.versions(store)) < due:
        assert run.poll() is None
        time.sleep(0.1)


def check_its_end(run: subprocess.Popen[bytes]) -> None:
    """Check that a run that lost a worker, and nothing else, ends by itself, fails, and does not say that it is done.

    Every kill is of a worker, and leaves the runner alive; after those of `LEFT_ALONE` it stays so, and has to notice.
    Beam's local runner does not start a worker anew: it gives up.
    """
    out, _ = run.communicate(timeout=300)
    assert run.returncode > 0
    assert out == b""


def test_killed_workers_cost_nothing_but_time(archive: Archive, tmp_path: Path) -> None:
    """An ingest whose workers are killed at ten random moments, every row of it double, is complete when run again."""
    store, chance = archive.store("killed"), random.Random(10)
    twice, count = ["--inventory", str(archive.inventory)], 2 * sum(map(len, archive.stored.values()))
    leftovers, killed = 0, []
    for number in range(KILLS):
        run = archive.start(store, tmp_path / "killed", *twice)
        wait_for_objects(archive, store, run, chance.randint(2, 20))  # two objects a series
        killed.append(kill_worker(run, chance))
        if number in LEFT_ALONE:
            check_its_end(run)
        else:
            kill_all(run)
        leftovers += sum(name.endswith(".gradient.lock") for name in archive.versions(store))
    assert len(set(killed)) == KILLS
    assert leftovers > 0
    _, counters = finish(archive.start(store, tmp_path / "last", *twice))
    outcomes = check_reports(archive, tmp_path / "last", copies=2)
    assert outcomes.total() == counters["results"] == count
    archive.check(store)


def test_two_runs_at_once_share_the_work(archive: Archive, tmp_path: Path) -> None:
    """Two whole ingests of one inventory at the same time, every row double, store everything once between them."""
    store = archive.store("shared")
    twice = ["--inventory", str(archive.inventory)]
    runs = [archive.start(store, tmp_path / name, *twice) for name in ("left", "right")]
    for run in runs:
        finish(run)
    outcomes = [check_reports(archive, tmp_path / name, copies=2) for name in ("left", "right")]
    count = sum(map(len, archive.stored.values()))
    assert [found.total() for found in outcomes] == [2 * count, 2 * count]
    assert sum(found["new"] for found in outcomes) == count
    archive.check(store)
