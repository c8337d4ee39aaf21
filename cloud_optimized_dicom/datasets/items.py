"""What an item is: a dictionary, because that is what the training libraries pass along.

`torch.utils.data.default_collate` makes one of batches from dictionaries, and MONAI's dictionary transforms (their
names end in ``d``) take nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class VolumeItem(TypedDict):
    """A volume of one series.

    ``image`` is of shape (slices, rows, columns); ``affine``, of shape (4, 4), leads from its indexes to LPS
    coordinates in mm.
    """

    image: Any
    affine: NDArray[np.float64]
    study_uid: str
    series_uid: str


class FrameItem(TypedDict):
    """One frame.

    ``image`` is what the decoder returns: by default an array of shape (rows, columns[, samples]).  ``frame`` counts
    from 0 within its instance.
    """

    image: Any
    study_uid: str
    series_uid: str
    instance_uid: str
    frame: int


class SliceItem(FrameItem):
    """One frame and where it lies.

    ``affine``, of shape (4, 4), leads from (0, row, column) to LPS coordinates in mm; 1 instead of 0 leads to the next
    slice.  ``slice`` counts from 0 along the normal of the volume.
    """

    affine: NDArray[np.float64]
    slice: int


def with_monai_meta(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a slice or a volume with the ``image_meta_dict`` that MONAI's ``ToMetaTensord`` takes.

    Notes
    -----
    The affine in there is in RAS coordinates, as MONAI's own readers give it.  A slice becomes a volume of one.
    """
    image = item["image"]
    if "slice" in item:
        image = image[np.newaxis]
    meta = {
        "affine": _LPS_TO_RAS @ item["affine"],
        "space": "RAS",
        "original_channel_dim": "no_channel",
        "spatial_shape": np.array(image.shape),
        "filename_or_obj": item.get("instance_uid", item["series_uid"]),
    }
    return {**item, "image": image, "image_meta_dict": meta}
