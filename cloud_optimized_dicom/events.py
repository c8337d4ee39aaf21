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
    """So many files are known by now, and of how many bytes as far as their listing told; `complete`: these are all."""

    files: int
    size_bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class FileDone:
    """The fate of one file is known.

    Parameters
    ----------
    outcome
        Of a `Datastore.ingest`: final, a new file is committed.  Of a `CODObject.append`: a new one is staged.
    study_uid, series_uid, instance_uid
        Of the file; None where it could not be read far enough.
    reason
        Why it was not stored; None for the outcomes "new" and "same".
    """

    uri: str
    outcome: Outcome
    size_bytes: int
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceRecompressed:
    """What became of the recompression of a new instance.

    Parameters
    ----------
    reason
        ``"recompressed"``; or why the file is stored as it was given: ``"not smaller"``, ``"lossy"``,
        ``"unsupported"``, ``"mismatch"``.
    saved_bytes
        How much smaller it is now.
    detail
        Why, in a line, where it is stored as it was given.
    """

    uri: str
    reason: str
    saved_bytes: int = 0
    detail: str = ""


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


@dataclass(frozen=True, slots=True)
class ExportPlanned:
    """A series was looked into: so many files of it, of so many bytes, are to be fetched; `present` are there."""

    series_uri: str
    files: int
    size_bytes: int
    present: int
    present_bytes: int


@dataclass(frozen=True, slots=True)
class BytesExported:
    """So many bytes of files that are on their way have arrived."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileExported:
    """One file was fetched, verified, and is at `path` now; or was not, and `error` says why."""

    uri: str
    path: str
    size_bytes: int
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class SeriesExported:
    """Nothing more is done for a series in this export; `failed` of its files could not be had."""

    series_uri: str
    written: int
    present: int
    failed: int


Event = (
    IngestPlanned
    | FileDone
    | InstanceRecompressed
    | HeaderProblem
    | SeriesCommitted
    | ExportPlanned
    | BytesExported
    | FileExported
    | SeriesExported
)


class Hook(Protocol):
    """Something that wants to know.  It is called in the working thread: be quick, and do not raise."""

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""
        ...


def emit(hooks: Iterable[Hook], event: Event) -> None:
    """Tell every hook."""
    for hook in hooks:
        hook(event)
