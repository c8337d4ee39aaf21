"""One stored instance as a seekable file that fetches its header once and then whole frames."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from cloud_optimized_dicom.errors import FrameTableError
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.format.offsets.extended import item_header, plan_extended_head
from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.files import WHOLE_BYTES
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.read_checks import ReadChecks
from cloud_optimized_dicom.uids import member_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from cloud_optimized_dicom.model import FrameTable, InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader

OffsetTable = Literal["extended"]
"""Which offset table a file shows that has none of its own kind."""

_EXTENDED_TAGS = ("7FE00001", "7FE00002")
_EXTENDED_LENGTHS = b"\xe0\x7f\x02\x00OV"
_BUFFER_BYTES = 8 << 10
_BLOCK_BYTES = 256 << 10
_LARGEST_HEADER_BYTES = 16 << 20
_LARGEST_WINDOW_BYTES = 16 << 20
_LARGEST_WHOLE_READ_BYTES = 4 << 20
_SMALL_TAIL_BYTES = 1 << 10
_KEPT_BYTES = 24 << 20
_ROW_BYTES = 64 << 10
_LONGEST_ROW_BYTES = 1 << 20
_SHOWN_KEPT = 16


@dataclass(frozen=True, slots=True)
class FileLayout:
    """How a virtual file lies over a stored one.

    Parameters
    ----------
    pieces
        Where each piece of the stored file begins, and its size at the end.  A piece is fetched and kept as a whole.
    frames
        Where the frames begin, if each of them is one item or none; else empty.
    next_item
        Where a frame behind the last one would begin, if its length is that of its item.
    blocks
        Which of the pieces are no whole header or frame, but blocks of something large.
    head
        Replaces the stored bytes before `cut`.
    """

    pieces: tuple[int, ...]
    frames: tuple[int, ...] = ()
    next_item: int = 0
    blocks: frozenset[int] = frozenset()
    head: bytes = b""
    cut: int = 0

    @property
    def shift(self) -> int:
        """What to add to a position behind the head to get that in the stored file."""
        return self.cut - len(self.head)


class VirtualFile(io.RawIOBase):
    """A read-only file over a stored instance.

    Parameters
    ----------
    read
        Returns exactly the bytes of a range of the stored file.
    layout
        Which ranges are fetched together, and what the file shows in place of stored bytes.
    name
        What the file says it is called; readers of DICOM ask for it.

    Notes
    -----
    As any raw file it may return less than was asked for: what it has at no further cost.  The headers of the frames'
    items are told from the frame table, so that a reader that goes from item to item moves no frame; they are told only
    after the header was read and shows the first of them where the table says.  That of the last frame's item is told
    where no Extended Offset Table gives the lengths, which are without an item's padding.

    A frame that is read by itself is fetched by itself.  Who goes on to its neighbour is given more with each request:
    64 KiB, then twice as much each time, and four times as much from a row's length on, as nothing but a scan is as
    long; who leaps ahead, as from one row of tiles to the next, is given a run as long as the last one at once.
    """

    def __init__(self, read: Callable[[ByteRange], bytes], layout: FileLayout, name: str = "") -> None:
        super().__init__()
        self.name = name
        self._read, self._layout = read, layout
        self._size = layout.pieces[-1] - layout.shift
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._items = self._told_items(b"") if layout.head else ()
        self._window = self._behind = 0
        self._run, self._expected = range(0), 1
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; as for any file it may lie behind the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def readall(self) -> bytes:
        """Return everything from the position to the end, in one range; the whole file is checked by its CRC32C."""
        start = min(self._position, self._size)
        self._position = max(self._position, self._size)
        layout, size = self._layout, self._layout.pieces[-1]
        if start == 0:
            return layout.head + self._piece_or_range(0, size)[layout.cut :]
        behind = self._piece_or_range(max(start + layout.shift, layout.cut), size)
        return layout.head[start:] + behind

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` as far as one fetch goes; return the number of bytes, 0 at the end of the file."""
        view = memoryview(buffer).cast("B")
        data = self._take(self._position, min(self._position + len(view), self._size))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _take(self, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        layout = self._layout
        if start < len(layout.head):
            return layout.head[start:stop]
        start, stop = start + layout.shift, stop + layout.shift
        # What is no longer than the buffer above may be its own reading ahead: not worth a frame.
        is_small = stop - start <= _BUFFER_BYTES
        if is_small and (known := self._item_header(start)):
            return known[: stop - start]
        if stop - start > _LARGEST_WHOLE_READ_BYTES:
            return self._piece_or_range(start, stop)
        number = self._number(start)
        self._note(number)
        data = self._find_kept(number)
        if data is None:
            data = self._fetch(number, number if is_small else self._number(stop - 1))
        return data[start - layout.pieces[number] : stop - layout.pieces[number]]

    def _number(self, position: int) -> int:
        return bisect_right(self._layout.pieces, position) - 1

    def _item_header(self, position: int) -> bytes:
        """Return what is left, from `position`, of the item header that it lies in, where the frame table tells it."""
        items = self._items
        after = bisect_right(items, position)
        if not 0 < after < len(items) - 1 or position < items[after] - HEADER_BYTES:
            return b""
        header = item_header(items[after + 1] - HEADER_BYTES - items[after])
        return header[position - items[after] + HEADER_BYTES :]

    def _told_items(self, header: bytes) -> tuple[int, ...]:
        """Return where items begin, and where the one behind the last would: its end, if that is known."""
        is_padded = _EXTENDED_LENGTHS in header
        return self._layout.frames + (() if is_padded else (self._layout.next_item,))

    # -- pieces

    def _piece_or_range(self, start: int, stop: int) -> bytes:
        number = self._number(start)
        first = self._layout.pieces[number]
        kept = self._find_kept(number)
        if kept is not None and stop <= first + len(kept):
            return kept[start - first : stop - first]
        return self._read(ByteRange(start, stop)) if stop > start else b""

    def _find_kept(self, number: int) -> bytes | None:
        data = self._kept.get(number)
        if data is not None:
            self._kept.move_to_end(number)
        return data

    def _note(self, number: int) -> None:
        """Note that a piece is read from, to know how long a run of neighbours is, and how long the next may be."""
        run, pieces = self._run, self._layout.pieces
        if number in run or (number == 0 and 0 not in self._layout.blocks):  # the header is nobody's neighbour
            return
        if number in self._kept and number != run.stop:  # who looks something up again does not leap
            return
        if number == run.stop and run:
            self._run = range(run.start, number + 1)
            return
        is_row = number > run.stop > run.start and pieces[run.stop] - pieces[run.start] <= _LONGEST_ROW_BYTES
        self._expected = len(run) if is_row else 1
        self._run = range(number, number + 1)

    def _fetch(self, first: int, last: int) -> bytes:
        """Fetch the pieces `first` to `last` at once, and more of them for who reads on and on; return the first."""
        pieces = self._layout.pieces
        if first == self._behind > 0 and len(self._run) > 1:
            least = _BLOCK_BYTES if last > first or pieces[first] in self._layout.blocks else _ROW_BYTES
            growth = 4 if self._window >= _LONGEST_ROW_BYTES >> 2 else 2
            self._window = min(max(growth * self._window, least), _LARGEST_WINDOW_BYTES)
            last = max(last, self._number(min(pieces[first] + self._window, pieces[-1]) - 1))
        else:
            last = max(last, min(first + self._expected, len(pieces) - 1) - 1)
            self._window = 0
        data = self._read(ByteRange(pieces[first], pieces[last + 1]))
        for number in range(first, last + 1):
            self.keep(number, data[pieces[number] - pieces[first] : pieces[number + 1] - pieces[first]])
        self._behind = last + 1
        return data[: pieces[first + 1] - pieces[first]]

    def keep(self, number: int, data: bytes) -> None:
        """Keep a piece that was fetched."""
        self._kept_bytes += len(data) - len(self._kept.pop(number, b""))
        self._kept[number] = data
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        frames = self._layout.frames
        if number == 0 and len(frames) > 1:
            is_told = data.endswith(item_header(frames[1] - HEADER_BYTES - frames[0]))
            self._items = self._told_items(data) if is_told else ()


class BufferedVirtualFile(io.BufferedIOBase):
    """A virtual file for whoever reads a few bytes at a time.

    Notes
    -----
    Does what `io.BufferedReader` does, but is none: pydicom takes such a one for a file of the operating system, and
    opens it anew, by its name, for an element that it deferred.
    """

    def __init__(self, raw: VirtualFile) -> None:
        super().__init__()
        self.name = raw.name
        self._buffered = io.BufferedReader(raw, _BUFFER_BYTES)
        # Bound once: a call that were passed on would cost as much again as a small read does.
        for method in ("read", "read1", "readinto", "readinto1", "readline", "peek", "seek", "tell"):
            setattr(self, method, getattr(self._buffered, method))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Let go of what was fetched."""
        self._buffered.close()
        super().close()

    def __del__(self) -> None:
        """Close nothing: a method of the inner file may outlive this one, as in ``open_instance(uid).read()``."""


def open_virtual_file(reader: SeriesReader, record: InstanceRecord, offset_table: OffsetTable | None) -> BinaryIO:
    """Open an instance as a buffered binary file; nothing is read yet, but for the header to show another table in.

    Parameters
    ----------
    offset_table
        None: the file as it is stored.  "extended": with an Extended Offset Table, where PS3.3 section C.7.6.3.1.8
        allows one; the file as it is stored where it does not, or where there is one already.

    Raises
    ------
    ValueError
        For any other `offset_table`.
    """
    if offset_table not in (None, "extended"):
        raise ValueError(f"offset_table must be None or 'extended', not {offset_table!r}")
    whole = ByteRange(0, record.size)
    checks = ReadChecks(record, reader.tar_uri)

    def read(span: ByteRange) -> bytes:
        if span == whole:
            return reader.read_instance(record)
        data = reader.read_span(record, span)
        checks.check(span, data)
        return data

    table = record.frame_table if record.frame_table is not None and record.frame_table.trusted else None
    layout, first = plan_layout(record.size, table), b""
    if offset_table == "extended" and record.has_pixeldata and record.size:
        layout, first = _with_extended_table(reader, record, read) or (layout, first)
    raw = VirtualFile(read, layout, name=member_uri(reader.tar_uri, record.name_uid))
    if first:
        raw.keep(0, first)
    return cast("BinaryIO", BufferedVirtualFile(raw))


def _with_extended_table(
    reader: SeriesReader, record: InstanceRecord, read: Callable[[ByteRange], bytes]
) -> tuple[FileLayout, bytes] | None:
    """Return the layout and the first piece, or None where no other table is to be shown."""
    shown = reader.shown_tables.get((record.name_uid, record.crc32c))
    if shown is not None:
        return shown, b""
    table = _find_table(reader, record)
    if table is None or not table.rangeable or not table.offsets:
        return None
    layout = plan_layout(record.size, table)
    read_bytes = read(ByteRange(0, max(layout.pieces[1], table.offsets[0])))
    first = read_bytes if len(read_bytes) == layout.pieces[1] else b""
    head = plan_extended_head(read_bytes[: table.offsets[0]], table)
    if head is None:
        return layout, first
    shown = replace(layout, head=head, cut=table.offsets[0])
    while len(reader.shown_tables) >= _SHOWN_KEPT:
        reader.shown_tables.pop(next(iter(reader.shown_tables)), None)
    reader.shown_tables[record.name_uid, record.crc32c] = shown
    return shown, first


def _find_table(reader: SeriesReader, record: InstanceRecord) -> FrameTable | None:
    header = header_of(reader.document.uri, record)
    if any(tag in header for tag in _EXTENDED_TAGS):
        return None
    try:
        return FrameReader(reader).table(record)
    except FrameTableError:
        return None  # nothing to show, a video for instance


def plan_layout(size: int, table: FrameTable | None) -> FileLayout:
    """Return which ranges of a file of `size` bytes are fetched together.

    Parameters
    ----------
    table
        Its frames, by a table that is trusted; None: no frames, or not known.

    Notes
    -----
    A small file is one piece.  A file with frames is its header, up to the first byte of the first frame, and then the
    frames, each from where the one before ends: with its item header.  Whatever is larger than a small file is cut into
    blocks; but a header only if it is huge.
    """
    bounds: list[int] = [0, size]
    frames: tuple[int, ...] = ()
    next_item = 0
    if size > WHOLE_BYTES and table is not None and table.rangeable and table.offsets:
        stops = [offset + length for offset, length in zip(table.offsets, table.lengths, strict=True)]
        last = stops[-1] if size - stops[-1] > _SMALL_TAIL_BYTES else size
        bounds = sorted({0, table.offsets[0], *stops[:-1], last, size})
        if table.fragment_counts is None:
            frames, next_item = table.offsets, stops[-1] + HEADER_BYTES
    pieces: list[int] = []
    blocks: set[int] = set()
    for start, stop in pairwise(bounds):
        is_header = start == 0 and stop < size
        if stop - start <= (_LARGEST_HEADER_BYTES if is_header else WHOLE_BYTES):
            pieces.append(start)
        else:
            blocks.update(range(start, stop, _BLOCK_BYTES))
            pieces += range(start, stop, _BLOCK_BYTES)
    return FileLayout((*pieces, size), frames, next_item, frozenset(blocks))
