"""A series that another process changes, and that process."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.whole_slides import whole_slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.testing.datasets.slides import OffsetTable

ROOT = Path(__file__).resolve().parents[2]
SERIES = CtSeries(8, rows=32, columns=32)
KEPT = range(2, 5)
"""Instances that are there all the time; 0 and 1 are now and then removed, 5 to 7 appended."""
PIXELS = 32 * 32 * 2
COMMITS = 8
TILES = 196  # more than is fetched whole
TABLES: tuple[OffsetTable, ...] = ("empty", "basic", "extended")


@dataclass(frozen=True)
class Place:
    """A datastore, and how it is reached from here, from another process and from a command line."""

    url: str
    client: Any
    folder: Path
    environment: dict[str, str]

    def open(self, mode: Any = "r") -> Any:
        """Open the series."""
        return Datastore(self.url, self.client).open(SERIES.uids.study, SERIES.uids.series, mode)

    def file(self, index: int) -> Path:
        """Return a local file of an instance."""
        path = self.folder / f"{index}.dcm"
        if not path.exists():
            path.write_bytes(SERIES.instance(index))
        return path

    def slide(self, table: OffsetTable) -> Path:
        """Return a local file of a slide of JPEG tiles that is of the series; it is there all the time."""
        path = self.folder / f"slide-{table}.dcm"
        if not path.exists():
            dataset = pydicom.dcmread(io.BytesIO(whole_slide(TILES, table)))
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = SERIES.uids.study, SERIES.uids.series
            dataset.save_as(path)
        return path


def write_on(url: str, folder: str, seed: int) -> None:
    """Be the other process: change the series a number of times, and say so after each."""
    client = ClientRecipe(anonymous=True).make() if url.startswith("gs://") else None
    series = Datastore(url, client)
    chance = random.Random(seed)
    for number in range(COMMITS):
        if number % 4 == 3:
            write_anew(series, folder, chance)
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            continue
        with series.open(SERIES.uids.study, SERIES.uids.series, "a") as cod:
            present = set(cod.get_metadata()["cod"]["instances"])
            moving = [index for index in (0, 1, 5, 6, 7) if SERIES.instance_uid(index) in present]
            absent = [index for index in (0, 1, 5, 6, 7) if index not in moving]
            if absent and (number % 2 == 0 or not moving):
                cod.append([Instance(f"{folder}/{chance.choice(absent)}.dcm")])
            else:
                cod.remove(SERIES.instance_uid(chance.choice(moving)))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def write_anew(series: Datastore, folder: str, chance: random.Random) -> None:
    """Replace the series by the same instances in another order, so that all lie elsewhere."""
    with series.open(SERIES.uids.study, SERIES.uids.series, "r") as cod:
        uids = cod.get_metadata()["cod"]["instances"]
        files = [f"{folder}/{index}.dcm" for index in range(8) if SERIES.instance_uid(index) in uids]
    files += sorted(map(str, Path(folder).glob("slide-*.dcm")))
    chance.shuffle(files)
    with series.open(SERIES.uids.study, SERIES.uids.series, "w") as cod:
        assert len(cod.append([Instance(file) for file in files]).new) == len(files)


@contextmanager
def other_process(place: Place, seed: int) -> Iterator[subprocess.Popen[str]]:
    """Run the other process; it must have done all its work well at the end."""
    arguments = f"{place.url!r}, {str(place.folder)!r}, {seed}"
    command = f"from tests.read.beside import write_on; write_on({arguments})"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", command],
        cwd=ROOT,
        env=os.environ | place.environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        process.communicate(timeout=120)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
