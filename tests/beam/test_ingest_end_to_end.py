"""Whole ingests, as they are run: the command, worker processes, an inventory of thousands, and all that goes wrong."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.beam.archive import INSTANCES, SERIES, Archive, kill_at_random, upload_archive

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KILLS = 10


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


def check_reports(archive: Archive, report: Path, copies: int = 1) -> Counter[str]:
    """Check that the dead letters are the bad rows and nothing is left over; return the outcomes of the others."""
    dead = Counter(line["subject"] for line in lines_of(report, "dead_letters"))
    assert dead == Counter(dict.fromkeys(archive.bad, copies))
    assert lines_of(report, "retryable") == []
    return Counter(line["outcome"] for line in lines_of(report, "results"))


def test_everything_is_stored_once_and_a_second_run_does_nothing(archive: Archive, tmp_path: Path) -> None:
    """Thousands of files of hundreds of series are stored, bad rows told; again, nothing is written or fetched."""
    count = sum(map(len, archive.stored.values()))
    assert len(archive.stored) >= SERIES
    assert count >= INSTANCES
    store = archive.store("once")
    code, counters = finish(archive.start(store, tmp_path / "first"))
    assert (code, counters["results"], counters["dead_letters"]) == (1, count, len(archive.bad))
    assert check_reports(archive, tmp_path / "first") == {"new": count}
    archive.check(store)
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


def test_killed_workers_cost_nothing_but_time(archive: Archive, tmp_path: Path) -> None:
    """An ingest whose workers are killed at ten random moments, every row of it double, is complete when run again."""
    store, chance = archive.store("killed"), random.Random(10)
    twice = ["--inventory", str(archive.inventory)]
    leftovers = 0
    for _ in range(KILLS):
        run = archive.start(store, tmp_path / "killed", *twice)
        due = len(archive.versions(store)) + chance.randint(2, 20)  # two objects a series
        while len(archive.versions(store)) < due:
            assert run.poll() is None
            time.sleep(0.1)
        kill_at_random(run, chance)
        leftovers += sum(name.endswith(".gradient.lock") for name in archive.versions(store))
    assert leftovers > 0
    _, counters = finish(archive.start(store, tmp_path / "last", *twice))
    outcomes = check_reports(archive, tmp_path / "last", copies=2)
    assert outcomes.total() == counters["results"] == 2 * sum(map(len, archive.stored.values()))
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
