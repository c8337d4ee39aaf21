"""Peak memory of a process that ingests and reads what is far larger than it may hold."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.large import write_large_instance
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PEAK_MIB = 300
# VmHWM and not ru_maxrss, which a process inherits from the one that started it.
FRAME_BYTES = 1024 * 1024 * 2

INGEST = """
import sys
from cloud_optimized_dicom import Datastore
report = Datastore(sys.argv[1]).ingest([sys.argv[2]])
assert report.count("new") == int(sys.argv[3]), report.errors[:3]
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_instance_of_two_gigabytes(
    place: tuple[str, dict[str, str]], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ingesting and reading one instance of 2 GB stays below 300 MiB."""
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
    assert max(peaks) < PEAK_MIB, peaks
