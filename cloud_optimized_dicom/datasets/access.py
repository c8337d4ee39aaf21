"""Frames of an index, read: by each process with stores and readers of its own."""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_optimized_dicom.datasets.index import IndexedDocument, Moved
from cloud_optimized_dicom.dicom.decode import decode_frame
from cloud_optimized_dicom.model import TarState
from cloud_optimized_dicom.ranges import PARALLEL_READS
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.reader import SeriesReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_optimized_dicom.datasets.index import FrameIndex
    from cloud_optimized_dicom.ranges import FetchPolicy
    from cloud_optimized_dicom.storage.base import ObjectStore

_SERIES_KEPT = 128


class EncodedFrame(NamedTuple):
    """A frame as it is stored, for a decoder.

    Parameters
    ----------
    data
        The fragments of an encapsulated frame are joined.
    header
        What describes the pixels, as DICOM JSON: Rows, Columns, Bits Allocated and their like; nothing else.
    frame
        0-based in its instance; decides where in its first byte a frame of 1-bit pixels begins.
    """

    data: bytes
    header: Mapping[str, Any]
    transfer_syntax_uid: str
    frame: int


def decode(encoded: EncodedFrame) -> Any:
    """Return what pydicom's ``pixel_array`` has for a frame."""
    return decode_frame(encoded.data, encoded.header, encoded.transfer_syntax_uid, encoded.frame)


def keep_encoded(encoded: EncodedFrame) -> bytes:
    """Return a frame as it is stored: a decoder for who decodes elsewhere, on a GPU for instance."""
    return encoded.data


class _OpenSeries(NamedTuple):
    document: IndexedDocument
    reader: SeriesReader
    frames: FrameReader


class _Process:
    """What is open in one process: replaced, never shared, when the process is another."""

    def __init__(self, stores: Sequence[ObjectStore]) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.stores = stores
        self.open: OrderedDict[int, _OpenSeries] = OrderedDict()
        self.moved: dict[int, Moved] = {}


class FrameAccess:
    """Reads frames of an index by their rows.

    Parameters
    ----------
    stores
        By the numbers that the index has.
    decoder
        Makes an image of an encoded frame; called from several threads.
    rescale
        Whether to apply each frame's slope and intercept; images are then float32.

    Notes
    -----
    Threads may share it, it pickles without what is open, and a forked process opens everything anew: no connection
    and no lock of the parent is touched.
    """

    def __init__(
        self,
        stores: Sequence[ObjectStore],
        index: FrameIndex,
        decoder: Callable[[EncodedFrame], Any] | None,
        *,
        rescale: bool,
    ) -> None:
        self.index = index
        self.rescale = rescale
        self._decoder = decode if decoder is None else decoder
        self._process = _Process(tuple(stores))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": self._process.stores}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_process": _Process(state["_process"])})

    def _here(self) -> _Process:
        process = self._process
        if process.pid != os.getpid():
            # Copied as pickling does: with connections of their own.
            process = self._process = _Process(tuple(copy.copy(store) for store in process.stores))
        return process

    def _opened(self, series: int) -> _OpenSeries:
        """Return an open series; no request, as the index stands in for its metadata."""
        process = self._here()
        with process.lock:
            found = process.open.get(series)
            if found is None:
                place = self.index.places[series]
                store = process.stores[place.store]
                uri = store.url_of(place.key.metadata)
                document = IndexedDocument.of(uri, self.index, series, process.moved.get(series))
                reader = SeriesReader(store, place.key, document, place.metadata_version)
                found = process.open[series] = _OpenSeries(document, reader, FrameReader(reader))
            process.open.move_to_end(series)
            while len(process.open) > _SERIES_KEPT:
                process.open.popitem(last=False)
            return found

    def read_each(
        self, rows: Sequence[int], take: Callable[[int, Any], None], policy: FetchPolicy | None = None
    ) -> None:
        """Read frames, handing over each image with its position in `rows`, from several threads and in any order.

        Notes
        -----
        As `SeriesReader.read_each`, for frames of many series: several series are read at a time.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for position, row in enumerate(rows):
            groups[self._series_of(row)].append(position)

        def read(item: tuple[int, list[int]]) -> None:
            series, positions = item
            members = [rows[position] for position in positions]
            self._read_series(series, members, lambda number, image: take(positions[number], image), policy)

        if len(groups) == 1:
            read(next(iter(groups.items())))
        elif groups:
            with ThreadPoolExecutor(min(len(groups), PARALLEL_READS)) as pool:
                for _ in pool.map(read, groups.items()):
                    pass

    def _series_of(self, row: int) -> int:
        return int(self.index.instances["series"][self.index.frames["instance"][row]])

    def _read_series(
        self, series: int, rows: Sequence[int], take: Callable[[int, Any], None], policy: FetchPolicy | None
    ) -> None:
        found = self._opened(series)
        instances = [int(row) for row in self.index.frames["instance"][rows]]
        firsts = self.index.instances["first_frame"]
        wanted = [
            (found.document.record(instance), int(row - firsts[instance]))
            for instance, row in zip(instances, rows, strict=True)
        ]

        def decoded(number: int, data: bytes) -> None:
            record, frame = wanted[number]
            try:
                image = self._image(rows[number], data, frame)
            except BaseException as error:
                error.add_note(f"frame {frame} of instance {record.name_uid} of {found.reader.tar_uri}")
                raise
            take(number, image)

        found.frames.read_each(wanted, decoded, policy)
        self._note_moves(series, found)

    def _image(self, row: int, data: bytes, frame: int) -> Any:
        entry = self.index.frames[row]
        pixels = self.index.pixels[int(self.index.instances["description"][entry["instance"]])]
        image = self._decoder(EncodedFrame(data, pixels.header, pixels.transfer_syntax_uid, frame))
        if self.rescale:
            return (image * float(entry["slope"]) + float(entry["intercept"])).astype(np.float32)
        return portable(image) if isinstance(image, np.ndarray) else image

    def _note_moves(self, series: int, found: _OpenSeries) -> None:
        """Keep the new places of a series that was rewritten, and let its whole metadata go."""
        document, generation = found.reader.present
        known = found.document.tar
        if document is found.document and generation == (known.generation if known is not None else None):
            return
        rows = self.index.rows_of(series)
        uids = [self.index.uid(row) for row in range(rows.start, rows.stop)]
        tar = None if generation is None else TarState(generation, 0, 0)
        moved = Moved.to(document, tar, uids)
        process = self._here()
        with process.lock:
            process.moved[series] = moved
            process.open.pop(series, None)


def portable(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array as torch takes it: writable, in one piece, in the machine's byte order."""
    return np.require(image, image.dtype.newbyteorder("="), ["C", "W"])
