"""Half-open byte ranges, the only range type of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


PARALLEL_READS = 32
"""How many requests of one read run at a time."""


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


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """When bytes that nobody asked for are cheaper than a request.

    Parameters
    ----------
    max_gap_bytes
        A gap up to this size may be fetched along, to save a request.
    max_waste
        All such gaps together stay below this share of the bytes that were asked for.
    max_request_bytes
        Neighbours are joined up to this size, so that there is something to do in parallel.
    max_parallel
        So many requests are under way at a time.
    """

    max_gap_bytes: int = 1 << 20
    max_waste: float = 0.25
    max_request_bytes: int = 16 << 20
    max_parallel: int = PARALLEL_READS


class Coalesced(NamedTuple):
    """One range to fetch, and the positions (in the caller's list) of the ranges that it covers."""

    span: ByteRange
    members: tuple[int, ...]


def coalesce(ranges: Sequence[ByteRange], policy: FetchPolicy) -> list[Coalesced]:
    """Plan the requests for some ranges, in ascending order: neighbours joined, overlaps fetched once.

    Notes
    -----
    The smallest gaps are closed first, as far as the policy's waste allows.  A single range is never split.
    """
    order = sorted(range(len(ranges)), key=lambda position: ranges[position])
    closed = _gaps_to_close([ranges[position] for position in order], policy)
    joined: list[tuple[ByteRange, list[int]]] = []
    for index, position in enumerate(order):
        item = ranges[position]
        if joined and index in closed:
            span, members = joined[-1]
            whole = ByteRange(span.start, max(span.stop, item.stop))
            if len(whole) <= policy.max_request_bytes or item in span:
                members.append(position)
                joined[-1] = (whole, members)
                continue
        joined.append((item, [position]))
    return [Coalesced(span, tuple(members)) for span, members in joined]


def _gaps_to_close(ordered: Sequence[ByteRange], policy: FetchPolicy) -> set[int]:
    """Return the indexes of the ranges that are fetched together with the one before."""
    gaps: list[tuple[int, int]] = []
    reach = 0
    for index, item in enumerate(ordered):
        gaps.append((max(0, item.start - reach), index))
        reach = max(reach, item.stop)
    allowed = sum(map(len, ordered)) * policy.max_waste
    closed: set[int] = set()
    for gap, index in sorted(gaps[1:]):
        allowed -= gap
        if gap > policy.max_gap_bytes or allowed < 0:
            break
        closed.add(index)
    return closed
