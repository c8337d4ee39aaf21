"""How often and how long failures that may pass are borne."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.errors import StorageError, TransientStorageError
from cloud_optimized_dicom.storage.retry import RetryBudget, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

FAST = RetryPolicy(initial_seconds=0.0001, maximum_seconds=0.0002)


def failing(times: int, error: StorageError) -> tuple[list[int], Callable[[], int]]:
    """Return a log and an operation that fails so many times, then returns 42."""
    log: list[int] = []

    def operation() -> int:
        log.append(len(log))
        if len(log) <= times:
            raise error
        return 42

    return log, operation


def test_transient_failures_are_repeated() -> None:
    """An operation is called until it succeeds."""
    log, operation = failing(3, TransientStorageError("x", "busy"))
    assert replace(FAST, attempts=4).call(operation) == 42
    assert len(log) == 4


def test_attempts_are_bounded() -> None:
    """After the last attempt the failure itself is raised."""
    log, operation = failing(9, TransientStorageError("x", "busy"))
    with pytest.raises(TransientStorageError, match="busy"):
        replace(FAST, attempts=3).call(operation)
    assert len(log) == 3


def test_time_is_bounded() -> None:
    """No pause begins that would end past the bound."""
    log, operation = failing(9, TransientStorageError("x", "busy"))
    with pytest.raises(TransientStorageError):
        RetryPolicy(initial_seconds=100, total_seconds=1).call(operation)
    assert len(log) == 1


def test_other_failures_are_not_repeated() -> None:
    """An error that will not pass is raised at once."""
    log, operation = failing(9, StorageError("x", "no"))
    with pytest.raises(StorageError):
        FAST.call(operation)
    assert len(log) == 1


def test_progress_restores_patience() -> None:
    """A budget that is restarted has all its attempts again."""
    budget = RetryBudget(replace(FAST, attempts=2))
    assert budget.pause()
    assert not budget.pause()
    budget.restart()
    assert budget.pause()
