"""The new file: the surroundings of the pixel data, an offset table, one fragment a frame (PS3.5 section A.4)."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.format.offsets.extended import item_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloud_optimized_dicom.dicom.transcode.dataset import Piece, Surroundings
    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

BASIC_TABLE_LIMIT_BYTES = 1 << 32
"""From this size on, an offset may not fit the 32 bits of a Basic Offset Table."""

_LONG_ELEMENT = struct.Struct("<HH2s2xL")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


class TooLargeError(Exception):
    """The new file would not be smaller than it has to be."""


class Assembler:
    """Writes one file: :meth:`begin`, :meth:`add` for every frame in order, :meth:`finish`.

    Parameters
    ----------
    target
        Seekable, empty; positioned at its end afterwards.
    reader
        The source, for what is copied.
    frames
        How many there will be.
    extended
        Whether to write an Extended Offset Table and leave the basic one empty (PS3.3 section C.7.6.3.1.8).
    limit_bytes
        The file must become smaller than this.

    Notes
    -----
    Room for the table is left before the frames and filled at the end, so nothing is kept but 16 bytes a frame.
    Every method raises `TooLargeError` as soon as the file cannot become small enough.
    """

    def __init__(
        self, target: BinaryIO, reader: PositionedReader, *, frames: int, extended: bool, limit_bytes: int
    ) -> None:
        self._target = target
        self._reader = reader
        self._frames = frames
        self._extended = extended
        self._limit_bytes = limit_bytes
        self._table_position = 0
        self._offsets = array("Q")
        self._lengths = array("Q")
        self._next = 0
        self._tail: Sequence[Piece] = ()
        self._written = 0
        self._reserved = 0

    def begin(self, surroundings: Surroundings) -> None:
        """Write everything before the first frame."""
        self._tail = surroundings.tail
        self._reserved = sum(map(len, self._tail)) + len(_SEQUENCE_END)
        self._copy(surroundings.head)
        self._table_position = self._written
        self._write(self._table())

    def add(self, frame: bytes) -> None:
        """Write a frame as an item, padded to an even length."""
        padded = len(frame) + len(frame) % 2
        self._offsets.append(self._next)
        self._lengths.append(len(frame))
        self._write(item_header(padded))
        self._write(frame)
        self._write(bytes(padded - len(frame)))
        self._next += 8 + padded

    def finish(self) -> None:
        """Write everything behind the last frame, and the offset table."""
        self._reserved = 0
        self._write(_SEQUENCE_END)
        self._copy(self._tail)
        self._target.seek(self._table_position)
        self._target.write(self._table())
        self._target.seek(self._written)

    def _table(self) -> bytes:
        """Return the offset tables and the start of the pixel data; zeros for what is not known yet."""
        missing = [0] * (self._frames - len(self._offsets))
        offsets, lengths = [*self._offsets, *missing], [*self._lengths, *missing]
        pixels = _LONG_ELEMENT.pack(0x7FE0, 0x0010, b"OB", _UNDEFINED_LENGTH)
        if not self._extended:
            table = struct.pack(f"<{self._frames}L", *offsets)
            return pixels + item_header(len(table)) + table
        form = f"<{self._frames}Q"
        return b"".join(
            (
                _LONG_ELEMENT.pack(0x7FE0, 0x0001, b"OV", self._frames * 8) + struct.pack(form, *offsets),
                _LONG_ELEMENT.pack(0x7FE0, 0x0002, b"OV", self._frames * 8) + struct.pack(form, *lengths),
                pixels,
                item_header(0),
            )
        )

    def _copy(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                self._write(piece)
            else:
                for chunk in self._reader.iter_chunks(piece.start, piece.stop):
                    self._write(chunk)

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        if self._written + self._reserved >= self._limit_bytes:
            raise TooLargeError
        self._target.write(data)
