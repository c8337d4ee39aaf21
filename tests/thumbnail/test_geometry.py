"""Where an image lies in its thumbnail."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_optimized_dicom.thumbnail import Anchors, Position, ThumbnailCoordConverter
from cloud_optimized_dicom.thumbnail.encode import decode, encode
from cloud_optimized_dicom.thumbnail.render import shrink

SIZES = [(16, 16), (300, 484), (484, 300), (2000, 3), (3, 2000), (1, 1), (513, 512), (60, 80)]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("size", [128, 97])
def test_the_image_is_in_the_middle_in_proportion(rows: int, columns: int, size: int) -> None:
    """The longer side fills the square, the shorter one keeps its share to within a pixel, margins are equal."""
    anchors = Anchors.fit(rows, columns, size)
    height, width = anchors.bottom - anchors.top, anchors.right - anchors.left
    assert max(height, width) == size
    assert abs(height - max(1.0, size * rows / max(rows, columns))) <= 0.5
    assert abs(width - max(1.0, size * columns / max(rows, columns))) <= 0.5
    assert abs(anchors.top - (size - anchors.bottom)) <= 1
    assert abs(anchors.left - (size - anchors.right)) <= 1
    assert anchors.scale_factor == max(rows, columns) / size


def test_the_json_is_that_of_the_format() -> None:
    """Anchors are written as older writers write them, and read back."""
    raw = Anchors.fit(16, 8, 128).dump()
    assert raw == {
        "original_size": {"width": 8, "height": 16},
        "thumbnail_upper_left": {"row": 0, "col": 32},
        "thumbnail_bottom_right": {"row": 128, "col": 96},
        "scale_factor": 0.125,
    }
    assert Anchors.parse(raw) == Anchors.fit(16, 8, 128)


@pytest.mark.parametrize("name", ["original_size", "thumbnail_upper_left", "thumbnail_bottom_right"])
def test_what_is_no_anchors_is_refused(name: str) -> None:
    """Anchors without a part, or of an image without pixels, are a ValueError."""
    raw = Anchors.fit(16, 8, 128).dump()
    with pytest.raises(ValueError, match="anchors"):
        ThumbnailCoordConverter.from_anchors({key: value for key, value in raw.items() if key != name})
    at = 200 if name == "thumbnail_upper_left" else 0
    with pytest.raises(ValueError, match="anchors"):
        ThumbnailCoordConverter.from_anchors(raw | {name: {"width": 0, "height": 1, "row": at, "col": at}})


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 512), st.floats(0, 1), st.floats(0, 1))
def test_positions_map_both_ways(rows: int, columns: int, size: int, down: float, across: float) -> None:
    """Corners map to corners exactly, what is in the image lies in it in the thumbnail, and maps back."""
    anchors = Anchors.fit(rows, columns, size)
    converter = ThumbnailCoordConverter(anchors)
    assert converter.to_thumbnail(0, 0) == (anchors.top, anchors.left)
    assert converter.to_thumbnail(rows, columns) == (anchors.bottom, anchors.right)
    assert converter.to_original(anchors.bottom, anchors.right) == (rows, columns)
    inside = converter.to_thumbnail(down * rows, across * columns)
    assert anchors.top <= inside.row <= anchors.bottom
    assert anchors.left <= inside.col <= anchors.right
    assert converter.to_original(*inside) == pytest.approx((down * rows, across * columns))


@pytest.mark.parametrize(("rows", "columns"), [(128, 128), (300, 484), (484, 300), (600, 97)])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_corner_is_drawn_where_it_maps_to(rows: int, columns: int, corner: tuple[int, int]) -> None:
    """A bright patch in a corner of the image begins and ends, to within one pixel, where the converter says."""
    picture = np.zeros((rows, columns), np.uint8)
    high, wide = rows // 4, columns // 4
    top, left = corner[0] * (rows - high), corner[1] * (columns - wide)
    picture[top : top + high, left : left + wide] = 255
    anchors = Anchors.fit(rows, columns, 128)
    file = encode([shrink(picture, anchors, 128)])
    bright = np.argwhere(decode(file.data, file.extension)[0][:, :, 0] > 127)
    converter = ThumbnailCoordConverter(anchors)
    first, last = converter.to_thumbnail(top, left), converter.to_thumbnail(top + high, left + wide)
    assert np.abs(bright.min(axis=0) - first).max() <= 1
    assert np.abs(bright.max(axis=0) + 1 - last).max() <= 1


def test_a_converter_pickles() -> None:
    """A converter crosses processes."""
    converter = ThumbnailCoordConverter(Anchors.fit(300, 484, 128))
    assert pickle.loads(pickle.dumps(converter)) == converter
    assert isinstance(converter.to_original(1, 2), Position)
