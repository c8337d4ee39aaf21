"""Ingesting real files: those that the installed packages ship, and a folder that the command line names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.figures import Row
from benchmarks.registry import benchmark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.data import Files
    from benchmarks.workbench import Workbench
    from cloud_optimized_dicom import IngestReport

_OUTCOMES = ("new", "same", "conflict", "error")


@benchmark("real", "real files of many kinds into an empty datastore, beside a plain copy of their bytes")
def measure_real(bench: Workbench) -> Iterator[Row]:
    """Yield a row for each set of files and kind of store."""
    for files in bench.data.real_sets():
        for kind in ("local", "gcs"):
            floor, floor_is = bench.copy_to(kind, files)
            reports: list[IngestReport] = []

            def work(_: int, kind: str = kind, files: Files = files, reports: list[IngestReport] = reports) -> None:
                reports.append(bench.datastore(bench.place(kind)).ingest([str(files.folder)]))

            ours, least = bench.compare(work, floor, bench.scale.heavy_rounds)
            report = reports[-1]
            counts = ", ".join(f"{report.count(outcome)} {outcome}" for outcome in _OUTCOMES)  # type: ignore[arg-type]
            yield Row(
                *("real", f"{files.name} to {kind}", replace(ours, traffic=ours.traffic if kind == "gcs" else None)),
                *(least, floor_is),
                note=f"{len(report.series)} series, {files.size_bytes / 1e6:.0f} MB: {counts}",
            )
