"""One encoded frame to an array, by pydicom's decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from cloud_optimized_dicom.dicom.frames import is_swapped
from cloud_optimized_dicom.dicom.source import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from cloud_optimized_dicom.format.offsets.description import NATIVE_SYNTAXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ATTRIBUTES = {
    "00280002": "SamplesPerPixel",
    "00280004": "PhotometricInterpretation",
    "00280006": "PlanarConfiguration",
    "00280010": "Rows",
    "00280011": "Columns",
    "00280100": "BitsAllocated",
    "00280101": "BitsStored",
    "00280102": "HighBit",
    "00280103": "PixelRepresentation",
}
_PIXEL_ELEMENTS = {"7FE00010": "PixelData", "7FE00008": "FloatPixelData", "7FE00009": "DoubleFloatPixelData"}
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"


def decode_frame(
    encoded: bytes, header: Mapping[str, Any], transfer_syntax_uid: str, frame_index: int = 0
) -> NDArray[Any]:
    """Return what pydicom's `pixel_array` gives for one frame.

    Parameters
    ----------
    encoded
        The frame as its frame table cuts it; fragments joined (`join_items`).
    header
        The instance's DICOM JSON.
    frame_index
        0-based; decides where in its first byte a frame of 1-bit pixels begins.

    Returns
    -------
    ndarray
        Of shape (rows, columns) or (rows, columns, samples).

    Raises
    ------
    NotImplementedError, RuntimeError, ValueError
        From pydicom: no decoder for the transfer syntax, or data that does not decode.
    """
    dataset = Dataset()
    for tag, keyword in _ATTRIBUTES.items():
        values = header.get(tag, {}).get("Value")
        if values:
            setattr(dataset, keyword, values[0])
    tag = next((tag for tag in _PIXEL_ELEMENTS if tag in header), "7FE00010")
    vr = header.get(tag, {}).get("vr", "OW")
    syntax = transfer_syntax_uid
    native = syntax in NATIVE_SYNTAXES or syntax == _ENCAPSULATED_UNCOMPRESSED
    if is_swapped(vr, dataset.get("BitsAllocated", 0), syntax):
        encoded, vr, syntax = _unswap(encoded, dataset, frame_index), "OB", EXPLICIT_LITTLE
    if syntax in {IMPLICIT_LITTLE, _ENCAPSULATED_UNCOMPRESSED}:
        syntax = EXPLICIT_LITTLE  # the pixels are the same
    value = _native_value(encoded, dataset, frame_index) if native else encapsulate([encoded], has_bot=False)
    dataset.add_new(int(tag, 16), vr if native else "OB", value)
    dataset[int(tag, 16)].is_undefined_length = not native
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return np.asarray(dataset.pixel_array)


def _frame_bits(dataset: Dataset) -> int:
    samples = int(dataset.get("SamplesPerPixel", 1))
    return int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)


def _unswap(encoded: bytes, dataset: Dataset, frame_index: int) -> bytes:
    """Return the bytes of a frame in pixel order, from the whole words that hold it."""
    pixels = np.frombuffer(encoded, ">u2").astype("<u2").tobytes()
    if dataset.BitsAllocated == 1:
        raise NotImplementedError("1-bit pixels in big endian words")
    first = frame_index * _frame_bits(dataset) // 8 % 2
    return pixels[first : first + _frame_bits(dataset) // 8]


def _native_value(encoded: bytes, dataset: Dataset, frame_index: int) -> bytes:
    if dataset.get("BitsAllocated") == 1:
        bits = _frame_bits(dataset)
        first = frame_index * bits % 8
        pixels = np.unpackbits(np.frombuffer(encoded, np.uint8), bitorder="little")[first : first + bits]
        encoded = np.packbits(pixels, bitorder="little").tobytes()
    return encoded + b"\0" * (len(encoded) % 2)
