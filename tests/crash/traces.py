"""What a redaction that was interrupted leaves of the old pixels: nothing, or all if it was not to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydicom

from cloud_optimized_dicom.thumbnail.encode import decode
from tests.crash.scenes import KEY, REDACTED, REDACTED_BOX, Folder, open_series
from tests.redaction.search import everything, leaks, runs_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cloud_optimized_dicom.storage.base import ObjectStore

_INSIDE = (slice(4, 10), slice(5, 11))
"""Rows and columns well inside the box in a thumbnail that shows a row of the image by two."""


def hidden(folder: Folder) -> set[bytes]:
    """Return the runs of the rows in the box, of every instance that is redacted."""
    found: set[bytes] = set()
    for index in REDACTED:
        for row in pydicom.dcmread(folder.path / f"{index}.dcm").pixel_array[REDACTED_BOX.slices()]:
            found |= runs_of(row.tobytes())
    return found


def inside(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what a thumbnail shows of the box in the redacted instances."""
    assert pictures.shape[1:] == (16, 16, 3)
    return pictures[list(REDACTED)][:, *_INSIDE]


def stored_pictures(store: ObjectStore) -> dict[str, NDArray[np.uint8]]:
    """Return what the objects show that are thumbnails, by their names, whether or not a document names them."""
    return {
        info.name.rpartition("/")[2]: decode(store.read_object(info.name).data, info.name[-3:])
        for info in store.list(f"{KEY.folder}/thumbnail.")
    }


def check_traces(store: ObjectStore, folder: Folder, *, redacted: bool) -> None:
    """Make sure that no object shows the old pixels, by its bytes or as a picture, or that they are found and shown.

    The picture that is stored while the old pixels are may be the one of a redaction that came to nothing: no document
    names it, and readers draw their own.
    """
    runs = hidden(folder)
    assert runs
    places = [place for place, data in everything(store).items() if leaks(data, runs)]
    with open_series(store) as cod:
        shown = inside(cod.get_thumbnail(thumbnail_size=16))
    if redacted:
        assert places == []
        assert shown.max() < 30
        assert all(inside(pictures).max() < 30 for pictures in stored_pictures(store).values()), "it is shown"
    else:
        assert [place.rpartition(".")[2] for place in places] == ["tar"]
        assert shown.min() > 50, "it shows a redaction that was not to be"
