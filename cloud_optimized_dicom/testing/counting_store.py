"""A store that keeps account of what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cloud_optimized_dicom.storage.base import ReadResult
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """One operation that was asked for, whether or not it succeeded.

    Parameters
    ----------
    operation
        The verb.
    name
        The object's, or the prefix of a list.
    bytes_up, bytes_down
        Object bytes that were sent, and that were received so far; names, states and headers are not counted.
    """

    operation: str
    name: str
    bytes_up: int
    bytes_down: int


class CountingStore(InterceptingStore):
    """Another store, and what was asked of it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._asked: list[_Entry] = []

    @property
    def records(self) -> tuple[StoreRecord, ...]:
        """One record per operation since the last reset, in the order in which they began."""
        return tuple(
            StoreRecord(entry.operation.kind, entry.operation.name, entry.operation.bytes_up, entry.bytes_down)
            for entry in self._asked
        )

    @property
    def operations(self) -> tuple[str, ...]:
        """The verbs of the records."""
        return tuple(record.operation for record in self.records)

    @property
    def bytes_up(self) -> int:
        """Object bytes sent since the last reset."""
        return sum(record.bytes_up for record in self.records)

    @property
    def bytes_down(self) -> int:
        """Object bytes received since the last reset."""
        return sum(record.bytes_down for record in self.records)

    def reset(self) -> None:
        """Forget all records."""
        self._asked = []

    def _begin(self, operation: Operation) -> _Entry:
        entry = _Entry(operation)
        self._asked.append(entry)
        return entry

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Count, then act."""
        entry = self._begin(operation)
        result = act()
        entry.bytes_down += _bytes_in(result)
        return result

    def around_iterator(self, operation: Operation, act: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """Count what is consumed."""
        entry = self._begin(operation)
        for item in act():
            entry.bytes_down += _bytes_in(item)
            yield item


@dataclass(slots=True)
class _Entry:
    operation: Operation
    bytes_down: int = 0


def _bytes_in(result: Any) -> int:
    if isinstance(result, ReadResult):
        return len(result.data)
    return len(result) if isinstance(result, bytes) else 0
