"""The simulation of a large collection is arithmetic on what is true: requests that are made, sizes that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks import simulation
from benchmarks.simulation import (
    APPEND,
    FETCH,
    FIRST_WRITE,
    NOTHING_NEW,
    OPEN_AND_FRAME,
    Operations,
    Prices,
    Stratum,
    Worker,
)
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.sizes import IDC_BYTES, IDC_INSTANCES, IDC_SERIES
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKER = Worker(100, 500)
FIGURES = """
### ingest-gcs

| what | wall | floor | down |
| --- | ---: | ---: | ---: |
| CT300 from gs:// | 1.50 s | 1.00 s | 120.0 MB |

### open

| what | wall | down |
| --- | ---: | ---: |
| 300 headers | 75.0 ms | 210.0 kB |

### headers

| what | wall |
| --- | ---: |
| CT slice, all of its inspection | 1.0 ms |
"""


@pytest.fixture
def server() -> Iterator[GcsServer]:
    """Return a server of this test's own, with a datastore's bucket and three files in another."""
    with GcsServer() as running:
        running.create_bucket("archive")
        running.create_bucket("inbox")
        bucket = running.client().bucket("inbox")
        for number, data in enumerate(CtSeries(3, rows=64, columns=64)):
            bucket.blob(f"{number}.dcm").upload_from_string(data)
        yield running


def test_the_requests_of_the_simulation_are_those_that_are_made(server: GcsServer) -> None:
    """A first write, an append, a run with nothing new, a fetch and a read ask what the constants say, in order."""
    store = Datastore("gs://archive", server.client())

    def operations() -> tuple[str, ...]:
        seen = tuple(record.operation for record in server.counters() if record.bucket != "inbox")
        server.reset_counters()
        return seen

    def named(constants: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.partition(":")[0] for name in constants)

    server.reset_counters()
    (key,) = store.ingest(["gs://inbox/0.dcm"]).series
    fetched = [record.operation for record in server.counters() if record.bucket == "inbox"]
    assert fetched == ["objects.get", *FETCH]  # the first finds what a name without a slash at its end is
    assert operations() == named(FIRST_WRITE)
    store.ingest(["gs://inbox/1.dcm", "gs://inbox/2.dcm"])
    assert operations() == named(APPEND)
    store.ingest(["gs://inbox/"])
    assert operations() == named(NOTHING_NEW)
    with store.open(key.study_uid, key.series_uid) as series:
        series.read_frames(next(iter(series.get_instances())), [0])
    assert operations() == named(OPEN_AND_FRAME)


def test_operations_are_billed_one_by_one_whatever_carries_them() -> None:
    """Of a batch each operation counts; lists and writes are class A, reads class B, deletes free."""
    assert Operations.of(FIRST_WRITE) == Operations(requests=8, class_a=6, class_b=1)
    assert Operations.of(APPEND) == Operations(requests=9, class_a=6, class_b=2)
    assert Prices(5, 0.4).of_operations(Operations(9, 2000, 1000)) == pytest.approx(10.4)


def test_the_sizes_of_the_simulation_are_those_of_idc() -> None:
    """The strata have the sums and the quantiles that are known."""
    collection = simulation.strata(IDC_SERIES, IDC_INSTANCES, IDC_BYTES)
    assert sum(item.series for item in collection) == pytest.approx(IDC_SERIES)
    assert sum(item.series * item.instances for item in collection) == pytest.approx(IDC_INSTANCES.total)
    assert sum(item.series * item.size_bytes for item in collection) == pytest.approx(IDC_BYTES.total)
    for share, known in ((0.5, IDC_BYTES.p50), (0.9, IDC_BYTES.p90), (0.99, IDC_BYTES.p99)):
        below = sum(item.series for item in collection if item.size_bytes < known)
        assert below / IDC_SERIES == pytest.approx(share, abs=0.003)
    assert max(item.size_bytes for item in collection) <= IDC_BYTES.largest


def test_large_series_take_more_segments_and_more_commits() -> None:
    """A series within a segment is one first write; a larger one uploads several; what is never held whole appends."""
    small = simulation.simulate([Stratum(10, 5, 1e6)], WORKER)
    assert small.commits == pytest.approx(10, abs=0.01)
    assert (small.several_commits, small.fetches.class_b) == (0, 50)
    assert simulation.writes_of(1, 4) == Operations(11, 9, 1)
    assert simulation.writes_of(3, 1) == Operations(8 + 9 + 9, 18, 5)
    assert simulation.commits_of(Stratum(1, 10, 9 * simulation.WINDOW_BYTES), WORKER) == 9
    assert simulation.commits_of(Stratum(1, 1_000_000, 1e6), Worker(1, 1, record_bytes=1.9 * (64 << 20) / 1e6)) == 1
    assert simulation.commits_of(Stratum(1, 1_000_000, 1e6), Worker(1, 1, record_bytes=2.1 * (64 << 20) / 1e6)) == 2
    assert [simulation.segments_of(size) for size in (0, 1 << 28, (1 << 28) + 1, 1 << 40)] == [1, 1, 2, 31]


def test_the_command_takes_prices_speeds_and_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the command prints follows from what it is told."""
    table = pa.table({"instanceCount": [1000, 1], "series_size_MB": [3600.0, 0.0]})
    parquet.write_table(table, tmp_path / "index.parquet")
    speeds = ["--megabytes-per-second", "1", "--instances-per-second", "1e9", "--round-trip-seconds", "0"]
    prices = ["--per-worker-hour", "7", "--per-1000-class-b", "1000"]
    simulation.main([*speeds, *prices, "--index", str(tmp_path / "index.parquet")])
    printed = capsys.readouterr().out
    assert "2 series, 1,001 instances, 0.0 TB" in printed
    assert "workers: 1 hours, 7.00 USD" in printed
    (fetches,) = (line.split() for line in printed.splitlines() if line.startswith("fetch sources"))
    assert fetches[2:] == ["1,001", "0", "1,001", "1,001.00"]


def test_a_measured_worker_is_as_fast_as_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 1.5 s for 300 slices of 120 MB a slice takes 1 ms, the bytes the rest; a record is its part of a document."""
    worker = simulation.measured_worker(FIGURES)
    assert worker.megabytes_per_second == pytest.approx(100)
    assert worker.instances_per_second == pytest.approx(1000)
    assert worker.record_bytes == pytest.approx(700)
    (tmp_path / "page.md").write_text(FIGURES, "utf-8")
    parquet.write_table(pa.table({"instanceCount": [1], "series_size_MB": [360_000.0]}), tmp_path / "index.parquet")
    options = ["--round-trip-seconds", "0", "--index", str(tmp_path / "index.parquet")]
    options += ["--figures", str(tmp_path / "page.md"), "--per-worker-hour", "7"]
    simulation.main(["--megabytes-per-second", "1", "--instances-per-second", "1", *options])
    lines = capsys.readouterr().out.splitlines()
    assert "workers: 100 hours, 700.00 USD" in lines
    assert "measured: 100 MB/s, 1000 instances/s, 700 bytes a record: 1 hours, 7.00 USD" in lines
    with pytest.raises(ValueError, match="no wall of CT slice"):
        simulation.measured_worker(FIGURES.replace("CT slice", "MR slice"))
    with pytest.raises(ValueError, match="wall of CT slice, all of its inspection in min"):
        simulation.measured_worker(FIGURES.replace("1.0 ms", "1.0 min"))
