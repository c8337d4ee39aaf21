"""Operations whose connection is gone and whose effect is still to come."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.testing.gcs_server.records import Entry


class LateOperations:
    """Runs operations after a while, or when told to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[tuple[Callable[[], int], Entry]] = []

    def add(self, operation: Callable[[], int], entry: Entry, seconds: float | None) -> None:
        """Keep an operation that returns its status; after `seconds` (None: never) it runs by itself."""
        item = (operation, entry)
        with self._lock:
            self._pending.append(item)
        if seconds is not None:
            timer = threading.Timer(seconds, self._run, [item])
            timer.daemon = True
            timer.start()

    def release(self) -> list[int]:
        """Run all that are pending, in order of arrival, and return the statuses they came to."""
        with self._lock:
            items = list(self._pending)
        return [status for item in items if (status := self._run(item)) is not None]

    def discard(self) -> int:
        """Drop all that are pending and return how many."""
        with self._lock:
            dropped = len(self._pending)
            self._pending.clear()
        return dropped

    def _run(self, item: tuple[Callable[[], int], Entry]) -> int | None:
        with self._lock:
            if not any(pending is item for pending in self._pending):
                return None  # run or dropped meanwhile
            self._pending = [pending for pending in self._pending if pending is not item]
        operation, entry = item
        entry.outcome = operation()
        return entry.outcome
