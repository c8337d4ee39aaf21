"""Frames of native pixel data: equal pieces, one after the other (PS3.5 section 8.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import FrameTableError
from cloud_optimized_dicom.model import FrameTable

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.offsets.description import PixelDescription
    from cloud_optimized_dicom.ranges import ByteRange

MAX_FRAMES = 1 << 20
"""More frames than this are taken for a damaged header: the largest slides have some hundred thousand tiles."""


def plan_native_frames(
    description: PixelDescription,
    value: ByteRange,
    element_start: int,
    instance: str,
    *,
    unit_bytes: int = 1,
) -> FrameTable:
    """Return where the frames of a native value lie.

    Parameters
    ----------
    value
        The bytes of the value that are there, which may be fewer than its length says.
    element_start
        First byte of the element's tag.
    instance
        Names the file in an error.
    unit_bytes
        What may not be cut: 2 for 8-bit pixels in big endian words (OW), whose bytes lie swapped.

    Raises
    ------
    FrameTableError
        If the header does not say how large a frame is.

    Notes
    -----
    Only whole frames get an entry; what follows the last frame (padding) is ignored.  Frames are packed without padding
    between them, so a frame of 1-bit pixels may start within a byte (and one of swapped bytes within a word): its range
    then holds every byte that holds a part of it, and shares the first or last with its neighbour.
    """
    if len(value) == 0:
        return FrameTable((), (), pixel_data_offset=element_start)
    bits = _bits_per_frame(description, len(value))
    if bits <= 0:
        raise FrameTableError(instance, "Rows, Columns, Samples per Pixel or Bits Allocated is missing or zero")
    frames = min(description.frames, len(value) * 8 // bits)
    if frames > MAX_FRAMES:
        raise FrameTableError(instance, f"more than {MAX_FRAMES} frames")
    unit = 8 * unit_bytes
    starts = [value.start + frame * bits // unit * unit_bytes for frame in range(frames)]
    stops = [value.start + -(-(frame + 1) * bits // unit) * unit_bytes for frame in range(frames)]
    if stops and stops[-1] > value.stop:  # the last word is cut
        starts, stops = starts[:-1], stops[:-1]
    return FrameTable(
        tuple(starts),
        tuple(stop - start for start, stop in zip(starts, stops, strict=True)),
        pixel_data_offset=element_start,
    )


def _bits_per_frame(description: PixelDescription, value_bytes: int) -> int:
    full = description.frame_bits
    if not description.is_subsampled:
        return full
    # Some writers label full-resolution data as subsampled; the length of the value tells.
    return full if value_bytes * 8 >= full * description.frames else full // 3 * 2
