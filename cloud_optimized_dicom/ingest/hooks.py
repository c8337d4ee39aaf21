"""Hooks that stand between an ingest and the hooks of its caller."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cloud_optimized_dicom.events import FileDone, emit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.events import Event, Hook


class OneAtATime:
    """Hooks that are called from several threads, one call at a time."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks, self._mutex = tuple(hooks), threading.Lock()

    def __call__(self, event: Event, /) -> None:
        """Pass an event on, once the one before has been heard."""
        with self._mutex:
            emit(self._hooks, event)


class NotFiles:
    """Passes on all events but those of single files, which are told once their series is committed."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = hooks

    def __call__(self, event: Event, /) -> None:
        """Pass an event on, unless it is of a file."""
        if not isinstance(event, FileDone):
            emit(self._hooks, event)
