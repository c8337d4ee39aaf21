"""The files that benchmarks work on, made when first asked for."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.transcode.model import Target
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.kinds import make_frames
from cloud_optimized_dicom.testing.datasets.large import write_large_instance
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.whole_slides import whole_slide
from tests.realfiles import real_file, real_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_optimized_dicom.testing.datasets.slides import OffsetTable

_COPY_BYTES = 1 << 20
_FEW_REAL = ("CT_small.dcm", "MR_small.dcm")


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Parameters
    ----------
    ct, few_ct, edge
        Instances of the two CT series, and the rows and columns of their pixels.
    tiles, random_frames
        Frames of a slide, and how many of them are read at random.
    mr_frames, us_frames, mg_shape
        Of the other modalities.
    large_bytes
        Of the one large instance.
    rounds
        Medians are taken over so many; work that takes tens of seconds is done `heavy_rounds` times.
    tables, targets
        The kinds of offset tables of slides, and what is recompressed to.
    is_quick
        Whether one of several alike is enough.
    """

    ct: int = 300
    few_ct: int = 50
    edge: int = 512
    tiles: int = 2000
    random_frames: int = 100
    mr_frames: int = 200
    us_frames: int = 60
    mg_shape: tuple[int, int] = (4096, 3328)
    large_bytes: int = 1 << 30
    rounds: int = 5
    latency_seconds: float = 0.04
    tables: tuple[OffsetTable, ...] = ("empty", "basic", "extended")
    targets: tuple[Target, ...] = tuple(Target)
    is_quick: bool = False

    @property
    def heavy_rounds(self) -> int:
        """How often to repeat what takes long."""
        return min(self.rounds, 2)


QUICK = Scale(
    ct=6, few_ct=3, edge=64, tiles=36, random_frames=6, mr_frames=4, us_frames=2, mg_shape=(128, 96),
    large_bytes=8 << 20, rounds=1, latency_seconds=0.005, tables=("empty",), targets=(Target.HTJ2K,), is_quick=True,
)  # fmt: skip
"""For a look at whether everything works; its times say nothing."""


@dataclass(frozen=True)
class Files:
    """Files in a folder of their own, and where they are joined into one."""

    name: str
    folder: Path
    joined: Path

    @cached_property
    def paths(self) -> list[Path]:
        """The files in order."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    @cached_property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def concatenate(self, target: Path) -> None:
        """Copy all files into one, flushed to the device."""
        with target.open("wb") as joined:
            for path in self.paths:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, joined, _COPY_BYTES)
            joined.flush()
            os.fsync(joined.fileno())


class Data:
    """Every set of files, made once.

    Parameters
    ----------
    folder
        Where the files go.
    given
        A folder of real files, which stay as they are.
    """

    def __init__(self, folder: Path, scale: Scale, given: Path | None = None) -> None:
        self._folder, self.scale, self._given = folder, scale, given
        self._made: dict[str, Files] = {}

    @cached_property
    def ct_series(self) -> CtSeries:
        """The larger CT series, with as many instances more as may be appended to it."""
        extra = self.scale.rounds + 2
        return CtSeries(self.scale.ct + extra, rows=self.scale.edge, columns=self.scale.edge)

    @property
    def ct(self) -> Files:
        """The larger CT series."""
        return self._files(f"CT{self.scale.ct}", self._ct(self.scale.ct))

    @property
    def few_ct(self) -> Files:
        """The smaller CT series."""
        return self._files(f"CT{self.scale.few_ct}", self._ct(self.scale.few_ct))

    @property
    def later_ct(self) -> Files:
        """Instances of the larger CT series that are not among its files."""
        numbers = range(self.scale.ct, self.ct_series.instances)
        return self._files("CT later", (self.ct_series.instance(number) for number in numbers))

    def slide(self, table: OffsetTable) -> Files:
        """Return a slide of JPEG tiles."""
        return self._files(f"WSI, {table} table", (whole_slide(self.scale.tiles, each) for each in (table,)))

    @property
    def large(self) -> Files:
        """One large instance."""
        name = f"one instance of {self.scale.large_bytes >> 20} MiB"
        files = Files(name, self._folder / "large", self._folder / "large.joined")
        path = files.folder / "0.dcm"
        if not path.exists():
            files.folder.mkdir()
            with path.open("wb") as stream:
                write_large_instance(stream, self.scale.large_bytes)
        return files

    def all_kinds(self) -> Iterator[Files]:
        """Yield a set of every modality, the CT series first."""
        yield self.ct
        yield self.few_ct
        for table in self.scale.tables:
            yield self.slide(table)
        for modality in ("MR", "US", "MG"):
            yield self._files(modality, (self._image(each) for each in (modality,)))

    def real_sets(self) -> Iterator[Files]:
        """Yield the real files that the installed packages ship, and those of the folder that was given."""
        files = [real_file(name) for name in _FEW_REAL] if self.scale.is_quick else real_files()
        yield self._files(f"{len(files)} files", (file.read() for file in files))
        if self._given is not None:
            yield Files(self._given.name, self._given, self._folder / "given.joined")

    def joined(self, files: Files) -> Path:
        """Return one file with the bytes of all."""
        if not files.joined.exists():
            files.concatenate(files.joined)
        return files.joined

    def _ct(self, instances: int) -> Iterator[bytes]:
        return (self.ct_series.instance(number) for number in range(instances))

    def _files(self, name: str, contents: Iterator[bytes]) -> Files:
        if name not in self._made:
            place = self._folder / name.replace(" ", "-").replace(",", "")
            files = self._made[name] = Files(name, place, place.with_suffix(".joined"))
            files.folder.mkdir()
            for number, data in enumerate(contents):
                (files.folder / f"{number:05d}.dcm").write_bytes(data)
        return self._made[name]

    def _image(self, modality: str) -> bytes:
        if modality == "US":
            return _native(modality, _cine(self.scale.us_frames))
        frames, shape = (1, self.scale.mg_shape) if modality == "MG" else (self.scale.mr_frames, (256, 256))
        return _native(modality, make_frames(frames, *shape))


def _cine(frames: int) -> NDArray[np.uint8]:
    """Return RGB frames of shape (frames, 480, 640, 3)."""
    grey = make_frames(frames, 480, 640, maximum=255).astype(np.uint8)
    return np.stack([grey, grey[:, ::-1], grey[:, :, ::-1]], axis=-1)


def _native(modality: str, pixels: NDArray[Any]) -> bytes:
    dataset = make_dataset(Uids.of("benchmark", modality))
    dataset.Modality = modality
    samples = pixels.shape[3] if pixels.ndim > 3 else 1  # noqa: PLR2004 - frames, rows, columns
    bits = pixels.dtype.itemsize * 8
    shape = (pixels.shape[1], pixels.shape[2])
    describe_pixels(dataset, shape, frames=len(pixels), bits=bits, samples=samples)
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))  # noqa: PLR2004
    return to_bytes(dataset)
