"""What a box is filled with: a value that the pixels can hold, black as displayed where none is given."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cloud_optimized_dicom.errors import RedactionFillValueError
from cloud_optimized_dicom.thumbnail.lookup import BinaryValues, apply_palette, find_palette

if TYPE_CHECKING:
    from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels
    from cloud_optimized_dicom.redaction.image import Image, OpenImage
    from cloud_optimized_dicom.redaction.model import FillValue

_LUMA = (0.299, 0.587, 0.114)  # PS3.3 section C.7.6.3.1.2
_MOST_ENTRIES = 1 << 16


def check_fill(image: Image, value: FillValue | None) -> None:
    """Check that the pixels of an image can hold a fill value.

    Raises
    ------
    RedactionFillValueError
        If not, or if it has neither one value nor one per sample.
    """
    if value is None:
        return
    values = value if isinstance(value, Sequence) else [value]
    samples = image.pixels.samples_per_pixel
    if isinstance(value, Sequence) and len(values) != samples:
        raise RedactionFillValueError(image.name, f"the fill has {len(values)} values for {samples} samples")
    for one in values:
        if isinstance(one, bool) or not _fits(one, image.pixels):
            raise RedactionFillValueError(image.name, "the pixels cannot hold the fill value")


def _fits(value: Any, pixels: ImagePixels) -> bool:
    if pixels.is_float:
        return isinstance(value, numbers.Real) and bool(abs(value) <= np.finfo(pixels.dtype).max)
    least, most = pixels.stored_range
    return isinstance(value, numbers.Integral) and least <= int(value) <= most


def resolve_fill(opened: OpenImage, photometric: str, value: FillValue | None) -> tuple[int | float, ...]:
    """Return one value per sample, in a photometric interpretation; `value` has been checked.

    Notes
    -----
    One value for three samples is a grey.  None is black as displayed: the least value, the largest of MONOCHROME1,
    the darkest entry of a palette.
    """
    pixels = opened.image.pixels
    convert = float if pixels.is_float else int
    if isinstance(value, Sequence):
        return tuple(convert(one) for one in value)
    one = _black(opened, photometric) if value is None else convert(cast("float", value))
    if pixels.samples_per_pixel == 1:
        return (one,)
    if photometric.startswith("YBR"):
        middle = 1 << (pixels.bits_stored - 1)  # no chrominance (PS3.3 section C.7.6.3.1.2)
        return (one, middle, middle)
    return (one,) * pixels.samples_per_pixel


def _black(opened: OpenImage, photometric: str) -> int | float:
    pixels = opened.image.pixels
    if pixels.is_float:
        return 0.0
    least, most = pixels.stored_range
    if photometric == "MONOCHROME1":
        return most
    return _darkest(opened) if photometric == "PALETTE COLOR" else least


def _darkest(opened: OpenImage) -> int:
    """Return the index of the palette's darkest entry; the least index where the palette does not serve."""
    pixels, source = opened.image.pixels, opened.source
    least, most = pixels.stored_range

    def read_bulk(uri: str) -> bytes:
        start, stop = map(int, uri.split(":"))
        return source.reader.read(start, stop - start)

    values = BinaryValues(read_bulk, big_endian=not source.encoding.little_endian)
    palette = find_palette(opened.image.header, values)
    indexes = np.arange(least, min(most, least + _MOST_ENTRIES - 1) + 1, dtype=pixels.dtype)
    if palette is None:
        return least
    try:
        colours = apply_palette(indexes.reshape(1, -1), palette)[0]
    except ValueError:
        return least
    return int(indexes[np.argmin(colours @ np.array(_LUMA))])
