"""A whole-slide-like instance: thousands of JPEG tiles in one multi-frame image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEGBaseline8Bit

from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.codecs import encode_jpeg

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

OffsetTable = Literal["basic", "empty", "extended"]

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_DISTINCT_TILES = 16


def slide_instance(
    tiles: int,
    offset_table: OffsetTable = "basic",
    *,
    tile_size: int = 256,
    seed: int = 0,
    uids: Uids | None = None,
) -> bytes:
    """Return a DICOM file of `tiles` JPEG frames.

    Parameters
    ----------
    offset_table
        Which table is written; "empty" is a Basic Offset Table without entries.
    tile_size
        Rows and columns of a frame.

    Raises
    ------
    MissingDependencyError
        Without imagecodecs.

    Notes
    -----
    Sixteen distinct tiles are encoded, and repeat; neighbours always differ.
    """
    frames = slide_tiles(tiles, tile_size=tile_size, seed=seed)
    dataset = make_dataset(uids or Uids.of("slide", seed), WHOLE_SLIDE)
    dataset.Modality = "SM"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    describe_pixels(dataset, (tile_size, tile_size), frames=tiles, bits=8, samples=3)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    across = max(1, int(tiles**0.5))
    dataset.TotalPixelMatrixColumns = across * tile_size
    dataset.TotalPixelMatrixRows = -(-tiles // across) * tile_size
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = "12"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    _set_pixels(dataset, frames, offset_table)
    return to_bytes(dataset, JPEGBaseline8Bit)


def slide_tiles(tiles: int, *, tile_size: int = 256, seed: int = 0) -> list[bytes]:
    """Return the encoded frames of :func:`slide_instance`, in order."""
    distinct = [encode_jpeg(_tile(tile_size, seed, number)) for number in range(min(tiles, _DISTINCT_TILES))]
    return [distinct[number % len(distinct)] for number in range(tiles)]


def _tile(size: int, seed: int, number: int) -> NDArray[Any]:
    generator = np.random.default_rng((seed, number))
    coarse = generator.integers(120, 250, (size // 8 + 1, size // 8 + 1, 3))
    tissue = np.kron(coarse, np.ones((8, 8, 1)))[:size, :size]
    return np.clip(tissue + generator.normal(0, 6, tissue.shape), 0, 255).astype(np.uint8)


def _set_pixels(dataset: Dataset, frames: list[bytes], offset_table: OffsetTable) -> None:
    if offset_table == "extended":
        value, offsets, lengths = encapsulate_extended(frames)
        dataset.ExtendedOffsetTable = offsets
        dataset.ExtendedOffsetTableLengths = lengths
    else:
        value = encapsulate(frames, has_bot=offset_table == "basic")
    dataset.add_new("PixelData", "OB", value)
    dataset["PixelData"].is_undefined_length = True
