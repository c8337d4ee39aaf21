"""What the command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

_KIBI = 1024


class Meter(Protocol):
    """How far a long operation is; its methods may be called from any thread."""

    def expect(self, total: int) -> None:
        """Say how many steps there are."""
        ...

    def advance(self) -> None:
        """Say that one step is done."""
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
        """Show progress on stderr: a bar on a terminal, plain lines otherwise."""
        console = Console(stderr=True)
        if not console.is_terminal:
            yield _Plain()
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # results belong to stdout, wherever it goes
            redirect_stderr=False,
        ) as progress:
            self._bar = _Bar(progress, label)
            yield self._bar
        self._bar = None


class _Plain:
    def expect(self, total: int) -> None:
        pass

    def advance(self) -> None:
        pass

    def say(self, text: str) -> None:
        sys.stderr.write(f"{printable(text)}\n")


class _Bar:
    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None)

    def expect(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def advance(self) -> None:
        self._progress.advance(self._task)

    def say(self, text: str) -> None:
        # Names may hold anything: no markup, no wrapping at the width of the terminal.
        self._progress.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


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
