"""A store on which things go wrong as planned, as they go wrong on real ones.

What a remote store's adapter hides (a failure that passes, a response that is lost but can be read back) is not here;
what it cannot hide is: an operation that fails for good, a write of which nobody can tell whether it landed or will,
the death of the process.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from cloud_optimized_dicom.errors import StorageError, TransientStorageError, WriteUnknownError
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")


class StoreFaultKind(StrEnum):
    """What goes wrong with an operation."""

    FAIL = "fail"
    """No effect; `TransientStorageError`."""
    LOST_BEFORE = "lost_before"
    """No effect, and nobody can tell: `WriteUnknownError` of a conditional write, `TransientStorageError` of others."""
    LOST_AFTER = "lost_after"
    """The effect happens, and nobody can tell; errors as of LOST_BEFORE."""
    LATE = "late"
    """The effect happens when it is released, if its precondition holds then; errors as of LOST_BEFORE."""
    CRASH_BEFORE = "crash_before"
    """The process dies before the effect: `SimulatedCrash` from this and from every later operation."""
    CRASH_AFTER = "crash_after"
    """The process dies after the effect."""
    TRUNCATED = "truncated"
    """A stream or list breaks after its first piece with `TransientStorageError`; other operations fail as of FAIL."""
    CALL_BEFORE = "call_before"
    """`StoreFault.call` is called first: a place to stall, or to let others do something."""
    CALL_AFTER = "call_after"
    """`StoreFault.call` is called after the effect, before the answer."""


class SimulatedCrash(BaseException):
    """The death of the process, as far as a store can simulate it: not to be caught, and no clean-up takes effect."""


@dataclass(frozen=True, slots=True)
class StoreFault:
    """Something that goes wrong with the operations that match.

    Parameters
    ----------
    kind
        What happens.
    operation
        A shell pattern of verbs.
    name
        A regular expression that is searched in the object's name.
    skip
        How many matching operations pass unharmed first: with nothing else given, the number of the operation.
    times
        How many are befallen after those; None: all.
    call
        Of CALL_BEFORE and CALL_AFTER; operations that it does itself on the faulty store are not befallen by this fault
        again unless `times` says so.
    """

    kind: StoreFaultKind
    operation: str = "*"
    name: str = ""
    skip: int = 0
    times: int | None = 1
    call: Callable[[Operation], object] | None = None

    def matches(self, operation: Operation) -> bool:
        """Say whether an operation is of those that this fault is for."""
        return fnmatchcase(operation.kind, self.operation) and re.search(self.name, operation.name) is not None


@dataclass(eq=False)
class _Armed:
    fault: StoreFault
    skip: int
    left: int | None


class FaultyStore(InterceptingStore):
    """Another store, on which faults happen.

    Parameters
    ----------
    plan
        Of several faults that are due, the first one happens; each counts all operations that it matches.
    """

    def __init__(self, inner: ObjectStore, plan: Iterable[StoreFault] = ()) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._late: list[Callable[[], object]] = []
        self.operations: list[Operation] = []
        self.crashed = False
        self.inject(*plan)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def inject(self, *faults: StoreFault) -> None:
        """Add to the plan."""
        with self._lock:
            self._armed += [_Armed(fault, fault.skip, fault.times) for fault in faults]

    def release_late(self) -> list[StorageError | None]:
        """Let every late operation happen now; return how each was refused, or None where it was done."""
        with self._lock:
            late, self._late = self._late, []
        outcomes: list[StorageError | None] = []
        for act in late:
            try:
                act()
            except StorageError as error:
                outcomes.append(error)
            else:
                outcomes.append(None)
        return outcomes

    def _take(self, operation: Operation) -> StoreFault | None:
        with self._lock:
            if self.crashed:
                raise SimulatedCrash
            self.operations.append(operation)
            due: _Armed | None = None
            for armed in self._armed:
                if not armed.fault.matches(operation):
                    continue
                if armed.skip:
                    armed.skip -= 1
                elif due is None and armed.left != 0:
                    due = armed
            if due is None:
                return None
            if due.left is not None:
                due.left -= 1
            return due.fault

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Act, or let the fault happen."""
        fault = self._take(operation)
        return act() if fault is None else self._befall(fault, operation, act)

    def around_iterator(self, operation: Operation, act: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """Act, or let the fault happen when the first piece is asked for."""
        fault = self._take(operation)
        if fault is None:
            yield from act()
        elif fault.kind is StoreFaultKind.TRUNCATED:
            yield from _first_of(act())
            raise TransientStorageError(self.url_of(operation.name), "an injected break")
        else:
            yield from self._befall(fault, operation, act)

    def _befall(self, fault: StoreFault, operation: Operation, act: Callable[[], Result]) -> Result:
        kind = fault.kind
        if kind is StoreFaultKind.CRASH_BEFORE:
            self._crash()
        if kind is StoreFaultKind.CALL_BEFORE and fault.call is not None:
            fault.call(operation)
        if kind is StoreFaultKind.LATE:
            with self._lock:
                self._late.append(act)
        if kind in _NO_EFFECT:
            raise self._failure(kind, operation)
        result = act()
        if kind is StoreFaultKind.CRASH_AFTER:
            self._crash()
        if kind is StoreFaultKind.LOST_AFTER:
            raise self._failure(kind, operation)
        if kind is StoreFaultKind.CALL_AFTER and fault.call is not None:
            fault.call(operation)
        return result

    def _failure(self, kind: StoreFaultKind, operation: Operation) -> StorageError:
        url = self.url_of(operation.name)
        if operation.write_id is None or kind in {StoreFaultKind.FAIL, StoreFaultKind.TRUNCATED}:
            return TransientStorageError(url, "an injected failure")
        return WriteUnknownError(url, operation.write_id, "an injected loss")

    def _crash(self) -> None:
        self.crashed = True
        raise SimulatedCrash


_NO_EFFECT = {StoreFaultKind.FAIL, StoreFaultKind.LOST_BEFORE, StoreFaultKind.LATE, StoreFaultKind.TRUNCATED}


def _first_of(items: Iterator[Result]) -> Iterator[Result]:
    for item in items:
        yield item
        return
