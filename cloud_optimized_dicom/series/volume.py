"""A series as one array, filled straight from ranges of its tar."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.decode import FrameDecoder, pixel_dtype
from cloud_optimized_dicom.dicom.geometry import GeometryError, plan_stack, planes_of, require_alike
from cloud_optimized_dicom.errors import VolumeError
from cloud_optimized_dicom.format.dicom_json import first_value
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.ranges import FetchPolicy
from cloud_optimized_dicom.uids import member_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from cloud_optimized_dicom.dicom.geometry import Stack
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.frames import FrameReader

_TRANSFER_SYNTAX = "00020010"
_EVERYTHING = FetchPolicy(max_waste=4.0)
"""Between the slices of a series lie headers, which cost less than a request each."""


@dataclass(frozen=True)
class _Image:
    """An instance with frames: its header and how its frames are decoded."""

    header: Mapping[str, Any]
    decoder: FrameDecoder


@dataclass(frozen=True)
class _Plan:
    """Where everything goes: the images, the stack, and each frame's place in it by image and frame."""

    images: Sequence[_Image]
    stack: Stack
    places: Mapping[tuple[int, int], int]
    volume: NDArray[Any]


def read_volume(
    frames: FrameReader, records: Sequence[InstanceRecord], uri: str, *, rescale: bool
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the frames of a series as a volume, and where it lies.

    Parameters
    ----------
    rescale
        Apply each frame's rescale slope and intercept; the volume is then float32.

    Returns
    -------
    volume : ndarray
        Of shape (slices, rows, columns), slices in ascending order along the normal of their planes.
    affine : ndarray
        Of shape (4, 4): from (slice, row, column) to LPS coordinates in mm.

    Raises
    ------
    VolumeError
        If the frames do not stack.

    Notes
    -----
    Headers are parsed while the first bytes are on their way: those of hundreds of slices take as long as a request.
    What the first and the last instance show not to stack is refused before anything is fetched.
    """
    held = [record for record in records if record.has_pixeldata]
    counts = [len(table) if (table := frames.table(record)) is not None else 0 for record in held]
    filler = _Filler(held, counts, uri, rescale=rescale)
    try:
        filler.require_ends_alike()
        with ThreadPoolExecutor(1) as planner:
            planned = planner.submit(filler.plan)
            filler.fill(frames, planned)
            plan = planned.result()
    except GeometryError as error:
        raise VolumeError(uri, str(error)) from error
    return plan.volume, plan.stack.affine


class _Filler:
    def __init__(self, records: Sequence[InstanceRecord], counts: Sequence[int], uri: str, *, rescale: bool) -> None:
        self._records, self._counts, self._uri, self._rescale = records, counts, uri, rescale
        self._wanted = [(number, frame) for number, count in enumerate(counts) for frame in range(count)]
        self._images: dict[int, _Image] = {}

    def require_ends_alike(self) -> None:
        """Raise GeometryError for what can be seen without all headers."""
        ends = sorted({self._wanted[0][0], self._wanted[-1][0]}) if self._wanted else []
        require_alike([plane for number in ends for plane in planes_of(number, self._image(number).header, 1)])

    def plan(self) -> _Plan:
        """Parse all headers and give every frame its place."""
        images = [self._image(number) for number in range(len(self._records))]
        planes = [planes_of(number, images[number].header, count) for number, count in enumerate(self._counts)]
        stack = plan_stack(list(chain.from_iterable(planes)))
        places = {(plane.instance, plane.frame): place for place, plane in enumerate(stack.planes)}
        first = stack.planes[0]
        kind = np.result_type(*{pixel_dtype(images[plane.instance].header) for plane in stack.planes})
        shape = (len(stack.planes), first.rows, first.columns)
        return _Plan(images, stack, places, np.empty(shape, np.float32 if self._rescale else kind))

    def fill(self, frames: FrameReader, planned: Future[_Plan]) -> None:
        """Read every frame into its place; frames are decoded in the threads that fetch them."""

        def take(position: int, encoded: bytes) -> None:
            number, frame = self._wanted[position]
            plan = planned.result()
            place = plan.places[number, frame]
            decoder, into = plan.images[number].decoder, plan.volume[place]
            if self._rescale:
                plane = plan.stack.planes[place]
                into[...] = decoder.decode(encoded, frame) * np.float64(plane.slope) + np.float64(plane.intercept)
            else:
                decoder.decode_into(into, encoded, frame)

        frames.read_each([(self._records[number], frame) for number, frame in self._wanted], take, _EVERYTHING)

    def _image(self, number: int) -> _Image:
        known = self._images.get(number)
        if known is None:
            record = self._records[number]
            header = header_of(self._uri, record)
            uri = member_uri(self._uri, record.name_uid)
            decoder = FrameDecoder.of(header, str(first_value(header, _TRANSFER_SYNTAX)), uri)
            known = self._images[number] = _Image(header, decoder)
        return known
