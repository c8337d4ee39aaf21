"""A store that is far away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")


class LatencyStore(InterceptingStore):
    """Another store, every operation of which takes at least so many seconds longer."""

    def __init__(self, inner: ObjectStore, seconds: float) -> None:
        super().__init__(inner)
        self._seconds = seconds

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Wait, then act."""
        time.sleep(self._seconds)
        return super().around(operation, act)
