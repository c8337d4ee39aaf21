"""``cod frame``: bytes, arrays and pictures of one frame."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.cli.main import main
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path


def stored(name: str, folder: Path) -> tuple[str, str, pydicom.FileDataset]:
    """Store a real file; return its series, its UID and what pydicom makes of it."""
    file = real_file(name)
    datastore = Datastore(folder / "store")
    (key,) = datastore.ingest([file.path]).series
    dataset = pydicom.dcmread(file.path)
    return f"{datastore.url}/{key.folder}", str(dataset.SOPInstanceUID), dataset


def test_the_encoded_bytes(tmp_path: Path) -> None:
    """Any file name but a picture's gets the frame as it is stored."""
    series, uid, dataset = stored("examples_ybr_color.dcm", tmp_path)
    assert main(["frame", series, uid, "3", "-o", str(tmp_path / "frame.jpg")]) == 0
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=30))
    assert (tmp_path / "frame.jpg").read_bytes() == frames[3]


def test_the_array(tmp_path: Path) -> None:
    """A .npy file holds what pydicom decodes."""
    series, uid, dataset = stored("MR_small.dcm", tmp_path)
    assert main(["frame", series, uid, "0", "-o", str(tmp_path / "frame.npy")]) == 0
    found = np.load(tmp_path / "frame.npy")
    assert found.dtype == dataset.pixel_array.dtype
    assert (found == dataset.pixel_array).all()


@pytest.mark.parametrize("name", ["MR_small.dcm", "examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm", "rtdose.dcm"])
def test_the_picture(name: str, tmp_path: Path) -> None:
    """A .png file is a picture of the frame's size that uses the whole range of grey, or the frame's colours."""
    series, uid, dataset = stored(name, tmp_path)
    assert main(["frame", series, uid, "1" if "NumberOfFrames" in dataset else "0", "-o", str(tmp_path / "x.png")]) == 0
    picture = imagecodecs.png_decode((tmp_path / "x.png").read_bytes())
    assert picture.dtype == np.uint8
    assert picture.shape[:2] == (dataset.Rows, dataset.Columns)
    if picture.ndim == 2:
        assert (picture.min(), picture.max()) == (0, 255)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["99", "-o", "x.bin"], 3), (["-1", "-o", "x.bin"], 2), (["0", "-o", "no/folder/x"], 2)]
)
def test_what_goes_wrong(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A frame that is not there exits with 3, a wrong argument with 2, and nothing is written."""
    series, uid, _ = stored("MR_small.dcm", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["frame", series, uid, *arguments]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.glob("x*"))


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json, stdout is one document."""
    series, uid, _ = stored("MR_small.dcm", tmp_path)
    assert main(["frame", series, uid, "0", "-o", str(tmp_path / "x.bin"), "--json"]) == 0
    assert '"size_bytes": 8192' in capsys.readouterr().out
    assert io.BytesIO((tmp_path / "x.bin").read_bytes()).getbuffer().nbytes == 8192
