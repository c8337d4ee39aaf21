"""The encoders, each with the decoder that reads back what it wrote; imported in the process that encodes.

HTJ2K and JPEG 2000 by imagecodecs (OpenJPH, OpenJPEG), JPEG-LS by pyjpegls and, on the way back, imagecodecs (both
CharLS), RLE by pydicom.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_optimized_dicom.dicom.decoders_jpeg2000 import decode_htj2k as decode_codestream
from cloud_optimized_dicom.dicom.transcode.model import PixelFormat, Target
from cloud_optimized_dicom.dicom.transcode.sources import decode_by_pydicom, pydicom_options
from cloud_optimized_dicom.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[Any]


class Codec(NamedTuple):
    """A lossless encoder and its decoder, functions at the top level of a module so that they pickle.

    Parameters
    ----------
    encode
        From pixels of `PixelFormat.shape` and `PixelFormat.dtype` to a frame.
    decode
        From a frame to pixels that must equal those; of any integer type that holds them.
    """

    encode: Callable[[Pixels, PixelFormat], bytes]
    decode: Callable[[bytes, PixelFormat], Pixels]


@cache  # asked for every file, and it looks through the path
def require_codec(target: Target) -> None:
    """Check that what a target needs is installed, without importing it.

    Raises
    ------
    MissingDependencyError
        If it is not.
    """
    if any(importlib.util.find_spec(name) is None for name in _MODULES[target]):
        raise MissingDependencyError(f"recompression to {target.value}", "codecs")


def load_codec(target: Target) -> None:
    """Import what a target needs, where a process has nothing better to do yet."""
    for name in _MODULES[target]:
        _import(name)


def encode_htj2k(pixels: Pixels, image: PixelFormat) -> bytes:
    """Return an HTJ2K codestream; its precision is that of the container, the only one that imagecodecs offers."""
    return bytes(_import("imagecodecs").htj2k_encode(pixels, rgb=_is_rgb(image), planar=False, reversible=True))


def decode_htj2k(frame: bytes, image: PixelFormat) -> Pixels:
    """Return the pixels of an HTJ2K codestream of :func:`encode_htj2k`."""
    decoded = np.empty(image.shape, image.dtype)
    decode_codestream(frame, decoded)
    return decoded


def encode_jpeg2000(pixels: Pixels, image: PixelFormat) -> bytes:
    """Return a JPEG 2000 codestream whose precision is Bits Stored."""
    options = {"bitspersample": image.bits_stored} if image.bits_stored < image.bits_allocated else {}
    encode = _import("imagecodecs").jpeg2k_encode
    return bytes(encode(pixels, codecformat="j2k", reversible=True, mct=_is_rgb(image), numthreads=1, **options))


def decode_jpeg2000(frame: bytes, image: PixelFormat) -> Pixels:  # noqa: ARG001 (the codestream says it all)
    """Return the pixels of a JPEG 2000 codestream."""
    return np.asarray(_import("imagecodecs").jpeg2k_decode(frame, numthreads=1))


def encode_jpegls(pixels: Pixels, image: PixelFormat) -> bytes:
    """Return JPEG-LS whose precision is Bits Stored; it knows no sign, so negative values go as their bits."""
    bits = image.bits_stored
    raw = pixels.view(f"<u{pixels.itemsize}") & ((1 << bits) - 1)
    source = raw.astype("<u1" if bits <= 8 else "<u2").tobytes()  # noqa: PLR2004 (bits of a byte)
    options = {"planar_configuration": 0} if image.samples_per_pixel > 1 else {}
    return bytes(
        _import("jpeg_ls").encode_pixel_data(
            source,
            rows=image.rows,
            columns=image.columns,
            samples_per_pixel=image.samples_per_pixel,
            bits_stored=bits,
            **options,
        )
    )


def decode_jpegls(frame: bytes, image: PixelFormat) -> Pixels:
    """Return the pixels of JPEG-LS, with the sign that Pixel Representation gives them."""
    decoded = np.asarray(_import("imagecodecs").jpegls_decode(frame))
    if not image.is_signed:
        return decoded
    sign = 1 << (image.bits_stored - 1)
    return (decoded.astype(np.int32) ^ sign) - sign


def encode_rle(pixels: Pixels, image: PixelFormat) -> bytes:
    """Return a frame of RLE segments, one per byte of each sample (PS3.5 annex G)."""
    encoder = importlib.import_module("pydicom.pixels").get_encoder(image.transfer_syntax_uid)
    # From bytes, pydicom would drop the upper byte of samples whose stored bits fit the lower one; RLE wants both.
    options = pydicom_options(replace(image, bits_stored=image.bits_allocated))
    return bytes(encoder.encode(pixels.tobytes(), encoding_plugin="pydicom", **options))


def decode_rle(frame: bytes, image: PixelFormat) -> Pixels:
    """Return the pixels of a frame of RLE segments."""
    # pydicom would warn of a frame whose runs happen to take as many bytes as its pixels.
    return decode_by_pydicom(frame, image, validate=False)


def _is_rgb(image: PixelFormat) -> bool:
    return image.photometric_interpretation == "YBR_RCT"


def _import(name: str) -> Any:
    return importlib.import_module(name)


CODECS = {
    Target.HTJ2K: Codec(encode_htj2k, decode_htj2k),
    Target.JPEG2000: Codec(encode_jpeg2000, decode_jpeg2000),
    Target.JPEGLS: Codec(encode_jpegls, decode_jpegls),
    Target.RLE: Codec(encode_rle, decode_rle),
}

_MODULES = {
    Target.HTJ2K: ("imagecodecs",),
    Target.JPEG2000: ("imagecodecs",),
    Target.JPEGLS: ("imagecodecs", "jpeg_ls"),
    Target.RLE: (),
}
