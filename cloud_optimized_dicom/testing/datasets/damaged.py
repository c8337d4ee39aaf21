"""Files that are broken or hostile, each small."""

from __future__ import annotations

import struct

import numpy as np
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.kinds import make_frames, native

_UNDEFINED = 0xFFFFFFFF


def explicit_element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an explicit VR little endian element with a 32-bit length, which may claim anything."""
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value) if length is None else length) + value


def nested(depth: int, *, undefined_length: bool = True) -> bytes:
    """Return an instance with a sequence nested `depth` deep behind its usual header."""
    head = to_bytes(make_dataset(Uids.of("nested", depth, undefined_length)))
    tag = 0x0040A730  # Content Sequence
    if undefined_length:
        opening = explicit_element(tag, b"SQ", b"", _UNDEFINED) + struct.pack("<HHL", 0xFFFE, 0xE000, _UNDEFINED)
        closing = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        return head + opening * depth + closing * depth
    value = b""
    for _ in range(depth):
        value = explicit_element(tag, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value)
    return head + value


def huge_claim() -> bytes:
    """Return an instance of a few bytes of pixels whose header claims 8.6 GB."""
    dataset = make_dataset(Uids.of("claim"))
    describe_pixels(dataset, (65535, 65535))
    dataset.add_new("PixelData", "OW", bytes(64))
    return to_bytes(dataset)


def long_value(tag: int = 0x00104000, length: int = 3 << 30, vr: bytes = b"UT") -> bytes:
    """Return an instance of kilobytes with an element that claims a value of `length` bytes."""
    head = to_bytes(make_dataset(Uids.of("long", tag, length)))
    return head + explicit_element(tag, vr, b"the value ends here ", length)


def wrong_length(tag: int = 0x00280010, vr: bytes = b"US", value: bytes = b"\1\2\3") -> bytes:
    """Return an instance with a binary number whose length is no multiple of its size."""
    head = to_bytes(make_dataset(Uids.of("wrong length", tag)))
    return head + struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def wrong_syntax(declared: str, written: str) -> bytes:
    """Return a native instance written in one transfer syntax whose file meta information names another."""
    pixels = make_frames(1, 8, 8)
    file, other = native(pixels, written), native(pixels, declared)
    return other[: _dataset_start(other)] + file[_dataset_start(file) :]


def _dataset_start(data: bytes) -> int:
    """Return where the dataset begins, by the group length of the file meta information."""
    return int(144 + struct.unpack("<L", data[140:144])[0])


def not_finite() -> bytes:
    """Return an instance with NaN and infinity in FD and DS."""
    dataset = make_dataset(Uids.of("not finite"))
    dataset.add_new(0x00189313, "FD", [1.5, float("nan"), float("-inf")])
    head = to_bytes(dataset)
    return head + struct.pack("<HH2sH", 0x0028, 0x1052, b"DS", 4) + b"NaN "


def without_meta(data: bytes) -> bytes:
    """Return a file without preamble and file meta information: its bare dataset."""
    return data[_dataset_start(data) :]


def without_preamble(data: bytes) -> bytes:
    """Return a file that begins with its file meta information."""
    return data[132:]


def with_tiff_preamble(data: bytes) -> bytes:
    """Return a file that is a TIFF by its first bytes (PS3.10 section 7.1)."""
    return (b"II*\0" + bytes(range(124))) + data[128:]


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Return noise."""
    return np.random.default_rng(seed).bytes(size)


SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
"""The native transfer syntaxes that a file meta information may confuse."""
