"""Ingesting: every modality from disk, a series from a bucket, one large instance, and the memory that it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Row, Spent, at_most, requests_at_most, times_floor
from benchmarks.memory import MemorySampler
from benchmarks.reference import beside, new_files, without_peak
from benchmarks.registry import benchmark
from benchmarks.workbench import BUCKET, ingest
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.data import Files
    from benchmarks.figures import Goal
    from benchmarks.workbench import Workbench

PEAK_MB = 200
_MIB_AS_MB = (1 << 20) / 1e6
_CHILD = """
import json, os, resource, sys, time
from benchmarks.memory import peak_bytes_of
from cloud_optimized_dicom import Datastore
if __name__ == "__main__":
    start = time.perf_counter()
    report = Datastore(sys.argv[1]).ingest([sys.argv[2]])
    if report.count("new") != int(sys.argv[3]):
        sys.exit(f"{report.count('new')} are new: {[each.reason for each in report.errors[:3]]}")
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    print(json.dumps([time.perf_counter() - start, cpu, peak_bytes_of(os.getpid()) / (1 << 20)]))
"""


@benchmark("ingest", "files from disk into an empty datastore, beside a plain copy of their bytes")
def measure_ingest(bench: Workbench) -> Iterator[Row]:
    """Yield a row for every modality and kind of store; the CT series have goals."""
    for files in bench.data.all_kinds():
        for kind in ("local", "gcs"):
            ours, floor, floor_is = _against_copy(bench, files, kind, bench.scale.rounds)
            goals, reference, note = [], None, ""
            if files is bench.data.ct:
                goals = [times_floor(ours, floor, 1.5)]
                if kind == "gcs":
                    goals.append(requests_at_most(ours, 8))
                    reference, note = beside(bench, "ingest", _ct_key(bench), stored=files)
            yield Row(
                *("ingest", f"{files.name} to {kind}", ours, floor, floor_is, tuple(goals)),
                reference=without_peak(reference),
                note=note,
            )


def _against_copy(bench: Workbench, files: Files, kind: str, rounds: int) -> tuple[Spent, Spent, str]:
    floor, floor_is = bench.copy_to(kind, files)

    def work(_: int) -> None:
        ingest(bench.datastore(bench.place(kind)), [str(files.folder)], len(files.paths))

    spent = bench.compare(work, floor, rounds, is_warm=rounds <= bench.scale.heavy_rounds)
    ours, least = (replace(each, traffic=each.traffic if kind == "gcs" else None) for each in spent)
    return ours, least, floor_is


def _ct_key(bench: Workbench) -> SeriesKey:
    uids = bench.data.ct_series.uids
    return SeriesKey(uids.study, uids.series)


@benchmark("ingest-gcs", "files from a bucket into another place of it, beside downloads in parallel and one upload")
def measure_from_bucket(bench: Workbench) -> Iterator[Row]:
    """Yield a row without and one with latency."""
    files = bench.data.ct
    source = bench.uploaded(files)
    names = [f"{source.removeprefix(f'gs://{BUCKET}/')}{path.name}" for path in files.paths]
    copy, _ = bench.copy_to("gcs", files)

    def work(_: int) -> None:
        ingest(bench.datastore(bench.place()), [source], len(files.paths))

    def floor(number: int) -> None:
        bench.download_all(names)
        copy(number)

    for late in (False, True):
        with bench.latency() if late else nullcontext():
            ours, least = bench.compare(work, floor)
            uris = [f"gs://{BUCKET}/{name}" for name in names]
            reference, note = beside(bench, "ingest", _ct_key(bench), **new_files(uris))
        # One a source, one for their list, and what the same costs from disk.
        goals = (times_floor(ours, least, 2), requests_at_most(ours, len(names) + 9))
        what = f"{files.name} from gs://" + (f", {bench.latency_name}" if late else "")
        yield Row(
            *("ingest-gcs", what, ours, least, "parallel downloads, one upload", goals),
            reference=without_peak(reference),
            note=note,
        )


@benchmark("memory", "peak memory of a process that ingests, in a process of its own, imports among its times")
def measure_memory(bench: Workbench) -> Iterator[Row]:
    """Yield a row for each size of series, so that growth is seen."""
    for files in [bench.data.few_ct] if bench.scale.is_quick else [bench.data.few_ct, bench.data.ct]:
        folder, uploaded = str(files.folder), bench.uploaded(files)
        ways = [("gcs", uploaded), ("local", folder), ("gcs", folder)]
        for kind, source in ways[:1] if bench.scale.is_quick else ways:
            ours = in_child(bench, files, kind, source)
            where = "gs:// to gcs" if source.startswith("gs://") else f"disk to {kind}"
            goals = (_memory_goal(ours),)
            yield Row("memory", f"{files.name}, {where}", ours, goals=goals)


@benchmark("large", "one large instance: its ingest beside a plain copy, and one frame of it")
def measure_large(bench: Workbench) -> Iterator[Row]:
    """Yield the ingest into each kind of store, and one frame."""
    files = bench.data.large
    for kind in ("local", "gcs"):
        ours, floor, floor_is = _against_copy(bench, files, kind, bench.scale.heavy_rounds)
        child = in_child(bench, files, kind, str(files.folder))
        ours = replace(ours, peak_mib=child.peak_mib, peak_with_workers_mib=child.peak_with_workers_mib)
        goals = (times_floor(ours, floor, 1.5), _memory_goal(ours))
        reference, note = None, ""
        if kind == "gcs":
            key = bench.stored(files)[1].key
            reference, note = beside(bench, "ingest", key, stored=files)
        yield Row("large", f"{files.name} to {kind}", ours, floor, floor_is, goals, reference, note=note)
    yield _frame_of_large(bench, files)


def _frame_of_large(bench: Workbench, files: Files) -> Row:
    store, series = bench.stored(files)
    (uid,) = series.get_instances()
    opened = bench.reopened(store, series.key)
    record = opened.get_instance(uid).record
    if record is None or record.frame_table is None:
        raise RuntimeError("the instance has no frame table")
    frame = len(record.frame_table) // 2
    (data,) = opened.read_frames(uid, [frame])
    start = record.start + record.frame_table.span(frame).start
    blob = bench.object_of(series.tar_uri)
    ours, floor = bench.compare(
        lambda _: opened.read_frames(uid, [frame]),
        lambda _: blob.download_as_bytes(start=start, end=start + len(data) - 1, checksum=None),
        is_warm=True,
    )
    down = ours.traffic.bytes_down if ours.traffic else 0
    goals = (requests_at_most(ours, 1), at_most("bytes", "bytes down", down, len(data)))
    reference, note = beside(bench, "frame", series.key, stored=files, uid=uid, frame=frame)
    return Row("large", "one frame of it", ours, floor, "its byte range", goals, without_peak(reference), note=note)


# -- in a process of its own


def in_child(bench: Workbench, files: Files, kind: str, source: str) -> Spent:
    """Ingest in a new process and return what it took, with its peak memory."""
    command = [sys.executable, "-c", _CHILD, bench.place(kind), source, str(len(files.paths))]
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"STORAGE_EMULATOR_HOST": bench.server.url, "PYTHONPATH": root}
    bench.server.reset_counters()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with process, MemorySampler(process.pid) as sampler:
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the process that ingests failed; its standard error says why")
    wall, cpu, peak = json.loads(output)
    return Spent(wall, cpu, None, peak, max(peak, sampler.peak_bytes / (1 << 20)))


def _memory_goal(spent: Spent) -> Goal:
    return at_most("memory", "MB with workers", (spent.peak_with_workers_mib or 0) * _MIB_AS_MB, PEAK_MB)
