"""Whatever a frame holds, it decodes or is refused with an error of ours that says which and why."""

from __future__ import annotations

import resource
import struct
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_optimized_dicom.dicom.decode import FrameDecoder
from cloud_optimized_dicom.errors import FormatError, FrameDecodeError, UnsupportedFrameError
from cloud_optimized_dicom.testing.datasets import kinds
from tests.dicom.helpers import header_of, inspect, joined, table_of
from tests.realfiles import real_file

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = (
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "JPGExtended.dcm",
    "SC_rgb_jpeg.dcm",
    "MR_small_RLE.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "693_J2KI.dcm",
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "liver.dcm",
    "htj2k",
)
URI = "store/studies/1.2/series/1.3.tar://instances/1.4.dcm"


@cache
def source(name: str) -> tuple[FrameDecoder, bytes, dict[str, Any]]:
    """Return the decoder of a file, its first frame and its header."""
    data = kinds.htj2k(kinds.make_frames(1, 32, 24)) if name == "htj2k" else real_file(name).read()
    facts = inspect(data)
    header = header_of(facts)
    return FrameDecoder.of(header, facts.transfer_syntax_uid, URI), joined(data, table_of(facts))[0], header


def changed(header: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return a header with other numbers in it; None takes an attribute away."""
    tags = {"samples": "00280002", "rows": "00280010", "columns": "00280011", "bits": "00280100", "stored": "00280101"}
    changes = {tags[name]: {"vr": "US", "Value": [] if value is None else [value]} for name, value in values.items()}
    return header | changes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imagecodecs drops OpenJPH's errors so
@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=6), keep=st.floats(0, 1))
def test_damaged_frames_decode_or_are_refused(name: str, edits: list[tuple[int, int]], keep: float) -> None:
    """Flip bytes of a frame of every syntax and cut it: there is an array, or an error of ours, and nothing else."""
    decoder, frame, _ = source(name)
    damaged = bytearray(frame if keep > 0.7 else frame[: int(len(frame) * keep)])
    for position, value in edits:
        if damaged:
            damaged[position % min(len(damaged), 400 if position % 2 else len(damaged))] ^= value
    with suppress(FrameDecodeError):
        array = decoder.decode(bytes(damaged))
        assert array.shape[:2] == (decoder.pixels.rows, decoder.pixels.columns)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("frame", [b"", b"\0", b"\xff\xd8", b"\xff\x4f\xff\x51", b"DICM" * 20])
def test_what_is_no_frame_is_refused(name: str, frame: bytes) -> None:
    """Refuse nothing, a byte, and the mere beginnings of codestreams; the error is damage of the file."""
    decoder, _, _ = source(name)
    with pytest.raises(FrameDecodeError) as caught:
        decoder.decode(frame, 7)
    assert isinstance(caught.value, FormatError)
    assert str(caught.value).startswith(f"frame 7 of {URI} ({decoder.transfer_syntax_uid}): ")


@pytest.mark.parametrize("name", SOURCES)
def test_claims_of_gigabytes_cost_nothing(name: str) -> None:
    """Refuse a frame whose header claims 65535 x 65535 pixels before anything is allocated for them."""
    decoder, frame, header = source(name)
    huge = FrameDecoder.of(changed(header, rows=65535, columns=65535), decoder.transfer_syntax_uid)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameDecodeError):
        huge.decode(frame)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize(
    ("name", "marker", "distance"), [("htj2k", b"\xff\x51", 6), ("emri_small_jpeg_2k_lossless.dcm", b"\xff\x51", 6)]
)
def test_a_codestream_that_claims_gigabytes_too(name: str, marker: bytes, distance: int) -> None:
    """Refuse a few kilobytes of JPEG 2000 of which both the header and the codestream say 65535 x 65535."""
    decoder, frame, header = source(name)
    start = frame.index(marker) + distance
    sized = frame[:start] + (65535).to_bytes(4, "big") * 2 + frame[start + 8 :]
    huge = FrameDecoder.of(changed(header, rows=65535, columns=65535), decoder.transfer_syntax_uid)
    with pytest.raises(FrameDecodeError, match="far too short"):
        huge.decode(sized)


def with_tiles(frame: bytearray, size: int) -> None:
    """Let a codestream be of square tiles."""
    struct.pack_into(">LL", frame, frame.index(b"\xff\x51") + 22, size, size)


def with_precincts(frame: bytearray, exponent: int) -> None:
    """Let a codestream be of square precincts, at every resolution."""
    start = frame.index(b"\xff\x52")
    levels = frame[start + 9]
    segment = bytes([frame[start + 4] | 1]) + frame[start + 5 : start + 14] + bytes([17 * exponent]) * (levels + 1)
    frame[start + 2 : start + 14] = (len(segment) + 2).to_bytes(2, "big") + segment


def with_own_precincts(frame: bytearray, exponent: int) -> None:
    """Let the first component of a codestream be of square precincts."""
    start = frame.index(b"\xff\x52")
    segment = b"\0\1" + frame[start + 9 : start + 14] + bytes([17 * exponent]) * (frame[start + 9] + 1)
    frame[start + 14 : start + 14] = b"\xff\x53" + (len(segment) + 2).to_bytes(2, "big") + segment


@pytest.mark.parametrize("kind", ["htj2k", "jpeg2000"])
@pytest.mark.parametrize(
    ("divide", "size"), [(with_tiles, 1), (with_tiles, 4), (with_precincts, 1), (with_own_precincts, 1)]
)
def test_frames_in_too_many_parts_cost_nothing(divide: Callable[[bytearray, int], None], size: int, kind: str) -> None:
    """Refuse JPEG 2000 that divides a frame into parts of a few pixels, of which a decoder would keep gigabytes."""
    data = getattr(kinds, kind)(kinds.make_frames(1, 1000, 900))
    facts = inspect(data)
    frame = bytearray(joined(data, table_of(facts))[0])
    divide(frame, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameDecodeError, match="too many"):
        FrameDecoder.of(header_of(facts), facts.transfer_syntax_uid).decode(bytes(frame))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize("divide", [with_precincts, with_own_precincts])
def test_precincts_that_the_standard_knows_not(divide: Callable[[bytearray, int], None]) -> None:
    """Refuse HTJ2K precincts of one sample, which end a process in which OpenJPH decodes them."""
    decoder, frame, _ = source("htj2k")
    divided = bytearray(frame)
    divide(divided, 0)
    with pytest.raises(FrameDecodeError):
        decoder.decode(bytes(divided))


def test_a_jpeg_that_claims_gigabytes_too() -> None:
    """Refuse a small JPEG of which both the header and the start of frame say 65500 x 65500."""
    decoder, frame, header = source("JPGLosslessP14SV1_1s_1f_8b.dcm")
    start = frame.index(b"\xff\xc3") + 5
    sized = frame[:start] + (65500).to_bytes(2, "big") * 2 + frame[start + 4 :]
    huge = FrameDecoder.of(changed(header, rows=65500, columns=65500), decoder.transfer_syntax_uid)
    with pytest.raises(FrameDecodeError, match="too short"):
        huge.decode(sized)


def test_boxes_that_lead_nowhere() -> None:
    """Refuse JP2 boxes of no length, around which pydicom walks in circles."""
    decoder, _, _ = source("emri_small_jpeg_2k_lossless.dcm")
    with pytest.raises(FrameDecodeError, match="JP2 boxes"):
        decoder.decode(bytes.fromhex("0000000c6a502020 0d0a870a 00000000") + bytes(100))


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.94", "1.2.3"])
def test_syntaxes_that_nothing_decodes(transfer_syntax: str) -> None:
    """Say that nothing decodes video, references and private syntaxes; the frame may be sound."""
    _, frame, header = source("emri_small_jpeg_2k_lossless.dcm")
    with pytest.raises(UnsupportedFrameError, match="no decoder for this transfer syntax"):
        FrameDecoder.of(header, transfer_syntax).decode(frame)


@pytest.mark.parametrize(
    ("values", "error", "reason"),
    [
        ({"rows": None}, FrameDecodeError, "Rows is missing"),
        ({"bits": 0}, FrameDecodeError, "Bits Allocated is missing"),
        ({"stored": 17}, FrameDecodeError, "Bits Stored is more than Bits Allocated"),
        ({"bits": 24}, UnsupportedFrameError, "Bits Allocated is not 1, 8, 16, 32 or 64"),
        ({"samples": 4}, UnsupportedFrameError, "Samples per Pixel is neither 1 nor 3"),
        ({"rows": "12a"}, FrameDecodeError, "Rows is missing or makes no sense"),
        ({"columns": float("nan")}, FrameDecodeError, "Columns is missing or makes no sense"),
    ],
)
def test_headers_that_make_no_sense(values: dict[str, Any], error: type[FrameDecodeError], reason: str) -> None:
    """Name the attribute that is missing or wrong, and not its value."""
    decoder, frame, header = source("MR_small.dcm")
    with pytest.raises(error, match=reason):
        FrameDecoder.of(changed(header, **values), decoder.transfer_syntax_uid).decode(frame)


def test_a_frame_of_other_size_is_not_spread_over_the_image() -> None:
    """Refuse a codestream of one pixel, which NumPy would repeat all over the frame."""
    decoder, _, _ = source("htj2k")
    pixel = source_frame(kinds.make_frames(1, 1, 1))
    with pytest.raises(FrameDecodeError, match="has not the size"):
        decoder.decode(pixel)


def source_frame(pixels: Any) -> bytes:
    """Return an HTJ2K frame of pixels."""
    data = kinds.htj2k(pixels)
    return joined(data, table_of(inspect(data)))[0]
