"""Many pictures on one sheet, and the few of a long series that stand for all."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.thumbnail.access import DEFAULT_SIZE
from cloud_optimized_dicom.thumbnail.encode import decode
from cloud_optimized_dicom.thumbnail.generate import draw_frames
from cloud_optimized_dicom.thumbnail.geometry import Anchors
from cloud_optimized_dicom.thumbnail.render import shrink
from cloud_optimized_dicom.thumbnail.stored import find_thumbnail_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cloud_optimized_dicom.series.reader import SeriesReader

MOST_PICTURES = 64
_LARGEST = 2 * DEFAULT_SIZE


class Tile(NamedTuple):
    """One frame on a sheet: the UID that its instance is stored under, the 0-based frame, and its picture.

    The picture is of shape (rows, columns) or (rows, columns, 3); None where nothing decodes the frame.
    """

    instance_uid: str
    frame: int
    picture: NDArray[np.uint8] | None


def read_tiles(reader: SeriesReader, frames: Mapping[str, int], most: int = MOST_PICTURES) -> list[Tile]:
    """Return pictures of a series, at most so many, at equal distances, the first and the last frame among them.

    Parameters
    ----------
    frames
        How many frames each instance is said to have, by the UID that it is stored under, in the order to be shown.

    Notes
    -----
    Those of the stored thumbnail, in its order, where there is one of the series as it is: one request.  Otherwise the
    frames themselves are read, by range reads, and drawn; nothing is stored.  No other pictures are held in memory.

    Raises
    ------
    HashMismatchError
        If stored bytes are damaged.
    MissingDependencyError
        If a codec, or the extra ``thumbnail``, is not installed.
    """
    stored = _stored_tiles(reader, most)
    return _drawn_tiles(reader, frames, most) if stored is None else stored


def _stored_tiles(reader: SeriesReader, most: int) -> list[Tile] | None:
    file = find_thumbnail_file(reader.store, reader.key, reader.document)
    if file is None:
        return None
    chosen = _chosen(len(file.described.frames), most)
    try:
        pictures = decode(file.data, file.extension, chosen)
    except ValueError:
        return None
    if len(pictures) != len(chosen):
        return None
    shown = [file.described.frames[number] for number in chosen]
    return [Tile(it.instance_uid, it.frame, _small(picture)) for it, picture in zip(shown, pictures, strict=True)]


def _drawn_tiles(reader: SeriesReader, frames: Mapping[str, int], most: int) -> list[Tile]:
    held = [(uid, count) for uid, count in frames.items() if count > 0]
    ends = list(accumulate(count for _, count in held))
    wanted = []
    for position in _chosen(ends[-1] if ends else 0, most):
        number = bisect_right(ends, position)
        uid, count = held[number]
        wanted.append((reader.document.get(uid), position - ends[number] + count))
    if not wanted:
        return []
    pictures = draw_frames(FrameReader(reader), wanted, DEFAULT_SIZE, tar_uri=reader.tar_uri)
    return [Tile(record.name_uid, at, picture) for (record, at), picture in zip(wanted, pictures, strict=True)]


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if max(picture.shape[:2]) <= _LARGEST:
        return picture
    return shrink(picture, Anchors.fit(picture.shape[0], picture.shape[1], _LARGEST), _LARGEST)


def _chosen(count: int, most: int) -> list[int]:
    """Return at most so many of the numbers below `count`, at equal distances, the ends among them."""
    if count <= most:
        return list(range(count))
    gaps = max(1, most - 1)  # in whole numbers: a header may claim any number of frames
    return [(2 * number * (count - 1) + gaps) // (2 * gaps) for number in range(most)]


def contact_sheet(pictures: NDArray[np.uint8], most: int = MOST_PICTURES) -> NDArray[np.uint8]:
    """Return pictures side by side, row by row, on a sheet that is about square; one picture stays as it is.

    Parameters
    ----------
    pictures
        Of shape (pictures, rows, columns, 3), or one of shape (rows, columns, 3).
    most
        How many there may be; of more, as many are taken at equal distances, the first and the last among them.
    """
    if pictures.ndim == 3:  # noqa: PLR2004 - one picture
        return pictures
    pictures = pictures[_chosen(len(pictures), most)]
    count, rows, columns = pictures.shape[:3]
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    padded = np.zeros((down * across, rows, columns, 3), np.uint8)
    padded[:count] = pictures
    grid = padded.reshape(down, across, rows, columns, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(down * rows, across * columns, 3))
