"""Frames of stored instances: the table that vouches for them, and their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.dicom.frames import build_frame_table
from cloud_optimized_dicom.dicom.source import open_source
from cloud_optimized_dicom.errors import FrameNotFoundError, FrameTableError, HashMismatchError
from cloud_optimized_dicom.format.dicom_json import first_value
from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES, join_items
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_optimized_dicom.model import FrameTable, InstanceRecord
    from cloud_optimized_dicom.ranges import FetchPolicy
    from cloud_optimized_dicom.series.staged_reads import InstanceReader


_TRANSFER_SYNTAX = "00020010"


class FrameReader:
    """The frames of a series, by the tables in its records."""

    def __init__(self, reader: InstanceReader) -> None:
        self.reader = reader
        self._rebuilt: dict[tuple[str, int], FrameTable | None] = {}

    def table(self, record: InstanceRecord) -> FrameTable | None:
        """Return where an instance's frames lie; None without pixel data.

        Notes
        -----
        A table of an older writer is not believed: it is built anew from the element and item headers in the tar, a few
        small reads, and kept.
        """
        if not record.has_pixeldata:
            return None
        if record.frame_table is not None and record.frame_table.trusted:
            return record.frame_table
        known = (record.name_uid, record.crc32c)
        if known not in self._rebuilt:
            with self.reader.open_instance(record) as stream:
                self._rebuilt[known] = build_frame_table(stream, self._name(record))
        return self._rebuilt[known]

    def transfer_syntax(self, record: InstanceRecord, header: Mapping[str, Any]) -> str:
        """Return how an instance is encoded; from its file, where the header has no file meta information."""
        named = first_value(header, _TRANSFER_SYNTAX)
        if named is not None:
            return str(named)
        with self.reader.open_instance(record) as stream, open_source(stream, self._name(record)) as source:
            return source.transfer_syntax_uid

    def read(
        self, record: InstanceRecord, frames: Sequence[int] | None = None, *, verify_checksums: bool = True
    ) -> list[bytes]:
        """Read frames (0-based; None: all) as stored: encoded, fragments joined.

        Notes
        -----
        One frame is one request of exactly its bytes (and the 8 of its first item header where it has several
        fragments); of many, those that lie close together come in one request, and requests run in parallel.  Frames of
        a deflated instance need the whole instance, once.

        Raises
        ------
        FrameNotFoundError
            If there is no such frame.
        HashMismatchError
            If a frame's bytes are not those that were stored, where the table has checksums.
        FrameTableError
            If a frame's fragments are not where the table says.
        """
        table = self.table(record)
        if table is None:
            raise FrameNotFoundError(record.name_uid, frames[0] if frames else 0, 0)
        wanted = list(range(len(table)) if frames is None else frames)
        spans = [_fetched(table, frame, record.name_uid) for frame in wanted]
        read = self.reader.read_spans if table.rangeable else self._read_inflated
        pieces = read(record, spans)
        if verify_checksums:
            for frame, piece in zip(wanted, pieces, strict=True):
                self._verify(record, table, frame, piece)
        return [self._joined(record, table, frame, piece) for frame, piece in zip(wanted, pieces, strict=True)]

    def read_each(
        self,
        wanted: Sequence[tuple[InstanceRecord, int]],
        take: Callable[[int, bytes], None],
        policy: FetchPolicy | None = None,
    ) -> None:
        """Read frames of several instances, handing each over as it arrives: its position in `wanted` and its bytes.

        Notes
        -----
        As `SeriesReader.read_each`: from several threads, in any order, perhaps twice.  Frames are verified and joined
        as by :meth:`read`.
        """
        ranged: list[tuple[int, FrameTable]] = []
        inflated: dict[str, list[int]] = {}
        for position, (record, _) in enumerate(wanted):
            table = self.table(record)
            if table is not None and table.rangeable:
                ranged.append((position, table))
            else:
                inflated.setdefault(record.name_uid, []).append(position)
        for positions in inflated.values():
            pieces = self.read(wanted[positions[0]][0], [wanted[position][1] for position in positions])
            for position, piece in zip(positions, pieces, strict=True):
                take(position, piece)

        def check(index: int, piece: bytes) -> None:
            position, table = ranged[index]
            record, frame = wanted[position]
            self._verify(record, table, frame, piece)
            take(position, self._joined(record, table, frame, piece))

        spans = [
            (wanted[position][0], _fetched(table, wanted[position][1], wanted[position][0].name_uid))
            for position, table in ranged
        ]
        self.reader.read_each(spans, check, policy)

    def _read_inflated(self, record: InstanceRecord, spans: Sequence[ByteRange]) -> list[bytes]:
        with self.reader.open_instance(record) as stream, open_source(stream, self._name(record)) as source:
            return [source.reader.read(span.start, len(span)) for span in spans]

    def _verify(self, record: InstanceRecord, table: FrameTable, frame: int, piece: bytes) -> None:
        if table.crc32cs is None:
            return
        found = checksum.crc32c(piece if _fragments(table, frame) == 1 else piece[HEADER_BYTES:])
        expected = table.crc32cs[frame]
        if found != expected:
            encoded = checksum.encode(expected), checksum.encode(found)
            raise HashMismatchError(self.reader.tar_uri, f"{record.name_uid}, frame {frame}", *encoded)

    def _joined(self, record: InstanceRecord, table: FrameTable, frame: int, piece: bytes) -> bytes:
        fragments = _fragments(table, frame)
        if fragments == 1:
            return piece
        try:
            return join_items(piece, fragments)
        except ValueError as error:
            raise FrameTableError(self._name(record), f"frame {frame}: {error}") from error

    def _name(self, record: InstanceRecord) -> str:
        return f"instance {record.name_uid} of {self.reader.tar_uri}"


def _fragments(table: FrameTable, frame: int) -> int:
    return table.fragment_counts[frame] if table.fragment_counts else 1


def _fetched(table: FrameTable, frame: int, instance_uid: str) -> ByteRange:
    span = table.span(frame, instance_uid)
    return span if _fragments(table, frame) == 1 else ByteRange(span.start - HEADER_BYTES, span.stop)
