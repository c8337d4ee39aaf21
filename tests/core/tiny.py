"""A series of three tiny instances, and a store that has bit rot."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, make_uid, to_bytes
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.base import ObjectStore, ReadResult

UIDS = Uids.of("tiny")
KEY = SeriesKey(UIDS.study, UIDS.series)


def uid(index: int) -> str:
    """Return the UID of an instance."""
    return make_uid("tiny", index)


def tiny_file(index: int, key: SeriesKey = KEY) -> bytes:
    """Return a DICOM file of under two kilobytes: two native frames; two frames in fragments; or no pixel data."""
    dataset = make_dataset(Uids(key.study_uid, key.series_uid, uid(index)))
    dataset.InstanceNumber = index + 1
    frames = [bytes((index * 16 + frame * 4 + at) % 256 for at in range(4)) for frame in range(2)]
    if index % 3 == 2:
        return to_bytes(dataset)
    describe_pixels(dataset, (2, 2), frames=2, bits=8)
    if index % 3 == 0:
        dataset.add_new("PixelData", "OB", b"".join(frames))
        return to_bytes(dataset)
    dataset.add_new("PixelData", "OB", encapsulate(frames, fragments_per_frame=2))
    dataset["PixelData"].is_undefined_length = True
    return to_bytes(dataset, JPEG2000Lossless)


def open_tiny(store: ObjectStore, mode: Any = "r", key: SeriesKey = KEY, **options: Any) -> CODObject:
    """Open the series."""
    return CODObject(store, None, key.study_uid, key.series_uid, mode, **options)


def append_tiny(store: ObjectStore, folder: Path, *indexes: int, mode: Any = "a") -> None:
    """Store instances of the series."""
    instances = []
    for index in indexes:
        path = folder / f"{index}.dcm"
        path.write_bytes(tiny_file(index))
        instances.append(Instance(path))
    with open_tiny(store, mode) as cod:
        assert len(cod.append(instances).new) == len(indexes)


def tiny_store(folder: Path, *indexes: int) -> MemoryStore:
    """Return a store in memory that holds the series."""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    append_tiny(store, folder, *indexes)
    return store


@dataclass(frozen=True)
class Contents:
    """Everything that a reader gets of a series, by instance; an error in place of what it was refused."""

    files: Mapping[str, Any]
    frames: Mapping[str, Any]
    headers: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Flip:
    """One byte of an object, and the bits of it that are turned over."""

    name: str
    at: int
    bits: int

    def of(self, data: bytes, start: int = 0) -> bytes:
        """Return a part of the object, from `start` on, as the flip leaves it."""
        at = self.at - start
        if not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ self.bits]) + data[at + 1 :]


class FlippingStore(InterceptingStore):
    """Another store with bit rot: whoever reads gets one byte wrong, while versions and checksums stay on record."""

    def __init__(self, inner: ObjectStore, flip: Flip) -> None:
        super().__init__(inner)
        self.flip = flip

    def _rotten(self, name: str, data: bytes, start: int = 0) -> bytes:
        return self.flip.of(data, start) if name == self.flip.name else data

    def read_object(self, name: str) -> ReadResult:
        """Read a whole object, the rotten byte included."""
        found = super().read_object(name)
        return found._replace(data=self._rotten(name, found.data))

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read a range, the rotten byte included."""
        return self._rotten(name, super().read(name, span, version=version), span.start)

    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """Stream a range, the rotten byte included."""
        start = span.start if span is not None else 0
        for chunk in super().iter_chunks(name, span, version=version):
            yield self._rotten(name, chunk, start)
            start += len(chunk)
