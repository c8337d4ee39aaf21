"""How many bytes may be in flight, shared by threads."""

from __future__ import annotations

import threading


class ByteBudget:
    """A bound on bytes that are on their way.

    Parameters
    ----------
    limit_bytes
        More than this is admitted only alone, so that a piece larger than the limit passes too.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._changed = threading.Condition()

    def acquire(self, size_bytes: int, *, wait: bool) -> bool:
        """Take `size_bytes`; return whether it was possible, always true with `wait`.

        Notes
        -----
        Who holds some must not wait for more: it gives back first what it holds, or two such wait forever.
        """
        with self._changed:
            if not wait and not self._admits(size_bytes):
                return False
            self._changed.wait_for(lambda: self._admits(size_bytes))
            self._used_bytes += size_bytes
            return True

    def release(self, size_bytes: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._used_bytes -= size_bytes
            self._changed.notify_all()

    def _admits(self, size_bytes: int) -> bool:
        return self._used_bytes == 0 or self._used_bytes + size_bytes <= self._limit_bytes
