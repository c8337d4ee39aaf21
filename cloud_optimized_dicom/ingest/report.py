"""What an ingest did, file by file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    CommitUnknownError,
    LockAcquisitionError,
    LockVerificationError,
    SourceUnavailableError,
    StaleReadError,
    TransientStorageError,
    WriteUnknownError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.events import Outcome
    from cloud_optimized_dicom.uids import SeriesKey


_PASSING = (
    LockAcquisitionError,
    LockVerificationError,
    CommitUnknownError,
    StaleReadError,
    SourceUnavailableError,
    TransientStorageError,
    WriteUnknownError,
)


def is_retryable(error: Exception) -> bool:
    """Return whether the same may well succeed later: another writer was at it, or a store or source failed."""
    return isinstance(error, _PASSING)


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file.

    Parameters
    ----------
    series
        Where it belongs; None where it could not be read far enough to know.
    reason
        Why it was not stored (outcomes ``"error"`` and ``"conflict"``); never a header value.
    retryable
        Whether a later attempt may well store it: see :func:`is_retryable`.
    """

    uri: str
    outcome: Outcome
    series: SeriesKey | None = None
    instance_uid: str | None = None
    size_bytes: int = 0
    reason: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did, in the order of the sources.

    Parameters
    ----------
    recompressions
        How many new instances ended which way, where recompression was asked for: ``"recompressed"``,
        ``"not smaller"``, ``"lossy"``, ``"unsupported"``, ``"mismatch"``.
    saved_bytes
        How much smaller recompression made them, in all.
    """

    files: tuple[FileResult, ...]
    recompressions: Mapping[str, int] = field(default_factory=dict)
    saved_bytes: int = 0

    def count(self, outcome: Outcome) -> int:
        """Return how many files ended this way."""
        return sum(result.outcome == outcome for result in self.files)

    @property
    def errors(self) -> tuple[FileResult, ...]:
        """The files that were not stored."""
        return tuple(result for result in self.files if result.outcome == "error")

    @property
    def series(self) -> tuple[SeriesKey, ...]:
        """Every series that a file belongs to, in order of first appearance."""
        return tuple(dict.fromkeys(result.series for result in self.files if result.series is not None))
