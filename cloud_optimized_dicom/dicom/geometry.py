"""Where frames lie in the patient, and how they stack into a volume (PS3.3 sections C.7.6.2 and C.7.6.16.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Header = Mapping[str, Any]

_SHARED_GROUPS, _FRAME_GROUPS = "52009229", "52009230"
_POSITION, _ORIENTATION, _SPACING = "00200032", "00200037", "00280030"
_SLOPE, _INTERCEPT = "00281053", "00281052"
_GROUP_OF = {
    _POSITION: "00209113",  # Plane Position Sequence
    _ORIENTATION: "00209116",  # Plane Orientation Sequence
    _SPACING: "00289110",  # Pixel Measures Sequence
    _SLOPE: "00289145",  # Pixel Value Transformation Sequence
    _INTERCEPT: "00289145",
}
_ROWS, _COLUMNS, _SAMPLES = "00280010", "00280011", "00280002"
_DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine between frames of one volume: 0.06 degrees."""
_SPACING_TOLERANCE = 0.01
"""Largest difference of a slice distance, as a share of the usual one: headers round to a few decimals."""


class GeometryError(ValueError):
    """Frames that do not stack; the text says why, without header values."""


@dataclass(frozen=True)
class Plane:
    """One frame in the patient.

    Parameters
    ----------
    instance, frame
        Which one: the caller's number of the instance, and the 0-based frame in it.
    position
        Of the centre of the first pixel, in mm, LPS; shape (3,).
    along_row, along_column
        Unit vectors: the direction in which the column index, and the row index, grows; shape (3,).
    row_mm, column_mm
        Distance between rows, and between columns.
    rows, columns
        Of the frame.
    slope, intercept
        Of the rescale transformation; 1 and 0 where there is none.
    """

    instance: int
    frame: int
    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    row_mm: float
    column_mm: float
    rows: int
    columns: int
    slope: float
    intercept: float


@dataclass(frozen=True)
class Stack:
    """Frames in order along the normal of their planes.

    Parameters
    ----------
    planes
        In the order of the volume's first axis.
    affine
        Shape (4, 4): from (slice, row, column) indexes of the volume to LPS coordinates in mm.
    """

    planes: tuple[Plane, ...]
    affine: NDArray[np.float64]


def planes_of(instance: int, header: Header, frames: int) -> list[Plane]:
    """Return the planes of an instance's frames.

    Raises
    ------
    GeometryError
        If the header does not say where they lie, or they are no grey-scale images.
    """
    if _number(header, _SAMPLES, 1) != 1:
        raise GeometryError("colour images do not make a volume")
    rows, columns = int(_number(header, _ROWS, 0)), int(_number(header, _COLUMNS, 0))
    return [_plane((instance, frame), list(frame_sources(header, frame)), (rows, columns)) for frame in range(frames)]


def frame_sources(header: Header, frame: int) -> Iterator[Header]:
    """Yield where a frame's attributes may be: its own functional groups, the shared ones, the header itself."""
    for tag, index in ((_FRAME_GROUPS, frame), (_SHARED_GROUPS, 0)):
        items = header.get(tag, {}).get("Value") or []
        if index < len(items):
            yield items[index]
    yield header


def _plane(which: tuple[int, int], sources: Sequence[Header], shape: tuple[int, int]) -> Plane:
    position = _vector(sources, _POSITION, 3)
    orientation = _vector(sources, _ORIENTATION, 6)
    spacing = _vector(sources, _SPACING, 2)
    if position is None or orientation is None or spacing is None:
        raise GeometryError("a frame without position, orientation or pixel spacing")
    slope, intercept = _rescale(sources)
    return Plane(
        *which,
        position=position,
        along_row=orientation[:3],
        along_column=orientation[3:],
        row_mm=float(spacing[0]),
        column_mm=float(spacing[1]),
        rows=shape[0],
        columns=shape[1],
        slope=slope,
        intercept=intercept,
    )


def rescale_of(header: Header, frame: int) -> tuple[float, float]:
    """Return a frame's rescale slope and intercept; 1 and 0 where the header has none."""
    return _rescale(list(frame_sources(header, frame)))


def _rescale(sources: Sequence[Header]) -> tuple[float, float]:
    slope, intercept = (_vector(sources, tag, 1) for tag in (_SLOPE, _INTERCEPT))
    return (1.0 if slope is None else float(slope[0]), 0.0 if intercept is None else float(intercept[0]))


def _vector(sources: Sequence[Header], tag: str, length: int) -> NDArray[np.float64] | None:
    for source in sources:
        groups = source.get(_GROUP_OF[tag], {}).get("Value") or []
        for holder in (groups[0] if groups else {}, source):
            values = holder.get(tag, {}).get("Value")
            if values and len(values) == length:
                try:
                    return np.array(values, dtype=np.float64)
                except (TypeError, ValueError):
                    return None
    return None


def _number(header: Header, tag: str, default: float) -> float:
    values = header.get(tag, {}).get("Value")
    return values[0] if values and isinstance(values[0], int | float) else default


def plan_stack(planes: Sequence[Plane]) -> Stack:
    """Order planes along their normal and check that they make one regular grid.

    Raises
    ------
    GeometryError
        For mixed orientations, sizes or spacings, two frames at one place, or a gap.
    """
    require_alike(planes)
    first = planes[0]
    normal = np.cross(first.along_row, first.along_column)
    heights = np.array([plane.position @ normal for plane in planes])
    order = np.argsort(heights, kind="stable")
    ordered = tuple(planes[index] for index in order)
    step = _step(ordered, heights[order], normal)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.along_column * first.row_mm
    affine[:3, 2] = first.along_row * first.column_mm
    affine[:3, 3] = ordered[0].position
    return Stack(ordered, affine)


def require_alike(planes: Sequence[Plane]) -> None:
    """Check that there are planes, and that they have one size, orientation and pixel spacing.

    Raises
    ------
    GeometryError
        If not.
    """
    if not planes:
        raise GeometryError("there are no frames")
    for plane in planes:
        _check_alike(planes[0], plane)


def _check_alike(first: Plane, plane: Plane) -> None:
    if (plane.rows, plane.columns) != (first.rows, first.columns):
        raise GeometryError("frames of several sizes")
    for own, other in ((plane.along_row, first.along_row), (plane.along_column, first.along_column)):
        if np.abs(own - other).max() > _DIRECTION_TOLERANCE:
            raise GeometryError("frames of several orientations")
    mine, others = np.array([plane.row_mm, plane.column_mm]), np.array([first.row_mm, first.column_mm])
    if np.abs(mine - others).max() > _SPACING_TOLERANCE * others.max():
        raise GeometryError("frames of several pixel spacings")


def _step(ordered: Sequence[Plane], heights: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vector from one slice to the next: for a single slice, of 1 mm."""
    if len(ordered) == 1:
        return np.asarray(normal)
    distances = np.diff(heights)
    usual = float(np.median(distances))
    if distances.min() <= _SPACING_TOLERANCE * max(usual, _SPACING_TOLERANCE):
        raise GeometryError("several frames lie at one place")
    if np.abs(distances - usual).max() > _SPACING_TOLERANCE * usual:
        gap = int(np.abs(distances - usual).argmax())
        raise GeometryError(f"a gap behind slice {gap} of {len(ordered)}: the slices are not equally spaced")
    step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    return np.asarray(step, dtype=np.float64)
