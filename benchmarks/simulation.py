"""``python -m benchmarks.simulation``: what it takes to store a collection of series, by arithmetic.

Nothing is measured here and nothing is asked of a network.  What goes in: requests per commit, which a test compares
with those that the strict server counts; list prices, with the day they were read; sizes of series, by default those of
the NCI Imaging Data Commons; and how fast one worker is, which the command line is told.  Beside that stands what the
figures in `docs/benchmarks.md` come to.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.bulk import HELD_BYTES, HELD_RECORD_BYTES
from cloud_optimized_dicom.series.packing import MAX_SEGMENTS, SEGMENT_BYTES
from cloud_optimized_dicom.testing.datasets.sizes import IDC_BYTES, IDC_INSTANCES, IDC_SERIES, SHARES, Quantiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MEGABYTE = 10**6
GIB = 1 << 30
WINDOW_BYTES, WINDOW_RECORD_BYTES = HELD_BYTES // 2, HELD_RECORD_BYTES // 2
"""What an ingest gathers before it writes; as much is being written meanwhile."""

# -- what is asked of the service, as the strict server names it; of a batch, what is in it

_STAGE_DECIDE_FINISH = (
    *("objects.insert", "objects.insert", "objects.compose", "objects.insert", "batch: 2 objects.delete"),
)
FIRST_WRITE = ("objects.list", "objects.insert", "objects.download", *_STAGE_DECIDE_FINISH)
"""Of the first commit to a series, with one segment; every further segment is an insert and a delete more."""

APPEND = ("objects.list", "objects.download", "objects.insert", "objects.get", *_STAGE_DECIDE_FINISH)
"""Of every further commit."""

NOTHING_NEW = ("objects.list", "objects.download")
"""Where everything is stored already: no lock, no write."""

FETCH = ("objects.download",)
"""Of one source in a bucket."""

OPEN_AND_FRAME = ("objects.download", "objects.download")
"""Of a reader who opens a series for one frame."""

_CLASS_A = frozenset({"objects.list", "objects.insert", "objects.compose"})
_CLASS_B = frozenset({"objects.get", "objects.download"})
# Deletes are free.


@dataclass(frozen=True)
class Operations:
    """Operations by the class that they are billed in, and the HTTP requests that carry them."""

    requests: float = 0
    class_a: float = 0
    class_b: float = 0

    @classmethod
    def of(cls, names: Iterable[str]) -> Operations:
        """Return the sum over operations; what is in a batch is billed one by one."""
        total = cls()
        for name in names:
            batched = name.removeprefix("batch: ").split()
            count, kind = (int(batched[0]), batched[1]) if len(batched) > 1 else (1, name)
            total += cls(1, count * (kind in _CLASS_A), count * (kind in _CLASS_B))
        return total

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.requests + other.requests, self.class_a + other.class_a, self.class_b + other.class_b)

    def __mul__(self, factor: float) -> Operations:
        return Operations(self.requests * factor, self.class_a * factor, self.class_b * factor)


@dataclass(frozen=True)
class Prices:
    """US dollars: list prices of Google Cloud Storage, Standard class, us-central1, as of 2026-09-20."""

    per_1000_class_a: float = 0.005
    per_1000_class_b: float = 0.0004
    per_gib_month: float = 0.020
    per_worker_hour: float = 0.10

    def of_operations(self, operations: Operations) -> float:
        """Return the price of operations."""
        return operations.class_a / 1000 * self.per_1000_class_a + operations.class_b / 1000 * self.per_1000_class_b


# -- how large series are


class Stratum(NamedTuple):
    """So many series of one size."""

    series: float
    instances: float
    size_bytes: float


_PIECES = 200  # strata between two known quantiles


def strata(series: int, instances: Quantiles, size_bytes: Quantiles) -> list[Stratum]:
    """Return series that have these quantiles and sums.

    Notes
    -----
    The same series have the most instances and the most bytes: that makes more of hot series than there is.
    """
    weights = [(high - low) / _PIECES for low, high in pairwise(SHARES) for _ in range(_PIECES)]
    counts = _fitted(series, weights, instances)
    sizes = _fitted(series, weights, size_bytes)
    return [Stratum(weight * series, count, size) for weight, count, size in zip(weights, counts, sizes, strict=True)]


def _fitted(series: int, weights: Sequence[float], known: Quantiles) -> list[float]:
    """Return a value per stratum: straight lines between the logarithms of quantiles, bent so that the sum is right."""
    low, high = 0.0, 60.0
    for _ in range(80):  # the larger the exponent, the later each line rises, and the smaller the sum
        bend = (low + high) / 2
        values = list(_curve(known, bend))
        total = series * sum(weight * value for weight, value in zip(weights, values, strict=True))
        low, high = (bend, high) if total > known.total else (low, bend)
    return values


def _curve(known: Quantiles, bend: float) -> Iterator[float]:
    for low, high in pairwise(SHARES):
        for piece in range(_PIECES):
            yield known.at(low + (high - low) * (piece + 0.5) / _PIECES, bend)


def strata_of_index(path: str | Path) -> list[Stratum]:
    """Return the series of a Parquet table with the columns `instanceCount` and `series_size_MB`, as IDC has one."""
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    table = parquet.read_table(path, columns=["instanceCount", "series_size_MB"]).to_pydict()
    rows = zip(table["instanceCount"], table["series_size_MB"], strict=True)
    return [Stratum(1, count, megabytes * MEGABYTE) for count, megabytes in rows]


# -- what it takes


@dataclass(frozen=True)
class Worker:
    """What one machine does.

    Parameters
    ----------
    megabytes_per_second, instances_per_second
        How fast it ingests large and tiny files, as measured.
    round_trip_seconds
        Of one request.
    series_at_once
        Commits that are under way at a time.
    record_bytes
        Of one instance in `metadata.json`, gzipped.
    """

    megabytes_per_second: float
    instances_per_second: float
    round_trip_seconds: float = 0.05
    series_at_once: int = 8
    record_bytes: float = 1500


FIGURES = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
"""What `make bench` has measured."""

_UNITS = {"s": 1.0, "ms": 1e-3, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def read_figure(page: str, benchmark: str, what: str, column: str) -> float:
    """Return a figure from the tables of a page like `docs/benchmarks.md`, in seconds or bytes.

    Raises
    ------
    ValueError
        If the page has no such row or column, or tells the figure in another unit.
    """
    section = page.partition(f"\n### {benchmark}\n")[2].partition("\n### ")[0]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    for row in table:
        if row[0] == what and column in table[0]:
            number, _, unit = row[table[0].index(column)].partition(" ")
            if unit not in _UNITS:
                raise ValueError(f"the figures give {column} of {what} in {unit}")
            return float(number) * _UNITS[unit]
    raise ValueError(f"the figures have no {column} of {what} in {benchmark}")


def measured_worker(page: str) -> Worker:
    """Return a worker as the tables of `docs/benchmarks.md` show it: one process, on the machine that they tell of.

    Notes
    -----
    An instance takes its inspection; a byte takes what else there is to storing 300 slices of a bucket in another one;
    a record takes what the document of those slices has for each.
    """
    slices, name = 300, "CT300 from gs://"
    instance_seconds = read_figure(page, "headers", "CT slice, all of its inspection", "wall")
    byte_seconds = read_figure(page, "ingest-gcs", name, "wall") - slices * instance_seconds
    return Worker(
        read_figure(page, "ingest-gcs", name, "down") / byte_seconds / MEGABYTE,
        1 / instance_seconds,
        record_bytes=read_figure(page, "open", f"{slices} headers", "down") / slices,
    )


@dataclass(frozen=True)
class Result:
    """What storing a collection takes."""

    series: float
    instances: float
    size_bytes: float
    commits: float
    writes: Operations
    fetches: Operations
    metadata_bytes: float
    worker_hours: float
    several_commits: float
    hottest: Hot


class Hot(NamedTuple):
    """The series with the most commits: they come one after the other, and each writes its document anew."""

    instances: float
    size_bytes: float
    commits: int
    document_bytes: float
    metadata_bytes: float


def commits_of(stratum: Stratum, worker: Worker) -> int:
    """Return in how many commits a series is stored by an ingest that gathers so much at a time."""
    by_size = stratum.size_bytes / WINDOW_BYTES
    by_records = stratum.instances * worker.record_bytes / WINDOW_RECORD_BYTES
    return max(1, math.ceil(max(by_size, by_records)))


def segments_of(size_bytes: float) -> int:
    """Return in how many segments a commit goes up."""
    return min(MAX_SEGMENTS, max(1, math.ceil(size_bytes / SEGMENT_BYTES)))


def simulate(collection: Sequence[Stratum], worker: Worker) -> Result:
    """Return what it takes to store a collection once, from a bucket, its sources in the order of series."""
    series = sum(stratum.series for stratum in collection)
    instances = sum(stratum.series * stratum.instances for stratum in collection)
    size_bytes = sum(stratum.series * stratum.size_bytes for stratum in collection)
    shapes: defaultdict[tuple[int, int], float] = defaultdict(float)
    metadata_bytes = 0.0
    for stratum in collection:
        commits = commits_of(stratum, worker)
        shapes[commits, segments_of(stratum.size_bytes / commits)] += stratum.series
        metadata_bytes += stratum.series * hot_of(stratum, worker).metadata_bytes
    # Each series that is cut by the end of what an ingest gathers is one commit more.
    cut = size_bytes / WINDOW_BYTES
    writes = Operations.of(APPEND) * cut
    for (commits, segments), count in shapes.items():
        writes += writes_of(commits, segments) * count
    seconds = size_bytes / (worker.megabytes_per_second * MEGABYTE) + instances / worker.instances_per_second
    seconds += writes.requests * worker.round_trip_seconds / worker.series_at_once
    return Result(
        series,
        instances,
        size_bytes,
        sum(commits * count for (commits, _), count in shapes.items()) + cut,
        writes,
        Operations.of(FETCH) * instances,
        metadata_bytes,
        seconds / 3600,
        sum(count for (commits, _), count in shapes.items() if commits > 1),
        hot_of(max(collection, key=lambda stratum: commits_of(stratum, worker)), worker),
    )


def writes_of(commits: int, segments: int) -> Operations:
    """Return what is asked to store a series in so many commits of so many segments each."""
    more_segments = Operations(1, 1) * (segments - 1)
    return Operations.of(FIRST_WRITE) + Operations.of(APPEND) * (commits - 1) + more_segments * commits


def hot_of(stratum: Stratum, worker: Worker) -> Hot:
    """Return what is written again and again of a series."""
    commits = commits_of(stratum, worker)
    document = stratum.instances * worker.record_bytes
    written = document * (commits + 1) / 2  # it grows from commit to commit
    return Hot(stratum.instances, stratum.size_bytes, commits, document, written)


# -- the command


def measured_line(collection: Sequence[Stratum], prices: Prices, worker: Worker) -> str:
    """Return the hours and the price of workers that are as fast as was measured."""
    hours = simulate(collection, worker).worker_hours
    return (
        f"measured: {worker.megabytes_per_second:.0f} MB/s, {worker.instances_per_second:.0f} instances/s,"
        f" {worker.record_bytes:.0f} bytes a record: {hours:,.0f} hours, {hours * prices.per_worker_hour:,.2f} USD"
    )


def lines_of(result: Result, prices: Prices, measured: str) -> Iterator[str]:
    """Yield what is printed."""
    yield f"{result.series:,.0f} series, {result.instances:,.0f} instances, {result.size_bytes / 1e12:.1f} TB"
    yield f"{result.commits:,.0f} commits, {result.metadata_bytes / 1e9:,.0f} GB of metadata"
    rows = {
        "fetch sources": result.fetches,
        "write series": result.writes,
        "the same again": Operations.of(NOTHING_NEW) * result.series,
        "a frame of each": Operations.of(OPEN_AND_FRAME) * result.series,
        "(loose objects)": Operations.of(("objects.insert",)) * result.instances,
    }
    yield f"{'':<16}{'requests':>13}{'class A':>13}{'class B':>13}{'USD':>9}"
    for name, row in rows.items():
        price = prices.of_operations(row)
        yield f"{name:<16}{row.requests:>13,.0f}{row.class_a:>13,.0f}{row.class_b:>13,.0f}{price:>9,.2f}"
    month = result.size_bytes / GIB * prices.per_gib_month
    yield f"storage: {month:,.0f} USD a month; soft delete of the segments for 7 days: {month * 7 / 30:,.0f} USD"
    yield f"workers: {result.worker_hours:,.0f} hours, {result.worker_hours * prices.per_worker_hour:,.2f} USD"
    yield measured
    hot = result.hottest
    yield f"{result.several_commits:,.0f} series are larger than what is gathered at a time; the hottest:"
    yield (
        f"  {hot.instances:,.0f} instances, {hot.size_bytes / 1e9:,.0f} GB, {hot.commits} commits in a row,"
        f" document {hot.document_bytes / 1e6:,.0f} MB, written {hot.metadata_bytes / 1e6:,.0f} MB"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what storing a collection takes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    speed = {"type": float, "required": True}
    parser.add_argument("--megabytes-per-second", **speed, help="of one worker, for large files")  # type: ignore[arg-type]
    parser.add_argument("--instances-per-second", **speed, help="of one worker, for tiny files")  # type: ignore[arg-type]
    worker, prices = Worker(1, 1), Prices()
    for name, value in {
        **{name: getattr(worker, name) for name in ("round_trip_seconds", "series_at_once", "record_bytes")},
        **{name: getattr(prices, name) for name in prices.__dataclass_fields__},
    }.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help="default: %(default)s")
    parser.add_argument("--index", metavar="FILE", help="a Parquet table of series, in place of IDC's quantiles")
    parser.add_argument("--figures", metavar="PAGE", type=Path, default=FIGURES, help="measured: default: %(default)s")
    options = vars(parser.parse_args(arguments))
    index, page = options.pop("index"), options.pop("figures").read_text("utf-8")
    given = Prices(**{name: options.pop(name) for name in prices.__dataclass_fields__})
    collection = strata_of_index(index) if index else strata(IDC_SERIES, IDC_INSTANCES, IDC_BYTES)
    worker = Worker(**options)
    measured = replace(
        measured_worker(page), round_trip_seconds=worker.round_trip_seconds, series_at_once=worker.series_at_once
    )
    lines = lines_of(simulate(collection, worker), given, measured_line(collection, given, measured))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
