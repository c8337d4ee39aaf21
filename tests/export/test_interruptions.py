"""An export in a process of its own: killed, run beside another, and how much it asks for and holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.export import export_dicom
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.large import write_large_instance
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsServer
from tests.core.test_memory import peak_of
from tests.export.conftest import Archive, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXPORT = """
import sys
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.export import export_dicom
report = export_dicom(Datastore(sys.argv[1]), sys.argv[2])
assert report.ok and report.written == int(sys.argv[3]), report
"""

OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.export import export_dicom
report = export_dicom(Datastore(sys.argv[1]), sys.argv[2], recheck=len(sys.argv) > 3)
assert (report.written, report.present) == (0, 5), report
print(sum(name.endswith(".dcm") for name in opened))
"""


@pytest.fixture
def server() -> Iterator[GcsServer]:
    """Return a server of our own."""
    with GcsServer() as running:
        running.create_bucket("bucket")
        yield running
        running.clear_faults()


@pytest.fixture
def remote(server: GcsServer, tmp_path: Path) -> Archive:
    """Return an empty archive on that server."""
    return Archive(open_store(f"gs://bucket/{uuid.uuid4().hex}", server.client()), tmp_path / "files")


def test_small_instances_come_together(server: GcsServer, remote: Archive, tmp_path: Path) -> None:
    """300 small instances of one series are one request, and their metadata another; a rerun reads metadata only."""
    remote.add(300, seed=1, rows=8, columns=8)
    server.reset_counters()
    assert export_dicom(remote.datastore, tmp_path / "out").written == 300
    requests = server.counters()
    assert sum(request.object_name.endswith(".tar") for request in requests) == 1
    assert len(requests) <= 4
    assert tree(tmp_path / "out") == remote.files
    server.reset_counters()
    assert export_dicom(remote.datastore, tmp_path / "out").present == 300
    assert not [request for request in server.counters() if request.object_name.endswith(".tar")]
    assert len(server.counters()) <= 3


def test_a_rerun_does_not_open_unchanged_files(tmp_path: Path) -> None:
    """Files that have not changed since they were verified are not read again, unless that is asked for."""
    archive = Archive(open_store(tmp_path / "store"), tmp_path / "files")
    archive.add(5, seed=1)
    out = tmp_path / "out"
    export_dicom(archive.datastore, out)

    def opened(*options: str) -> int:
        command = [sys.executable, "-c", OPENED, str(tmp_path / "store"), str(out), *options]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert opened() == 0
    assert opened("recheck") == 5
    os.utime(next(out.rglob("*.dcm")))
    assert opened() == 1
    assert opened() == 0


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("answered", [0, 1, 3, 5])
def test_a_killed_export_is_finished_by_the_next(
    server: GcsServer, remote: Archive, tmp_path: Path, answered: int
) -> None:
    """SIGKILL, with parts of large instances on the disk, leaves whole files only, and a rerun fetches the rest."""
    remote.add(3, seed=1, rows=3000, columns=3000)
    remote.add(4, seed=2)
    server.reset_counters()
    server.inject(Fault(FaultKind.STALL_BEFORE, "*", object_name=r"\.tar$", skip=answered, times=None, seconds=60))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, remote.store.url, str(out), "7"],
        env={**os.environ, "STORAGE_EMULATOR_HOST": server.url},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: any(record.fault == FaultKind.STALL_BEFORE for record in server.counters()))
    time.sleep(0.3)  # what was answered is being written
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    server.clear_faults()
    before = tree(out)
    assert before.items() <= remote.files.items()
    assert list((out / ".cod-export").glob("part-*")), "it was killed in the middle"
    report = export_dicom(remote.datastore, out)
    assert (report.written, report.present) == (7 - len(before), len(before))
    assert tree(out) == remote.files
    assert [path.name for path in (out / ".cod-export").iterdir()] == ["verified.sqlite"]


def test_two_exports_into_one_folder(server: GcsServer, remote: Archive, tmp_path: Path) -> None:
    """A second export leaves what a living first one has on its way in alone; both succeed."""
    remote.add(3, seed=1, rows=3000, columns=3000)
    server.reset_counters()
    server.inject(Fault(FaultKind.STALL_BEFORE, "*", object_name=r"\.tar$", skip=2, seconds=4))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, remote.store.url, str(out), "3"],
        env={**os.environ, "STORAGE_EMULATOR_HOST": server.url},
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: any(record.fault == FaultKind.STALL_BEFORE for record in server.counters()))
    assert export_dicom(remote.datastore, out).ok
    assert process.wait(timeout=60) == 0
    assert tree(out) == remote.files


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_flat_in_the_size_of_an_instance(
    server: GcsServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Exporting an instance of 2 GB holds about what one of 100 MB does."""
    peaks = []
    for size in (100_000_000, 2_000_000_000):
        uids = Uids.of("export", size)
        path = tmp_path / "large.dcm"
        with path.open("wb") as stream:
            write_large_instance(stream, size, uids=uids)
        url = f"gs://bucket/{size}"
        with CODObject(url, server.client(), uids.study, uids.series, "w") as cod:
            assert cod.append([Instance(path)]).new
        environment = {**os.environ, "STORAGE_EMULATOR_HOST": server.url}
        peaks.append(peak_of(EXPORT, url, tmp_path / str(size), 1, environment=environment).own)
    record_property("peak_bytes", peaks)
    assert max(peaks) < 300 << 20, peaks
    assert peaks[1] < peaks[0] * 1.3, peaks


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_of_a_series_of_many_instances(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Exporting small instances holds at most 24 KiB more for each: its record, with the header, and its plan."""
    peaks = []
    for instances in (200, 3000):
        folder = tmp_path / str(instances)
        archive = Archive(open_store(folder / "store"), folder / "files")
        archive.add(instances, seed=1, rows=8, columns=8)
        peaks.append(peak_of(EXPORT, folder / "store", folder / "out", instances, environment=dict(os.environ)).own)
    record_property("peak_bytes", peaks)
    assert peaks[1] - peaks[0] < (3000 - 200) * 24 << 10, peaks
