"""Every check of a redaction, before a file is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.dicom.transcode.codecs import require_codec
from cloud_optimized_dicom.errors import (
    RedactionBoxOutOfBoundsError,
    RedactionError,
    RedactionFrameOutOfRangeError,
    RedactionTargetMissingError,
)
from cloud_optimized_dicom.redaction.fill import check_fill
from cloud_optimized_dicom.redaction.image import Image, read_image
from cloud_optimized_dicom.redaction.model import Region, TargetFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_optimized_dicom.bounding_box import PixelRedaction
    from cloud_optimized_dicom.redaction.model import RedactionOptions


@dataclass(frozen=True)
class PlannedImage:
    """One image, and the boxes that are to go."""

    image: Image
    regions: tuple[Region, ...]


def group_regions(
    redactions: Sequence[PixelRedaction], known: Mapping[str, object], uri: str = ""
) -> dict[str, tuple[Region, ...]]:
    """Return the boxes of every instance that is named, each once.

    Parameters
    ----------
    known
        By the UIDs that may be named.
    uri
        Of the series, for an error.

    Raises
    ------
    RedactionError
        If there is nothing to do.
    RedactionTargetMissingError
        If an instance is not known.
    """
    if not redactions:
        raise RedactionError("", "there is no redaction")
    grouped: dict[str, dict[Region, None]] = {}
    for redaction in redactions:
        if not redaction.applies_to:
            raise RedactionError("", "a redaction names no instance")
        frames = None if redaction.frames is None else tuple(redaction.frames)
        for uid in redaction.applies_to:
            if uid not in known:
                raise RedactionTargetMissingError(uid, uri)
            grouped.setdefault(uid, {})[Region(redaction.box, frames)] = None
    return {uid: tuple(regions) for uid, regions in grouped.items()}


def plan_images(
    regions: Mapping[str, tuple[Region, ...]], files: Mapping[str, TargetFile], options: RedactionOptions
) -> list[PlannedImage]:
    """Check every box, frame and fill against the files.

    Raises
    ------
    RedactionError
        One of its kinds, for the first that cannot be done.
    MissingDependencyError
        Without the codec that is needed.
    """
    planned = []
    for uid, wanted in regions.items():
        image = read_image(uid, files[uid])
        for region in wanted:
            _check_region(image, region)
        image.require_lowest_bits()
        check_fill(image, options.fill_value)
        target = image.target(options)
        if target is not None:
            require_codec(target)
        planned.append(PlannedImage(image, wanted))
    return planned


def _check_region(image: Image, region: Region) -> None:
    frames = len(image.table)
    if region.frames is not None and not region.frames:
        raise RedactionError(image.name, "a redaction names no frame")
    for frame in region.frames or ():
        if not 0 <= frame < frames:
            raise RedactionFrameOutOfRangeError(image.name, frame, frames)
    box = region.box
    if not box.fits(image.pixels.rows, image.pixels.columns):
        raise RedactionBoxOutOfBoundsError(image.name, (box.x, box.y, box.width, box.height))
