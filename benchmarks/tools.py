"""Other people's readers, and the two places that they read a slide from: our store, and a loose object."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from pydicom.pixels.utils import iter_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloud_optimized_dicom.testing.gcs_server import GcsControl

CHUNKS_KIB = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
REQUEST_WORTH_BYTES = 1 << 20
"""What one request costs, in bytes: about what a connection moves while it takes (see `FetchPolicy`)."""
SLIDE_TILES = 2000


class Region(NamedTuple):
    """A square of a slide, in pixels."""

    top: int
    left: int
    size: int


class View(NamedTuple):
    """What tools take from a slide: a region of its total pixel matrix, or frames."""

    region: Region
    frames: tuple[int, ...]

    @classmethod
    def of(cls, tiles: int) -> View:
        """Return three neighbours and one frame far from them, and a region of a few tiles."""
        if tiles < SLIDE_TILES:
            return cls(Region(200, 300, 400), (tiles // 3, tiles // 3 + 1, tiles // 3 + 2, tiles - 1))
        return cls(Region(3000, 5000, 600), (900, 901, 902, 1400))


class Cost(NamedTuple):
    """What a read took of the service."""

    requests: int
    bytes_down: int

    @property
    def worth_bytes(self) -> int:
        """Both as one number."""
        return self.requests * REQUEST_WORTH_BYTES + self.bytes_down


# -- tools: each reads from an open file and returns pixels


def read_highdicom(file: BinaryIO, view: View) -> Any:
    """Take a region of the total pixel matrix with highdicom."""
    region = view.region
    import highdicom  # noqa: PLC0415 - loads for a second

    image = highdicom.imread(file, lazy_frame_retrieval=True)
    return image.get_total_pixel_matrix(
        row_start=region.top + 1,
        row_end=region.top + region.size + 1,
        column_start=region.left + 1,
        column_end=region.left + region.size + 1,
        apply_icc_profile=False,
    )


def read_wsidicom(file: BinaryIO, view: View) -> Any:
    """Take the same region with wsidicom; `WsiDicom.open` takes paths only, this is what it does with an open file."""
    from upath import UPath  # noqa: PLC0415 - loads for a second
    from wsidicom import WsiDicom  # noqa: PLC0415
    from wsidicom.file.io.wsidicom_io import WsiDicomReadIO  # noqa: PLC0415
    from wsidicom.file.wsidicom_file_source import WsiDicomFileSource  # noqa: PLC0415

    region = view.region
    source = WsiDicomFileSource([WsiDicomReadIO(file, UPath("memory://slide.dcm"))])
    slide = WsiDicom(source)
    return np.asarray(slide.read_region((region.left, region.top), 0, (region.size, region.size)))


def read_pydicom(file: BinaryIO, view: View) -> Any:
    """Take frames with pydicom."""
    return np.stack(list(iter_pixels(file, indices=list(view.frames))))


def tools_for(tiles: int) -> Mapping[str, Callable[[BinaryIO], Any]]:
    """Return the tools by name, each to be called with an open slide of so many tiles."""
    view = View.of(tiles)
    readers = {"highdicom": read_highdicom, "wsidicom": read_wsidicom, "pydicom": read_pydicom}
    return MappingProxyType({name: partial(reader, view=view) for name, reader in readers.items()})


TOOLS = tools_for(SLIDE_TILES)


# -- what it costs


@dataclass(frozen=True)
class Loose:
    """A slide as an object of its own, opened as highdicom's and Google's documentation say.

    Parameters
    ----------
    blob
        A ``google.cloud.storage.Blob``.
    """

    server: GcsControl
    blob: Any

    def costs(self, tool: Callable[[BinaryIO], Any]) -> dict[int, Cost]:
        """Return what a tool costs at each chunk size, in KiB."""
        return {chunk: self.read(tool, chunk)[1] for chunk in CHUNKS_KIB}

    def read(self, tool: Callable[[BinaryIO], Any], chunk_kib: int) -> tuple[Any, Cost]:
        """Return what a tool reads, and what it cost."""
        with counted(self.server) as cost:
            pixels = self.open_and_read(tool, chunk_kib)
        return pixels, cost()

    def open_and_read(self, tool: Callable[[BinaryIO], Any], chunk_kib: int) -> Any:
        """Return what a tool reads for somebody who knows the object's name, and no more of it."""
        blob = self.blob.bucket.blob(self.blob.name)
        with blob.open("rb", chunk_size=chunk_kib << 10) as file:
            return tool(file)


@contextmanager
def counted(server: GcsControl) -> Iterator[Callable[[], Cost]]:
    """Count the requests of a block; the function that it is given tells them, once the block is left."""
    server.reset_counters()
    cost = Cost(0, 0)
    yield lambda: cost
    records = server.counters()
    cost = Cost(len(records), sum(record.bytes_out for record in records))


def cheapest(costs: Mapping[int, Cost]) -> int:
    """Return the best chunk size: the one at which requests and bytes together cost least."""
    return min(costs, key=lambda chunk: costs[chunk].worth_bytes)
