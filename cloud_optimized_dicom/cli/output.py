"""What the command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

_KIBI = 1024

PLAIN_SECONDS = 10.0
"""How long plain progress is silent at most, once something moves."""


class Meter(Protocol):
    """How far a long operation is; its methods may be called from any thread."""

    def expect(self, total: int, total_bytes: int | None = None) -> None:
        """Say how many steps there are, and of how many bytes if that is known; it may become more."""
        ...

    def advance(self, steps: int = 1, size_bytes: int = 0, *, series: int = 0) -> None:
        """Say that so much more is done, and how many series it was the first of."""
        ...

    def say(self, text: str) -> None:
        """Show a line."""
        ...


class Output:
    """Results for people as lines, or for programs as one JSON document.

    Parameters
    ----------
    json
        Whether the JSON document is all that stdout gets.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._bar: Meter | None = None

    def line(self, text: str) -> None:
        """Print a line for people."""
        if self.json:
            return
        if self._bar is not None and sys.stdout.isatty():
            self._bar.say(text)  # a line of its own would tear the bar
        else:
            sys.stdout.write(f"{printable(text)}\n")

    def note(self, text: str) -> None:
        """Print a line on stderr."""
        sys.stderr.write(f"{printable(text)}\n")

    def document(self, value: Any) -> None:
        """Print the JSON document, where that was asked for."""
        if self.json:
            sys.stdout.write(f"{json.dumps(value)}\n")

    @contextmanager
    def meter(self, label: str) -> Iterator[Meter]:
        """Show progress on stderr: a bar on a terminal, otherwise a plain line now and then."""
        console = Console(stderr=True)
        if not console.is_terminal:
            yield _Plain(label)
            return
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            _CountsColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # results belong to stdout, wherever it goes
            redirect_stderr=False,
        ) as progress:
            self._bar = _Bar(progress, label)
            try:
                yield self._bar
            finally:
                self._bar = None


class _Plain:
    """Lines on stderr, one now and then for what has no end of its own."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._mutex = threading.Lock()
        self._total, self._total_bytes = 0, 0
        self._done, self._done_bytes, self._series = 0, 0, 0
        self._start = self._told = time.monotonic()

    def expect(self, total: int, total_bytes: int | None = None) -> None:
        self._total, self._total_bytes = total, total_bytes or 0

    def advance(self, steps: int = 1, size_bytes: int = 0, *, series: int = 0) -> None:
        with self._mutex:
            self._done += steps
            self._done_bytes += size_bytes
            self._series += series
            now = time.monotonic()
            if now - self._told < PLAIN_SECONDS:
                return
            self._told = now
        rate = self._done_bytes / (now - self._start)
        left = (self._total_bytes - self._done_bytes) / rate if rate else None
        sizes = self._done_bytes, self._total_bytes
        self.say(f"{self._label}: {counts_text((self._done, self._total), sizes, rate, left, self._series)}")

    def say(self, text: str) -> None:
        sys.stderr.write(f"{printable(text)}\n")


class _CountsColumn(ProgressColumn):
    """Steps, series and, where they are known, bytes, rate and the time left."""

    def render(self, task: Task) -> Text:
        steps, series = (task.fields["done"], task.fields["steps"]), task.fields["series"]
        if not task.fields["total_bytes"]:
            return Text(counts_text(steps, series=series))
        done_bytes = int(task.completed), task.fields["total_bytes"]
        return Text(counts_text(steps, done_bytes, task.speed or 0, task.time_remaining, series))


class _Bar:
    """A bar of bytes as soon as those are known, else of steps."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._mutex = threading.Lock()
        self._done, self._done_bytes, self._series = 0, 0, 0
        self._total_bytes: int | None = None
        self._task = progress.add_task(label, total=None, done=0, steps=None, total_bytes=None, series=0)

    def expect(self, total: int, total_bytes: int | None = None) -> None:
        with self._mutex:
            self._total_bytes = total_bytes
        # `total` is the bar's own; a field of that name would be taken for it.
        self._show(total=total_bytes or total, steps=total, total_bytes=total_bytes)

    def advance(self, steps: int = 1, size_bytes: int = 0, *, series: int = 0) -> None:
        with self._mutex:
            self._done += steps
            self._done_bytes += size_bytes
            self._series += series
        self._show()

    def _show(self, **changes: Any) -> None:
        completed = self._done_bytes if self._total_bytes else self._done
        self._progress.update(self._task, completed=completed, done=self._done, series=self._series, **changes)

    def say(self, text: str) -> None:
        # Names may hold anything: no markup, no wrapping at the width of the terminal.
        self._progress.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def counts_text(
    steps: tuple[int, int | None],
    sizes_bytes: tuple[int, int] | None = None,
    bytes_per_second: float = 0,
    left_seconds: float | None = None,
    series: int = 0,
) -> str:
    """Return how far something is: (done, total) steps, series if there are any, bytes, rate, and the time left."""
    done, total = steps
    parts = [f"{done}/{'?' if total is None else total}"]
    if series:
        parts.append(count_text(series, "series"))
    if sizes_bytes is not None and sizes_bytes[1]:
        parts.append(f"{size_text(sizes_bytes[0])} of {size_text(sizes_bytes[1])}")
        if bytes_per_second:
            parts.append(f"{size_text(round(bytes_per_second))}/s")
        if left_seconds is not None:
            minutes, seconds = divmod(max(0, round(left_seconds)), 60)
            parts.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    return ", ".join(parts)


def printable(text: str) -> str:
    """Return one line that cannot steer a terminal: names in archives may hold escape sequences and line ends."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def size_text(size_bytes: int) -> str:
    """Return a size for people: three digits or so, in powers of 1024."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIBI:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size_bytes} B"
        size /= _KIBI
    return f"{size:.3g} TiB"


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where that is right."""
    return f"{count} {noun}" if count == 1 or noun == "series" else f"{count} {noun}s"
