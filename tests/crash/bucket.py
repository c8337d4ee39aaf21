"""Scenes in a bucket of a strict server: each in a prefix of its own, its requests counted."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.retry import RetryPolicy
from tests.crash.checks import View, look
from tests.crash.kills import act
from tests.crash.scenes import KEY, SCENES, STARTS, Folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.testing.gcs_server import GcsServer, RequestRecord

BUCKET = "crash"
ATTEMPTS = 4
"""How often a hurried client asks."""
_PATIENCE_SECONDS = 60.0


@dataclass
class Bucket:
    """A server, and stores on it."""

    server: GcsServer
    folder: Folder
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.server.create_bucket(BUCKET)
        self.client = self.server.client()

    def store(self) -> GcsStore:
        """Return an empty store."""
        return GcsStore(BUCKET, uuid.uuid4().hex, self.client)

    def hurried(self, store: GcsStore) -> GcsStore:
        """Return the same store for somebody who asks again at once, and not often."""
        return self._again(store, ATTEMPTS, _PATIENCE_SECONDS)

    def restless(self, store: GcsStore, timeout_seconds: float) -> GcsStore:
        """Return the same store for somebody who does not wait long for an answer, but asks often."""
        return self._again(store, 10 * ATTEMPTS, timeout_seconds)

    def _again(self, store: GcsStore, attempts: int, timeout_seconds: float) -> GcsStore:
        prefix = store.url.removeprefix(f"gs://{BUCKET}/")
        retry = RetryPolicy(initial_seconds=0.01, maximum_seconds=0.02, total_seconds=60, attempts=attempts)
        return GcsStore(BUCKET, prefix, self.client, retry=retry, timeout_seconds=timeout_seconds)

    def prepared(self, scene: str) -> GcsStore:
        """Return a store with what there is before a scene."""
        store = self.store()
        STARTS[SCENES[scene].start](store, self.folder)
        return store

    def rehearse(self, scene: str) -> tuple[Sequence[RequestRecord], list[View]]:
        """Play a scene unharmed; return its requests, and the series before and after."""
        store = self.prepared(scene)
        before = look(store)
        self.server.reset_counters()
        act(scene, store, self.folder)
        return self.server.counters(), [before, look(store)]


def decision(requests: Sequence[RequestRecord]) -> int:
    """Return the number of the request that decides: the last insertion of the lock (the first one takes it)."""
    numbers = [
        number
        for number, request in enumerate(requests)
        if request.operation == "objects.insert" and request.object_name.endswith(KEY.lock)
    ]
    return numbers[-1] if len(numbers) > 1 else len(requests)


def changes(request: RequestRecord) -> bool:
    """Return whether a request is one that may change something."""
    return request.method != "GET"
