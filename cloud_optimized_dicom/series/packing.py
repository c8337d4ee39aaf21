"""A new tar, planned as payloads: what is kept of the old one, what is new, and every CRC32C before a byte is read."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.format.metadata.record import dump_record, moved
from cloud_optimized_dicom.format.tar import BLOCK_BYTES, member_header, padded, padding_bytes
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.files import RangeFile
from cloud_optimized_dicom.storage.payload import BytesPayload, ChainPayload, Cut
from cloud_optimized_dicom.uids import member_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload

SEGMENT_BYTES = 256 << 20
"""How large a staged segment gets before the next one starts, where several can go up at a time."""

MAX_SEGMENTS = 31
"""One of the 32 sources of a concatenation is the tar itself."""

_WINDOW_BYTES = 8 << 20
_WINDOWS_KEPT = 2
_LEAST_CUT_BYTES = 8 << 20


@dataclass(frozen=True)
class NewMember:
    """An instance on its way in.

    Parameters
    ----------
    record
        Complete but for its place in the tar.
    payload
        The DICOM file.
    """

    record: InstanceRecord
    payload: Payload


@dataclass(frozen=True)
class Packed:
    """Members laid out in a tar: the bytes as parts of about a segment each, and the records with their places."""

    segments: tuple[Payload, ...]
    records: Mapping[str, dict[str, Any]]


class TarWindow(threading.local):
    """The old tar, read from front to back in blocks however many slices of it are asked for.

    Notes
    -----
    Each thread has a window of its own: segments go up side by side, and each is read once.
    """

    def __init__(self, store: ObjectStore, name: str, version: str | None, size: int) -> None:
        super().__init__()
        self._store, self._name, self._version, self._size = store, name, version, size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, span: ByteRange) -> bytes:
        """Return the bytes of a span of at most a few blocks."""
        first, last = span.start // _WINDOW_BYTES, max(span.start, span.stop - 1) // _WINDOW_BYTES
        pieces = [self._piece(number, span) for number in range(first, last + 1)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, number: int, span: ByteRange) -> bytes:
        start = number * _WINDOW_BYTES
        return self._block(number)[max(0, span.start - start) : span.stop - start]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            span = ByteRange(number * _WINDOW_BYTES, min(self._size, (number + 1) * _WINDOW_BYTES))
            if len(self._blocks) >= _WINDOWS_KEPT:
                self._blocks.popitem(last=False)
            self._blocks[number] = self._store.read(self._name, span, version=self._version)
        return self._blocks[number]


@dataclass(frozen=True)
class SlicePayload:
    """A range of the old tar whose CRC32C is on record: damage is found by the store that receives it."""

    window: TarWindow = field(repr=False)
    span: ByteRange
    crc32c: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.span)

    def open(self) -> BinaryIO:
        """Return a new reader."""
        start = self.span.start
        raw = RangeFile(lambda part: self.window.read(part.shifted(start)), self.size, 1 << 20)
        return io.BufferedReader(raw, 1 << 20)


@dataclass(frozen=True, slots=True)
class MemberPayload:
    """One whole member: header block, the file, zeros up to the next block.

    Notes
    -----
    Holds none of these: a series has tens of thousands of members.
    """

    name: str
    data: Payload

    @property
    def size(self) -> int:
        """Length in bytes."""
        return BLOCK_BYTES + padded(self.data.size)

    @property
    def crc32c(self) -> int:
        """CRC32C of all bytes; the file's own is on record."""
        return self._chain().crc32c

    def open(self) -> BinaryIO:
        """Return a new reader."""
        return self._chain().open()

    def _chain(self) -> ChainPayload:
        header = BytesPayload(member_header(self.name, self.data.size))
        zeros = padding_bytes(self.data.size)
        parts = (header, self.data, BytesPayload(bytes(zeros))) if zeros else (header, self.data)
        return ChainPayload(parts)


def member_payload(record: InstanceRecord, data: Payload) -> MemberPayload:
    """Return the member that an instance becomes."""
    return MemberPayload(member_name(record.name_uid), data)


def pack_new(members: Iterable[NewMember], start: int, segment_bytes: int | None = SEGMENT_BYTES) -> Packed:
    """Lay out new members from `start` (a multiple of 512) of the tar."""
    payloads: list[Payload] = []
    records: dict[str, dict[str, Any]] = {}
    for member in members:
        record = replace(member.record, start=start + BLOCK_BYTES)
        payload = member_payload(record, member.payload)
        records[record.name_uid] = dump_record(record)
        payloads.append(payload)
        start += payload.size
    return Packed(segmented(payloads, segment_bytes), records)


def pack_kept(
    kept: Sequence[tuple[InstanceRecord, Mapping[str, Any]]], window: TarWindow, at_hand: Mapping[str, Payload]
) -> tuple[list[Payload], dict[str, dict[str, Any]]]:
    """Lay out stored instances anew from 0: payloads in order, and the records with their new places.

    Parameters
    ----------
    kept
        In the order that they are to have.
    window
        The old tar, for those whose bytes are nowhere else.
    at_hand
        The bytes of the others, by UID: the same, or those that come in their place.
    """
    payloads: list[Payload] = []
    records: dict[str, dict[str, Any]] = {}
    start = 0
    for record, raw in kept:
        data = at_hand.get(record.name_uid) or SlicePayload(window, record.span, record.crc32c)
        payload = member_payload(record, data)
        records[record.name_uid] = moved(raw, start + BLOCK_BYTES)
        payloads.append(payload)
        start += payload.size
    return payloads, records


def segmented(payloads: Iterable[Payload], segment_bytes: int | None = SEGMENT_BYTES) -> tuple[Payload, ...]:
    """Group payloads, in order, into at most 31 segments of about one size, `segment_bytes` where that suffices.

    Parameters
    ----------
    segment_bytes
        A payload that is more than twice as large is cut.  None: one segment.
    """
    payloads = list(payloads)
    if segment_bytes is None:
        return (ChainPayload(tuple(payloads)),) if payloads else ()
    total = sum(payload.size for payload in payloads)
    count = min(MAX_SEGMENTS, max(1, -(-total // segment_bytes)))
    limit = max(segment_bytes, -(-total // count))
    groups: list[list[Payload]] = [[] for _ in range(count)]
    start = 0
    for payload in chain.from_iterable(_cut(whole, limit) for whole in payloads):
        # Where its middle would lie if all segments were of one size.
        groups[min(count - 1, (2 * start + payload.size) * count // max(1, 2 * total))].append(payload)
        start += payload.size
    return tuple(ChainPayload(tuple(group)) for group in groups if group)


def _cut(payload: Payload, limit: int) -> Sequence[Payload]:
    worthwhile = payload.size > 2 * max(limit, _LEAST_CUT_BYTES)
    return Cut(payload, limit).pieces if worthwhile else (payload,)
