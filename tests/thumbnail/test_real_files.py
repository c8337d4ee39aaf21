"""Thumbnails of every real file that decodes: none is blank unless the image is."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_color_lut, pixel_array

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import FrameDecodeError, InstanceValidationError, SeriesMissingPixelDataError
from cloud_optimized_dicom.thumbnail import Anchors, ThumbnailCoordConverter, ThumbnailDocument
from tests.realfiles import RealFile, real_file, real_files

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

UNREADABLE = {
    "pydicom/JPEG-lossy.dcm",  # 12 bits in several scans
    "pydicom/JPEG2000-embedded-sequence-delimiter.dcm",  # a delimiter within the codestream
    "pydicom/MR_truncated.dcm",  # fewer bytes than pixels
}
"""Frames that no decoder here reads."""

SIDE = 64
LOSSY = 32
"""What a lossy codec may leave of the picture in the black around it, of 255."""

PACKAGES = ("pydicom", "data_store", "pynetdicom", "nibabel")


def thumbnail_of(file: RealFile, folder: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Return a file's thumbnail, as (pictures, ...), and the frames that are blank in it but not in the file."""
    instance = Instance(file.path_in(folder))
    uids = instance.study_uid(), instance.series_uid()
    store = f"memory://{uuid.uuid4().hex}"
    with CODObject(store, None, *uids, "w") as cod:
        cod.append([instance])
    with CODObject(store, None, *uids) as cod:
        pictures = cod.get_thumbnail(thumbnail_size=SIDE)
        pictures = pictures[np.newaxis] if pictures.ndim == 3 else pictures
        (uid,) = cod.get_instances()
        flat = [number for number, picture in enumerate(pictures) if np.ptp(picture) < 4]
        return pictures, [number for number in flat if np.ptp(cod.read_frame_array(uid, number))]


@pytest.mark.parametrize(
    "package", [pytest.param(name, marks=pytest.mark.slow if name == "nibabel" else ()) for name in PACKAGES]
)
def test_no_thumbnail_is_blank_unless_the_image_is(package: str, tmp_path: Path) -> None:
    """Every file that decodes has a thumbnail, and a picture of one shade stands for a frame of one value."""
    blank, refused, drawn = [], set(), 0
    for file in real_files():
        if not file.name.startswith(f"{package}/"):
            continue
        try:
            _, wrong = thumbnail_of(file, tmp_path)
        except (InstanceValidationError, SeriesMissingPixelDataError):
            continue
        except FrameDecodeError:
            refused.add(file.name)
            continue
        blank += [f"{file.name} frame {number}" for number in wrong]
        drawn += 1
    assert blank == []
    assert refused == {name for name in UNREADABLE if name.startswith(f"{package}/")}
    assert drawn >= {"pydicom": 90, "data_store": 60, "pynetdicom": 3, "nibabel": 5}[package]


def check_geometry(picture: NDArray[np.uint8], converter: ThumbnailCoordConverter, rows: int, columns: int) -> None:
    """Check that a frame's corners map into its box and back to within a pixel, and that all around it is black."""
    box = converter.anchors
    assert (box.height, box.width) == (rows, columns)
    assert max(box.bottom - box.top, box.right - box.left) == SIDE == picture.shape[0] == picture.shape[1]
    step = max(rows, columns) / SIDE  # pixels of the frame to one of the picture
    for corner in itertools.product((0, rows), (0, columns)):
        row, column = (round(value) for value in converter.to_thumbnail(*corner))
        assert (row in {box.top, box.bottom}, column in {box.left, box.right}) == (True, True)
        back = converter.to_original(row, column)
        assert max(abs(back.row - corner[0]), abs(back.col - corner[1])) <= max(step, 1)
    # One scale for both sides, and the box in the middle.
    for near, far, side in ((box.top, box.bottom, rows), (box.left, box.right, columns)):
        assert 0 <= near < far <= SIDE
        assert abs((far - near) - side / step) <= 1
        assert abs(near - (SIDE - far)) <= 1
    around = picture.astype(np.int16)
    around[box.top : box.bottom, box.left : box.right] = 0
    assert around.max() <= LOSSY
    assert around.mean() < 0.5


@pytest.mark.slow
def test_stored_anchors_map_corners_to_corners(tmp_path: Path) -> None:
    """Of every file that decodes, the stored picture and the stored anchors agree on where the frame is."""
    checked = 0
    for file in real_files():
        instance = Instance(file.path_in(tmp_path))
        store = f"memory://{uuid.uuid4().hex}"
        try:
            uids = instance.study_uid(), instance.series_uid()
            with CODObject(store, None, *uids, "w") as cod:
                cod.append([instance])
            with CODObject(store, None, *uids, "a") as cod:
                cod.get_thumbnail(thumbnail_size=SIDE)
        except (InstanceValidationError, SeriesMissingPixelDataError, FrameDecodeError):
            continue
        with CODObject(store, None, *uids) as cod:
            pictures = cod.get_thumbnail(generate_if_missing=False)
            document = ThumbnailDocument.parse(cod.get_metadata()["thumbnail"])
            (uid,) = cod.get_instances()
            header = cod.get_instance(uid).metadata
        rows, columns = (header[tag]["Value"][0] for tag in ("00280010", "00280011"))
        pictures = pictures[np.newaxis] if pictures.ndim == 3 else pictures
        assert len(pictures) == len(document.frames)
        for number, picture in enumerate(pictures):
            check_geometry(picture, document.converter(number), rows, columns)
        checked += 1
    assert checked > 160


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "SC_ybr_full_422_uncompressed.dcm"])
def test_luminance_and_chrominance_become_colours(name: str, tmp_path: Path) -> None:
    """Each part of the picture of a YBR image has, on average, the colours that pydicom converts it to."""
    dataset = pydicom.dcmread(real_file(name).path)
    assert dataset.PhotometricInterpretation.startswith("YBR_FULL")
    colours, stored = (pixel_array(dataset, raw=raw, index=0) for raw in (False, True))
    pictures, _ = thumbnail_of(real_file(name), tmp_path)
    anchors = Anchors.fit(*colours.shape[:2], SIDE)
    shown = pictures[0][anchors.top : anchors.bottom, anchors.left : anchors.right]
    assert np.abs(parts(shown) - parts(colours)).mean() < 3
    assert np.abs(parts(shown) - parts(colours)).max() < 24  # where colours meet
    assert np.abs(shown.mean(axis=(0, 1)) - colours.mean(axis=(0, 1))).max() < 3
    assert np.abs(parts(shown) - parts(stored)).max() > 50  # the samples as they are would be wrong


def parts(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean colours of a picture's parts, ten by ten."""
    return np.asarray(Image.fromarray(picture).resize((10, 10), Image.Resampling.BOX)).astype(np.float64)


@pytest.mark.parametrize(
    "pair",
    [
        ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm"),
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("SC_rgb.dcm", "SC_rgb_expb.dcm"),
        ("liver_1frame.dcm", "liver_expb_1frame.dcm"),
    ],
)
def test_byte_order_makes_no_difference(pair: tuple[str, str], tmp_path: Path) -> None:
    """An image looks the same from a big endian file."""
    one, other = (thumbnail_of(real_file(name), tmp_path)[0] for name in pair)
    assert (one == other).all()


def test_a_file_without_meta_information_has_one(tmp_path: Path) -> None:
    """A file that does not say how it is encoded, but can be read, is drawn, in its palette's colours."""
    pictures, _ = thumbnail_of(real_file("OT-PAL-8-face.dcm"), tmp_path)
    assert np.ptp(pictures) > 200
    assert (pictures[..., 0] != pictures[..., 2]).any()


def test_a_frame_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    """A file whose only image does not decode says why."""
    data = real_file("MR_small.dcm").read()
    # Bits Stored of 20 in 16
    path = tmp_path / "broken.dcm"
    path.write_bytes(data.replace(b"\x28\x00\x01\x01US\x02\x00\x10\x00", b"\x28\x00\x01\x01US\x02\x00\x14\x00"))
    with pytest.raises(FrameDecodeError):
        thumbnail_of(RealFile("broken", path), tmp_path)


@pytest.mark.parametrize("name", ["gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"])
def test_a_palette_too_large_for_the_header_is_fetched(name: str, tmp_path: Path) -> None:
    """A palette that the header names by a BulkDataURI gives pydicom's colours, in either byte order."""
    instance = Instance(real_file(name).path)
    assert any("BulkDataURI" in instance.metadata.get(tag, {}) for tag in ("00281201", "00281221"))
    pictures, _ = thumbnail_of(real_file(name), tmp_path)
    little = pydicom.dcmread(real_file("gdcm-US-ALOKA-16.dcm").path)
    colours = apply_color_lut(little.pixel_array, little) >> 8
    anchors = Anchors.fit(*colours.shape[:2], SIDE)
    shown = pictures[0][anchors.top : anchors.bottom, anchors.left : anchors.right]
    assert np.abs(shown.mean(axis=(0, 1)) - colours.mean(axis=(0, 1))).max() < 3
