"""Pipelines: what they cost beside a plain ingest of the same files, and what a second worker process gains."""

from __future__ import annotations

import csv
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.figures import Row, at_least, times_floor
from benchmarks.registry import benchmark
from benchmarks.workbench import ingest, processors
from cloud_optimized_dicom import Instance
from cloud_optimized_dicom.beam import GroupBySeries, IngestSeries, ReadInventory, make_pipeline, read_counters
from cloud_optimized_dicom.ingest.inventory import InventoryRow, iter_inventory
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.workbench import Workbench

_SERIES, _INSTANCES, _EDGE = 300, 50, 64
_QUICK_SERIES, _QUICK_INSTANCES = 6, 3
_OVERHEAD, _GAIN = 1.2, 1.7


@benchmark("beam", "an inventory of small series ingested by a pipeline, beside Datastore.ingest; two worker processes")
def measure_beam(bench: Workbench) -> Iterator[Row]:
    """Yield the overhead for each kind of store, and the gain of the second process."""
    table, count = _make_inventory(bench)
    series = count // (_QUICK_INSTANCES if bench.scale.is_quick else _INSTANCES)
    name = f"{series} series of {count // series}"
    for kind in ("local", "gcs"):
        # One process on either side: what is compared is the machinery, not how many processors each of them takes.
        yield _overhead(bench, table, count, kind, f"{name} to {kind}", workers=1)
        # And with as many as there are processors, which a default ingest takes by itself and a pipeline is told.
        flags = ("--direct_running_mode=multi_processing", f"--direct_num_workers={processors()}")
        yield _overhead(bench, table, count, kind, f"{name} beside a default ingest to {kind}", flags=flags)
    yield _gain(bench, table, count, name)


def _overhead(  # noqa: PLR0913, PLR0917 - one row in all its variants
    bench: Workbench,
    table: Path,
    count: int,
    kind: str,
    what: str,
    workers: int | None = None,
    flags: tuple[str, ...] = (),
) -> Row:
    """Return a pipeline beside `Datastore.ingest` with as many processes."""

    def plain(_: int) -> None:
        rows = [row for row in iter_inventory(table) if isinstance(row, InventoryRow)]
        instances = [Instance(row.uri, hints=row.hints) for row in rows]
        ingest(bench.datastore(bench.place(kind)), instances, count, workers=workers)

    def pipeline(_: int) -> None:
        _run(bench, table, count, kind, *flags)

    ours, floor = bench.compare(pipeline, plain, bench.scale.heavy_rounds, is_warm=not bench.scale.is_quick)
    if kind == "local":
        ours, floor = (replace(each, traffic=None) for each in (ours, floor))
    goals = (times_floor(ours, floor, _OVERHEAD),)
    floor_is = "Datastore.ingest" + ("" if workers is None else f"(workers={workers})")
    return Row("beam", what, ours, floor, floor_is, goals)


def _gain(bench: Workbench, table: Path, count: int, name: str) -> Row:
    """Return what two worker processes take beside one; without the server, which would take a processor itself.

    Throughput is what counts, so the seconds in which processes start are measured by themselves, and left out of it.
    """
    nothing = table.with_name("nothing.csv")
    nothing.write_text(table.read_text("utf-8").partition("\n")[0] + "\n", encoding="utf-8")

    def work(processes: int, inventory: Path, expected: int) -> None:
        flags = ("--direct_running_mode=multi_processing", f"--direct_num_workers={processes}")
        _run(bench, inventory, expected, "local", *flags)

    rounds = bench.scale.heavy_rounds
    two, one = bench.compare(lambda _: work(2, table, count), lambda _: work(1, table, count), rounds)
    idle = bench.compare(lambda _: work(2, nothing, 0), lambda _: work(1, nothing, 0), rounds)
    net = [max(full.wall_seconds - start.wall_seconds, 1e-3) for full, start in zip((two, one), idle, strict=True)]
    goals = (at_least("speed", "x throughput of one process", net[1] / net[0], _GAIN),)
    starts = " and ".join(f"{each.wall_seconds:.1f} s" for each in idle)
    note = (
        f"a run over nothing takes {starts} with two processes and with one; throughput is without that;"
        f" {processors()} processors"
    )
    two, one = (replace(each, traffic=None) for each in (two, one))
    return Row("beam", f"{name}, two worker processes to local", two, one, "one worker process", goals, note=note)


def _run(bench: Workbench, table: Path, count: int, kind: str, *flags: str) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions  # noqa: PLC0415 - takes seconds

    logging.getLogger("apache_beam").setLevel(logging.ERROR)  # each worker process has three warnings to tell
    with _server_of(bench):
        pipeline = make_pipeline(PipelineOptions(list(flags)))
        rows = (pipeline | ReadInventory([str(table)])).rows
        _ = (rows | GroupBySeries()).series | IngestSeries(bench.place(kind))
        result = pipeline.run()
        result.wait_until_finish()
    counters = read_counters(result)
    if counters.get("files_new", 0) != count:
        raise RuntimeError(f"{count} instances were to be stored: {json.dumps(counters)}")


@contextmanager
def _server_of(bench: Workbench) -> Iterator[None]:
    """Let clients that workers make find the workbench's server."""
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = bench.server.url
    try:
        yield
    finally:
        if before is None:
            del os.environ["STORAGE_EMULATOR_HOST"]
        else:
            os.environ["STORAGE_EMULATOR_HOST"] = before


def _make_inventory(bench: Workbench) -> tuple[Path, int]:
    """Write the files, and the table of them with the UIDs that it claims; return it, and how many they are."""
    quick = bench.scale.is_quick
    number, size = (_QUICK_SERIES, _QUICK_INSTANCES) if quick else (_SERIES, _INSTANCES)
    folder = bench.folder / "beam"
    folder.mkdir()
    with (folder / "inventory.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["uri", "size", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
        for seed in range(number):
            ct = CtSeries(size, rows=_EDGE, columns=_EDGE, seed=seed)
            for index, data in enumerate(ct):
                path = folder / f"{seed:03d}-{index:02d}.dcm"
                path.write_bytes(data)
                writer.writerow([path, len(data), ct.uids.study, ct.uids.series, ct.instance_uid(index)])
    return folder / "inventory.csv", number * size
