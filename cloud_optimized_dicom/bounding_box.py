"""A rectangle of pixels, and where it is to be overwritten."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class BoundingBox:
    """A rectangle of whole pixels in an image.

    Parameters
    ----------
    x, y
        Column and row of its upper left pixel, from 0.
    width, height
        In pixels: the box covers columns `x` to `x + width - 1` and rows `y` to `y + height - 1`.

    Raises
    ------
    TypeError
        For anything but whole numbers.

    Notes
    -----
    Whether it lies within an image is known only with the image: :meth:`fits`.
    """

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        for name in ("x", "y", "width", "height"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))  # NumPy's integers become Python's

    @property
    def right(self) -> int:
        """The first column behind it."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The first row below it."""
        return self.y + self.height

    def fits(self, rows: int, columns: int) -> bool:
        """Return whether it holds a pixel, and none outside an image of this size."""
        fits_across = 0 <= self.x < self.right <= columns
        return fits_across and 0 <= self.y < self.bottom <= rows

    def slices(self) -> tuple[slice, slice]:
        """Return its rows and columns, as an index of an array of shape (rows, columns, ...)."""
        return slice(self.y, self.bottom), slice(self.x, self.right)


@dataclass(frozen=True, slots=True)
class PixelRedaction:
    """A box to overwrite, in one or several instances.

    Parameters
    ----------
    box
        In pixels of the frames.
    applies_to
        The UIDs of the instances, as the series names them.
    frames
        The frames of each, from 0; None: all.
    """

    box: BoundingBox
    applies_to: Sequence[str]
    frames: Sequence[int] | None = None

    def __post_init__(self) -> None:
        uids = (self.applies_to,) if isinstance(self.applies_to, str) else tuple(self.applies_to)
        object.__setattr__(self, "applies_to", uids)
        if self.frames is not None:
            object.__setattr__(self, "frames", tuple(operator.index(frame) for frame in self.frames))
