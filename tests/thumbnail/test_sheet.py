"""The few pictures that stand for a long series: which they are, and what they cost."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.counting_store import CountingStore
from cloud_optimized_dicom.thumbnail.sheet import read_tiles
from cloud_optimized_dicom.uids import SeriesKey
from tests.thumbnail.scenes import UIDS, image, open_series, ramp, store_series, uid

if TYPE_CHECKING:
    from pathlib import Path

KEY = SeriesKey(UIDS.study, UIDS.series)
FRAMES = 40


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """Return a series of one instance of many frames, each a shade brighter than the one before, and a single one."""
    made = MemoryStore(f"memory://{uuid.uuid4().hex}")
    shades = np.stack([np.full((16, 16), 3 + 6 * frame, np.uint8) for frame in range(FRAMES)])
    shades[:, 0, :8], shades[:, 1, :8] = 0, 255  # so that none is of one value
    store_series(made, tmp_path, image(1, shades), image(2, ramp()))
    return made


def shades_of(pictures: list[np.ndarray | None]) -> list[int]:
    """Return the number of the frame that each picture shows, by its shade."""
    return [round((float(np.median(picture)) - 3) / 6) for picture in pictures if picture is not None]


@pytest.mark.parametrize("stored", [False, True])
def test_the_ends_and_equal_distances_between(store: MemoryStore, stored: bool) -> None:
    """Of more frames than there may be pictures, evenly chosen ones are shown, from a stored thumbnail or without."""
    if stored:
        with open_series(store, "a") as cod:
            cod.get_thumbnail()
    counted = CountingStore(store)
    reader = SeriesReader.open(counted, KEY)
    before = len(counted.operations)
    tiles = read_tiles(reader, {uid(1): FRAMES, uid(2): 1}, 5)
    assert [(tile.instance_uid, tile.frame) for tile in tiles] == [
        (uid(1), 0),
        (uid(1), 10),
        (uid(1), 20),
        (uid(1), 30),
        (uid(2), 0),
    ]
    assert shades_of([tile.picture for tile in tiles[:4]]) == [0, 10, 20, 30]
    if stored:
        assert counted.operations[before:] == ("read_object",)
    assert len(read_tiles(reader, {uid(1): FRAMES, uid(2): 1}, 100)) == FRAMES + 1
    assert [tile.frame for tile in read_tiles(reader, {uid(1): FRAMES, uid(2): 1}, 1)] == [0]


def test_a_large_stored_picture_is_shown_small(store: MemoryStore) -> None:
    """A thumbnail of large pictures does not make a large sheet."""
    with open_series(store, "a") as cod:
        cod.get_thumbnail(thumbnail_size=600)
    (tile,) = read_tiles(SeriesReader.open(store, KEY), {uid(1): FRAMES, uid(2): 1}, 1)
    assert tile.picture is not None
    assert tile.picture.shape == (256, 256, 3)


def test_what_a_header_claims_is_not_believed(store: MemoryStore) -> None:
    """Frames that are not there have no picture, however many are claimed; a negative number is none."""
    reader = SeriesReader.open(store, KEY)
    tiles = read_tiles(reader, {uid(1): 10**30, uid(2): -5}, 3)
    assert [tile.picture is None for tile in tiles] == [False, True, True]
    assert read_tiles(reader, {uid(1): 0, uid(2): -1}) == []
    assert read_tiles(reader, {}) == []
