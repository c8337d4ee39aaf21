"""A series as one array, filled straight from ranges of its tar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.decode import FrameDecoder, pixel_dtype
from cloud_optimized_dicom.dicom.geometry import GeometryError, Plane, Stack, plan_stack, planes_of
from cloud_optimized_dicom.errors import VolumeError
from cloud_optimized_dicom.format.dicom_json import first_value, unpack_header
from cloud_optimized_dicom.ranges import FetchPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.frames import FrameReader

_TRANSFER_SYNTAX = "00020010"
_EVERYTHING = FetchPolicy(max_waste=4.0)
"""Between the slices of a series lie headers, which cost less than a request each."""


@dataclass(frozen=True)
class _Image:
    """An instance with frames: its record, its header and how its frames are decoded."""

    record: InstanceRecord
    header: Mapping[str, Any]
    decoder: FrameDecoder


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
    """
    images = [_image(record, uri) for record in records if record.has_pixeldata]
    try:
        planes: list[Plane] = []
        for number, image in enumerate(images):
            table = frames.table(image.record)
            planes += planes_of(number, image.header, len(table) if table is not None else 0)
        stack = plan_stack(planes)
    except GeometryError as error:
        raise VolumeError(uri, str(error)) from error
    return _Filler(frames, images, stack, rescale=rescale).fill(), stack.affine


def _image(record: InstanceRecord, tar_uri: str) -> _Image:
    header = unpack_header(record.packed_header)
    syntax = str(first_value(header, _TRANSFER_SYNTAX))
    return _Image(record, header, FrameDecoder.of(header, syntax, f"{tar_uri}://instances/{record.name_uid}.dcm"))


class _Filler:
    def __init__(self, frames: FrameReader, images: Sequence[_Image], stack: Stack, *, rescale: bool) -> None:
        self._frames, self._images, self._stack, self._rescale = frames, images, stack, rescale

    def fill(self) -> NDArray[Any]:
        """Read every frame into its place; frames are decoded in the threads that fetch them."""
        planes = self._stack.planes
        first = planes[0]
        kinds = {pixel_dtype(self._images[plane.instance].header) for plane in planes}
        kind = np.result_type(*kinds)
        volume = np.empty((len(planes), first.rows, first.columns), np.float32 if self._rescale else kind)
        wanted = [(self._images[plane.instance].record, plane.frame) for plane in planes]

        def take(position: int, encoded: bytes) -> None:
            plane = planes[position]
            image = self._images[plane.instance]
            pixels = image.decoder.decode(encoded, plane.frame)
            if self._rescale:
                volume[position] = pixels * np.float64(plane.slope) + np.float64(plane.intercept)
            else:
                volume[position] = pixels

        self._frames.read_each(wanted, take, _EVERYTHING)
        return volume
