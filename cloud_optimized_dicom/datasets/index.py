"""Where every frame of many series lies, in a few arrays: no Python object per frame or instance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from cloud_optimized_dicom.format.metadata.document import SeriesDocument
from cloud_optimized_dicom.model import FrameTable, InstanceRecord, TarState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cloud_optimized_dicom.uids import SeriesKey

INSTANCE = np.dtype(
    [
        ("uid", "S64"),
        ("series", "i4"),
        ("start", "i8"),
        ("size", "i8"),
        ("crc32c", "u4"),
        ("description", "i4"),
        ("table", "u1"),
        ("first_frame", "i8"),
        ("frames", "i4"),
    ]
)
FRAME = np.dtype(
    [
        ("instance", "i4"),
        ("offset", "i8"),
        ("length", "i8"),
        ("crc32c", "u4"),
        ("fragments", "u4"),
        ("slope", "f8"),
        ("intercept", "f8"),
    ]
)
STACK = np.dtype([("series", "i4"), ("first", "i8"), ("slices", "i4"), ("affine", "f8", (4, 4))])

_PLACE = np.dtype([("start", "i8"), ("size", "i8"), ("crc32c", "u4")])
GONE = -1
"""The size of an instance that its series has no more."""

# What is known of an instance's frame table: flags.
TRUSTED, INFLATED, CHECKED, FRAGMENTED = 1, 2, 4, 8
_RECORDS_KEPT = 4096


class Place(NamedTuple):
    """A series: the number of its store, its key, and which metadata.json and tar the index was made from.

    `tar` is None for a series of an older writer.
    """

    store: int
    key: SeriesKey
    metadata_version: str
    tar: TarState | None


class Pixels(NamedTuple):
    """What decoding needs of a header, and the transfer syntax; the same for most instances of a series."""

    header: Mapping[str, Any]
    transfer_syntax_uid: str


@dataclass(frozen=True, eq=False)
class SeriesPart:
    """The arrays of one series; numbers in them count from 0 within it.

    Parameters
    ----------
    order, stacks
        Of stacked frames: their rows in `frames`, stack by stack, and the stacks.  None and empty where items are
        frames, in the order of `frames`.
    """

    place: Place
    pixels: Sequence[Pixels]
    instances: NDArray[np.void]
    frames: NDArray[np.void]
    order: NDArray[np.int64] | None
    stacks: NDArray[np.void]


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The arrays of many series; see :class:`SeriesPart`."""

    places: tuple[Place, ...]
    pixels: tuple[Pixels, ...]
    instances: NDArray[np.void]
    frames: NDArray[np.void]
    order: NDArray[np.int64] | None
    stacks: NDArray[np.void]

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        arrays = (self.instances, self.frames, self.stacks, *(() if self.order is None else (self.order,)))
        return sum(array.nbytes for array in arrays)

    def rows_of(self, series: int) -> slice:
        """Return the rows of a series in `instances`."""
        return slice(int(self._first_rows[series]), int(self._first_rows[series + 1]))

    def stack_of(self, position: int) -> int:
        """Return the stack that a position in `order` belongs to."""
        return int(np.searchsorted(self._first_positions, position, side="right")) - 1

    # A search in a field of a structured array would copy the field, so these are made once.

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        column = np.ascontiguousarray(self.instances["series"])
        return np.asarray(np.searchsorted(column, np.arange(len(self.places) + 1)), np.int64)

    @cached_property
    def _first_positions(self) -> NDArray[np.int64]:
        return np.ascontiguousarray(self.stacks["first"])

    def uid(self, row: int) -> str:
        """Return the UID that an instance is stored under."""
        return str(self.instances["uid"][row].decode("ascii"))

    def record(self, row: int) -> InstanceRecord:
        """Return an instance's record, with as much as reading its frames takes."""
        entry, uid = self.instances[row], self.uid(row)
        key = self.places[int(entry["series"])].key
        return InstanceRecord(
            name_uid=uid,
            instance_uid=uid,
            series_uid=key.series_uid,
            study_uid=key.study_uid,
            has_pixeldata=True,
            start=int(entry["start"]),
            size=int(entry["size"]),
            crc32c=int(entry["crc32c"]),
            uri="",
            packed_header="",
            frame_table=self._table(entry),
            version="2.0",
        )

    def _table(self, entry: np.void) -> FrameTable | None:
        known = int(entry["table"])
        if not known & TRUSTED:
            return None
        rows = self.frames[entry["first_frame"] : entry["first_frame"] + entry["frames"]]
        return FrameTable(
            offsets=_column(rows["offset"]),
            lengths=_column(rows["length"]),
            fragment_counts=_column(rows["fragments"]) if known & FRAGMENTED else None,
            crc32cs=_column(rows["crc32c"]) if known & CHECKED else None,
            rangeable=not known & INFLATED,
        )


class _Column(Sequence[int]):
    """Integers of an array, made when they are asked for: a slide's instance has a hundred thousand frames."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Any:
        return self._array[index].item()


def _column(array: NDArray[Any]) -> tuple[int, ...]:
    return cast("tuple[int, ...]", _Column(array))  # for who reads a frame table they are the same


class Moved(NamedTuple):
    """The tar of a series that was rewritten, and where in it the instances of the index are, in its order."""

    tar: TarState | None
    places: NDArray[np.void]

    @classmethod
    def to(cls, document: SeriesDocument, tar: TarState | None, uids: Sequence[str]) -> Moved:
        """Return where instances are in the present state of their series."""
        records = [document.find(uid) for uid in uids]
        places = [(0, GONE, 0) if record is None else (record.start, record.size, record.crc32c) for record in records]
        return cls(tar, np.array(places, _PLACE))


@dataclass(frozen=True)
class IndexedDocument(SeriesDocument):
    """A series' document as far as an index knows it: `find` answers, `iter_records` does not.

    Notes
    -----
    It stands in for a metadata.json that is not read, so that a `SeriesReader` opens without a request.
    """

    index: FrameIndex
    series: int
    moved: Moved | None

    @classmethod
    def of(cls, uri: str, index: FrameIndex, series: int, moved: Moved | None = None) -> IndexedDocument:
        """Return the document of a series of an index."""
        place = index.places[series]
        document = SeriesDocument.empty(uri, place.key, hashed_uids=False)
        tar = place.tar if moved is None else moved.tar
        raw = document.raw if tar is None else document.with_tar(tar).raw
        return cls(uri, raw, index, series, moved)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {}

    def record(self, row: int) -> InstanceRecord:
        """Return the record of a row of the index, as it was when the index was built."""
        uid = self.index.uid(row)
        known = self._records.get(uid)
        if known is None:
            if len(self._records) >= _RECORDS_KEPT:
                self._records.clear()
                self._rows.clear()
            known = self._records[uid] = self.index.record(row)
            self._rows[uid] = row
        return known

    def find(self, uid: str) -> InstanceRecord | None:
        """Return an instance's record as it was found last, or None where the series has it no more."""
        rows = self.index.rows_of(self.series)
        row = self._rows.get(uid)
        if row is None:
            (found,) = np.nonzero(self.index.instances["uid"][rows] == uid.encode("ascii"))
            if not len(found):
                return None
            row = rows.start + int(found[0])
        record = self.record(row)
        if self.moved is None:
            return record
        start, size, crc32c = self.moved.places[row - rows.start].item()
        return None if size == GONE else replace(record, start=start, size=size, crc32c=crc32c)


class IndexBuilder:
    """Joins the parts of many series, one after the other."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._pixels: dict[str, int] = {}
        self._instances, self._frames, self._stacks = _Growing(INSTANCE), _Growing(FRAME), _Growing(STACK)
        self._order = _Growing(np.dtype(np.int64))

    def add(self, part: SeriesPart) -> None:
        """Take over a series."""
        series, first_instance, first_frame = len(self._places), len(self._instances), len(self._frames)
        numbers = np.array([self._pixels.setdefault(_dump(one), len(self._pixels)) for one in part.pixels], np.int32)
        part.instances["series"] = series
        part.instances["first_frame"] += first_frame
        part.instances["description"] = numbers[part.instances["description"]]
        part.frames["instance"] += first_instance
        part.stacks["series"] = series
        part.stacks["first"] += len(self._order)
        if part.order is not None:
            self._order.extend(part.order + first_frame)
        self._places.append(part.place)
        self._instances.extend(part.instances)
        self._frames.extend(part.frames)
        self._stacks.extend(part.stacks)

    def build(self, *, stacked: bool) -> FrameIndex:
        """Return the index of what was added."""
        return FrameIndex(
            tuple(self._places),
            tuple(Pixels(*json.loads(text)) for text in self._pixels),
            self._instances.trimmed(),
            self._frames.trimmed(),
            self._order.trimmed() if stacked else None,
            self._stacks.trimmed(),
        )


def _dump(pixels: Pixels) -> str:
    return json.dumps(pixels, sort_keys=True)


class _Growing:
    """An array that grows at its end."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._array, self._length = np.zeros(16, dtype), 0

    def __len__(self) -> int:
        return self._length

    def extend(self, rows: NDArray[Any]) -> None:
        needed = self._length + len(rows)
        if needed > len(self._array):
            grown = np.zeros(max(needed, 2 * len(self._array)), self._array.dtype)
            grown[: self._length] = self._array[: self._length]
            self._array = grown
        self._array[self._length : needed] = rows
        self._length = needed

    def trimmed(self) -> NDArray[Any]:
        return self._array[: self._length].copy()
