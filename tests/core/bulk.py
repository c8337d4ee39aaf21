"""Scenes for ingests of many series: an ingest with its options, an inbox, hooks that look closely."""

from __future__ import annotations

import random
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.bulk import BulkIngest, BulkOptions, iter_instances
from cloud_optimized_dicom.events import FileDone
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from tests.core.conftest import Files, write_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloud_optimized_dicom.events import Event, Hook
    from cloud_optimized_dicom.ingest.report import IngestReport
    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.base import ObjectStore


def ingest(
    store: ObjectStore,
    sources: Iterable[Any],
    options: BulkOptions = BulkOptions(),  # noqa: B008 - a frozen value
    hooks: Sequence[Hook] = (),
    directory: Path | None = None,
    ahead_bytes: int = 1 << 30,
) -> IngestReport:
    """Ingest as a datastore does, with the options at hand."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch, Workshop(Path(scratch), 1, ahead_bytes) as workshop:
        return BulkIngest(store, workshop, options, hooks).run(iter_instances(sources, None, Path(scratch)))


def write_many(folder: Path, series: int, instances: int = 3) -> list[Files]:
    """Write some small series as files."""
    return [write_series(folder / str(seed), CtSeries(instances, 8, 8, seed)) for seed in range(series)]


def memory_store() -> MemoryStore:
    """Return an empty store that no other test uses; its objects are found by their URLs."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


def send(store: ObjectStore, name: str, data: bytes) -> str:
    """Put a file into a store; return its URL."""
    store.create(name, BytesPayload(data), write_id=new_write_id())
    return store.url_of(name)


class SlowStore(InterceptingStore):
    """A store whose downloads take some milliseconds, each other ones."""

    def __init__(self, inner: ObjectStore, seed: int) -> None:
        super().__init__(inner)
        self._random = random.Random(seed)

    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """Stream an object, after a while."""
        time.sleep(self._random.uniform(0, 0.01))
        yield from super().iter_chunks(name, span, version=version)


class Listener:
    """A hook that notes events, and whether it was called by two threads at a time."""

    def __init__(self, then: Callable[[Event], object] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.overlapped = False
        self._busy = threading.Lock()
        self._then = then

    def __call__(self, event: Event, /) -> None:
        """Take note."""
        if not self._busy.acquire(blocking=False):
            self.overlapped = True
            return
        try:
            time.sleep(0.001)
            self.events.append(event)
            self._then(event)
        finally:
            self._busy.release()

    @property
    def done(self) -> list[FileDone]:
        """What was told of single files."""
        return [event for event in self.events if isinstance(event, FileDone)]
