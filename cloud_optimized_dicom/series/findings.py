"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "metadata-missing",
    "metadata-damaged",
    "tar-missing",
    "tar-too-short",
    "tar-changed",
    "member-mismatch",
    "checksum-mismatch",
    "content-mismatch",
    "frame-table-legacy",
    "frame-table-damaged",
    "end-blocks-inside",
    "orphan-member",
    "pending-leftover",
    "lock-present",
    "error-log",
    "no-instances",
    "legacy-index",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or odd.

    Parameters
    ----------
    kind
        What it is.
    subject
        The object or instance UID it is about.
    detail
        One line for people, without header values.
    damage
        True where bytes are wrong or missing; False for what is merely odd (an older writer's offset table, a lock).
    """

    kind: Kind
    subject: str
    detail: str
    damage: bool


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification of one series found; `instances` and `bytes_checked` say how far it went."""

    series_uri: str
    instances: int
    bytes_checked: int
    findings: tuple[Finding, ...]

    @property
    def damaged(self) -> bool:
        """Whether anything is wrong with the bytes."""
        return any(finding.damage for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether there is nothing to say."""
        return not self.findings
