"""A batch of frames, decoded, encoded, decoded back and compared: what a worker process does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.decoders_pixels import stored_range
from cloud_optimized_dicom.dicom.transcode.codestream import is_lossless
from cloud_optimized_dicom.dicom.transcode.model import Kept, PixelFormat, Reason, TranscodePlan
from cloud_optimized_dicom.dicom.transcode.plan import UNCOMPRESSED_SYNTAXES
from cloud_optimized_dicom.dicom.transcode.sources import decode_by_pydicom, decode_native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cloud_optimized_dicom.dicom.transcode.codecs import Codec

_CODEC_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What codecs and their bindings raise on data that they do not take; the instance is then stored as given."""


@dataclass(frozen=True, slots=True)
class FrameJob:
    """What to do with the frames of one instance; pickles.

    Parameters
    ----------
    source
        How the frames are given.
    result
        How they are to be: the target's transfer syntax and photometric interpretation, colour by pixel.
    """

    source: PixelFormat
    result: PixelFormat
    codec: Codec

    @classmethod
    def of(cls, plan: TranscodePlan, codec: Codec) -> FrameJob:
        """Return the job of a plan."""
        result = replace(
            plan.format,
            transfer_syntax_uid=plan.target.transfer_syntax_uid,
            photometric_interpretation=plan.photometric_interpretation,
            planar_configuration=None if plan.planar_configuration is None else 0,
            is_little_endian=True,
            is_swapped=False,
        )
        return cls(plan.format, result, codec)


def transcode_frames(job: FrameJob, frames: Sequence[bytes]) -> list[bytes] | Kept:
    """Return the frames encoded, each proven to decode to the same pixels; or why the instance must stay as it is.

    Parameters
    ----------
    frames
        As they lie in the source: native, or compressed with their fragments joined.

    Notes
    -----
    Holds one decoded frame at a time.  Never raises for what a codec does to it.
    """
    encoded: list[bytes] = []
    for frame in frames:
        made = _transcode_frame(job, frame)
        if isinstance(made, Kept):
            return made
        encoded.append(made)
    return encoded


def _transcode_frame(job: FrameJob, frame: bytes) -> bytes | Kept:
    pixels = _read(job, frame)
    return pixels if isinstance(pixels, Kept) else encode_frame(job, pixels)


def encode_frame(job: FrameJob, pixels: NDArray[Any]) -> bytes | Kept:
    """Return a decoded frame encoded, proven to decode to the same pixels; or why that cannot be."""
    try:
        encoded = job.codec.encode(pixels, job.result)
    except _CODEC_ERRORS:
        return Kept(Reason.UNSUPPORTED, "the encoder does not take a frame")
    try:
        again = job.codec.decode(encoded, job.result)
    except _CODEC_ERRORS:
        return Kept(Reason.MISMATCH, "an encoded frame does not decode")
    if not np.array_equal(again, pixels):  # also where the shapes differ
        return Kept(Reason.MISMATCH, "an encoded frame decodes to other pixels")
    return encoded


def _read(job: FrameJob, frame: bytes) -> NDArray[Any] | Kept:
    if not is_lossless(frame, job.source.transfer_syntax_uid):
        return Kept(Reason.LOSSY, "a frame is not coded without loss, against its transfer syntax")
    try:
        pixels = _decode(job.source, frame)
    except _CODEC_ERRORS:
        return Kept(Reason.UNSUPPORTED, "a frame does not decode")
    if pixels is None:
        return Kept(Reason.UNSUPPORTED, "a frame decodes to another shape or type than the header says")
    if not _fits(pixels, job.source):
        return Kept(Reason.UNSUPPORTED, "bits above Bits Stored are in use")
    return pixels


def _decode(image: PixelFormat, frame: bytes) -> NDArray[Any] | None:
    """Return the pixels in the format's own shape and type; None where they come in another."""
    if image.transfer_syntax_uid in UNCOMPRESSED_SYNTAXES:
        return decode_native(frame, image)
    pixels = decode_by_pydicom(frame, image)
    if pixels.shape != image.shape or pixels.dtype.kind != image.dtype[1]:
        return None
    exact = np.ascontiguousarray(pixels.astype(image.dtype, copy=False))
    return exact if np.array_equal(exact, pixels) else None


def _fits(pixels: NDArray[Any], image: PixelFormat) -> bool:
    """Whether every sample is what its stored bits alone say, extended by sign or zeros.

    Else the image stays, even for RLE, which would keep the bits: readers ignore them in native data only.
    """
    bits = image.bits_stored
    if bits == image.bits_allocated:
        return True
    least, most = stored_range(bits, signed=image.is_signed)
    return bool(least <= pixels.min() and pixels.max() <= most)
