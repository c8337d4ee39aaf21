"""Slides read by other people's readers while another process changes their series, and after that."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from benchmarks.tools import tools_for
from cloud_optimized_dicom import Datastore, Instance
from tests.read.beside import COMMITS, SERIES, TABLES, TILES, other_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.read.beside import Place

TOOLS = tools_for(TILES)
SHOWN = (None, "extended")
REGION: dict[str, Any] = {
    "row_start": 301,
    "row_end": 901,
    "column_start": 401,
    "column_end": 1001,
    "apply_icc_profile": False,
}
pytestmark = pytest.mark.usefixtures("quiet")


@dataclass
class Expected:
    """A slide, and what readers find in it as a local file."""

    uid: str
    data: bytes
    frames: list[bytes]
    pixels: dict[str, Any]
    region: Any

    @classmethod
    def of(cls, path: Path) -> Expected:
        """Read a local file with everybody's reader."""
        data = path.read_bytes()
        dataset = pydicom.dcmread(io.BytesIO(data))
        frames = list(generate_frames(dataset.PixelData, number_of_frames=TILES))
        pixels = {name: tool(io.BytesIO(data)) for name, tool in TOOLS.items()}
        image = highdicom.imread(io.BytesIO(data), lazy_frame_retrieval=True)
        return cls(dataset.SOPInstanceUID, data, frames, pixels, image.get_total_pixel_matrix(**REGION))


class SlideReader:
    """Slides as files, opened before the other process began, and opened anew."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._chance, self._place = chance, place
        self._slides = [Expected.of(place.slide(table)) for table in TABLES]
        self._cod = place.open().__enter__()
        self._files = [
            (slide, self._cod.open_instance(slide.uid, offset_table=shown)) for slide in self._slides for shown in SHOWN
        ]
        held = [self._cod.open_instance(slide.uid, offset_table="extended") for slide in self._slides]
        self._held = [highdicom.imread(file, lazy_frame_retrieval=True) for file in held]
        deferred = [self._cod.open_instance(slide.uid) for slide in self._slides]
        self._deferred = [pydicom.dcmread(file, defer_size=10_000) for file in deferred]
        self._open = [file for _, file in self._files] + held + deferred
        self.faces: dict[str, Callable[[], None]] = {
            name.removeprefix("look_at_"): getattr(self, name) for name in dir(self) if name.startswith("look_at_")
        }

    def look_at_frames(self) -> None:
        """Read some frames of a series that has long been open."""
        wanted = self._chance.sample(range(TILES), 5)
        for slide in self._slides:
            assert self._cod.read_frames(slide.uid, wanted) == [slide.frames[number] for number in wanted]

    def look_at_old_files(self) -> None:
        """Let readers take pixels from files that have long been open."""
        slide, file = self._chance.choice(self._files)
        name = self._chance.choice(["highdicom", "pydicom"])  # wsidicom closes what it is given
        file.seek(0)
        assert np.array_equal(TOOLS[name](file), slide.pixels[name])

    def look_at_new_files(self) -> None:
        """Let every reader take pixels from a file of a series that is opened now."""
        slide = self._chance.choice(self._slides)
        with self._place.open() as cod:
            for name, tool in TOOLS.items():
                with cod.open_instance(slide.uid, offset_table=self._chance.choice(SHOWN)) as file:
                    assert np.array_equal(tool(file), slide.pixels[name])

    def look_at_lazy_image(self) -> None:
        """Take a region of an image that highdicom opened long ago, and of which it reads frames when asked."""
        number = self._chance.randrange(len(self._held))
        assert np.array_equal(self._held[number].get_total_pixel_matrix(**REGION), self._slides[number].region)

    def look_at_lazy_dataset(self) -> None:
        """Take the pixel data, left where it was when pydicom read the file, of a dataset that was read long ago."""
        number = self._chance.randrange(len(self._deferred))
        dataset = self._deferred[number]
        assert list(generate_frames(dataset.PixelData, number_of_frames=TILES)) == self._slides[number].frames

    def close(self) -> None:
        """Let go of everything."""
        for file in self._open:
            file.close()
        self._cod.__exit__(None, None, None)


def test_slides_are_read_beside_a_process_that_writes(place: Place) -> None:
    """Slides with and without a table are read right by every reader, between whichever commits to their series."""
    seed = 5
    with place.open("a") as cod:
        assert len(cod.append([Instance(place.slide(table)) for table in TABLES]).new) == len(TABLES)
    chance = random.Random(seed)
    reader = SlideReader(place, chance)
    with other_process(place, seed) as process:
        assert process.stdout is not None
        commits = 0
        while process.stdout.readline():  # a commit more is done; the next one is under way while we read
            commits += 1
            for name in chance.sample(sorted(reader.faces), 2):
                reader.faces[name]()
        assert commits == COMMITS
    for face in reader.faces.values():
        face()
    reader.close()
    with place.open() as cod:
        assert len(set(cod.get_instances(strict_sorting=False)) - set(map(SERIES.instance_uid, range(8)))) == 3
    (report,) = Datastore(place.url, place.client).verify()
    assert report.ok
