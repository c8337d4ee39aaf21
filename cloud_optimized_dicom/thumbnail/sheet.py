"""Many pictures on one sheet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def contact_sheet(pictures: NDArray[np.uint8], most: int = 64) -> NDArray[np.uint8]:
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
    if len(pictures) > most:
        pictures = pictures[np.linspace(0, len(pictures) - 1, most).round().astype(int)]
    count, rows, columns = pictures.shape[:3]
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    padded = np.zeros((down * across, rows, columns, 3), np.uint8)
    padded[:count] = pictures
    grid = padded.reshape(down, across, rows, columns, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(down * rows, across * columns, 3))
