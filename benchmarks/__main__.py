"""``python -m benchmarks``: run everything and print the ratios."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.ct import BUCKET, Files, IngestFigures, ReadFigures, count_read, measure_gcs, measure_local
from benchmarks.headers import show_headers
from benchmarks.reading import ReadingFigures, measure_reading, show_reading
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIB = 1 << 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--instances", type=int, default=50, help="of 512 x 512 pixels (default: 50)")
    parser.add_argument("--rounds", type=int, default=5, help="medians are taken over (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args(arguments)
    if options.instances < 1 or options.rounds < 1:
        parser.error("--instances and --rounds are at least 1")
    ingest, read, reading = run(options.instances, options.rounds)
    for figures in ingest:
        show_ingest(figures)
    show_read(read)
    show_reading(reading)
    headers = show_headers(options.rounds)
    if options.json is not None:
        document = {"ingest": [asdict(figures) for figures in ingest], "read": asdict(read)}
        document["reading"] = asdict(reading)
        document["headers"] = [asdict(figures) for figures in headers]
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def run(instances: int, rounds: int) -> tuple[list[IngestFigures], ReadFigures, ReadingFigures]:
    """Return all figures; the files and stores are in a temporary folder, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="cod-bench-") as name, GcsServer() as server:
        folder = Path(name)
        files = Files(folder / "inbox", instances)
        files.write()
        joined = folder / "joined"
        files.concatenate(joined)
        server.create_bucket(BUCKET)
        ingest = [measure_local(files, folder, rounds), measure_gcs(files, joined, server, rounds)]
        return ingest, count_read(server), measure_reading(server, folder, rounds)


def show_ingest(figures: IngestFigures) -> None:
    """Print one ingest beside its floor."""
    print(f"ingest, {figures.store}: {figures.instances} instances, {figures.input_bytes / _MIB:.1f} MiB")
    for label, timing in (("ingest", figures.ingest), ("floor", figures.floor)):
        print(f"  {label:<8} wall {timing.wall_seconds:.3f} s   CPU {timing.cpu_seconds:.3f} s")
    print(f"  {'ratio':<8} wall {figures.wall_ratio:.2f}      CPU {figures.cpu_ratio:.2f}")
    for label, traffic in (("ingest", figures.traffic), ("floor", figures.floor_traffic)):
        if traffic is not None:
            sizes = f"{traffic.bytes_up} bytes up, {traffic.bytes_down} bytes down"
            print(f"  {label:<8} {traffic.requests} requests, {sizes}")


def show_read(figures: ReadFigures) -> None:
    """Print what opening a series and reading one frame took."""
    print("open and one frame, gcs")
    print(f"  {'read':<8} {figures.requests} requests, {figures.bytes_down} bytes down")
    print(f"  {'floor':<8} {figures.floor_requests} requests, {figures.floor_bytes} bytes down")
    print(f"  {'ratio':<8} requests {figures.requests / figures.floor_requests:.2f}"
          f"   bytes {figures.bytes_down / figures.floor_bytes:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
