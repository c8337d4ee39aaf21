"""Peak memory of a process that ingests and reads what is far larger than it may hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from benchmarks.memory import MemorySampler
from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.large import write_large_instance
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

PEAK_BYTES = 200 * 10**6
"""Of a process and its worker processes together; pages that they share are counted in each of them."""
MANY_PEAK_BYTES = 300 << 20  # with the records of twenty thousand instances; worker processes have their own 80 MB
FRAME_BYTES = 1024 * 1024 * 2
Place = tuple[str, dict[str, str]]

# VmHWM and not ru_maxrss, which a process inherits from the one that started it.
TELL_PEAK = """
print(next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""

INGEST = """
import sys
from cloud_optimized_dicom import Datastore
report = Datastore(sys.argv[1]).ingest([sys.argv[2]])
assert report.count("new") == int(sys.argv[3]), report.errors[:3]
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
"""


class Peak(NamedTuple):
    """The peak memory of a process alone, and of it and the processes that it starts together; in bytes."""

    own: int
    together: int


def peak_of(script: str, *arguments: Any, environment: dict[str, str]) -> Peak:
    """Run a script in a process of its own and return its peak memory."""
    command = [sys.executable, "-c", script + TELL_PEAK, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    with process, MemorySampler(process.pid) as sampler:
        out, err = process.communicate()
    assert process.returncode == 0, err
    own = int(out.split()[-1])
    return Peak(own, max(own, sampler.peak_bytes))


# Where more is held; gigabytes on both stores would take CI too long.
on_the_server = pytest.mark.parametrize(
    "place", ["gcs", pytest.param("local", marks=pytest.mark.exhaustive)], indirect=True
)


@pytest.fixture(params=["local", "gcs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Return the URL of an empty datastore and the environment in which another process finds it."""
    folder = tmp_path / "files"
    folder.mkdir()
    if request.param == "local":
        yield str(tmp_path / "store"), dict(os.environ)
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
    else:
        endpoint, client = (request.getfixturevalue(name) for name in ("gcs_endpoint", "gcs_session_client"))
        bucket, prefix = request.getfixturevalue("gcs_bucket"), uuid.uuid4().hex
        yield f"gs://{bucket}/{prefix}", {**os.environ, "STORAGE_EMULATOR_HOST": endpoint}
        for blob in client.list_blobs(bucket, prefix=prefix):
            blob.delete()
    shutil.rmtree(folder)


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
@pytest.mark.parametrize("source", ["disk", "gs"])
def test_three_hundred_slices(source: str, place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Ingesting a CT of 300 slices, 159 MB, stays below 200 MB, from disk or a bucket and into either."""
    url, environment = place
    for index, data in enumerate(QuickSeries(300)):
        (tmp_path / f"files/{index:05d}.dcm").write_bytes(data)
    files = str(tmp_path / "files")
    if source == "gs":
        files, environment = uploaded(tmp_path / "files", request)
    assert peak_of(INGEST, url, files, 300, environment=environment).together <= PEAK_BYTES


def uploaded(folder: Path, request: pytest.FixtureRequest) -> Place:
    """Upload files, each as an object, and return their common prefix and where others find it."""
    client, bucket = (request.getfixturevalue(name) for name in ("gcs_session_client", "gcs_bucket"))
    prefix = uuid.uuid4().hex
    for path in sorted(folder.iterdir()):
        client.bucket(bucket).blob(f"{prefix}/{path.name}").upload_from_filename(str(path))
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": request.getfixturevalue("gcs_endpoint")}
    return f"gs://{bucket}/{prefix}/", environment


@pytest.mark.slow
@pytest.mark.timeout(900)
@on_the_server
def test_a_series_of_five_gigabytes(
    place: Place, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ingesting 2500 instances of 2 MB takes no more memory than a CT of 300 slices may."""
    url, environment = place
    for index, data in enumerate(QuickSeries(2500, 1024, 1024)):
        (tmp_path / f"files/{index:05d}.dcm").write_bytes(data)
    peak = peak_of(INGEST, url, tmp_path / "files", 2500, environment=environment)
    record_property("peak_bytes", tuple(peak))
    assert peak.together <= PEAK_BYTES, peak


@pytest.mark.slow
@pytest.mark.timeout(900)
@on_the_server
def test_an_instance_of_four_gigabytes(
    place: Place, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ingesting one instance of 4 GB, and reading it, takes no more memory than a CT of 300 slices may."""
    url, environment = place
    path = tmp_path / "files/large.dcm"
    with path.open("wb") as stream:
        size = write_large_instance(stream, 4_000_000_000, uids=Uids.of("four gigabytes"))
    frames = size // FRAME_BYTES
    peaks = [peak_of(script, url, path, 1, frames, environment=environment) for script in (INGEST, READ)]
    record_property("peak_bytes", [tuple(peak) for peak in peaks])
    assert max(peak.together for peak in peaks) <= PEAK_BYTES, peaks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_of_many_series(place: Place, tmp_path: Path) -> None:
    """Ten thousand hinted files, none of which has to be read, are looked up below 200 MB."""
    url, environment = place
    (tmp_path / "files/one.dcm").write_bytes(CtSeries(1, 8, 8).instance(0))
    assert peak_of(HINTED, url, tmp_path / "files/one.dcm", environment=environment).together <= PEAK_BYTES


@pytest.mark.slow
@pytest.mark.timeout(900)
@on_the_server
def test_a_series_of_twenty_thousand_instances(
    place: Place, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ingesting and reading 20,000 small instances with full headers stays below 300 MiB."""
    url, environment = place
    folder = tmp_path / "files"
    for index, data in enumerate(CtSeries(20_000, rows=8, columns=8)):
        (folder / f"{index:05d}.dcm").write_bytes(data)
    peaks = [peak_of(script, url, folder, 20_000, 1, environment=environment) for script in (INGEST, READ)]
    record_property("peak_bytes", [tuple(peak) for peak in peaks])
    assert max(peak.own for peak in peaks) < MANY_PEAK_BYTES, peaks
