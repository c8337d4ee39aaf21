"""Hooks that stand between an ingest and the hooks of its caller."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.events import FileDone, emit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud_optimized_dicom.events import Event, Hook


class HookFailedError(Exception):
    """A hook raised `error`: nothing that became of a file."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


@contextmanager
def told_of_hooks() -> Iterator[None]:
    """Raise what a hook has raised in the block, as it is."""
    try:
        yield
    except HookFailedError as failure:
        raise failure.error from None


class OneAtATime:
    """Hooks that are called from several threads, one call at a time.

    Notes
    -----
    What one raises leaves as `HookFailedError` where it could be taken for an error of the file or series at hand.
    """

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks, self._mutex = tuple(hooks), threading.Lock()

    def __call__(self, event: Event, /) -> None:
        """Pass an event on, once the one before has been heard."""
        with self._mutex:
            try:
                emit(self._hooks, event)
            except (CODError, OSError, ValueError) as error:
                raise HookFailedError(error) from error


class NotFiles:
    """Passes on all events but those of single files, which are told once their series is committed."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = hooks

    def __call__(self, event: Event, /) -> None:
        """Pass an event on, unless it is of a file."""
        if not isinstance(event, FileDone):
            emit(self._hooks, event)
