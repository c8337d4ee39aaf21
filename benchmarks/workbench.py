"""Where benchmarks work: a storage server, files, and a way to measure two pieces of work in turns."""

from __future__ import annotations

import itertools
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Spent, Traffic
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.data import Data, Files
    from benchmarks.reference import Reference
    from cloud_optimized_dicom import CODObject
    from cloud_optimized_dicom.testing.gcs_server import GcsServer

    Work = Callable[[int], object]
    """Does the work once; takes the number of the round, so that each has a place of its own."""

BUCKET = "benchmark"
PARALLEL = 16


class Workbench:
    """What every benchmark is handed.

    Parameters
    ----------
    folder
        For local datastores; whoever made it deletes it.
    reference
        The published library; None where it was not asked for.
    """

    def __init__(self, server: GcsServer, folder: Path, data: Data, reference: Reference | None = None) -> None:
        self.server, self.folder, self.data, self.reference = server, folder, data, reference
        self.scale = data.scale
        self.client = server.client()
        self.reference_stores: dict[str, tuple[str, Spent]] = {}
        self._numbers = itertools.count()
        self._uploaded: dict[str, str] = {}
        server.create_bucket(BUCKET)

    # -- measuring

    def compare(self, work: Work, floor: Work, rounds: int | None = None, *, is_warm: bool = False) -> list[Spent]:
        """Return what the work and its floor take: medians over rounds in which both meet the same noise.

        Parameters
        ----------
        is_warm
            Whether to leave out the first round, number 0, which pays for imports and fills caches.
        """
        taken: tuple[list[Spent], list[Spent]] = ([], [])
        for number in range(int(is_warm), (rounds or self.scale.rounds) + 1):
            for times, piece in zip(taken, (work, floor), strict=True):
                spent = self.spent(lambda piece=piece, number=number: piece(number))  # type: ignore[misc]
                if number:
                    times.append(spent)
        return [Spent.median(times) for times in taken]

    def spent(self, work: Callable[[], object]) -> Spent:
        """Do something once and return what it took."""
        self.server.reset_counters()
        cpu, start = _cpu_seconds(), time.perf_counter()
        work()
        wall, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
        return Spent(wall, cpu, Traffic.of(self.server.counters()))

    @contextmanager
    def latency(self) -> Iterator[None]:
        """Add latency to every request of a block."""
        self.server.inject(Fault(FaultKind.LATENCY, times=None, seconds=self.scale.latency_seconds))
        try:
            yield
        finally:
            self.server.clear_faults()

    @property
    def latency_name(self) -> str:
        """How the latency is called in a row."""
        return f"{self.scale.latency_seconds * 1e3:.0f} ms latency"

    # -- places

    def place(self, kind: str = "gcs") -> str:
        """Return the URL of an empty datastore: "gcs" or "local"."""
        number = next(self._numbers)
        return str(self.folder / f"store{number}") if kind == "local" else f"gs://{BUCKET}/store{number}"

    def datastore(self, url: str) -> Datastore:
        """Return a datastore; the client is the workbench's."""
        return Datastore(url, self.client)

    def blob(self, name: str | None = None) -> Any:
        """Return a blob, of a name that nobody has where none is given."""
        return self.client.bucket(BUCKET).blob(name or f"loose/{next(self._numbers)}")

    def uploaded(self, files: Files) -> str:
        """Upload files as objects of their own, once, and return their common prefix's URL."""
        if files.name not in self._uploaded:
            prefix = f"inbox/{next(self._numbers)}"
            for path in files.paths:
                self.blob(f"{prefix}/{path.name}").upload_from_filename(str(path))
            self._uploaded[files.name] = f"gs://{BUCKET}/{prefix}/"
        return self._uploaded[files.name]

    def stored(self, files: Files, **options: Any) -> tuple[Datastore, CODObject]:
        """Store files of one series on the server; return the datastore, and the series, not open yet."""
        store = self.datastore(self.place())
        return store, self.reopened(store, ingest(store, [str(files.folder)], len(files.paths), **options).series[0])

    def reopened(self, store: Datastore, key: Any, mode: str = "r") -> CODObject:
        """Return a series anew, with nothing remembered."""
        return store.open(key.study_uid, key.series_uid, mode)

    # -- floors

    def copy_to(self, kind: str, files: Files) -> tuple[Work, str]:
        """Return the plain copy of files to one object of a kind of store, and what it is."""
        if kind == "local":
            copies = self.folder / f"copies{next(self._numbers)}"
            copies.mkdir()
            return lambda number: files.concatenate(copies / str(number)), "one file written, flushed"
        joined = str(self.data.joined(files))
        return lambda _: self.blob().upload_from_filename(joined), "one object uploaded"

    def download_all(self, names: list[str]) -> None:
        """Download whole objects, many at a time, and drop them."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            for _ in pool.map(lambda name: len(self.blob(name).download_as_bytes()), names):
                pass

    def download_parts(self, blob: Any, part_bytes: int = 16 << 20) -> list[bytes]:
        """Download one object in parts, as many at a time as our reader does."""

        def part(start: int) -> bytes:
            end = min(start + part_bytes, blob.size) - 1
            return bytes(blob.download_as_bytes(start=start, end=end, checksum=None))

        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(part, range(0, blob.size, part_bytes)))

    def object_of(self, url: str) -> Any:
        """Return the blob of a ``gs://`` URL, its size known."""
        blob = self.blob(url.removeprefix(f"gs://{BUCKET}/"))
        blob.reload()
        return blob


def ingest(store: Datastore, sources: list[Any], expected: int, outcome: str = "new", **options: Any) -> Any:
    """Ingest and return the report; `RuntimeError` unless all ends as expected, as figures would mean nothing then."""
    report = store.ingest(sources, **options)
    if report.count(outcome) != expected:  # type: ignore[arg-type]
        reasons = {result.reason for result in report.errors}
        raise RuntimeError(f"{report.count(outcome)} of {expected} instances are {outcome}: {reasons}")  # type: ignore[arg-type]
    return report


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
