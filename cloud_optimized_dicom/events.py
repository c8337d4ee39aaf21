"""What happens, as values: progress bars, metrics and logs hang off these, outside the code that does the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

Outcome = Literal["new", "same", "conflict", "error"]
"""What became of one file: stored, there already, stored differently before (that one stays), or not stored."""


@dataclass(frozen=True, slots=True)
class IngestPlanned:
    """All sources are known: how many files, in how many series."""

    files: int
    series: int


@dataclass(frozen=True, slots=True)
class FileDone:
    """One file was looked at and its fate decided (a new one becomes visible with its series' commit)."""

    uri: str
    outcome: Outcome
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HeaderProblem:
    """A header element could not be kept as it was; `problem` is ``"GGGGEEEE: reason"`` without values."""

    uri: str
    problem: str


@dataclass(frozen=True, slots=True)
class SeriesCommitted:
    """A commit of a series has become visible."""

    series_uri: str
    write_id: str
    instances: int
    tar_bytes: int


Event = IngestPlanned | FileDone | HeaderProblem | SeriesCommitted


class Hook(Protocol):
    """Something that wants to know.  It is called in the working thread: be quick, and do not raise."""

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""
        ...


def emit(hooks: Iterable[Hook], event: Event) -> None:
    """Tell every hook."""
    for hook in hooks:
        hook(event)
