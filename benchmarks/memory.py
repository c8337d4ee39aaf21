"""The memory that a process and those that it started hold together."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_SAMPLE_SECONDS = 0.05


class MemorySampler:
    """Adds up the resident memory of a process and its descendants from time to time, while a block runs.

    Parameters
    ----------
    pid
        Of the process, which may end within the block.

    Notes
    -----
    Pages that processes share, those of libraries for example, are counted in each of them.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, resident_bytes(self._pid))


def peak_bytes_of(pid: int) -> int:
    """Return the most that a process, without its descendants, has held at a time; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    peak = status.partition("VmHWM:")[2].split()  # not ru_maxrss, which comes from the process that started it
    return int(peak[0]) << 10 if peak else 0


def resident_bytes(pid: int) -> int:
    """Return what a process and its descendants hold; 0 for one that has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
        children = [child for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()]
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident_bytes(int(child)) for child in children)
