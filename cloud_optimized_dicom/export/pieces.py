"""Which bytes of a tar come in one request: small instances together, large ones in parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.ranges import ByteRange, FetchPolicy, coalesce

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.model import InstanceRecord

PIECE_BYTES = 8 << 20
"""What one worker fetches and holds at a time."""

_PLANNING = FetchPolicy(max_request_bytes=PIECE_BYTES)
ONE_REQUEST = FetchPolicy(max_gap_bytes=PIECE_BYTES, max_waste=PIECE_BYTES, max_request_bytes=PIECE_BYTES)
"""What was planned as one piece stays one."""


class Part(NamedTuple):
    """A range of one instance's file; a small instance is one part."""

    record: InstanceRecord
    span: ByteRange

    @property
    def number(self) -> int:
        """Which part of its instance it is, from 0."""
        return self.span.start // PIECE_BYTES


Piece = tuple[Part, ...]
"""What one request fetches: neighbours in the tar, in its order."""


def part_count(size: int) -> int:
    """Return in how many parts an instance of `size` bytes comes."""
    return max(1, -(-size // PIECE_BYTES))


def plan_pieces(records: Iterable[InstanceRecord]) -> list[Piece]:
    """Return the pieces that fetch some instances, in the order of the tar."""
    # Headers and frame tables are most of a record, and nobody needs them any more.
    light = [replace(record, packed_header="", frame_table=None) for record in records]
    small = [record for record in light if record.size <= PIECE_BYTES]
    pieces = [
        tuple(Part(small[at], ByteRange(0, small[at].size)) for at in group.members)
        for group in coalesce([record.span for record in small], _PLANNING)
    ]
    pieces += [(part,) for record in light if record.size > PIECE_BYTES for part in _iter_parts(record)]
    return sorted(pieces, key=lambda piece: piece[0].record.start + piece[0].span.start)


def _iter_parts(record: InstanceRecord) -> Iterator[Part]:
    for start in range(0, record.size, PIECE_BYTES):
        yield Part(record, ByteRange(start, min(record.size, start + PIECE_BYTES)))
