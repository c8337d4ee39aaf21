"""A flipped bit in the tar is noticed by who reads an instance as a file, not only by who reads it whole."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import HashMismatchError
from cloud_optimized_dicom.fsspec import CodFileSystem
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from tests.core.tiny import Flip, FlippingStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore

DAMAGED = 77
"""The frame in which a bit is flipped."""


def fragmented() -> bytes:
    """Return 100 frames of noise, each in three fragments."""
    generator = np.random.default_rng(1)
    frames = [generator.bytes(30_000) for _ in range(100)]
    return kinds.encapsulated(frames, (123, 124), "1.2.840.10008.1.2.4.90", fragments=3, offset_table="basic")


FILES: dict[str, Callable[[], bytes]] = {
    "slide": lambda: slide_instance(150, "empty"),
    "native": lambda: kinds.native(kinds.make_frames(100, 128, 128)),
    "fragmented": fragmented,
    "single": lambda: CtSeries(1, rows=1500, columns=1100).instance(0),
}


class Stored:
    """A stored file with a bit flipped in one of its frames."""

    def __init__(self, data: bytes, folder: Path, *, offset: float = 0.6) -> None:
        path = folder / "file.dcm"
        path.write_bytes(data)
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        self.uids = Uids(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID))
        store = MemoryStore(f"memory://{uuid.uuid4().hex}")
        with self.open(store, "w") as cod:
            cod.append([Instance(path)])
        with self.open(store) as cod:
            record = cod.get_instance(self.uids.instance).record
            name = cod.key.tar
        assert record is not None
        self.record: InstanceRecord = record
        frame = DAMAGED if len(self.offsets) > 1 else 0
        at = record.start + self.offsets[frame] + int(self.lengths[frame] * offset)
        self.store = FlippingStore(store, Flip(name, at, 4))

    def open(self, store: ObjectStore, mode: Any = "r") -> CODObject:
        """Open the series."""
        return CODObject(store, None, self.uids.study, self.uids.series, mode)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the frames lie in the file."""
        assert self.record.frame_table is not None
        return self.record.frame_table.offsets

    @property
    def lengths(self) -> tuple[int, ...]:
        """How long they are."""
        assert self.record.frame_table is not None
        return self.record.frame_table.lengths

    @property
    def path(self) -> str:
        """The file's path in the filesystem."""
        uids = self.uids
        return f"studies/{uids.study}/series/{uids.series}/instances/{uids.instance}.dcm"


@pytest.mark.parametrize("name", ["slide", "native", "fragmented"])
def test_reading_in_a_damaged_frame_raises(name: str, tmp_path: Path) -> None:
    """Whoever reads from the damaged frame of a file is told; the other frames are read as before."""
    data = FILES[name]()
    stored = Stored(data, tmp_path)
    with stored.open(stored.store) as cod, cod.open_instance(0) as stream:
        for frame in (0, DAMAGED - 1, DAMAGED + 1, 99):
            stream.seek(stored.offsets[frame])
            assert stream.read(stored.lengths[frame]) == data[stored.offsets[frame] :][: stored.lengths[frame]]
        for _ in range(2):
            stream.seek(stored.offsets[DAMAGED])
            with pytest.raises(HashMismatchError, match=f"frame {DAMAGED}"):
                stream.read(100)


@pytest.mark.parametrize("step", [500, 64 << 10, 3_000_000])
@pytest.mark.parametrize("name", FILES)
def test_reading_from_front_to_back_raises(name: str, step: int, tmp_path: Path) -> None:
    """A copy in parts of any size ends with an error, however the parts lie in the frames."""
    stored = Stored(FILES[name](), tmp_path)
    with stored.open(stored.store) as cod, cod.open_instance(0) as stream, pytest.raises(HashMismatchError):
        while stream.read(step):
            pass


@pytest.mark.parametrize("offset_table", [None, "extended"])
@pytest.mark.parametrize("name", FILES)
def test_pydicom_is_told(name: str, offset_table: Any, tmp_path: Path) -> None:
    """Pydicom's reading of the pixel data raises, whichever offset table the file shows."""
    stored = Stored(FILES[name](), tmp_path, offset=0.9999 if name == "single" else 0.5)
    with stored.open(stored.store) as cod, cod.open_instance(0, offset_table) as stream:
        assert "PixelData" not in pydicom.dcmread(stream, stop_before_pixels=True)
        stream.seek(0)
        with pytest.raises(HashMismatchError):
            pydicom.dcmread(stream)


def test_highdicom_is_told(tmp_path: Path) -> None:
    """Frames that highdicom reads lazily are those that were stored, or an error."""
    stored = Stored(slide_instance(150, "empty"), tmp_path)
    with stored.open(stored.store) as cod, cod.open_instance(0, "extended") as stream:
        image = highdicom.imread(stream, lazy_frame_retrieval=True)
        assert image.get_raw_frame(DAMAGED).startswith(b"\xff\xd8")  # frame numbers count from 1: the one before
        with pytest.raises(HashMismatchError):
            image.get_raw_frame(DAMAGED + 1)


def test_the_filesystem_tells(tmp_path: Path) -> None:
    """A range that holds a whole frame is checked by the filesystem, too."""
    stored = Stored(slide_instance(150, "empty"), tmp_path)
    filesystem = CodFileSystem(stored.store, skip_instance_cache=True)
    start, stop = stored.offsets[DAMAGED], stored.offsets[DAMAGED] + stored.lengths[DAMAGED]
    with pytest.raises(HashMismatchError):
        filesystem.cat_file(stored.path, start - 8, stop + 8)
    found = filesystem.cat_ranges([stored.path] * 2, [start - 9000, start - 3], [start - 2000, stop])
    assert len(found[0]) == 7000
    assert isinstance(found[1], HashMismatchError)


def test_bytes_around_frames_disturb_nobody(tmp_path: Path) -> None:
    """A file without damage is read to its end in parts of every size, forwards and back, without an error."""
    for name, make in FILES.items():
        folder = tmp_path / name
        folder.mkdir()
        data = make()
        stored = Stored(data, folder)
        with stored.open(stored.store.inner) as cod, cod.open_instance(0) as stream:
            for step in (100_000, 70_001):
                for start in reversed(range(0, len(data), step)):
                    stream.seek(start)
                    assert stream.read(step) == data[start : start + step]
            stream.seek(0)
            assert b"".join(iter(lambda: stream.read(99_999), b"")) == data
