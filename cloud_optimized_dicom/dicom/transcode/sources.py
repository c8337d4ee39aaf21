"""Decoding what a source holds: native frames, and frames in a lossless transfer syntax."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.decoders_codestream import parse_codestream, require_plausible, require_sound_jpeg
from cloud_optimized_dicom.dicom.decoders_jpeg2000 import HTJ2K_SYNTAXES, JPEG2000_SYNTAXES, require_bounded
from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels
from cloud_optimized_dicom.dicom.transcode.plan import JPEG_LOSSLESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cloud_optimized_dicom.dicom.transcode.model import PixelFormat

_RLE = "1.2.840.10008.1.2.5"


def decode_native(frame: bytes, image: PixelFormat) -> NDArray[Any]:
    """Return the pixels of a native frame, of `PixelFormat.shape` and `PixelFormat.dtype`.

    Raises
    ------
    ValueError
        If it has another size than the format says.
    """
    if image.frame_bytes % 2 and len(frame) == image.frame_bytes + 1:
        frame = frame[:-1]  # an item's padding
    if image.is_swapped:
        frame = np.frombuffer(frame, ">u2").astype("<u2").tobytes()
    elif not image.is_little_endian:
        size = image.bits_allocated // 8
        frame = np.frombuffer(frame, f">u{size}").astype(f"<u{size}").tobytes()
    pixels = np.frombuffer(frame, image.dtype)
    if image.samples_per_pixel > 1 and image.planar_configuration == 1:
        planes = pixels.reshape(image.samples_per_pixel, image.rows, image.columns)
        return np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    return pixels.reshape(image.shape)


def decode_by_pydicom(frame: bytes, image: PixelFormat, *, validate: bool = True) -> NDArray[Any]:
    """Return the pixels of a frame in the transfer syntax of its format, as pydicom's users get them.

    Parameters
    ----------
    validate
        Whether pydicom looks at the frame and its format first, and warns of what it finds odd.

    Raises
    ------
    RuntimeError, ValueError, NotImplementedError, AttributeError
        From pydicom and its plugins: data that does not decode, or nothing installed that decodes it.

    Notes
    -----
    JPEG Lossless goes to GDCM alone: pylibjpeg's decoder clamps differences where ISO/IEC 10918-1 section H.1.2.1
    wants them modulo 65536.  Nothing converts colours.  A frame that would end the process, or take gigabytes that its
    pixels do not, is refused first.
    """
    if image.transfer_syntax_uid != _RLE:
        _require_safe(frame, image)
    pixels = importlib.import_module("pydicom.pixels")
    encaps = importlib.import_module("pydicom.encaps")
    plugin = "gdcm" if image.transfer_syntax_uid in JPEG_LOSSLESS else ""
    value = encaps.encapsulate([frame], has_bot=False)
    decoded, _ = pixels.get_decoder(image.transfer_syntax_uid).as_array(
        value,
        index=0,
        raw=True,
        validate=validate,
        decoding_plugin=plugin,
        pixel_keyword="PixelData",
        correct_unused_bits=False,
        **pydicom_options(image),
    )
    return np.asarray(decoded)


def _require_safe(frame: bytes, image: PixelFormat) -> None:
    pixels = ImagePixels(
        rows=image.rows,
        columns=image.columns,
        samples_per_pixel=image.samples_per_pixel,
        bits_allocated=image.bits_allocated,
        bits_stored=image.bits_stored,
        pixel_representation=int(image.is_signed),
        by_plane=False,
        photometric_interpretation=image.photometric_interpretation,
        pixel_tag="7FE00010",
        vr="OB",
    )
    require_plausible(frame, parse_codestream(frame), pixels)
    if image.transfer_syntax_uid in JPEG_LOSSLESS:
        require_sound_jpeg(frame, pixels)
    elif image.transfer_syntax_uid in JPEG2000_SYNTAXES | HTJ2K_SYNTAXES:
        require_bounded(frame)


def pydicom_options(image: PixelFormat) -> dict[str, Any]:
    """Return the format of one frame as pydicom's encoders and decoders want it."""
    options: dict[str, Any] = {
        "rows": image.rows,
        "columns": image.columns,
        "number_of_frames": 1,
        "samples_per_pixel": image.samples_per_pixel,
        "photometric_interpretation": image.photometric_interpretation,
        "bits_allocated": image.bits_allocated,
        "bits_stored": image.bits_stored,
        "pixel_representation": int(image.is_signed),
    }
    return options | ({"planar_configuration": image.planar_configuration or 0} if image.samples_per_pixel > 1 else {})
