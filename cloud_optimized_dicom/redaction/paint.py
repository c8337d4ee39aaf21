"""Boxes filled: in a decoded frame, in native pixel data where it lies, and in overlay planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cloud_optimized_dicom.bounding_box import BoundingBox
    from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels

    Fill = tuple[int | float, ...]


def fill_frame(frame: NDArray[Any], boxes: Sequence[BoundingBox], fill: Fill) -> None:
    """Fill boxes of a decoded frame, (rows, columns) or (rows, columns, samples), in place."""
    for box in boxes:
        frame[box.slices()] = fill if frame.ndim > 2 else fill[0]  # noqa: PLR2004 - colour by pixel


class NativeLayout(NamedTuple):
    """How native pixels lie in a file.

    Parameters
    ----------
    start
        First byte of the pixel data's value.
    frames
        How many there are; each follows the one before it without a gap, in bits.
    big_endian
        The byte order of samples of several bytes.
    swapped
        Whether samples of a byte or a bit lie in big endian words (PS3.5 2016b section A.3).
    """

    start: int
    frames: int
    pixels: ImagePixels
    big_endian: bool
    swapped: bool

    @property
    def size_bytes(self) -> int:
        """Of all frames, without padding."""
        bits = self.pixels.samples * self.pixels.bits_allocated * self.frames
        return -(-bits // 8) + (-(-bits // 8) % 2 if self.swapped else 0)


def fill_native(
    file: BinaryIO, layout: NativeLayout, boxes_of: Mapping[int, Sequence[BoundingBox]], fill: Fill
) -> None:
    """Fill boxes of native pixel data in a file, given by frame; not a bit outside of them changes.

    Notes
    -----
    Whole samples are written: what lies above Bits Stored goes too.
    """
    data = np.memmap(file, np.uint8, "r+", layout.start, (layout.size_bytes,))
    whole = layout.pixels.bits_allocated >= 8 and not layout.swapped  # noqa: PLR2004 - bits of a byte
    for frame, boxes in boxes_of.items():
        (_fill_samples if whole else _fill_single)(data, layout, frame, boxes, fill)
    data.flush()


def _fill_samples(
    data: NDArray[Any], layout: NativeLayout, frame: int, boxes: Sequence[BoundingBox], fill: Fill
) -> None:
    pixels = layout.pixels
    stored = pixels.dtype.newbyteorder(">" if layout.big_endian else "<")
    view = data[frame * pixels.frame_bytes : (frame + 1) * pixels.frame_bytes].view(stored)
    if pixels.samples_per_pixel > 1 and pixels.by_plane:
        view = view.reshape(pixels.samples_per_pixel, pixels.rows, pixels.columns).transpose(1, 2, 0)
    else:
        view = view.reshape(pixels.shape)
    fill_frame(view, boxes, fill)


def _fill_single(
    data: NDArray[Any], layout: NativeLayout, frame: int, boxes: Sequence[BoundingBox], fill: Fill
) -> None:
    """Fill samples of a bit, or of a byte in swapped words: each found by its number."""
    pixels = layout.pixels
    for sample, value in enumerate(fill):
        for box in boxes:
            chosen = _sample_numbers(pixels, box, sample) + frame * pixels.samples
            places = chosen if pixels.bits_allocated > 1 else chosen >> 3
            places = places ^ 1 if layout.swapped else places
            if pixels.bits_allocated > 1:
                data[places] = np.array(value).astype(pixels.dtype).view(np.uint8)
            elif value:
                np.bitwise_or.at(data, places, (1 << (chosen & 7)).astype(np.uint8))
            else:
                np.bitwise_and.at(data, places, ~(1 << (chosen & 7)).astype(np.uint8))


def _sample_numbers(pixels: ImagePixels, box: BoundingBox, sample: int) -> NDArray[np.int64]:
    """Return where in its frame one sample of every pixel of a box lies, counted in samples."""
    rows = np.arange(box.y, box.bottom, dtype=np.int64)
    columns = np.arange(box.x, box.right, dtype=np.int64)
    places = np.add.outer(rows * pixels.columns, columns).ravel()
    if pixels.samples_per_pixel > 1 and pixels.by_plane:
        return places + sample * pixels.rows * pixels.columns
    return places * pixels.samples_per_pixel + sample


class OverlayPlane(NamedTuple):
    """An overlay (PS3.3 section C.9.2).

    Parameters
    ----------
    top, left
        The pixel of the image, from 0, under its first pixel; may be outside.
    """

    rows: int
    columns: int
    frames: int
    top: int
    left: int


def cleared_overlay(data: bytes, plane: OverlayPlane, boxes: Sequence[BoundingBox], *, swapped: bool) -> bytes | None:
    """Return overlay data with the bits under some boxes and behind its frames cleared; None if it is too short.

    Parameters
    ----------
    swapped
        Whether it lies in big endian words.
    """
    count = plane.rows * plane.columns * plane.frames
    raw = np.frombuffer(data, np.uint8)
    if swapped:
        raw = raw[: raw.size // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
    if raw.size * 8 < count or count == 0:
        return None
    bits = np.unpackbits(raw, bitorder="little")
    bits[count:] = 0  # padding, or frames that nothing places
    frames = bits[:count].reshape(plane.frames, plane.rows, plane.columns)
    for box in boxes:
        top, left = max(0, box.y - plane.top), max(0, box.x - plane.left)
        frames[:, top : max(0, box.bottom - plane.top), left : max(0, box.right - plane.left)] = 0
    packed = np.packbits(bits, bitorder="little")
    return (packed.reshape(-1, 2)[:, ::-1].reshape(-1) if swapped else packed).tobytes()
