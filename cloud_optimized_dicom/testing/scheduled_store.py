"""A store that its user stalls on: one operation waits, and everything behind it, until a test lets it go on."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from cloud_optimized_dicom.errors import TransientStorageError
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.storage.base import ObjectStore, ReadResult
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")

_FOREVER_SECONDS = 120.0


def at(number: int) -> Callable[[Sequence[Operation]], bool]:
    """Stall before the operation of a 0-based number."""
    return lambda asked: len(asked) == number + 1


class ScheduledStore(InterceptingStore):
    """One participant's way to a shared store, on which it can be stalled and its rivals' leases can run out.

    Parameters
    ----------
    stall_when
        Called with all operations so far, the one about to happen last; the first time that it says yes, this operation
        and whatever else this participant does, renewals of its lock too, wait for :meth:`go_on`.
    ahead_seconds
        By how much the server's clock, as this participant is told it, has moved on: every lease is so much older.
        What it writes itself is stamped by the inner store.
    lose_response
        The operation that stalls happens before the stall, its response gets lost, and it is repeated after the stall,
        as the adapters of remote stores do: same write id, same precondition.

    Notes
    -----
    A participant that is stalled for two minutes was forgotten by its test; it gets a `TimeoutError`.
    """

    def __init__(
        self,
        inner: ObjectStore,
        *,
        stall_when: Callable[[Sequence[Operation]], bool] | None = None,
        ahead_seconds: float = 0.0,
        lose_response: bool = False,
    ) -> None:
        super().__init__(inner)
        self.operations: list[Operation] = []
        self.stalled = threading.Event()
        self._stall_when = stall_when
        self._lose_response = lose_response
        self._ahead = timedelta(seconds=ahead_seconds)
        self._go = threading.Event()
        self._hung_up = False
        self._lock = threading.Lock()

    def go_on(self) -> None:
        """Let the stalled operation happen, and all that follow."""
        self._go.set()

    def hang_up(self) -> None:
        """Let nothing of this participant happen any more: what is stalled, and all that follows, fails."""
        self._hung_up = True
        self._go.set()

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Wait where a stall is due, then act."""
        with self._lock:
            self.operations.append(operation)
            waiting = self.stalled.is_set()
            stalls = self._stall_when is not None and not waiting and self._stall_when(self.operations)
        if stalls and self._lose_response:
            act()
        if stalls:
            self.stalled.set()
        if self.stalled.is_set() and not self._go.wait(_FOREVER_SECONDS):
            raise TimeoutError(f"{operation.kind} of {operation.name} was stalled and never let go on")
        if self._hung_up:
            raise TransientStorageError(self.url_of(operation.name), "the connection is gone for good")
        return act()

    def read_object(self, name: str) -> ReadResult:
        """As the inner store, with the server's clock moved on."""
        found = super().read_object(name)
        return found._replace(served_at=found.served_at + self._ahead)
