"""The index of many series: each metadata.json is read once, many at a time, and let go."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cloud_optimized_dicom.datasets.header import HeaderView
from cloud_optimized_dicom.datasets.index import (
    CHECKED,
    FRAGMENTED,
    FRAME,
    INFLATED,
    INSTANCE,
    STACK,
    TRUSTED,
    FrameIndex,
    IndexBuilder,
    Pixels,
    Place,
    SeriesPart,
)
from cloud_optimized_dicom.dicom.decode import pixel_description
from cloud_optimized_dicom.dicom.geometry import GeometryError, Plane, plan_stack, planes_of, rescale_of
from cloud_optimized_dicom.errors import CODObjectNotFoundError, FormatError
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.ranges import PARALLEL_READS
from cloud_optimized_dicom.series.reader import read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from cloud_optimized_dicom.model import FrameTable, InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_TRANSFER_SYNTAX, _NUMBER_OF_FRAMES, _FRAME_GROUPS = "00020010", "00280008", "52009230"
_SERIES_AT_A_TIME = 512


@dataclass(frozen=True, slots=True)
class SkippedSeries:
    """A series that is not in a dataset, and why, without header values."""

    uri: str
    reason: str


class Wanted(NamedTuple):
    """A series to index; `named` where the caller named it, so that it has to be there."""

    store: int
    key: SeriesKey
    named: bool


@dataclass(frozen=True)
class BuildOptions:
    """Which instances an index takes, and whether their frames are to make stacks."""

    where: Callable[[HeaderView], bool] | None
    stacked: bool


class _Image(NamedTuple):
    record: InstanceRecord
    header: Mapping[str, Any]
    frames: int


def build_index(
    stores: Sequence[ObjectStore], wanted: Iterable[Wanted], options: BuildOptions
) -> tuple[FrameIndex, tuple[SkippedSeries, ...]]:
    """Return the index of series, and those that were left out.

    Raises
    ------
    CODObjectNotFoundError
        If a series that the caller named is not there.
    """
    builder = IndexBuilder()
    skipped = []

    def read(one: Wanted) -> SeriesPart | SkippedSeries | None:
        return _read_part(stores[one.store], one, options)

    rest = iter(wanted)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        while some := list(itertools.islice(rest, _SERIES_AT_A_TIME)):
            for found in pool.map(read, some):
                if isinstance(found, SkippedSeries):
                    skipped.append(found)
                elif found is not None:
                    builder.add(found)
    return builder.build(stacked=options.stacked), tuple(skipped)


def _read_part(store: ObjectStore, wanted: Wanted, options: BuildOptions) -> SeriesPart | SkippedSeries | None:
    """Return the arrays of one series; None where none of its images are wanted."""
    try:
        document, version = read_document(store, wanted.key)
        place = Place(wanted.store, wanted.key, version, document.tar)
        images = [
            image
            for record in document.iter_records()
            if record.has_pixeldata and (image := _image(document.uri, record, options))
        ]
        return _part(place, images, options) if images else None
    except CODObjectNotFoundError as error:
        if wanted.named:
            raise
        return SkippedSeries(error.uri, "it has no metadata.json")
    except (FormatError, GeometryError) as error:
        return SkippedSeries(store.url_of(wanted.key.folder), str(error))


def _image(uri: str, record: InstanceRecord, options: BuildOptions) -> _Image | None:
    header = header_of(uri, record)
    if options.where is not None and not options.where(HeaderView(header)):
        return None
    table = record.frame_table
    if table is not None and table.trusted:
        return _Image(record, header, len(table))
    # An older writer's: the table is built from the tar when a frame is read.
    return _Image(record, header, int(number(header, _NUMBER_OF_FRAMES) or 1))


def _part(place: Place, images: Sequence[_Image], options: BuildOptions) -> SeriesPart:
    pixels: list[Pixels] = []
    instances = np.zeros(len(images), INSTANCE)
    first = 0
    for row, image in enumerate(images):
        described = Pixels(pixel_description(image.header), str(first_value(image.header, _TRANSFER_SYNTAX)))
        if described not in pixels:
            pixels.append(described)
        record = image.record
        instances[row] = (
            record.name_uid.encode("ascii"),
            0,
            record.start,
            record.size,
            record.crc32c,
            pixels.index(described),
            _flags(record.frame_table),
            first,
            image.frames,
        )
        first += image.frames
    frames = np.zeros(first, FRAME)
    for row, image in enumerate(images):
        start = int(instances["first_frame"][row])
        _fill(frames[start : start + image.frames], row, image)
    if not options.stacked:
        return SeriesPart(place, pixels, instances, frames, None, np.zeros(0, STACK))
    order, stacks = _stacked(images, instances)
    return SeriesPart(place, pixels, instances, frames, order, stacks)


def _flags(table: FrameTable | None) -> int:
    if table is None or not table.trusted:
        return 0
    inflated = 0 if table.rangeable else INFLATED
    checked = CHECKED if table.crc32cs is not None else 0
    return TRUSTED | inflated | checked | (FRAGMENTED if table.fragment_counts else 0)


def _fill(rows: NDArray[np.void], instance: int, image: _Image) -> None:
    """Set the rows of an instance's frames."""
    rows["instance"] = instance
    table = image.record.frame_table
    if table is not None and table.trusted:
        rows["offset"], rows["length"] = table.offsets, table.lengths
        rows["fragments"] = table.fragment_counts or 1
        rows["crc32c"] = table.crc32cs or 0
    varying = _FRAME_GROUPS in image.header
    rescales = [rescale_of(image.header, frame) for frame in range(image.frames if varying else 1)]
    rows["slope"], rows["intercept"] = np.array(rescales).T


def _stacked(images: Sequence[_Image], instances: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return the rows of a series' frames along the normal of their planes, and the one stack that they make."""
    planes: list[Plane] = []
    for row, image in enumerate(images):
        planes += planes_of(row, image.header, image.frames)
    stack = plan_stack(planes)
    first = instances["first_frame"]
    order = np.array([first[plane.instance] + plane.frame for plane in stack.planes], np.int64)
    return order, np.array([(0, 0, len(order), stack.affine)], STACK)
