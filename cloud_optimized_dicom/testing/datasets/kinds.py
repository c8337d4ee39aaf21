"""Small instances of every kind of pixel data and encoding that real collections lack, or have too seldom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.codecs import encode_htj2k, encode_jpeg2000

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"


def make_frames(frames: int, rows: int, columns: int, *, seed: int = 0, maximum: int = 4095) -> NDArray[np.uint16]:
    """Return pixels of shape (frames, rows, columns): a gradient with noise, no two frames alike."""
    generator = np.random.default_rng((seed, frames, rows, columns))
    slope = np.add.outer(np.arange(rows), np.arange(columns)) * 7
    noise = generator.integers(0, 64, (frames, rows, columns))
    offset = np.arange(frames)[:, None, None] * 31
    return ((slope + noise + offset) % (maximum + 1)).astype(np.uint16)


def _image(pixels: NDArray[Any], name: str, *, bits: int = 16) -> Dataset:
    frames, rows, columns = pixels.shape
    dataset = make_dataset(Uids.of(name, *pixels.shape, int(pixels.sum(dtype=np.int64))))
    describe_pixels(dataset, (rows, columns), frames=frames, bits=bits)
    return dataset


def native(pixels: NDArray[np.uint16], transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a native 16-bit instance in any native transfer syntax, deflated too."""
    dataset = _image(pixels, f"native {transfer_syntax}")
    order = ">u2" if transfer_syntax == ExplicitVRBigEndian else "<u2"
    dataset.add_new("PixelData", "OW", pixels.astype(order).tobytes())
    return to_bytes(dataset, transfer_syntax)


def deflated(pixels: NDArray[np.uint16]) -> bytes:
    """Return an instance whose whole dataset is deflated (PS3.5 section A.5)."""
    return native(pixels, DeflatedExplicitVRLittleEndian)


def big_endian(pixels: NDArray[np.uint16]) -> bytes:
    """Return an explicit VR big endian instance (retired, PS3.5 2016b section A.3)."""
    return native(pixels, ExplicitVRBigEndian)


def implicit(pixels: NDArray[np.uint16]) -> bytes:
    """Return an implicit VR little endian instance (PS3.5 section A.1)."""
    return native(pixels, ImplicitVRLittleEndian)


def one_bit_segmentation(segments: NDArray[np.bool_]) -> bytes:
    """Return a binary segmentation of shape (frames, rows, columns), packed without padding between frames."""
    dataset = _image(segments, "segmentation", bits=1)
    dataset.SOPClassUID = SEGMENTATION
    dataset.Modality = "SEG"
    dataset.SegmentationType = "BINARY"
    packed = np.packbits(segments.reshape(-1), bitorder="little").tobytes()
    dataset.add_new("PixelData", "OB", packed + b"\0" * (len(packed) % 2))
    return to_bytes(dataset)


def float_pixels(pixels: NDArray[np.float32] | NDArray[np.float64]) -> bytes:
    """Return a parametric map with Float (32-bit) or Double Float (64-bit) Pixel Data, by the type of `pixels`."""
    frames, rows, columns = pixels.shape
    dataset = make_dataset(Uids.of("float", pixels.shape, pixels.dtype.name), PARAMETRIC_MAP)
    bits = pixels.dtype.itemsize * 8
    describe_pixels(dataset, (rows, columns), frames=frames, bits=bits)
    for keyword in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, keyword)
    if bits == 32:
        dataset.add_new("FloatPixelData", "OF", pixels.astype("<f4").tobytes())
    else:
        dataset.add_new("DoubleFloatPixelData", "OD", pixels.astype("<f8").tobytes())
    return to_bytes(dataset)


def encapsulated(
    encoded: Sequence[bytes],
    shape: tuple[int, int],
    transfer_syntax: str,
    *,
    fragments: int = 1,
    offset_table: str = "basic",
) -> bytes:
    """Return an instance of 16-bit frames that are encoded already.

    Parameters
    ----------
    shape
        Rows and columns.
    fragments
        Into how many every frame is cut.
    offset_table
        "basic", "empty", "extended" (one fragment a frame only), or "wrong": a Basic Offset Table that points between
        the items.
    """
    dataset = make_dataset(Uids.of("encapsulated", transfer_syntax, fragments, offset_table, len(encoded)))
    describe_pixels(dataset, shape, frames=len(encoded))
    if offset_table == "extended":
        value, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(list(encoded))
    else:
        value = encapsulate(list(encoded), fragments_per_frame=fragments, has_bot=offset_table != "empty")
    if offset_table == "wrong":
        entries = np.arange(1, len(encoded) + 1, dtype="<u4") * 6
        value = value[:8] + entries.tobytes() + value[8 + entries.nbytes :]
    dataset.add_new("PixelData", "OB", value)
    dataset["PixelData"].is_undefined_length = True
    return to_bytes(dataset, transfer_syntax)


def encapsulated_uncompressed(pixels: NDArray[np.uint16]) -> bytes:
    """Return an instance of encapsulated uncompressed frames (PS3.5 section A.4.11)."""
    frames = [frame.astype("<u2").tobytes() for frame in pixels]
    return encapsulated(frames, (pixels.shape[1], pixels.shape[2]), ENCAPSULATED_UNCOMPRESSED)


def jpeg2000(pixels: NDArray[np.uint16], *, fragments: int = 1, offset_table: str = "basic") -> bytes:
    """Return a lossless JPEG 2000 instance; it takes imagecodecs to make."""
    return _compressed(pixels, encode_jpeg2000, JPEG2000Lossless, fragments, offset_table)


def htj2k(pixels: NDArray[np.uint16], *, fragments: int = 1, offset_table: str = "basic") -> bytes:
    """Return a lossless HTJ2K instance; it takes imagecodecs to make."""
    return _compressed(pixels, encode_htj2k, HTJ2KLossless, fragments, offset_table)


def _compressed(
    pixels: NDArray[np.uint16],
    encode: Callable[[NDArray[Any]], bytes],
    transfer_syntax: str,
    fragments: int,
    offset_table: str,
) -> bytes:
    return encapsulated(
        [encode(frame) for frame in pixels],
        (pixels.shape[1], pixels.shape[2]),
        transfer_syntax,
        fragments=fragments,
        offset_table=offset_table,
    )
