"""Real and made files of the kinds that matter most, read in every way from every kind of store."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.slides import slide_instance, slide_tiles
from cloud_optimized_dicom.testing.datasets.whole_slides import slide_pyramid
from tests.realfiles import real_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom import CODObject

REAL = {
    "SEG": "liver.dcm",
    "enhanced CT": "eCT_Supplemental.dcm",
    "SR": "test-SR.dcm",
    "RTDOSE": "rtdose.dcm",
    "ultrasound of 30 JPEG frames": "examples_ybr_color.dcm",
    "120 JPEG frames": "color3d_jpeg_baseline.dcm",
    "10 JPEG 2000 frames": "emri_small_jpeg_2k_lossless.dcm",
    "10 RLE frames": "emri_small_RLE.dcm",
    "big endian": "emri_small_big_endian.dcm",
}
PIXELS = kinds.make_frames(5, 48, 40)
FLOATS = np.random.default_rng(0).normal(size=(4, 20, 30))
SEGMENTS = np.random.default_rng(1).random((40, 33, 31)) > 0.6
MADE: dict[str, tuple[Callable[[], bytes], Any]] = {
    "Extended Offset Table": (lambda: kinds.jpeg2000(PIXELS, offset_table="extended"), PIXELS),
    "fragmented": (lambda: kinds.jpeg2000(PIXELS, fragments=3, offset_table="empty"), PIXELS),
    "encapsulated uncompressed": (lambda: kinds.encapsulated_uncompressed(PIXELS), PIXELS),
    "HTJ2K": (lambda: kinds.htj2k(PIXELS), PIXELS),
    "float": (lambda: kinds.float_pixels(FLOATS.astype(np.float32)), FLOATS.astype(np.float32)),
    "double float": (lambda: kinds.float_pixels(FLOATS), FLOATS),
    "1-bit, 40 segments": (lambda: kinds.one_bit_segmentation(SEGMENTS), SEGMENTS),
    "deflated": (lambda: kinds.deflated(PIXELS), PIXELS),
}


def stored(url: str, client: Any, files: list[bytes], folder: Path) -> CODObject:
    """Store files of one series and return it, to be opened."""
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data)
    store = Datastore(url, client)
    (key,) = store.ingest([Instance(path) for path in paths]).series
    return store.open(key.study_uid, key.series_uid)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # what the RTDOSE has, and pydicom says so
@pytest.mark.parametrize("kind", REAL)
def test_real_files_by_virtual_file(kind: str, datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """The header alone, some frames and the whole dataset, read through our file, are pydicom's of the file itself."""
    data = real_file(REAL[kind]).read()
    expected = pydicom.dcmread(io.BytesIO(data))
    frames = int(expected.get("NumberOfFrames", 1) or 1)
    wanted = sorted({0, frames // 2, frames - 1})
    with stored(datastore_url, gcs_client, [data], tmp_path) as cod:
        (uid,) = cod.get_instances(strict_sorting=False)
        for offset_table in (None, "extended"):
            with cod.open_instance(uid, offset_table) as file:
                header = pydicom.dcmread(file, stop_before_pixels=True)
                for tag in (0x7FE00001, 0x7FE00002):
                    header.pop(tag, None)
                assert header == pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
                if "PixelData" in expected:
                    found, truth = (list(iter_pixels(source, indices=wanted)) for source in (file, io.BytesIO(data)))
                    assert all(np.array_equal(one, other) for one, other in zip(found, truth, strict=True))
        with cod.open_instance(uid) as file:
            assert pydicom.dcmread(file, defer_size=1024) == expected


@pytest.mark.parametrize("kind", MADE)
def test_made_files_by_frames(kind: str, datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """What real collections lack is stored and read, frame by frame, as the pixels that it was made of."""
    make, pixels = MADE[kind]
    data = make()
    with stored(datastore_url, gcs_client, [data], tmp_path) as cod:
        (uid,) = cod.get_instances()
        encoded = cod.read_frames(uid)
        assert cod.read_frames(uid, [len(pixels) - 1, 0]) == [encoded[-1], encoded[0]]
        for frame in (0, len(pixels) - 1):
            assert np.array_equal(cod.read_frame_array(uid, frame), pixels[frame])
        with cod.open_instance(uid) as file:
            file.seek(-50, io.SEEK_END)
            assert file.read() == data[-50:]
            file.seek(0)
            assert file.read() == data
    dataset = pydicom.dcmread(io.BytesIO(data))
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        extended = None
        if "ExtendedOffsetTable" in dataset:
            extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        generated = generate_frames(dataset.PixelData, number_of_frames=len(pixels), extended_offsets=extended)
        assert encoded == list(generated)


def test_a_pyramid_in_every_store(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """The levels of a slide are one series; tiles of each are right, whatever was asked for before."""
    levels = slide_pyramid(across=16, levels=3, tile_size=64)
    with stored(datastore_url, gcs_client, levels, tmp_path) as cod:
        for level, uid in enumerate(cod.get_instances()):
            tiles = slide_tiles((16 >> level) ** 2, tile_size=64, seed=level)
            for frame in (len(tiles) - 1, 0, len(tiles) // 3):
                (found,) = cod.read_frames(uid, [frame])
                assert found.rstrip(b"\0") == tiles[frame].rstrip(b"\0")
            with cod.open_instance(uid, "extended") as file:
                assert len(pydicom.dcmread(file, stop_before_pixels=True).ExtendedOffsetTable) == 8 * len(tiles)


def test_a_large_slide_with_an_extended_table(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Six thousand tiles behind an Extended Offset Table: any of them, and many at once."""
    tiles = slide_tiles(6000, tile_size=32)
    with stored(datastore_url, gcs_client, [slide_instance(6000, "extended", tile_size=32)], tmp_path) as cod:
        (uid,) = cod.get_instances()
        wanted = [5999, 0, 4321, *range(1000, 1100)]
        found = cod.read_frames(uid, wanted)
    assert [frame.rstrip(b"\0") for frame in found] == [tiles[frame].rstrip(b"\0") for frame in wanted]


def test_real_volumes_in_every_store(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """An enhanced CT and the slice of an MR stack to pydicom's pixels, wherever they are stored."""
    for name in ("eCT_Supplemental.dcm", "MR_small.dcm"):
        data = real_file(name).read()
        with stored(f"{datastore_url}/{name}", gcs_client, [data], tmp_path) as cod:
            volume, affine = cod.read_volume()
        pixels = pydicom.dcmread(io.BytesIO(data)).pixel_array
        frames = pixels.reshape(-1, *pixels.shape[-2:])
        assert volume.shape == frames.shape
        assert {frame.tobytes() for frame in volume} == {frame.tobytes() for frame in frames}
        assert np.isfinite(affine).all()
