"""What the server saw: one record per HTTP request, in the order of arrival."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One HTTP request.

    Parameters
    ----------
    method
        ``"GET"`` ...
    operation
        ``"objects.compose"`` ...
    bucket, object_name
        The target's, in a copy; empty where there is none.
    status
        What was answered; 0 where nothing was (yet).
    outcome
        The status that the operation came to, whether or not it was answered; 0 where it did not run (yet).
    bytes_in, bytes_out
        Of the bodies; what was handed to the network, which may be more than the client read.
    fault
        The kind of fault that befell it, or empty.
    """

    method: str
    operation: str
    bucket: str
    object_name: str
    status: int
    outcome: int
    bytes_in: int
    bytes_out: int
    fault: str


@dataclass(slots=True)
class Entry:
    """A record that is still being written."""

    method: str
    operation: str = ""
    bucket: str = ""
    object_name: str = ""
    status: int = 0
    outcome: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    fault: str = ""


class Recorder:
    """Keeps the records of all requests since the last reset."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def begin(self, method: str) -> Entry:
        """Return the record of a request that has just arrived."""
        entry = Entry(method)
        with self._lock:
            self._entries.append(entry)
        return entry

    def reset(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries = []

    def as_json(self) -> list[dict[str, Any]]:
        """Return every record as the fields of a :class:`RequestRecord`."""
        with self._lock:
            return [asdict(entry) for entry in self._entries]
