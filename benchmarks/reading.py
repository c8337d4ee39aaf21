"""Reading from a slide and a CT series on the storage server, beside the same bytes as loose objects."""

from __future__ import annotations

import logging
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.timing import alternate
from benchmarks.tools import SLIDE_TILES, TOOLS, Cost, Loose, cheapest, counted
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.storage.base import PARALLEL_READS
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.whole_slides import whole_slide
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cloud_optimized_dicom import CODObject
    from cloud_optimized_dicom.series.virtual_file import OffsetTable as OffsetTableShown
    from cloud_optimized_dicom.testing.datasets.slides import OffsetTable
    from cloud_optimized_dicom.testing.gcs_server import GcsControl, GcsServer

BUCKET = "reading"
LATENCY_SECONDS = 0.04
TABLES: tuple[OffsetTable, ...] = ("basic", "empty", "extended")
RANDOM_FRAMES, SLICES = 100, 300
_PART_BYTES = 16 << 20


@dataclass(frozen=True)
class Measured:
    """What a read costs, and its median wall time without and with latency, in seconds."""

    cost: Cost
    seconds: float
    seconds_with_latency: float


@dataclass(frozen=True)
class ToolFigures:
    """One tool on one slide: through our file, through the one that shows a table, and from a loose object."""

    tool: str
    offset_table: str
    ours: Measured
    ours_extended: Measured
    loose: Measured
    loose_chunk_kib: int


@dataclass(frozen=True)
class FramesFigures:
    """Random frames of a slide in one call; round trips are the time that latency adds, in latencies."""

    frames_bytes: int
    measured: Measured
    round_trips: float


@dataclass(frozen=True)
class VolumeFigures:
    """A volume, and a plain parallel download of the same bytes."""

    volume: Measured
    download: Measured
    ratio: float
    ratio_with_latency: float


@dataclass(frozen=True)
class ReadingFigures:
    """All of it."""

    tools: list[ToolFigures]
    frames: FramesFigures
    volume: VolumeFigures


def measure_reading(server: GcsServer, folder: Path, rounds: int, slices: int = SLICES) -> ReadingFigures:
    """Return all figures; files are made in `folder`."""
    logging.getLogger("highdicom").setLevel(logging.ERROR)  # a synthetic slide has no ICC profile
    server.create_bucket(BUCKET)
    client = server.client()
    tools = []
    for table in TABLES:
        path = folder / f"{table}.dcm"
        path.write_bytes(whole_slide(SLIDE_TILES, table))
        blob = client.bucket(BUCKET).blob(f"{table}.dcm")
        blob.upload_from_filename(str(path))
        with _stored(Datastore(f"gs://{BUCKET}/{table}", client), [path]) as series:
            tools += [_measure_tool(name, table, series, Loose(server, blob), rounds) for name in TOOLS]
            frames = _measure_frames(server, series, rounds)
    return ReadingFigures(tools, frames, _measure_volume(server, client, folder, rounds, slices))


@contextmanager
def _stored(store: Datastore, paths: Sequence[Path]) -> Iterator[CODObject]:
    """Store files of one series and open it."""
    (key,) = store.ingest(list(paths)).series
    with store.open(key.study_uid, key.series_uid) as series:
        yield series


def _measure(server: GcsControl, prepare: Callable[[], Callable[[], Any]], rounds: int) -> Measured:
    """Count one round, then time some without and some with latency; each is prepared for, which is not measured."""
    work = prepare()
    with counted(server) as cost:
        work()
    plain = _seconds(prepare, rounds)
    with _latency(server):
        late = _seconds(prepare, rounds)
    return Measured(cost(), plain, late)


@contextmanager
def _latency(server: GcsControl) -> Iterator[None]:
    """Add latency to every request of a block."""
    server.inject(Fault(FaultKind.LATENCY, times=None, seconds=LATENCY_SECONDS))
    try:
        yield
    finally:
        server.clear_faults()


def _seconds(prepare: Callable[[], Callable[[], Any]], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        work = prepare()
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _measure_tool(name: str, table: str, series: CODObject, loose: Loose, rounds: int) -> ToolFigures:
    tool = TOOLS[name]

    def through_ours(offset_table: OffsetTableShown | None) -> Callable[[], Any]:
        # A series of its own, so that no round finds what the one before has kept.
        opened = Datastore(series.store).open(series.key.study_uid, series.key.series_uid)
        (uid,) = opened.get_instances()

        def work() -> Any:
            with opened.open_instance(uid, offset_table) as file:
                return tool(file)

        return work

    chunk = cheapest(loose.costs(tool))
    if not np.array_equal(loose.open_and_read(tool, chunk), through_ours("extended")()):
        raise RuntimeError(f"{name} reads other pixels through our file")
    return ToolFigures(
        tool=name,
        offset_table=table,
        ours=_measure(loose.server, lambda: through_ours(None), rounds),
        ours_extended=_measure(loose.server, lambda: through_ours("extended"), rounds),
        loose=_measure(loose.server, lambda: partial(loose.open_and_read, tool, chunk), rounds),
        loose_chunk_kib=chunk,
    )


def _measure_frames(server: GcsServer, series: CODObject, rounds: int) -> FramesFigures:
    (uid,) = series.get_instances()
    wanted = random.Random(1).sample(range(SLIDE_TILES), RANDOM_FRAMES)  # the same ones every time
    size = sum(map(len, series.read_frames(uid, wanted)))
    measured = _measure(server, lambda: partial(series.read_frames, uid, wanted), rounds)
    added = measured.seconds_with_latency - measured.seconds
    return FramesFigures(size, measured, added / LATENCY_SECONDS)


def _measure_volume(server: GcsServer, client: Any, folder: Path, rounds: int, slices: int) -> VolumeFigures:
    inbox = folder / "volume"
    inbox.mkdir()
    for number, data in enumerate(CtSeries(slices)):
        (inbox / f"{number:05d}.dcm").write_bytes(data)
    with _stored(Datastore(f"gs://{BUCKET}/volume", client), [inbox]) as series:
        blob = client.bucket(BUCKET).blob(series.tar_uri.removeprefix(f"gs://{BUCKET}/"))
        blob.reload()
        works = (lambda _: series.read_volume(), lambda _: download_parallel(blob))
        costs = []
        for work in works:
            with counted(server) as cost:
                work(0)
            costs.append(cost())
        plain = alternate(*works, rounds)
        with _latency(server):
            late = alternate(*works, rounds)
    volume, download = (
        Measured(costs[number], plain[number].wall_seconds, late[number].wall_seconds) for number in range(2)
    )
    return VolumeFigures(
        volume,
        download,
        volume.seconds / download.seconds,
        volume.seconds_with_latency / download.seconds_with_latency,
    )


def download_parallel(blob: Any) -> list[bytes]:
    """Download an object in parts, as many at a time as our reader does."""
    starts = range(0, blob.size, _PART_BYTES)

    def part(start: int) -> bytes:
        end = min(start + _PART_BYTES, blob.size) - 1
        return bytes(blob.download_as_bytes(start=start, end=end, checksum=None))

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return list(pool.map(part, starts))


# -- print


def show_reading(figures: ReadingFigures) -> None:
    """Print the figures, times as ratios."""
    print("tools on a slide of 2000 tiles, after it is open; time over that of the loose object at its best chunk size")
    print("  tool       table     read from            requests        bytes   time   at 40 ms")
    for row in figures.tools:
        loose = (f"loose, {row.loose_chunk_kib} KiB chunks", row.loose)
        for label, measured in (("ours", row.ours), ("ours, extended", row.ours_extended), loose):
            ratios = (
                measured.seconds / row.loose.seconds,
                measured.seconds_with_latency / row.loose.seconds_with_latency,
            )
            print(
                f"  {row.tool:<10} {row.offset_table:<9} {label:<22} {measured.cost.requests:>6}"
                f" {measured.cost.bytes_down:>12}  {ratios[0]:5.2f}      {ratios[1]:5.2f}"
            )
    frames, volume = figures.frames, figures.volume
    print(f"{RANDOM_FRAMES} random frames of {SLIDE_TILES}, one call")
    print(
        f"  {frames.measured.cost.requests} requests, {frames.measured.cost.bytes_down} bytes"
        f" ({frames.measured.cost.bytes_down / frames.frames_bytes:.2f} of the frames'),"
        f" latency of 40 ms adds {frames.round_trips:.1f} round trips"
    )
    print("volume against a plain parallel download of the tar")
    print(
        f"  {volume.volume.cost.requests} and {volume.download.cost.requests} requests,"
        f" {volume.volume.cost.bytes_down} and {volume.download.cost.bytes_down} bytes,"
        f" time {volume.ratio:.2f}, at 40 ms {volume.ratio_with_latency:.2f}"
    )
