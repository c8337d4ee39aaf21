"""Peak memory of a process that ingests and reads what is far larger than it may hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.large import write_large_instance
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

PEAK_MIB = 200
MANY_PEAK_MIB = 300  # with the records of twenty thousand instances
# VmHWM and not ru_maxrss, which a process inherits from the one that started it.
FRAME_BYTES = 1024 * 1024 * 2

INGEST = """
import sys
from cloud_optimized_dicom import Datastore
report = Datastore(sys.argv[1]).ingest([sys.argv[2]])
assert report.count("new") == int(sys.argv[3]), report.errors[:3]
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
HINTED = """
import sys
from dataclasses import replace
from cloud_optimized_dicom import Datastore, Hints, Instance
datastore = Datastore(sys.argv[1])
(stored,) = datastore.ingest([sys.argv[2]]).files
first = Instance(sys.argv[2])
hints = Hints(None, first.crc32c(), first.instance_uid(), first.series_uid(), first.study_uid())
report = datastore.ingest(Instance(f"/nowhere/{number}.dcm", hints=replace(hints)) for number in range(10_000))
assert report.count("same") == 10_000
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
READ = """
import sys
from cloud_optimized_dicom import Datastore
datastore = Datastore(sys.argv[1])
(key,) = datastore.series()
with datastore.open(key.study_uid, key.series_uid) as cod:
    uids = list(cod.get_instances())
    assert len(uids) == int(sys.argv[3])
    assert cod.read_frames(uids[-1], [0])
    assert cod.read_frames(uids[-1], [int(sys.argv[4]) - 1])
    size = 0
    with cod.open_instance(uids[0]) as stream:
        while chunk := stream.read(1 << 20):
            size += len(chunk)
    assert size == cod.get_instance(uids[0]).size()
    assert cod.verify().ok
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mib(script: str, *arguments: Any, environment: dict[str, str]) -> int:
    """Run a script in a process of its own and return what it prints last: its peak memory in MiB."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.fixture(params=["local", "gcs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Return the URL of an empty datastore and the environment in which another process finds it."""
    if request.param == "local":
        return str(tmp_path / "store"), dict(os.environ)
    endpoint = request.getfixturevalue("gcs_endpoint")
    bucket = request.getfixturevalue("gcs_bucket")
    return f"gs://{bucket}/{uuid.uuid4().hex}", {**os.environ, "STORAGE_EMULATOR_HOST": endpoint}


@dataclass(frozen=True)
class QuickSeries(CtSeries):
    """A series whose instances differ in some bytes only, so that gigabytes of it are made as fast as written."""

    @cached_property
    def _base(self) -> NDArray[np.uint16]:
        return super().pixels(0)

    def pixels(self, index: int) -> NDArray[np.uint16]:
        """Return the same pixels, but for the first two."""
        self._base[0, :2] = divmod(index, 1 << 16)
        return self._base


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_hundred_slices(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """Ingesting a CT of 300 slices, 159 MB, stays below 200 MiB, from disk and into disk or bucket."""
    url, environment = place
    for index, data in enumerate(QuickSeries(300)):
        (tmp_path / f"{index:05d}.dcm").write_bytes(data)
    assert peak_mib(INGEST, url, tmp_path / "*.dcm", 300, environment=environment) < PEAK_MIB


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_series_of_five_gigabytes(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Ingesting 2500 instances of 2 MB takes no more memory than ingesting 300 small ones."""
    folder = tmp_path / "files"
    folder.mkdir()
    try:
        for index, data in enumerate(QuickSeries(2500, 1024, 1024)):
            (folder / f"{index:05d}.dcm").write_bytes(data)
        peak = peak_mib(INGEST, tmp_path / "store", folder, 2500, environment=dict(os.environ))
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
    record_property("peak_mib", peak)
    assert peak < PEAK_MIB


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_instance_of_four_gigabytes(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Ingesting one instance of 4 GB stays below 200 MiB."""
    path = tmp_path / "large.dcm"
    try:
        with path.open("wb") as stream:
            write_large_instance(stream, 4_000_000_000, uids=Uids.of("four gigabytes"))
        peak = peak_mib(INGEST, tmp_path / "store", path, 1, environment=dict(os.environ))
    finally:
        path.unlink()
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
    record_property("peak_mib", peak)
    assert peak < PEAK_MIB


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_of_many_series(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """Ten thousand hinted files, none of which has to be read, are looked up below 200 MiB."""
    url, environment = place
    (tmp_path / "one.dcm").write_bytes(CtSeries(1, 8, 8).instance(0))
    assert peak_mib(HINTED, url, tmp_path / "one.dcm", environment=environment) < PEAK_MIB


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_instance_of_two_gigabytes(
    place: tuple[str, dict[str, str]], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ingesting and reading one instance of 2 GB stays below 200 MiB."""
    url, environment = place
    path = tmp_path / "large.dcm"
    with path.open("wb") as stream:
        size = write_large_instance(stream, 2_000_000_000, uids=Uids.of("two gigabytes"))
    frames = size // FRAME_BYTES
    peaks = [peak_mib(script, url, path, 1, frames, environment=environment) for script in (INGEST, READ)]
    record_property("peak_mib", peaks)
    assert max(peaks) < PEAK_MIB, peaks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_series_of_twenty_thousand_instances(
    place: tuple[str, dict[str, str]], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ingesting and reading 20,000 small instances with full headers stays below 300 MiB."""
    url, environment = place
    folder = tmp_path / "files"
    folder.mkdir()
    for index, data in enumerate(CtSeries(20_000, rows=8, columns=8)):
        (folder / f"{index:05d}.dcm").write_bytes(data)
    peaks = [peak_mib(script, url, folder, 20_000, 1, environment=environment) for script in (INGEST, READ)]
    record_property("peak_mib", peaks)
    assert max(peaks) < MANY_PEAK_MIB, peaks
