"""What has to be known of an instance to decode its frames, and why a frame cannot be decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.format.dicom_json import PIXEL_DATA_TAGS, first_value, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_MAX_BITS = 64
_FLOATS: dict[str, np.dtype[Any]] = {"7FE00008": np.dtype(np.float32), "7FE00009": np.dtype(np.float64)}
_NUMBERS = {
    "00280002": "Samples per Pixel",
    "00280010": "Rows",
    "00280011": "Columns",
    "00280100": "Bits Allocated",
    "00280101": "Bits Stored",
    "00280103": "Pixel Representation",
}
_PLANAR_CONFIGURATION, _PHOTOMETRIC = "00280006", "00280004"

CODEC_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What codecs and their bindings raise on data that they do not take (NotImplementedError is a RuntimeError)."""


def stored_range(bits_stored: int, *, signed: bool) -> tuple[int, int]:
    """Return the least and the largest value that so many bits hold, in two's complement where they are signed."""
    return (-(1 << (bits_stored - 1)), (1 << (bits_stored - 1)) - 1) if signed else (0, (1 << bits_stored) - 1)


class PixelError(ValueError):
    """A frame that cannot be decoded; the text says why, without any header value."""


class UnsupportedPixelError(PixelError):
    """A frame of a kind that nothing here decodes."""


@dataclass(frozen=True, slots=True)
class ImagePixels:
    """The Image Pixel module (PS3.3 section C.7.6.3) of one instance, as far as decoding needs it.

    Parameters
    ----------
    rows, columns, samples_per_pixel, bits_allocated, bits_stored, pixel_representation
        -1 where the header does not say.
    by_plane
        Whether native colour samples come plane by plane (Planar Configuration 1).
    photometric_interpretation
        Empty where the header does not say.
    pixel_tag, vr
        The element that holds the pixels.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    by_plane: bool
    photometric_interpretation: str
    pixel_tag: str
    vr: str

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> ImagePixels:
        """Return the pixel description of a header given as DICOM JSON; never fails, see :meth:`require_sound`."""
        samples, rows, columns, allocated, stored, representation = (_integer(header, tag) for tag in _NUMBERS)
        pixel_tag = next((tag for tag in PIXEL_DATA_TAGS if tag in header), PIXEL_DATA_TAGS[0])
        if pixel_tag in _FLOATS:
            allocated = stored = 8 * _FLOATS[pixel_tag].itemsize
            representation = 0
        element = header.get(pixel_tag)
        return cls(
            rows=rows,
            columns=columns,
            samples_per_pixel=samples,
            bits_allocated=allocated,
            bits_stored=stored,
            pixel_representation=representation,
            by_plane=_integer(header, _PLANAR_CONFIGURATION) == 1,
            photometric_interpretation=str(first_value(header, _PHOTOMETRIC) or "").strip(),
            pixel_tag=pixel_tag,
            vr=str(element.get("vr", "OW")) if isinstance(element, dict) else "OW",
        )

    def require_sound(self) -> None:
        """Check that a frame can be decoded by what the header says.

        Raises
        ------
        PixelError
            If an attribute is missing or makes no sense.
        UnsupportedPixelError
            If there are pixels that NumPy has no type for, or of another number of samples than 1 or 3.
        """
        sizes = (self.samples_per_pixel, self.rows, self.columns)
        values = (*sizes, self.bits_allocated, self.bits_stored, self.pixel_representation)
        for value, name in zip(values, _NUMBERS.values(), strict=True):
            if value < (0 if name == "Pixel Representation" else 1):
                raise PixelError(f"{name} is missing or makes no sense")
        if self.bits_stored > self.bits_allocated:
            raise PixelError("Bits Stored is more than Bits Allocated")
        if self.pixel_representation > 1:
            raise PixelError("Pixel Representation is neither 0 nor 1")
        if self.samples_per_pixel not in {1, 3}:
            raise UnsupportedPixelError("Samples per Pixel is neither 1 nor 3")
        if self.bits_allocated not in {1, 8, 16, 32, _MAX_BITS}:
            raise UnsupportedPixelError("Bits Allocated is not 1, 8, 16, 32 or 64")

    @property
    def samples(self) -> int:
        """Samples of one frame."""
        return self.rows * self.columns * self.samples_per_pixel

    @property
    def stored_range(self) -> tuple[int, int]:
        """The least and the largest value that Bits Stored and Pixel Representation allow."""
        return stored_range(self.bits_stored, signed=self.pixel_representation == 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame's array, colour by pixel."""
        return (self.rows, self.columns, *((self.samples_per_pixel,) if self.samples_per_pixel > 1 else ()))

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.samples * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        """Whether the pixels are Float or Double Float Pixel Data."""
        return self.pixel_tag in _FLOATS

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that a frame decodes to, in this machine's byte order."""
        if self.is_float:
            return _FLOATS[self.pixel_tag]
        kind = "i" if self.pixel_representation == 1 and self.bits_allocated > 1 else "u"
        return np.dtype(f"{kind}{max(8, self.bits_allocated) // 8}")

    def shaped(self, flat: NDArray[Any], *, by_plane: bool) -> NDArray[Any]:
        """Return the samples of a frame as (rows, columns) or (rows, columns, samples)."""
        if self.samples_per_pixel == 1:
            return flat.reshape(self.rows, self.columns)
        if by_plane:
            planes = flat.reshape(self.samples_per_pixel, self.rows, self.columns)
            return np.ascontiguousarray(planes.transpose(1, 2, 0))
        return flat.reshape(self.rows, self.columns, self.samples_per_pixel)

    def without_unused_bits(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return a frame whose bits above Bits Stored continue the value, whatever they were (PS3.5 section 8.1.1).

        Notes
        -----
        Changes `frame` in place.
        """
        return extend_sign(frame, self.bits_stored) if self.bits_allocated > self.bits_stored else frame


def extend_sign(frame: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return integers whose bits above the lowest `bits` repeat the sign, or are 0 where unsigned; in place."""
    shift = 8 * frame.dtype.itemsize - bits
    np.left_shift(frame, shift, out=frame)
    np.right_shift(frame, shift, out=frame)
    return frame


def _integer(header: Mapping[str, Any], tag: str) -> int:
    value = number(header, tag)
    return int(value) if value is not None and value == value // 1 else -1
