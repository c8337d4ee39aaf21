"""Inspection reads a file once: small ones at once, of large ones nothing twice but a window and item headers."""

from __future__ import annotations

import gc
import io
import weakref
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.testing.datasets import damaged, kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.dicom.helpers import accepted_files, facts_of

if TYPE_CHECKING:
    from tests.realfiles import RealFile

WINDOW_BYTES = 16 << 10
ITEM_HEADER_BYTES = 8
SMALL_BYTES = 8 << 20


class CountingStream(io.BytesIO):
    """A stream that counts what is read of it."""

    bytes_read = 0
    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read and count."""
        data = super().read(size)
        self.bytes_read += len(data)
        self.reads += 1
        return data


def counted(data: bytes) -> CountingStream:
    """Inspect a file; return its stream."""
    stream = CountingStream(data)
    inspect_dicom(stream, "file.dcm", bulk_data_uri=lambda _, span: f"{span.start}:{span.stop}")
    return stream


@pytest.mark.parametrize(
    "file", [file for file in accepted_files() if facts_of(file).size <= SMALL_BYTES], ids=lambda file: file.name
)
def test_a_small_file_is_one_read(file: RealFile) -> None:
    """Read a real file with one request, and no byte of it twice, whatever is in it."""
    data = file.read()
    stream = counted(data)
    assert (stream.reads, stream.bytes_read) == (1, len(data))


@pytest.mark.parametrize("file", accepted_files(), ids=lambda file: file.name)
def test_what_was_read_is_freed_at_once(file: RealFile) -> None:
    """Hold nothing of a real file once it was inspected: not until the garbage collector happens to run."""
    data = file.read()
    gc.disable()
    try:
        stream = weakref.ref(counted(data))
        assert stream() is None
    finally:
        gc.enable()


def test_a_ct_slice_is_one_read() -> None:
    """Read a slice of 512 x 512 pixels with one request."""
    data = CtSeries(2).instance(1)
    stream = counted(data)
    assert (stream.reads, stream.bytes_read) == (1, len(data))


def test_large_native_pixels_are_read_once() -> None:
    """Read a large file whose header is followed by native frames once, but for the window they begin in."""
    data = kinds.native(kinds.make_frames(20, 512, 512)) + damaged.explicit_element(0xFFFCFFFC, b"OB", bytes(4096))
    assert len(data) > SMALL_BYTES
    assert counted(data).bytes_read <= len(data) + 2 * WINDOW_BYTES


def test_large_encapsulated_pixels_are_read_once() -> None:
    """Read a large file of many tiles once, but for a window and the tiles' item headers."""
    tiles = [damaged.random_bytes(32 << 10, tile) for tile in range(300)]
    data = kinds.encapsulated(tiles, (64, 64), JPEG2000Lossless)
    assert len(data) > SMALL_BYTES
    assert counted(data).bytes_read <= len(data) + 2 * WINDOW_BYTES + (len(tiles) + 2) * ITEM_HEADER_BYTES


def test_a_large_deflated_file_is_read_once() -> None:
    """Read a large deflated file once, but for the window its file meta information is in."""
    dataset = make_dataset(Uids.of("large deflated"))
    dataset.add_new(0x00420011, "OB", damaged.random_bytes(9 << 20))
    data = to_bytes(dataset, DeflatedExplicitVRLittleEndian)
    assert len(data) > SMALL_BYTES
    assert counted(data).bytes_read <= len(data) + 2 * WINDOW_BYTES
