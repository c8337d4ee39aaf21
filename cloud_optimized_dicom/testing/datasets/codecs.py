"""The encoders that synthetic files need, imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.errors import MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _imagecodecs() -> Any:
    try:
        return importlib.import_module("imagecodecs")
    except ImportError as error:
        raise MissingDependencyError("encoding synthetic images", "codecs") from error


def encode_jpeg(pixels: NDArray[Any], quality: int = 85) -> bytes:
    """Return baseline JPEG of 8-bit grey or RGB pixels.

    Raises
    ------
    MissingDependencyError
        Without imagecodecs, as the other encoders here.
    """
    return bytes(_imagecodecs().jpeg8_encode(pixels, level=quality))


def encode_jpeg2000(pixels: NDArray[Any]) -> bytes:
    """Return a lossless JPEG 2000 codestream, without the file format around it."""
    return bytes(_imagecodecs().jpeg2k_encode(pixels, codecformat="j2k", reversible=True))


def encode_htj2k(pixels: NDArray[Any]) -> bytes:
    """Return a lossless High-Throughput JPEG 2000 codestream."""
    return bytes(_imagecodecs().htj2k_encode(pixels))


def encode_jpegls(pixels: NDArray[Any]) -> bytes:
    """Return lossless JPEG-LS."""
    return bytes(_imagecodecs().jpegls_encode(pixels))
