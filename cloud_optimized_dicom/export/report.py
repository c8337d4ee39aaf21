"""What an export did, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ExportFailure(NamedTuple):
    """What was not exported, by the URI of its instance, tar or series, and why."""

    uri: str
    error: Exception


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Parameters
    ----------
    series
        How many series were looked into.
    written, written_bytes
        Files that are new or were replaced.
    present, present_bytes
        Files that were there already, equal to what is stored.
    removed
        Instances that another process removed from their series before they could be read.
    failures
        What was not exported.  A series that fails as a whole is one entry.
    not_found
        UIDs that were asked for and that nothing has.
    """

    series: int
    written: int
    written_bytes: int
    present: int
    present_bytes: int
    removed: int
    failures: tuple[ExportFailure, ...]
    not_found: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that was asked for is there."""
        return not self.failures and not self.not_found
