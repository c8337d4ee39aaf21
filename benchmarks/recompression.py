"""Lossless recompression of a CT series, each target against its codec alone on every core.

The floor encodes and decodes the same pixels in as many processes, with no file read or written.  ``reference`` is one
process that encodes with JPEG 2000 and checks nothing: what the format's first library spends most of its ingest on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.dicom.transcode.codecs import CODECS
from cloud_optimized_dicom.dicom.transcode.model import PixelFormat, Target
from cloud_optimized_dicom.dicom.transcode.transcoder import Transcoder
from cloud_optimized_dicom.processes.pool import WorkerPool
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BATCH = 8


@dataclass(frozen=True)
class RecompressionFigures:
    """Seconds and sizes of one target."""

    target: str
    instances: int
    wall_seconds: float
    floor_seconds: float
    reference_ratio: float
    input_bytes: int
    output_bytes: int


def encode_batch(target: Target, numbers: Sequence[int], series: CtSeries, *, check: bool = True) -> int:
    """Encode some instances' pixels and decode them again; return the encoded bytes."""
    image = pixel_format(series, target)
    codec = CODECS[target]
    total = 0
    for number in numbers:
        encoded = codec.encode(series.pixels(number), image)
        if check:
            codec.decode(encoded, image)
        total += len(encoded)
    return total


def pixel_format(series: CtSeries, target: Target) -> PixelFormat:
    """Return the format of the series' frames in a target's transfer syntax."""
    plain = PixelFormat(
        *(series.rows, series.columns, 1, 16, 12, 11), is_signed=False, planar_configuration=None,
        photometric_interpretation="MONOCHROME2", number_of_frames=1, transfer_syntax_uid="",
    )  # fmt: skip
    return replace(plain, transfer_syntax_uid=target.transfer_syntax_uid)


def measure_reference(series: CtSeries) -> float:
    """Return the seconds of one process that encodes JPEG 2000, the making of the pixels left out."""
    return _seconds(partial(encode_batch, Target.JPEG2000, range(series.instances), series, check=False)) - _seconds(
        lambda: [series.pixels(number) for number in range(series.instances)]
    )


def measure(paths: Sequence[Path], series: CtSeries, target: Target, reference: float) -> RecompressionFigures:
    """Return the figures of one target."""
    workers = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory() as folder,
        Transcoder() as transcoder,
        ThreadPoolExecutor(2 * workers) as threads,
    ):

        def work(path: Path) -> Any:
            return transcoder.transcode(path, target, folder, bulk_data_uri=lambda _, span: f"{span.start}")

        list(threads.map(work, paths[: 2 * workers]))  # starts the processes
        outcomes: list[Any] = []
        wall = _seconds(lambda: outcomes.extend(threads.map(work, paths)))
    saved = sum(outcome.saved_bytes for outcome in outcomes)
    size = sum(path.stat().st_size for path in paths)
    floor = _measure_floor(series, target, workers)
    return RecompressionFigures(target.value, len(paths), wall, floor, reference / wall, size, size - saved)


def _measure_floor(series: CtSeries, target: Target, workers: int) -> float:
    batches = [range(start, min(start + _BATCH, series.instances)) for start in range(0, series.instances, _BATCH)]
    with WorkerPool(workers) as pool:

        def run(function: Callable[..., object], *arguments: object) -> None:
            for future in [pool.submit(function, *arguments, batch, series) for batch in batches]:
                future.result()

        run(make_pixels, target)
        return _seconds(partial(run, encode_batch, target)) - _seconds(partial(run, make_pixels, target))


def make_pixels(target: Target, numbers: Sequence[int], series: CtSeries) -> None:
    """Make the pixels of some instances: what the floor must not count."""
    del target
    for number in numbers:
        series.pixels(number)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(instances: int) -> list[RecompressionFigures]:
    """Return the figures of every target."""
    series = CtSeries(instances)
    with tempfile.TemporaryDirectory(prefix="cod-bench-") as folder:
        paths = []
        for number, data in enumerate(series):
            path = Path(folder) / f"{number:05d}.dcm"
            path.write_bytes(data)
            paths.append(path)
        reference = measure_reference(series)
        print(f"reference (JPEG 2000, one process, unchecked): {reference:.1f} s")
        return [measure(paths, series, target, reference) for target in Target]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recompression", description=__doc__)
    parser.add_argument("--instances", type=int, default=300, help="of 512 x 512 pixels (default: 300)")
    for figures in run(parser.parse_args().instances):
        print(f"{figures.target:<9} wall {figures.wall_seconds:6.2f} s   floor {figures.floor_seconds:6.2f} s"
              f"   ratio {figures.wall_seconds / figures.floor_seconds:.2f}"
              f"   reference/wall {figures.reference_ratio:.1f}"
              f"   size {figures.output_bytes / figures.input_bytes:.2f}")  # fmt: skip


if __name__ == "__main__":
    # Workers import the functions that they call, which nobody can from the main module.
    importlib.import_module("benchmarks.recompression").main()
