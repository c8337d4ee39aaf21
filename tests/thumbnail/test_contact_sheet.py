"""The contact sheet of the docs is that of the real files, and every picture on it is where its anchors say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from cloud_optimized_dicom.format.dicom_json import unpack_header
from cloud_optimized_dicom.thumbnail import Anchors, ThumbnailCoordConverter
from cloud_optimized_dicom.thumbnail.encode import in_colour
from cloud_optimized_dicom.thumbnail.lookup import BinaryValues
from cloud_optimized_dicom.thumbnail.render import Renderer
from tests.realfiles import real_files
from tests.thumbnail.contact_sheets import SIDE, Drawn, iter_drawn, make_sheet, place
from tests.thumbnail.test_real_files import UNREADABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHEET = DOCS / "images" / "contact-sheet.jpg"


def shown_on_the_sheet(sheet: NDArray[np.uint8], number: int) -> NDArray[np.float64]:
    """Return a picture of the sheet."""
    row, column = place(number)
    return sheet[row : row + SIDE, column : column + SIDE].astype(np.float64)


def no_bulk(uri: str) -> bytes:
    """Refuse: these images are compared in grey without large tables."""
    raise ValueError(uri)


def reference(drawn: Drawn) -> NDArray[np.float64] | None:
    """Return a thumbnail by the anchors alone: each pixel is the mean of what it maps to in the frame's first channel.

    None where a table of the header lies elsewhere in the file.
    """
    try:
        picture = Renderer.of(unpack_header(drawn.record.packed_header), BinaryValues(no_bulk)).render(drawn.frame, 0)
    except ValueError:
        return None
    grey = in_colour(picture)[..., 0].astype(np.float64)
    rows, columns = grey.shape
    anchors = Anchors.fit(rows, columns, SIDE)
    converter = ThumbnailCoordConverter(anchors)
    sums = np.pad(grey.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    made = np.zeros((SIDE, SIDE))
    for row in range(anchors.top, anchors.bottom):
        for column in range(anchors.left, anchors.right):
            upper, lower = converter.to_original(row, column), converter.to_original(row + 1, column + 1)
            top, left = min(int(upper.row), rows - 1), min(int(upper.col), columns - 1)
            bottom, right = max(top + 1, round(lower.row)), max(left + 1, round(lower.col))
            area = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
            made[row, column] = area / ((bottom - top) * (right - left))
    return made


def likeness(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the mean difference of two pictures."""
    return float(np.abs(one - other).mean())


@pytest.mark.slow
def test_every_picture_is_on_the_sheet_and_in_its_place(tmp_path: Path) -> None:
    """The sheet shows every real file that decodes, none blank unless the image is, each to within a pixel."""
    drawn = list(iter_drawn(tmp_path))
    names = {item.name for item in drawn}
    assert len(names) == len(drawn) > 160
    assert not names & UNREADABLE
    assert {file.name for file in real_files()} >= names | UNREADABLE
    assert f"{len(drawn)} files" in (DOCS / "how-to" / "thumbnails.md").read_text(encoding="utf-8")
    with Image.open(SHEET) as opened:
        sheet = np.asarray(opened.convert("RGB"))
    assert sheet.shape[:2] == make_sheet(drawn).size[::-1]
    compared = 0
    for number, item in enumerate(drawn):
        shown = shown_on_the_sheet(sheet, number)
        assert likeness(shown, in_colour(item.picture).astype(np.float64)) < 6, item.name
        assert np.ptp(shown) >= 4 or np.ptp(item.frame) == 0, f"{item.name} is blank"
        expected = reference(item)
        if expected is None or min(item.frame.shape[:2]) < SIDE // 2:  # a few pixels, smoothed, could be anywhere
            continue
        compared += 1
        picture = in_colour(item.picture)[..., 0].astype(np.float64)
        here = likeness(picture, expected)
        for axis in (0, 1):
            for shift in (-2, 2):
                assert here <= likeness(picture, np.roll(expected, shift, axis)) + 0.01, (item.name, axis, shift)
        anchors = Anchors.fit(item.frame.shape[0], item.frame.shape[1], SIDE)
        outside = picture.copy()
        outside[anchors.top : anchors.bottom, anchors.left : anchors.right] = 0
        assert not outside.any(), item.name
    assert compared > 80
