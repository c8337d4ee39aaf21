"""Ingest with lossless recompression, each target beside its codec alone on every processor."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.figures import Goal, Row, Spent, at_least
from benchmarks.reference import beside, new_files, without_peak
from benchmarks.registry import benchmark
from benchmarks.workbench import ingest, processors
from cloud_optimized_dicom.dicom.transcode.codecs import CODECS
from cloud_optimized_dicom.dicom.transcode.model import PixelFormat, Target
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.workbench import Workbench
    from cloud_optimized_dicom.testing.datasets.series import CtSeries

_BATCH = 8
_ALONE = "one process that encodes JPEG 2000 and checks nothing"


@benchmark("recompress", "a CT series from disk, recompressed without loss, beside its codec on every processor")
def measure_recompression(bench: Workbench) -> Iterator[Row]:
    """Yield a row for every target.

    Notes
    -----
    The floor encodes and decodes the same pixels in as many processes, with no file read or written.  The reference is,
    where the published library was not asked for, what it spends most of its ingest on.
    """
    files, series = bench.data.ct, bench.data.ct_series
    key = SeriesKey(series.uids.study, series.uids.series)
    uris = [str(path) for path in files.paths]
    reference, note = beside(bench, "ingest", key, **new_files(uris, compress=True))
    reference_is = Row.reference_is
    if reference is None:
        reference, reference_is = _encode_alone(series, len(uris)), _ALONE
    for target in bench.scale.targets:
        saved: list[int] = []
        times: list[float] = []

        def work(_: int, target: Target = target, saved: list[int] = saved) -> None:
            report = ingest(bench.datastore(bench.place()), [str(files.folder)], len(uris), compress=target.value)
            saved.append(report.saved_bytes)

        def floor(_: int, target: Target = target, times: list[float] = times) -> None:
            times.append(_floor(series, len(uris), target))

        ours, _ = bench.compare(work, floor, 1)
        share = 1 - saved[-1] / files.size_bytes
        size = f"{share:.2f} of the bytes are stored"
        yield Row(
            *("recompress", f"{files.name} to {target.value}", ours, Spent(times[-1], 0), "the codec alone"),
            goals=_goals(target, ours, reference),
            reference=without_peak(reference),
            reference_is=reference_is,
            note=f"{size}; {note}".removesuffix("; "),
        )


def _goals(target: Target, ours: Spent, reference: Spent) -> tuple[Goal, ...]:
    if target is Target.HTJ2K:
        return (at_least("speed", "x reference", reference.wall_seconds / ours.wall_seconds, 8),)
    if target is Target.JPEG2000:
        return (at_least("share", "processors busy", ours.cpu_seconds / ours.wall_seconds / processors(), 0.8),)
    return ()


def _encode_alone(series: CtSeries, instances: int) -> Spent:
    """Return the seconds of one process that encodes JPEG 2000, the making of the pixels left out."""
    numbers = range(instances)
    seconds = _seconds(partial(encode_batch, Target.JPEG2000, numbers, series, check=False))
    seconds -= _seconds(partial(make_pixels, Target.JPEG2000, numbers, series))
    return Spent(seconds, seconds)


def encode_batch(target: Target, numbers: Sequence[int], series: CtSeries, *, check: bool = True) -> None:
    """Encode some instances' pixels and decode them again."""
    image = _pixel_format(series, target)
    codec = CODECS[target]
    for number in numbers:
        encoded = codec.encode(series.pixels(number), image)
        if check:
            codec.decode(encoded, image)


def make_pixels(target: Target, numbers: Sequence[int], series: CtSeries) -> None:
    """Make the pixels of some instances: what the floor must not count."""
    del target
    for number in numbers:
        series.pixels(number)


def _pixel_format(series: CtSeries, target: Target) -> PixelFormat:
    """Return the format of the series' frames in a target's transfer syntax."""
    plain = PixelFormat(
        *(series.rows, series.columns, 1, 16, 12, 11), is_signed=False, planar_configuration=None,
        photometric_interpretation="MONOCHROME2", number_of_frames=1, transfer_syntax_uid="",
    )  # fmt: skip
    return replace(plain, transfer_syntax_uid=target.transfer_syntax_uid)


def _floor(series: CtSeries, instances: int, target: Target) -> float:
    batches = [range(start, min(start + _BATCH, instances)) for start in range(0, instances, _BATCH)]
    workers = min(processors(), len(batches))
    context = multiprocessing.get_context("spawn")  # this process has threads
    with ProcessPoolExecutor(workers, context) as pool:

        def run(function: Callable[..., object]) -> None:
            for future in [pool.submit(function, target, batch, series) for batch in batches]:
                future.result()

        run(make_pixels)  # starts the processes
        return _seconds(partial(run, encode_batch)) - _seconds(partial(run, make_pixels))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
