"""Decoded frames as pictures to look at: 8 bits, grey or colour, of the size of the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels
from cloud_optimized_dicom.dicom.geometry import frame_sources, rescale_of
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.thumbnail.encode import require_pillow
from cloud_optimized_dicom.thumbnail.lookup import LookupTable, apply_palette, find_palette

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from cloud_optimized_dicom.thumbnail.geometry import Anchors
    from cloud_optimized_dicom.thumbnail.lookup import BinaryValues

_MODALITY_LUT, _VOI_LUT, _VOI_GROUP = "00283000", "00283010", "00289132"
_CENTER, _WIDTH, _FUNCTION = "00281050", "00281051", "00281056"
_PADDING, _PADDING_LIMIT = "00280120", "00280121"
_WHITE = 255.0
_OUTLIERS_PERCENT = 0.5
_BYTE_BITS, _ENOUGH_OF_A_BYTE = 8, 64
"""An image of 8 bits that uses a quarter of its range, or more, is shown as it is."""


@dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3 section C.11.2.1.2) and its function: LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str = "LINEAR"

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return grey values from 0 to 255."""
        if self.function == "SIGMOID":
            steepness = np.clip(-4 * (values - self.center) / self.width, -700, 700)  # where exp() ends
            return np.asarray(_WHITE / (1 + np.exp(steepness)))
        center, width = self.center, self.width
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1
        if width <= 0:
            return np.where(values > center, _WHITE, 0.0)
        return np.asarray(np.clip((values - center) / width + 0.5, 0, 1) * _WHITE)


@dataclass(frozen=True)
class Renderer:
    """How the frames of one instance are shown: made once, used for every frame, from any thread.

    Parameters
    ----------
    header
        DICOM JSON.
    pixels
        What it says of the pixels.
    modality, voi
        Its lookup tables, where it has them.
    palette
        Of a PALETTE COLOR image.
    """

    header: Mapping[str, Any]
    pixels: ImagePixels
    modality: LookupTable | None
    voi: LookupTable | None
    palette: Dataset | None

    @classmethod
    def of(cls, header: Mapping[str, Any], values: BinaryValues) -> Renderer:
        """Return the renderer of an instance.

        Parameters
        ----------
        values
            Reads its tables.
        """
        pixels = ImagePixels.of(header)
        signed = pixels.pixel_representation == 1
        modality = _table(header, _MODALITY_LUT, values, signed=signed)
        # Behind a modality LUT there are no negative values; behind a rescale there may be.
        below_zero = modality is None and (signed or rescale_of(header, 0)[1] < 0)
        voi = _table(header, _VOI_LUT, values, signed=below_zero)
        indexed = pixels.photometric_interpretation == "PALETTE COLOR"
        return cls(header, pixels, modality, voi, find_palette(header, values) if indexed else None)

    def render(self, frame: NDArray[Any], index: int) -> NDArray[np.uint8]:
        """Return a decoded frame as a picture, (rows, columns) or (rows, columns, 3).

        Notes
        -----
        Grey values pass the modality LUT or rescale and the VOI LUT or window that the header, or the frame's
        functional groups, have; without any, or where those would make one flat area of an image that is none, what
        lies between the darkest and the brightest pixels (but for 0.5 % outliers at each end, and padding) is spread.
        """
        if frame.ndim == 3:  # noqa: PLR2004 - rows, columns, samples
            return self._colours(frame)
        if self.palette is not None:
            try:
                return apply_palette(frame, self.palette)
            except ValueError:
                return self._grey(frame, index)
        return self._grey(frame, index)

    def _colours(self, frame: NDArray[Any]) -> NDArray[np.uint8]:
        surplus = max(0, self.pixels.bits_stored - _BYTE_BITS)
        return np.asarray(np.clip(frame >> surplus if surplus else frame, 0, _WHITE), np.uint8)

    def _grey(self, frame: NDArray[Any], index: int) -> NDArray[np.uint8]:
        values = frame.astype(np.float64)
        values = self.modality.apply(values) if self.modality is not None else self._rescaled(values, index)
        shown = self._voi(values, index)
        if shown is None or (shown.min() == shown.max() and values.min() != values.max()):
            shown = self._spread(values, frame)
        grey = np.rint(np.nan_to_num(shown)).astype(np.uint8)
        return np.asarray(255 - grey if self.pixels.photometric_interpretation == "MONOCHROME1" else grey)

    def _rescaled(self, values: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        slope, intercept = rescale_of(self.header, index)
        return values * slope + intercept

    def _voi(self, values: NDArray[np.float64], index: int) -> NDArray[np.float64] | None:
        if self.voi is not None:
            return self.voi.apply(values) * (_WHITE / self.voi.top)
        window = find_window(self.header, index)
        return None if window is None else np.nan_to_num(window.apply(values))

    def _spread(self, values: NDArray[np.float64], frame: NDArray[Any]) -> NDArray[np.float64]:
        counted = values[np.isfinite(values) & ~self._padding(frame)]
        if not counted.size:
            return np.zeros_like(values)
        low, high = np.percentile(counted, [_OUTLIERS_PERCENT, 100 - _OUTLIERS_PERCENT])
        if low == high:
            low, high = counted.min(), counted.max()
        if low == high:
            top = float((1 << self.pixels.bits_stored) - 1) if frame.dtype.kind == "u" else 0.0
            return np.clip(values / top, 0, 1) * _WHITE if top else np.zeros_like(values)
        if self.pixels.bits_stored == _BYTE_BITS and frame.dtype == np.uint8 and high - low >= _ENOUGH_OF_A_BYTE:
            return np.clip(values, 0, _WHITE)
        low, high = max(low, -np.finfo(np.float32).max), min(high, np.finfo(np.float32).max)
        return np.asarray(np.clip((values - low) / (high - low), 0, 1) * _WHITE)

    def _padding(self, frame: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which pixels hold no image (PS3.3 section C.7.5.1.1.2)."""
        value, limit = (number(self.header, tag) for tag in (_PADDING, _PADDING_LIMIT))
        if value is None:
            return np.zeros(frame.shape, bool)
        ends = sorted((value, value if limit is None else limit))
        return np.asarray((frame >= ends[0]) & (frame <= ends[1]))


def find_window(header: Mapping[str, Any], index: int) -> Window | None:
    """Return the first window of a frame: of its functional groups, the shared ones or the header itself."""
    for holder in _voi_holders(header, index):
        center, width = number(holder, _CENTER), number(holder, _WIDTH)
        if center is not None and width is not None and width > 0:
            return Window(center, width, str(first_value(holder, _FUNCTION) or "LINEAR"))
    return None


def _voi_holders(header: Mapping[str, Any], index: int) -> Iterator[Mapping[str, Any]]:
    for source in frame_sources(header, index):
        group = first_value(source, _VOI_GROUP)
        if isinstance(group, dict):
            yield group
        yield source


def _table(header: Mapping[str, Any], tag: str, values: BinaryValues, *, signed: bool) -> LookupTable | None:
    item = first_value(header, tag)
    return LookupTable.find(item, values, signed=signed) if isinstance(item, dict) else None


def shrink(picture: NDArray[np.uint8], anchors: Anchors, size: int) -> NDArray[np.uint8]:
    """Return a picture in a black square of `size` pixels, where its anchors say.

    Raises
    ------
    MissingDependencyError
        If the extra ``thumbnail`` is not installed.
    """
    image = require_pillow()
    width, height = anchors.right - anchors.left, anchors.bottom - anchors.top
    small = image.fromarray(np.ascontiguousarray(picture)).resize(
        (width, height), image.Resampling.BICUBIC, reducing_gap=3.0
    )
    square = np.zeros((size, size, *picture.shape[2:]), np.uint8)
    square[anchors.top : anchors.bottom, anchors.left : anchors.right] = np.asarray(small)
    return square
