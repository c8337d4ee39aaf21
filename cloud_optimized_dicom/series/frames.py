"""Frames of stored instances: the table that vouches for them, and their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.dicom.frames import build_frame_table
from cloud_optimized_dicom.dicom.source import open_source
from cloud_optimized_dicom.errors import FrameNotFoundError, FrameTableError, HashMismatchError
from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES, join_items
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.model import FrameTable, InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader


class FrameReader:
    """The frames of a series, by the tables in its records."""

    def __init__(self, reader: SeriesReader) -> None:
        self._reader = reader
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
            with self._reader.open_instance(record) as stream:
                self._rebuilt[known] = build_frame_table(stream, self._name(record))
        return self._rebuilt[known]

    def read(self, record: InstanceRecord, frames: Sequence[int] | None = None) -> list[bytes]:
        """Read frames (0-based; None: all) as stored: encoded, fragments joined.

        Notes
        -----
        One request per frame, of exactly its bytes (and the 8 of its first item header where it has several fragments).
        Frames of a deflated instance need the whole instance, once.

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
        read = self._reader.read_spans if table.rangeable else self._read_inflated
        pieces = read(record, spans)
        return [self._checked(record, table, frame, piece) for frame, piece in zip(wanted, pieces, strict=True)]

    def _read_inflated(self, record: InstanceRecord, spans: Sequence[ByteRange]) -> list[bytes]:
        with self._reader.open_instance(record) as stream, open_source(stream, self._name(record)) as source:
            return [source.reader.read(span.start, len(span)) for span in spans]

    def _checked(self, record: InstanceRecord, table: FrameTable, frame: int, piece: bytes) -> bytes:
        fragments = _fragments(table, frame)
        frame_bytes = piece if fragments == 1 else piece[HEADER_BYTES:]
        if table.crc32cs is not None:
            found, expected = checksum.crc32c(frame_bytes), table.crc32cs[frame]
            if found != expected:
                encoded = checksum.encode(expected), checksum.encode(found)
                raise HashMismatchError(self._reader.tar_uri, f"{record.name_uid}, frame {frame}", *encoded)
        if fragments == 1:
            return piece
        try:
            return join_items(piece, fragments)
        except ValueError as error:
            raise FrameTableError(self._name(record), f"frame {frame}: {error}") from error

    def _name(self, record: InstanceRecord) -> str:
        return f"instance {record.name_uid} of {self._reader.tar_uri}"


def _fragments(table: FrameTable, frame: int) -> int:
    return table.fragment_counts[frame] if table.fragment_counts else 1


def _fetched(table: FrameTable, frame: int, instance_uid: str) -> ByteRange:
    span = table.span(frame, instance_uid)
    return span if _fragments(table, frame) == 1 else ByteRange(span.start - HEADER_BYTES, span.stop)
