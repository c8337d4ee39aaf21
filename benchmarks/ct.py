"""A CT-like series: ingesting it, and opening it for one frame."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchmarks.timing import Timing, alternate
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.testing.gcs_server import GcsServer, RequestRecord

BUCKET = "benchmark"
NO_TRAFFIC: Mapping[str, Traffic] = MappingProxyType({})


@dataclass(frozen=True)
class Traffic:
    """What a server saw: HTTP requests, and the bytes of their bodies."""

    requests: int
    bytes_up: int
    bytes_down: int

    @classmethod
    def of(cls, records: Sequence[RequestRecord]) -> Traffic:
        """Return the sums over the records of some requests."""
        return cls(
            len(records), sum(record.bytes_in for record in records), sum(record.bytes_out for record in records)
        )


@dataclass(frozen=True)
class IngestFigures:
    """An ingest against a plain copy of the same bytes to the same store; traffic where a server counts it."""

    store: str
    instances: int
    input_bytes: int
    ingest: Timing
    floor: Timing
    wall_ratio: float
    cpu_ratio: float
    traffic: Traffic | None = None
    floor_traffic: Traffic | None = None


@dataclass(frozen=True)
class ReadFigures:
    """Opening a stored series and reading one frame; the floor is the metadata and the frame, one request each."""

    requests: int
    bytes_down: int
    floor_requests: int
    floor_bytes: int


@dataclass(frozen=True)
class Files:
    """The series as files in a folder."""

    folder: Path
    instances: int

    def write(self) -> None:
        """Make the files."""
        self.folder.mkdir()
        for number, data in enumerate(CtSeries(self.instances)):
            (self.folder / f"{number:05d}.dcm").write_bytes(data)

    @cached_property
    def paths(self) -> list[Path]:
        """The files in order."""
        return sorted(self.folder.iterdir())

    @cached_property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def concatenate(self, target: Path) -> None:
        """Copy all files into one, flushed to the device."""
        with target.open("wb") as joined:
            for path in self.paths:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, joined, 1 << 20)
            joined.flush()
            os.fsync(joined.fileno())

    def ingest(self, store: Datastore) -> None:
        """Ingest all files; `RuntimeError` if one is not stored, because the figures would mean nothing then."""
        report = store.ingest([self.folder])
        if report.count("new") != self.instances:
            raise RuntimeError(f"{report.count('new')} of {self.instances} instances were stored")


def measure_local(files: Files, folder: Path, rounds: int) -> IngestFigures:
    """Ingest into local datastores below `folder`."""
    ingest, floor = alternate(
        lambda number: files.ingest(Datastore(folder / f"store{number}")),
        lambda number: files.concatenate(folder / f"copy{number}"),
        rounds,
    )
    return _figures("local", files, ingest, floor)


def measure_gcs(files: Files, joined: Path, server: GcsServer, rounds: int) -> IngestFigures:
    """Ingest into prefixes of a bucket; the floor uploads `joined`, the files in one, by Google's client library."""
    client = server.client()
    bucket = client.bucket(BUCKET)
    traffic: dict[str, Traffic] = {}

    def counted(name: str, work: Callable[[], None]) -> None:
        server.reset_counters()
        work()
        traffic[name] = Traffic.of(server.counters())

    ingest, floor = alternate(
        lambda number: counted("ingest", lambda: files.ingest(Datastore(f"gs://{BUCKET}/store{number}", client))),
        lambda number: counted("floor", lambda: bucket.blob(f"copy{number}").upload_from_filename(str(joined))),
        rounds,
    )
    return _figures("gcs", files, ingest, floor, traffic)


def _figures(
    store: str, files: Files, ingest: Timing, floor: Timing, traffic: Mapping[str, Traffic] = NO_TRAFFIC
) -> IngestFigures:
    return IngestFigures(
        store=store,
        instances=files.instances,
        input_bytes=files.size_bytes,
        ingest=ingest,
        floor=floor,
        wall_ratio=ingest.wall_seconds / floor.wall_seconds,
        cpu_ratio=ingest.cpu_seconds / floor.cpu_seconds,
        traffic=traffic.get("ingest"),
        floor_traffic=traffic.get("floor"),
    )


def count_read(server: GcsServer) -> ReadFigures:
    """Open a series that was ingested by :func:`measure_gcs`, and read a frame from its middle."""
    store = Datastore(f"gs://{BUCKET}/store0", server.client())
    key = next(store.series())
    with store.open(key.study_uid, key.series_uid) as series:
        uids = list(series.get_instances())
    metadata_bytes = store.store.stat(key.metadata).size
    server.reset_counters()
    with store.open(key.study_uid, key.series_uid) as series:
        (frame,) = series.read_frames(uids[len(uids) // 2], [0])
    seen = Traffic.of(server.counters())
    return ReadFigures(seen.requests, seen.bytes_down, 2, metadata_bytes + len(frame))
