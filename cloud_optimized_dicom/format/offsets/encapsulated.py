"""Frames of encapsulated pixel data: which fragments belong to which frame (PS3.5 section A.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import FrameTableError
from cloud_optimized_dicom.format.offsets.description import ONE_FRAGMENT_SYNTAXES, VIDEO_SYNTAXES
from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES
from cloud_optimized_dicom.format.offsets.native import MAX_FRAMES
from cloud_optimized_dicom.model import FrameTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.format.offsets.description import PixelDescription
    from cloud_optimized_dicom.format.offsets.items import ItemScan
    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

_END_OF_IMAGE = b"\xff\xd9"  # JPEG and JPEG-LS EOI, JPEG 2000 EOC
_END_WITHIN_BYTES = 10  # behind the marker a writer may have padded; pydicom looks as far
_STARTS_OF_IMAGE = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # SOI and the next marker; SOC and SIZ
_START_BYTES = 4


@dataclass(frozen=True, slots=True)
class ExtendedTable:
    """The Extended Offset Table and its lengths (7FE0,0001) and (7FE0,0002): PS3.3 section C.7.6.3.1.8."""

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def parse(cls, offsets: bytes, lengths: bytes, *, little_endian: bool = True) -> ExtendedTable | None:
        """Return the table of two values, or None if they are no such thing."""
        if not offsets or len(offsets) != len(lengths) or len(offsets) % 8:
            return None
        form = f"{'<' if little_endian else '>'}{len(offsets) // 8}Q"
        return cls(struct.unpack(form, offsets), struct.unpack(form, lengths))


class FragmentGroups:
    """The fragments of one value, and the ways to tell which of them make a frame.

    Every ``by_`` method gives the first fragment of each frame, closed by the number behind the last fragment, or None
    where its way does not apply or contradicts the fragments.
    """

    def __init__(self, reader: PositionedReader, scan: ItemScan, *, little_endian: bool = True) -> None:
        self._reader = reader
        self._little_endian = little_endian
        self._first = 1 if self._has_basic_table(scan) else 0
        self._scan = scan
        self.starts: Sequence[int] = scan.starts[self._first :]
        self.lengths: Sequence[int] = scan.lengths[self._first :]

    def __len__(self) -> int:
        return len(self.starts)

    def _has_basic_table(self, scan: ItemScan) -> bool:
        # A few writers leave the table's item out; its place then holds a fragment, which no table looks like.
        return len(scan) > 0 and not (
            scan.lengths[0] % 4 or self._reader.probe(scan.starts[0], _START_BYTES).startswith(_STARTS_OF_IMAGE)
        )

    def by_basic_table(self) -> list[int] | None:
        """Use the Basic Offset Table, if each of its entries is the start of an item."""
        if self._first == 0 or self._scan.lengths[0] == 0:
            return None
        entries = self._scan.lengths[0] // 4
        raw = self._reader.read(self._scan.starts[0], entries * 4)
        return self._by_offsets(struct.unpack(f"{'<' if self._little_endian else '>'}{entries}L", raw))

    def by_extended_table(self, table: ExtendedTable | None) -> list[int] | None:
        """Use the Extended Offset Table, if it names the start of every fragment, and its length but for padding."""
        groups = self._by_offsets(table.offsets) if table else None
        if table is None or groups is None or len(groups) - 1 != len(self):
            return None
        lengths = table.lengths[: len(self)]
        fits = all(0 <= item - said <= 1 for item, said in zip(self.lengths, lengths, strict=True))
        return groups if fits else None

    def _by_offsets(self, offsets: Sequence[int]) -> list[int] | None:
        if not self.starts:
            return None
        origin = self.starts[0] - HEADER_BYTES
        end = self.starts[-1] + self.lengths[-1] - origin
        index = {start - HEADER_BYTES - origin: number for number, start in enumerate(self.starts)}
        index[end] = len(self)
        # Behind a cut no frame gets an entry, nor does the one that reaches across it; else the last one ends the data.
        offsets = [offset for offset in offsets if offset <= end] if self._scan.is_cut else [*offsets, end]
        groups = [index.get(offset, -1) for offset in offsets]
        if len(groups) <= 1 or groups[0] != 0 or any(right <= left for left, right in pairwise(groups)):
            return None
        return groups

    def by_count(self, frames: int) -> list[int] | None:
        """Use the numbers alone: a fragment a frame, or all fragments for the only frame."""
        if len(self) + self._scan.is_cut == frames:
            return list(range(len(self) + 1))
        return [0, len(self)] if frames == 1 and not self._scan.is_cut else None

    def by_end_markers(self, frames: int) -> list[int] | None:
        """Use the markers that end an image within the last bytes of a fragment."""
        groups = [0, *(number + 1 for number in range(len(self)) if self._ends_image(number))]
        found = len(groups) - 1
        if found == frames and groups[-1] == len(self):
            return groups
        whole = found > 0 and all(self._starts_image(first) for first in groups[:-1])
        return groups if whole else None

    def by_start_markers(self, frames: int) -> list[int] | None:
        """Use the markers that begin an image, if there are as many as frames."""
        groups = [number for number in range(len(self)) if self._starts_image(number)]
        fits = len(groups) == frames and groups[0] == 0 and not self._scan.is_cut
        return [*groups, len(self)] if fits else None

    def without_open_end(self, extents: list[int], *, one_fragment: bool) -> list[int]:
        """Drop the last frame where nothing shows that it is whole: the file ends between two items."""
        if not self._scan.problem or self._scan.is_cut or extents[-1] != len(self) or one_fragment:
            return extents
        single = len(extents) - 1 == len(self) > 1
        return extents if single or self._ends_image(len(self) - 1) else extents[:-1]

    def _ends_image(self, number: int) -> bool:
        tail = min(self.lengths[number], _END_WITHIN_BYTES)
        return _END_OF_IMAGE in self._reader.probe(self.starts[number] + self.lengths[number] - tail, tail)

    def _starts_image(self, number: int) -> bool:
        length = min(self.lengths[number], _START_BYTES)
        return self._reader.probe(self.starts[number], length).startswith(_STARTS_OF_IMAGE)


def plan_encapsulated_frames(
    groups: FragmentGroups,
    description: PixelDescription,
    extended: ExtendedTable | None,
    element_start: int,
    instance: str,
) -> FrameTable:
    """Return where the frames of an encapsulated value lie.

    Raises
    ------
    FrameTableError
        If it cannot be told which fragments make a frame.

    Notes
    -----
    An Extended Offset Table counts before a Basic one; a table that does not fit the items is not trusted, and the
    items themselves decide, as pydicom lets them: a fragment a frame, else the markers that end an image.  At most
    Number of Frames entries are made; fragments behind them are ignored.
    """
    if description.transfer_syntax_uid in VIDEO_SYNTAXES:
        raise FrameTableError(instance, "the frames of a video share one stream")
    if len(groups) == 0:
        raise FrameTableError(instance, "there is no whole fragment")
    exact = groups.by_extended_table(extended)
    extents = exact or _group(groups, description)
    if extents is None:
        raise FrameTableError(instance, "it cannot be told which fragments make a frame")
    frames = len(extents) - 1
    if description.number_of_frames is not None:
        frames = min(frames, description.number_of_frames)
    if frames > MAX_FRAMES:
        raise FrameTableError(instance, f"more than {MAX_FRAMES} frames")
    one_fragment = exact is not None or description.transfer_syntax_uid in ONE_FRAGMENT_SYNTAXES
    extents = groups.without_open_end(extents[: frames + 1], one_fragment=one_fragment)
    return _table(groups, extents, extended if exact else None, element_start)


def _group(groups: FragmentGroups, description: PixelDescription) -> list[int] | None:
    frames = description.frames
    by_table = groups.by_basic_table()
    if by_table is not None and (
        description.number_of_frames is None or len(by_table) > frames or len(groups) < frames
    ):
        return by_table
    return (
        groups.by_count(frames)
        or _single_fragments(groups, description)
        or groups.by_end_markers(frames)
        or groups.by_start_markers(frames)
        or by_table
    )


def _single_fragments(groups: FragmentGroups, description: PixelDescription) -> list[int] | None:
    if description.transfer_syntax_uid in ONE_FRAGMENT_SYNTAXES:
        return list(range(len(groups) + 1))
    return None


def _table(
    groups: FragmentGroups, extents: list[int], extended: ExtendedTable | None, element_start: int
) -> FrameTable:
    offsets = tuple(groups.starts[first] for first in extents[:-1])
    stops = [groups.starts[after - 1] + groups.lengths[after - 1] for after in extents[1:]]
    lengths = tuple(stop - start for start, stop in zip(offsets, stops, strict=True))
    if extended is not None:
        lengths = extended.lengths[: len(lengths)]  # exact: an item may end in a padding byte
    counts = tuple(after - first for first, after in pairwise(extents))
    fragmented = any(count > 1 for count in counts)
    return FrameTable(offsets, lengths, fragment_counts=counts if fragmented else None, pixel_data_offset=element_start)
