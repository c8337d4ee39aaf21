"""The clock of a store: what its ``updated`` and ``served_at`` are told by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present instant, with its offset."""


def utc_now() -> datetime:
    """Return this machine's present instant."""
    return datetime.now(UTC)
