"""`read_frame_array` and ``cod frame`` on stored files: pydicom's pixels, and errors that name the instance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.errors import FrameDecodeError, UnsupportedFrameError
from cloud_optimized_dicom.testing.datasets import kinds
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    "MR_small_bigendian.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_rle_2frame.dcm",
    "liver_expb.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "color3d_jpeg_baseline.dcm",
    "image_dfl.dcm",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_frame_is_pydicoms(name: str, tmp_path: Path) -> None:
    """The last frame of a stored file is what pydicom has there."""
    datastore = Datastore(tmp_path / "store")
    (key,) = datastore.ingest([real_file(name).path]).series
    dataset = pydicom.dcmread(real_file(name).path)
    last = int(dataset.get("NumberOfFrames") or 1) - 1
    with datastore.open(key.study_uid, key.series_uid) as series:
        found = series.read_frame_array(str(dataset.SOPInstanceUID), last)
    np.testing.assert_array_equal(found, pydicom.pixels.pixel_array(dataset, index=last), strict=True)


def stored(data: bytes, folder: Path) -> tuple[Datastore, str, str, str]:
    """Store a file; return the datastore, the series' path, its tar's URI and the instance's UID."""
    (folder / "x.dcm").write_bytes(data)
    datastore = Datastore(folder / "store")
    (key,) = datastore.ingest([folder / "x.dcm"]).series
    with datastore.open(key.study_uid, key.series_uid) as series:
        (uid,) = series.get_instances()
        return datastore, f"{datastore.url}/{key.folder}", series.tar_uri, uid


@pytest.mark.parametrize(
    ("transfer_syntax", "error", "code"),
    [("1.2.840.10008.1.2.4.90", FrameDecodeError, 5), ("1.2.840.10008.1.2.4.94", UnsupportedFrameError, 1)],
)
def test_what_does_not_decode(
    transfer_syntax: str,
    error: type[FrameDecodeError],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A frame that does not decode names instance, frame and syntax; its bytes can be had all the same."""
    data = kinds.encapsulated([b"not a frame at all"], (4, 4), transfer_syntax)
    datastore, path, tar_uri, uid = stored(data, tmp_path)
    with pytest.raises(error) as caught, datastore.open(*path.split("/")[-3::2]) as series:
        series.read_frame_array(uid, 0)
    assert type(caught.value) is error
    assert caught.value.instance == f"{tar_uri}://instances/{uid}.dcm"
    assert (caught.value.frame, caught.value.transfer_syntax_uid) == (0, transfer_syntax)
    capsys.readouterr()
    for suffix in (".npy", ".png"):
        assert main(["frame", path, uid, "0", "-o", str(tmp_path / f"out{suffix}")]) == code
        assert str(caught.value) in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
    assert main(["frame", path, uid, "0", "-o", str(tmp_path / "out.bin")]) == 0
    assert (tmp_path / "out.bin").read_bytes() == b"not a frame at all"


def test_the_picture_has_the_colours_of_the_array(tmp_path: Path) -> None:
    """A .png of YBR_FULL_422 has the RGB that the array has; nothing converts it twice."""
    data = real_file("examples_ybr_color.dcm").read()
    datastore, path, _, uid = stored(data, tmp_path)
    assert main(["frame", path, uid, "3", "-o", str(tmp_path / "x.png")]) == 0
    with datastore.open(*path.split("/")[-3::2]) as series:
        expected = series.read_frame_array(uid, 3)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "x.png").read_bytes()), expected)


def test_the_picture_of_floats_that_are_no_numbers(tmp_path: Path) -> None:
    """A .png of float pixels leaves NaN and infinities out of the range of grey, without a warning."""
    pixels = np.array([[[1, 2], [np.nan, np.inf]]], np.float32)
    _, path, _, uid = stored(kinds.float_pixels(pixels), tmp_path)
    assert main(["frame", path, uid, "0", "-o", str(tmp_path / "x.png")]) == 0
    assert imagecodecs.png_decode((tmp_path / "x.png").read_bytes()).tolist() == [[0, 255], [0, 255]]


def test_deflated_instances_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``cod info`` says that frames of a deflated instance take a whole read, as text and as JSON."""
    _, path, _, _ = stored(kinds.deflated(kinds.make_frames(2, 8, 8)), tmp_path)
    capsys.readouterr()
    assert main(["info", path]) == 0
    assert "deflated, a frame needs the whole instance (1 instance)" in capsys.readouterr().out
    assert main(["info", path, "--json"]) == 0
    access = json.loads(capsys.readouterr().out)["frame_access"]
    assert access == {"deflated, a frame needs the whole instance": 1}
