"""What can be made to go wrong, and which request it befalls."""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any


class FaultKind(StrEnum):
    """What happens to a request.

    Notes
    -----
    "Effect" is what the operation does to the stored objects; where it is said to happen, it happens only if the
    request's conditions hold at that moment.
    """

    STATUS = "status"
    """Answered with an HTTP status; no effect."""
    RESET = "reset"
    """The connection is reset; no effect."""
    LOST_RESPONSE = "lost_response"
    """The effect happens; the connection is closed without an answer."""
    TRUNCATED_BODY = "truncated_body"
    """The effect happens; the answer ends before its Content-Length."""
    STALL_BEFORE = "stall_before"
    """Nothing happens for some seconds, then everything as usual, whether or not the client still waits."""
    STALL_AFTER = "stall_after"
    """The effect happens; the answer comes some seconds later."""
    LATENCY = "latency"
    """Some seconds more; a name of its own for what is no failure."""
    LATE = "late"
    """The connection is closed at once; the effect happens some seconds later, or when it is released."""
    KILL_BEFORE = "kill_before"
    """A process is killed (SIGKILL); no effect."""
    KILL_AFTER = "kill_after"
    """The effect happens; a process is killed, then the connection closed without an answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with the requests that match.

    Parameters
    ----------
    kind
        What happens.
    operation
        A shell pattern of operation names, e.g. ``"objects.compose"``, ``"uploads.*"``.
    object_name
        A regular expression searched in the object's name (the target's, in a copy); None matches all.
    skip
        How many matching requests pass unharmed first.
    times
        How many are befallen after those; None: all.
    status
        Of kind STATUS.
    seconds
        Of the stalls, LATENCY and LATE; None leaves LATE to `release_late`.
    keep_bytes
        Of TRUNCATED_BODY: how much of the body is sent; None: half of it.
    pid
        Of the kills: the process.
    """

    kind: FaultKind
    operation: str = "*"
    object_name: str | None = None
    skip: int = 0
    times: int | None = 1
    status: int = 503
    seconds: float | None = None
    keep_bytes: int | None = None
    pid: int | None = None

    def __post_init__(self) -> None:
        if self.kind in {FaultKind.KILL_BEFORE, FaultKind.KILL_AFTER} and self.pid is None:
            raise ValueError(f"{self.kind} needs a pid")
        if self.kind in {FaultKind.STALL_BEFORE, FaultKind.STALL_AFTER, FaultKind.LATENCY} and not self.seconds:
            raise ValueError(f"{self.kind} needs seconds")
        try:
            re.compile(self.object_name or "")
        except re.error as error:
            raise ValueError(f"object_name is no regular expression: {error}") from None

    def matches(self, operation: str, object_name: str) -> bool:
        """Return whether a request is of the kind that this fault is for."""
        if not fnmatchcase(operation, self.operation):
            return False
        return self.object_name is None or re.search(self.object_name, object_name) is not None

    def as_json(self) -> dict[str, Any]:
        """Return what :meth:`parse` reads."""
        return asdict(self)

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Fault:
        """Return a fault from its JSON form.

        Raises
        ------
        ValueError, TypeError
            If it is none.
        """
        return cls(**(document | {"kind": FaultKind(str(document.get("kind")))}))


class FaultBook:
    """The faults that wait for their requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> None:
        """Arm a fault; earlier ones go first."""
        with self._lock:
            self._armed.append(_Armed(fault, fault.skip, fault.times))

    def clear(self) -> None:
        """Disarm all."""
        with self._lock:
            self._armed.clear()

    def take(self, operation: str, object_name: str) -> Fault | None:
        """Return what befalls a request.

        Notes
        -----
        Every armed fault counts the requests it matches.  Of several that are due, the first befalls this request and
        the others stay due.
        """
        with self._lock:
            due = None
            for armed in self._armed:
                if not armed.fault.matches(operation, object_name):
                    continue
                if armed.skip:
                    armed.skip -= 1
                else:
                    due = due or armed
            if due is None:
                return None
            if due.times is not None:
                due.times -= 1
                if due.times <= 0:
                    self._armed.remove(due)
            return due.fault


@dataclass(eq=False)
class _Armed:
    fault: Fault
    skip: int
    times: int | None
