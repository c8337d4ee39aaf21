"""How long a remote store is asked again after a failure that may pass."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cloud_optimized_dicom.errors import TransientStorageError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter, within a bound.

    Parameters
    ----------
    initial_seconds
        The first pause is between half of this and this; each further one is twice as long.
    maximum_seconds
        No pause is longer.
    total_seconds
        No pause begins that would end later than this after the first attempt.
    attempts
        At most so many attempts (None: as many as fit into the time).
    """

    initial_seconds: float = 0.5
    maximum_seconds: float = 30.0
    total_seconds: float = 180.0
    attempts: int | None = None

    def call(self, operation: Callable[[], Result]) -> Result:
        """Return what `operation` returns, called again as long as it raises `TransientStorageError`."""
        budget = RetryBudget(self)
        while True:
            try:
                return operation()
            except TransientStorageError:
                if not budget.pause():
                    raise


DEFAULT_RETRY = RetryPolicy()


class RetryBudget:
    """What is left of a policy for one operation."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.restart()

    def restart(self) -> None:
        """Start over, because there was progress."""
        self._started = time.monotonic()
        self._failures = 0

    def pause(self) -> bool:
        """Wait before the next attempt; False at once where there must be none."""
        self._failures += 1
        if self._policy.attempts is not None and self._failures >= self._policy.attempts:
            return False
        longest = min(self._policy.maximum_seconds, self._policy.initial_seconds * 2 ** min(self._failures - 1, 60))
        seconds = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads callers out, keeps no secret
        if time.monotonic() - self._started + seconds > self._policy.total_seconds:
            return False
        time.sleep(seconds)
        return True
