"""Whether two DICOM files show the same pixels, however they are encoded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.errors import FrameDecodeError
from cloud_optimized_dicom.format.dicom_json import first_value, unpack_header
from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES, join_items

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cloud_optimized_dicom.model import FrameTable

_TRANSFER_SYNTAX = "00020010"


@dataclass(frozen=True)
class Image:
    """An open DICOM file with what is known of it."""

    stream: BinaryIO
    packed_header: str | dict[str, object]
    frame_table: FrameTable | None


def show_the_same(left: Image, right: Image) -> bool:
    """Return whether all frames are equal once decoded; False where that cannot be said.

    Notes
    -----
    Holds one frame of each at a time.
    """
    import numpy as np  # noqa: PLC0415 - as the decoder

    if not _is_comparable(left) or not _is_comparable(right):
        return False
    try:
        return all(
            one is not None and other is not None and one.dtype == other.dtype and np.array_equal(one, other)
            for one, other in zip_longest(_iter_frames(left), _iter_frames(right))
        )
    except FrameDecodeError:
        return False


def _is_comparable(image: Image) -> bool:
    table = image.frame_table
    return table is not None and table.rangeable and len(table) > 0


def _iter_frames(image: Image) -> Iterator[NDArray[Any]]:
    from cloud_optimized_dicom.dicom.decode import FrameDecoder  # noqa: PLC0415 - loads codecs

    table = image.frame_table
    if table is None:
        return
    header = unpack_header(image.packed_header)
    decoder = FrameDecoder.of(header, str(first_value(header, _TRANSFER_SYNTAX)))
    for frame in range(len(table)):
        span = table.span(frame)
        fragments = table.fragment_counts[frame] if table.fragment_counts else 1
        before = HEADER_BYTES if fragments > 1 else 0
        image.stream.seek(span.start - before)
        data = image.stream.read(len(span) + before)
        yield decoder.decode(join_items(data, fragments) if before else data, frame)
