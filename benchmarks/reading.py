"""Reading what is stored: a series' headers, an instance, frames, a volume."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Row, at_most, requests_at_most, times_floor
from benchmarks.reference import beside, without_peak
from benchmarks.registry import benchmark
from benchmarks.workbench import BUCKET, PARALLEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.figures import Goal, Spent
    from benchmarks.workbench import Work, Workbench
    from cloud_optimized_dicom import CODObject, Datastore

_DOCUMENT_BYTES, _RECORD_BYTES = 3000, 1490
"""What the metadata of a series may take: 0.45 MB for 300 instances."""


def _down(spent: Spent) -> int:
    return spent.traffic.bytes_down if spent.traffic else 0


@benchmark("open", "a series opened for all its headers, and for one instance")
def measure_open(bench: Workbench) -> Iterator[Row]:
    """Yield both rows."""
    store, series = bench.stored(bench.data.ct)
    name = series.metadata_uri.removeprefix(f"gs://{BUCKET}/")

    def download(_: int) -> bytes:
        return bytes(bench.blob(name).download_as_bytes())

    yield _open_headers(bench, store, series, download)
    yield _open_instance(bench, store, series, download)


def _open_headers(bench: Workbench, store: Datastore, series: CODObject, download: Work) -> Row:
    def work(_: int) -> None:
        with bench.reopened(store, series.key) as cod:
            for instance in cod.get_instances().values():
                instance.metadata  # noqa: B018 - reading it is the work

    count = len(series.get_instances())
    ours, floor = bench.compare(work, download, is_warm=True)
    goals = (
        requests_at_most(ours, 1),
        at_most("time", "CPU seconds", ours.cpu_seconds, 0.1),
        at_most("bytes", "bytes down", _down(ours), _DOCUMENT_BYTES + _RECORD_BYTES * count),
    )
    reference, note = beside(bench, "headers", series.key, stored=bench.data.ct)
    what, floor_is = f"{count} headers", "the metadata downloaded"
    return Row("open", what, ours, floor, floor_is, goals, without_peak(reference), note=note)


def _open_instance(bench: Workbench, store: Datastore, series: CODObject, download: Work) -> Row:
    uids = list(series.get_instances())
    uid = uids[len(uids) // 2]
    record = series.get_instance(uid).record
    span = (record.start, record.start + record.size - 1) if record else (0, 0)
    tar = bench.blob(series.tar_uri.removeprefix(f"gs://{BUCKET}/"))

    def work(_: int) -> None:
        with bench.reopened(store, series.key) as cod, cod.open_instance(uid) as file:
            file.read()

    def download_both(number: int) -> None:
        download(number)
        tar.download_as_bytes(start=span[0], end=span[1], checksum=None)

    ours, floor = bench.compare(work, download_both, is_warm=True)
    goals = (requests_at_most(ours, 2), at_most("bytes", "bytes down", _down(ours), _down(floor)))
    reference, note = beside(bench, "instance", series.key, stored=bench.data.ct, uid=uid)
    floor_is = "the metadata and the instance's byte range downloaded"
    return Row("open", "1 instance", ours, floor, floor_is, goals, without_peak(reference), note=note)


@benchmark("frames", "frames of a slide without an offset table, its series open")
def measure_frames(bench: Workbench) -> Iterator[Row]:
    """Yield one frame, and many at random without and with latency."""
    _, series = bench.stored(bench.data.slide("empty"))
    with series:
        (uid,) = series.get_instances()
        wanted = random.Random(1).sample(range(bench.scale.tiles), bench.scale.random_frames)  # the same every time
        parts = _Parts.of(bench, series, uid, wanted)
        ours, floor = bench.compare(
            lambda _: series.read_frames(uid, wanted[:1]), lambda _: parts.read(1), is_warm=True
        )
        goals: tuple[Goal, ...] = (
            requests_at_most(ours, 1),
            at_most("bytes", "bytes down", _down(ours), parts.lengths[0]),
        )
        yield Row("frames", "1 frame", ours, floor, parts.name, goals)
        plain: Spent | None = None
        for late in (False, True):
            with bench.latency() if late else nullcontext():
                ours, floor = bench.compare(
                    lambda _: series.read_frames(uid, wanted), lambda _: parts.read(len(wanted)), is_warm=True
                )
            share = _down(ours) / sum(parts.lengths)
            goals = (at_most("share", "x their bytes", share, 1.3),)
            if plain is not None:
                trips = (ours.wall_seconds - plain.wall_seconds) / bench.scale.latency_seconds
                goals = (*goals, at_most("speed", "round trips", trips, 4))
            plain = ours
            what = f"{len(wanted)} random frames" + (f", {bench.latency_name}" if late else "")
            yield Row("frames", what, ours, floor, parts.name, goals)


class _Parts:
    """Frames as byte ranges of the tar, downloaded one by one and many at a time."""

    name = "their byte ranges downloaded one by one, 16 at a time"

    def __init__(self, blob: Any, spans: Sequence[tuple[int, int]]) -> None:
        self._blob, self._spans = blob, spans
        self.lengths = [end - start for start, end in spans]

    @classmethod
    def of(cls, bench: Workbench, series: CODObject, uid: str, frames: Sequence[int]) -> _Parts:
        record = series.get_instance(uid).record
        if record is None or record.frame_table is None:
            raise RuntimeError("the slide has no frame table")
        spans = [record.frame_table.span(frame) for frame in frames]
        places = [(record.start + span.start, record.start + span.stop) for span in spans]
        return cls(bench.blob(series.tar_uri.removeprefix(f"gs://{BUCKET}/")), places)

    def read(self, count: int) -> list[bytes]:
        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(self._read, self._spans[:count]))

    def _read(self, span: tuple[int, int]) -> bytes:
        return bytes(self._blob.download_as_bytes(start=span[0], end=span[1] - 1, checksum=None))


@benchmark("volume", "a series as one array, beside a parallel download of its tar")
def measure_volume(bench: Workbench) -> Iterator[Row]:
    """Yield a row without and one with latency."""
    _, series = bench.stored(bench.data.ct)
    with series:
        blob = bench.object_of(series.tar_uri)
        for late in (False, True):
            with bench.latency() if late else nullcontext():
                ours, floor = bench.compare(
                    lambda _: series.read_volume(), partial(_download, bench, blob), bench.scale.heavy_rounds,
                    is_warm=True,
                )  # fmt: skip
            what = bench.data.ct.name + (f", {bench.latency_name}" if late else "")
            goals = (times_floor(ours, floor, 1.5), requests_at_most(ours, 16))
            yield Row("volume", what, ours, floor, "the tar downloaded in parallel parts", goals)


def _download(bench: Workbench, blob: Any, _: int) -> None:
    bench.download_parts(blob)
