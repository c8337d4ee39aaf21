"""``cod thumbnail``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.thumbnail.encode import decode
from tests.thumbnail.scenes import UIDS, image, names_of, open_series, ramp, report, store_series

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def series(tmp_path: Path) -> str:
    """Return the path of a series of three frames."""
    (tmp_path / "files").mkdir()
    store = tmp_path / "store"
    store_series(str(store), tmp_path / "files", image(1, np.stack([ramp(20, 40)] * 3)))
    return f"{store}/studies/{UIDS.study}/series/{UIDS.series}"


@pytest.mark.parametrize(
    ("name", "shape"), [("a.mp4", (3, 64, 64, 3)), ("a.jpg", (1, 128, 128, 3)), ("a.PNG", (1, 128, 128, 3))]
)
def test_a_video_or_a_sheet_is_written(
    series: str, tmp_path: Path, name: str, shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A video has a picture for each frame, a JPEG or PNG file shows them on one sheet; the series stays as it is."""
    before = names_of(LocalStore(tmp_path / "store"))
    assert main(["thumbnail", series, "-o", str(tmp_path / name), "--size", "64", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["frames"], document["size"], document["stored"]) == (3, 64, False)
    data = (tmp_path / name).read_bytes()
    assert decode(data, name[-3:]).shape == shape
    assert document["size_bytes"] == len(data)
    assert names_of(LocalStore(tmp_path / "store")) == before


def test_it_is_kept_where_asked_for(series: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --store the series has the thumbnail afterwards."""
    assert main(["thumbnail", series, "-o", str(tmp_path / "a.png"), "--store"]) == 0
    assert "3 frames" in capsys.readouterr().out
    assert "/thumbnail.mp4" in names_of(LocalStore(tmp_path / "store"))
    with open_series(str(tmp_path / "store")) as cod:
        assert cod.get_thumbnail(False).shape == (3, 128, 128, 3)


@pytest.mark.parametrize("out", ["a.gif", "nowhere/a.png", "files"])
def test_a_file_that_cannot_be_is_a_usage_error(series: str, tmp_path: Path, out: str) -> None:
    """Another kind of file, or one in no folder, is exit code 2, and nothing is written."""
    assert main(["thumbnail", series, "-o", str(tmp_path / out)]) == 2
    assert not (tmp_path / "a.gif").exists()


def test_a_series_without_pixel_data_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A series without pixel data is an error in one line, and leaves no file."""
    (tmp_path / "files").mkdir()
    store_series(str(tmp_path / "store"), tmp_path / "files", report(1))
    series = f"{tmp_path}/store/studies/{UIDS.study}/series/{UIDS.series}"
    assert main(["thumbnail", series, "-o", str(tmp_path / "a.png")]) == 1
    assert "no instance has pixel data" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
