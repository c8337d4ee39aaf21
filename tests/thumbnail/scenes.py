"""Images whose thumbnails are known, and the series that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, make_uid, to_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

UIDS = Uids.of("thumbnails")


def uid(number: int) -> str:
    """Return the UID of an instance."""
    return make_uid("thumbnails", number)


def image(number: int, pixels: NDArray[Any], **attributes: Any) -> Dataset:
    """Return an instance of the series: `pixels` are (rows, columns[, 3]), with a leading axis if of several frames."""
    dataset = make_dataset(Uids(UIDS.study, UIDS.series, uid(number)))
    dataset.InstanceNumber = number
    samples = 3 if pixels.shape[-1] == 3 else 1
    axes = pixels.ndim - (samples == 3)
    shape = pixels.shape[axes - 2 : axes]
    bits = 8 * pixels.dtype.itemsize
    frames = pixels.shape[0] if axes == 3 else None
    describe_pixels(dataset, (shape[0], shape[1]), frames=frames, bits=bits, samples=samples)
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", pixels.tobytes())
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def ramp(rows: int = 32, columns: int = 32, top: int = 4095, *, turned: bool = False) -> NDArray[np.uint16]:
    """Return an image that goes from 0 at one side to `top` at the other."""
    values = np.linspace(0, top, columns).round().astype(np.uint16)
    picture = np.broadcast_to(values, (rows, columns))
    return np.ascontiguousarray(np.flip(picture, 1) if turned else picture)


def report(number: int) -> Dataset:
    """Return an instance of the series that has no pixel data."""
    dataset = make_dataset(Uids(UIDS.study, UIDS.series, uid(number)))
    dataset.InstanceNumber = number
    return dataset


def write(folder: Path, *datasets: Dataset | bytes) -> list[Instance]:
    """Write instances as files."""
    instances = []
    for number, dataset in enumerate(datasets):
        path = folder / f"{len(list(folder.iterdir()))}-{number}.dcm"
        path.write_bytes(dataset if isinstance(dataset, bytes) else to_bytes(dataset))
        instances.append(Instance(path))
    return instances


def open_series(store: Any, mode: Any = "r", **options: Any) -> CODObject:
    """Open the series."""
    return CODObject(store, None, UIDS.study, UIDS.series, mode, **options)


def store_series(store: Any, folder: Path, *datasets: Dataset | bytes) -> None:
    """Add instances to the series."""
    with open_series(store, "a") as cod:
        assert len(cod.append(write(folder, *datasets)).new) == len(datasets)


def names_of(store: Any) -> set[str]:
    """Return the names in the store, from the series' folder on."""
    return {info.name.rpartition("series/")[2].partition(UIDS.series)[2] for info in store.list()}
