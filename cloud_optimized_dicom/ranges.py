"""Half-open byte ranges, the only range type of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes from `start` up to but not including `stop`.

    Raises
    ------
    ValueError
        If `start` is negative or behind `stop`.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a byte range: {self.start} to {self.stop}")

    @classmethod
    def of(cls, start: int, length: int) -> ByteRange:
        """Return the range of `length` bytes from `start`."""
        return cls(start, start + length)

    def __len__(self) -> int:
        return self.stop - self.start

    def shifted(self, by: int) -> ByteRange:
        """Return the same range, `by` bytes further on."""
        return ByteRange(self.start + by, self.stop + by)

    def __contains__(self, other: object) -> bool:
        return isinstance(other, ByteRange) and self.start <= other.start and other.stop <= self.stop


class Coalesced(NamedTuple):
    """One range to fetch, and the positions (in the caller's list) of the ranges that it covers."""

    span: ByteRange
    members: tuple[int, ...]


def coalesce(ranges: Sequence[ByteRange], max_gap_bytes: int) -> list[Coalesced]:
    """Join ranges that lie at most `max_gap_bytes` apart, in ascending order; overlaps are fetched once."""
    joined: list[tuple[ByteRange, list[int]]] = []
    for position, item in sorted(enumerate(ranges), key=lambda pair: pair[1]):
        if joined and item.start - joined[-1][0].stop <= max_gap_bytes:
            span, members = joined[-1]
            members.append(position)
            joined[-1] = (ByteRange(span.start, max(span.stop, item.stop)), members)
        else:
            joined.append((item, [position]))
    return [Coalesced(span, tuple(members)) for span, members in joined]


def total_bytes(ranges: Iterable[ByteRange]) -> int:
    """Return the sum of the lengths; overlaps count twice."""
    return sum(len(item) for item in ranges)
