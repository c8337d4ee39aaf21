"""Where an image lies in its thumbnail, and positions of one in the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Position(NamedTuple):
    """A position in an image, in pixels: pixel (i, j) covers rows i to i + 1 and columns j to j + 1."""

    row: float
    col: float


@dataclass(frozen=True, slots=True)
class Anchors:
    """An image of `height` x `width` in the middle of a square, its sides in proportion.

    Parameters
    ----------
    top, left
        The first row and column that the image covers.
    bottom, right
        The first row and column behind it.
    """

    width: int
    height: int
    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def fit(cls, rows: int, columns: int, size: int) -> Anchors:
        """Return the place of an image in a square of `size` pixels: as large as fits, at least one pixel wide."""
        longest = max(rows, columns)
        height, width = (max(1, round(side * size / longest)) for side in (rows, columns))
        top, left = (size - height) // 2, (size - width) // 2
        return cls(columns, rows, top, left, top + height, left + width)

    @property
    def scale_factor(self) -> float:
        """Pixels of the image to one of the thumbnail, along the longer side."""
        longest = max(self.width, self.height)
        return longest / max(self.right - self.left, self.bottom - self.top)

    def dump(self) -> dict[str, Any]:
        """Return the JSON of the format."""
        return {
            "original_size": {"width": self.width, "height": self.height},
            "thumbnail_upper_left": {"row": self.top, "col": self.left},
            "thumbnail_bottom_right": {"row": self.bottom, "col": self.right},
            "scale_factor": self.scale_factor,
        }

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Anchors:
        """Return the anchors that a document has of a frame.

        Raises
        ------
        ValueError
            If they are none.
        """
        try:
            original, upper, lower = (
                raw[name] for name in ("original_size", "thumbnail_upper_left", "thumbnail_bottom_right")
            )
            found = cls(
                int(original["width"]),
                int(original["height"]),
                int(upper["row"]),
                int(upper["col"]),
                int(lower["row"]),
                int(lower["col"]),
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError("no anchors of a thumbnail") from None
        if min(found.width, found.height, found.bottom - found.top, found.right - found.left) < 1:
            raise ValueError("anchors of an image without pixels")
        return found


@dataclass(frozen=True, slots=True)
class ThumbnailCoordConverter:
    """Positions in an image as positions in its thumbnail, and back.

    Notes
    -----
    Corners map to corners exactly: (0, 0) to the anchors' upper left, (height, width) to their bottom right.  Positions
    in the margins around the image map to positions outside of it.  Pickles.
    """

    anchors: Anchors

    @classmethod
    def from_anchors(cls, anchors: Mapping[str, Any]) -> ThumbnailCoordConverter:
        """Return the converter of a frame's anchors, as the document has them; `ValueError` if they are none."""
        return cls(Anchors.parse(anchors))

    def to_thumbnail(self, row: float, col: float) -> Position:
        """Return the position in the thumbnail of a position in the image."""
        a = self.anchors
        return Position(
            a.top + row * (a.bottom - a.top) / a.height,
            a.left + col * (a.right - a.left) / a.width,
        )

    def to_original(self, row: float, col: float) -> Position:
        """Return the position in the image of a position in the thumbnail."""
        a = self.anchors
        return Position(
            (row - a.top) * a.height / (a.bottom - a.top),
            (col - a.left) * a.width / (a.right - a.left),
        )

    def original_to_thumbnail(self, original_coords: tuple[float, float]) -> tuple[float, float]:
        """Return :meth:`to_thumbnail` of (x, y), as (x, y)."""
        row, col = self.to_thumbnail(original_coords[1], original_coords[0])
        return col, row

    def thumbnail_to_original(self, thumbnail_coords: tuple[float, float]) -> tuple[float, float]:
        """Return :meth:`to_original` of (x, y), as (x, y)."""
        row, col = self.to_original(thumbnail_coords[1], thumbnail_coords[0])
        return col, row
