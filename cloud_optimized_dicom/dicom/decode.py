"""One encoded frame to an array, equal to pydicom's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.pixels.processing import convert_color_space

from cloud_optimized_dicom.dicom.decoders import decode_compressed
from cloud_optimized_dicom.dicom.decoders_native import decode_native, decode_rle, fill_native
from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels, PixelError, UnsupportedPixelError
from cloud_optimized_dicom.errors import FrameDecodeError, UnsupportedFrameError
from cloud_optimized_dicom.format.dicom_json import PIXEL_DATA_TAGS, first_value
from cloud_optimized_dicom.format.offsets.description import NATIVE_SYNTAXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ATTRIBUTES = (
    "00280002",
    "00280004",
    "00280006",
    "00280010",
    "00280011",
    "00280100",
    "00280101",
    "00280103",
)
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
_RLE = "1.2.840.10008.1.2.5"
_CONVERTED = frozenset({"YBR_FULL", "YBR_FULL_422"})


@dataclass(frozen=True, slots=True)
class FrameDecoder:
    """How the frames of one instance are decoded: made once, used for every frame, from any thread; pickles.

    Parameters
    ----------
    pixels
        What the instance's header says of its pixels.
    transfer_syntax_uid
        How the frames are encoded.
    instance
        Names the instance in an error: its URI.
    """

    pixels: ImagePixels
    transfer_syntax_uid: str
    instance: str = ""

    @classmethod
    def of(cls, header: Mapping[str, Any], transfer_syntax_uid: str, instance: str = "") -> FrameDecoder:
        """Return the decoder of an instance's frames; a header that does not serve is told by :meth:`decode`."""
        return cls(ImagePixels.of(header), transfer_syntax_uid, instance)

    def decode(self, encoded: bytes, frame_index: int = 0) -> NDArray[Any]:
        """Return what pydicom's ``pixel_array`` gives for one frame.

        Parameters
        ----------
        encoded
            The frame as its frame table cuts it; fragments joined (`join_items`).
        frame_index
            0-based; decides where in its first byte a frame of 1-bit pixels begins.

        Returns
        -------
        ndarray
            Of shape (rows, columns) or (rows, columns, samples); new and writeable.  YBR_FULL and YBR_FULL_422 come as
            RGB, palette colours as indices.

        Raises
        ------
        FrameDecodeError
            If the frame does not decode, or cannot be what the header claims.
        UnsupportedFrameError
            If nothing decodes its transfer syntax or kind of pixels.
        MissingDependencyError
            If a codec is not installed.

        Notes
        -----
        Pure: the same bytes give the same pixels.  Differs from pydicom 3.0 in two cases, where pydicom is wrong: 1-bit
        pixels in big endian words, and JPEG Lossless where GDCM is not installed.
        """
        return self._checked(encoded, frame_index, convert=True)[0]

    def decode_samples(self, encoded: bytes, frame_index: int = 0) -> tuple[NDArray[Any], str]:
        """Return a frame's samples before any colour is converted, and the photometric interpretation that they have.

        Notes
        -----
        Chrominance comes with the samples of every pixel: the name of a subsampled interpretation stays, all the same.
        What JPEG 2000 transforms itself is transformed back: RGB.  Raises as :meth:`decode`.
        """
        return self._checked(encoded, frame_index, convert=False)

    def decode_into(self, out: NDArray[Any], encoded: bytes, frame_index: int = 0) -> None:
        """Put into `out` what :meth:`decode` returns; native frames of its type are not copied on the way.

        Parameters
        ----------
        out
            Of the frame's shape.

        Raises
        ------
        FrameDecodeError, UnsupportedFrameError, MissingDependencyError
            As :meth:`decode`; `out` then holds anything.
        """
        if not (self.transfer_syntax_uid in NATIVE_SYNTAXES and self._fill(out, encoded)):
            out[...] = self.decode(encoded, frame_index)

    def _fill(self, out: NDArray[Any], encoded: bytes) -> bool:
        try:
            self.pixels.require_sound()
        except PixelError:
            return False  # told by what decodes
        return fill_native(out, encoded, self.pixels, self.transfer_syntax_uid)

    def _checked(self, encoded: bytes, frame_index: int, *, convert: bool) -> tuple[NDArray[Any], str]:
        try:
            self.pixels.require_sound()
            if len(encoded) == 0:
                raise PixelError("the frame is empty")  # noqa: TRY301 - mapped below as all others are
            array, photometric = self._decode(encoded, frame_index)
            return (self._converted(array, photometric) if convert else array), photometric
        except UnsupportedPixelError as error:
            raise UnsupportedFrameError(self.instance, frame_index, self.transfer_syntax_uid, str(error)) from error
        except PixelError as error:
            raise FrameDecodeError(self.instance, frame_index, self.transfer_syntax_uid, str(error)) from error

    def _decode(self, encoded: bytes, frame_index: int) -> tuple[NDArray[Any], str]:
        pixels, syntax = self.pixels, self.transfer_syntax_uid
        photometric = pixels.photometric_interpretation
        if syntax in NATIVE_SYNTAXES:
            array = decode_native(encoded, pixels, syntax, frame_index)
        elif syntax == _ENCAPSULATED_UNCOMPRESSED:
            array = decode_native(encoded, pixels, syntax, 0)
        elif pixels.is_float:
            raise PixelError("Float Pixel Data is never compressed")
        elif syntax == _RLE:
            array = decode_rle(encoded, pixels)
        else:
            array, photometric = decode_compressed(encoded, pixels, syntax)
        return array, photometric

    def _converted(self, array: NDArray[Any], photometric: str) -> NDArray[Any]:
        if photometric not in _CONVERTED or self.pixels.samples_per_pixel == 1:
            return array
        if array.dtype != np.uint8:
            raise UnsupportedPixelError("YBR_FULL of other than 8 unsigned bits")
        return np.asarray(convert_color_space(array, "YBR_FULL", "RGB"))


def decode_frame(
    encoded: bytes, header: Mapping[str, Any], transfer_syntax_uid: str, frame_index: int = 0
) -> NDArray[Any]:
    """Return one frame decoded, as :meth:`FrameDecoder.decode` does, which serves many frames of an instance better."""
    return FrameDecoder.of(header, transfer_syntax_uid).decode(encoded, frame_index)


def pixel_description(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a header that :func:`decode_frame` and :func:`pixel_dtype` need, and nothing else."""
    wanted = {tag: header[tag] for tag in _ATTRIBUTES if tag in header}
    return wanted | {tag: {"vr": header[tag].get("vr", "OW")} for tag in PIXEL_DATA_TAGS if tag in header}


def pixel_dtype(header: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the type that a frame decodes to, as its header says (PS3.3 section C.7.6.3)."""
    if "7FE00008" in header:
        return np.dtype(np.float32)
    if "7FE00009" in header:
        return np.dtype(np.float64)
    bits = max(8, int(first_value(header, "00280100") or 16))
    signed = first_value(header, "00280103") == 1
    return np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
