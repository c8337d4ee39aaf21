"""Frame tables of what real collections lack: every kind of offset table, odd packings, damage."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from cloud_optimized_dicom.dicom.decode import decode_frame
from cloud_optimized_dicom.dicom.frames import build_frame_table
from cloud_optimized_dicom.errors import FrameTableError
from cloud_optimized_dicom.testing.datasets import damaged, kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.codecs import encode_jpeg2000
from cloud_optimized_dicom.testing.datasets.slides import OffsetTable, slide_instance, slide_tiles
from tests.dicom import oracle
from tests.dicom.helpers import cut, header_of, inspect, joined, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.model import FrameTable

PIXELS = kinds.make_frames(5, 16, 24)


def _even(frame: bytes) -> bytes:
    return frame + b"\0" * (len(frame) % 2)


def _fake_jpegs(count: int, size: int = 40) -> list[bytes]:
    """Return byte strings that begin and end as JPEG images do, of even and different lengths."""
    return [b"\xff\xd8\xff\xe0" + bytes([n]) * (size + 2 * n) + b"\xff\xd9" for n in range(count)]


def _file(
    frames: int | None, value: bytes, syntax: str = JPEGBaseline8Bit, *, prepare: Callable[[Any], None] | None = None
) -> bytes:
    """Return a file whose encapsulated Pixel Data is exactly `value` (its delimiter included by the writer)."""
    dataset = make_dataset(Uids.of("raw", frames, value))
    describe_pixels(dataset, (8, 8), frames=frames)
    if prepare:
        prepare(dataset)
    dataset.add_new("PixelData", "OB", value)
    dataset["PixelData"].is_undefined_length = True
    return to_bytes(dataset, syntax)


def _items(*values: bytes) -> bytes:
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value for value in values)


# -- encapsulated


@pytest.mark.parametrize("offset_table", ["basic", "empty", "extended"])
def test_slide_tiles_are_found_with_every_offset_table(offset_table: OffsetTable) -> None:
    """Find each tile of a slide, whichever offset table it was written with."""
    data = slide_instance(40, offset_table, tile_size=32)
    facts = inspect(data)
    assert facts.problems == ()
    assert cut(data, table_of(facts)) == [_even(tile) for tile in slide_tiles(40, tile_size=32)]


@pytest.mark.parametrize("offset_table", ["basic", "empty", "wrong"])
@pytest.mark.parametrize("fragments", [1, 3])
def test_fragmented_frames_are_joined(offset_table: str, fragments: int) -> None:
    """Find every fragment of every frame, by the table where it fits the items and by end markers where not."""
    data = kinds.jpeg2000(PIXELS, fragments=fragments, offset_table=offset_table)
    table = table_of(inspect(data))
    assert table.fragment_counts == (None if fragments == 1 else (fragments,) * len(PIXELS))
    assert joined(data, table) == [_even(encode_jpeg2000(frame)) for frame in PIXELS]


@pytest.mark.parametrize("make", [kinds.jpeg2000, kinds.htj2k])
def test_cut_frames_decode_to_the_original_pixels(make: Callable[..., bytes]) -> None:
    """Decode a frame, cut at the table's numbers, to the pixels it was made from."""
    data = make(PIXELS, offset_table="extended")
    facts = inspect(data)
    frames = cut(data, table_of(facts))
    for number in (0, 4):
        found = decode_frame(frames[number], header_of(facts), facts.transfer_syntax_uid)
        np.testing.assert_array_equal(found, PIXELS[number])


def test_encapsulated_uncompressed_frames_are_found() -> None:
    """Find frames that are native bytes in items of their own."""
    data = kinds.encapsulated_uncompressed(PIXELS)
    facts = inspect(data)
    frames = cut(data, table_of(facts))
    assert frames == [frame.astype("<u2").tobytes() for frame in PIXELS]
    found = decode_frame(frames[2], header_of(facts), facts.transfer_syntax_uid, 2)
    np.testing.assert_array_equal(found, PIXELS[2])


def test_one_frame_of_many_fragments() -> None:
    """Give all fragments to the only frame."""
    frame = encode_jpeg2000(PIXELS[0])
    data = kinds.encapsulated([frame], (16, 24), JPEG2000Lossless, fragments=50, offset_table="empty")
    table = table_of(inspect(data))
    assert table.fragment_counts == (50,)
    assert joined(data, table) == [_even(frame)]


def test_megabyte_fragments_are_joined() -> None:
    """Join large fragments, with item headers between them, to the frame."""
    frame = b"\xff\x4f\xff\x51" + damaged.random_bytes(5 << 20) + b"\xff\xd9"
    data = kinds.encapsulated([frame, frame[::-1]], (16, 24), JPEG2000Lossless, fragments=4)
    table = table_of(inspect(data))
    assert table.fragment_counts == (4, 4)
    assert joined(data, table) == [frame, frame[::-1]]


def test_more_items_than_frames_are_ignored() -> None:
    """Stop at Number of Frames where more whole images follow."""
    frames = _fake_jpegs(5)
    data = _file(3, encapsulate(frames, has_bot=False))
    assert cut(data, table_of(inspect(data))) == frames[:3]


def test_table_with_more_entries_than_frames() -> None:
    """Stop at Number of Frames where the Basic Offset Table goes on."""
    frames = _fake_jpegs(5)
    data = _file(3, encapsulate(frames, has_bot=True))
    assert cut(data, table_of(inspect(data))) == frames[:3]


def test_table_counts_where_number_of_frames_is_missing() -> None:
    """Take the number of frames from the Basic Offset Table where the header does not say."""
    frames = _fake_jpegs(4)
    data = _file(None, encapsulate(frames, has_bot=True))
    assert cut(data, table_of(inspect(data))) == frames


def test_table_of_one_entry_for_many_frames_is_not_trusted() -> None:
    """Use the items where the Basic Offset Table names the first frame only."""
    frames = _fake_jpegs(4)
    data = _file(4, _items(bytes(4), *frames))
    assert cut(data, table_of(inspect(data))) == frames


def test_fewer_items_than_frames_gives_the_whole_images() -> None:
    """Give an entry to every image that is there, and say how many are missing."""
    frames = _fake_jpegs(3)
    facts = inspect(_file(7, encapsulate(frames, has_bot=False)))
    assert len(table_of(facts)) == 3
    assert facts.problems == ("7FE00010: 3 of 7 frames are whole",)


def test_rle_fragments_are_frames() -> None:
    """Take each RLE fragment for a frame, though it has no markers and some are missing."""
    frames = [struct.pack("<16L", 1, 64, *[0] * 14) + bytes([n] * 30) for n in range(3)]
    data = _file(4, encapsulate(frames, has_bot=False), RLELossless)
    assert cut(data, table_of(inspect(data))) == frames


def test_missing_table_item() -> None:
    """Take the first item for a fragment where a writer left out the Basic Offset Table's item."""
    frames = _fake_jpegs(3)
    data = _file(3, _items(*frames))
    assert cut(data, table_of(inspect(data))) == frames


def test_extended_table_that_does_not_fit_is_not_trusted() -> None:
    """Use the items where the Extended Offset Table points elsewhere."""
    frames = _fake_jpegs(3)

    def prepare(dataset: Any) -> None:
        dataset.ExtendedOffsetTable = struct.pack("<3Q", 0, 10, 20)
        dataset.ExtendedOffsetTableLengths = struct.pack("<3Q", 10, 10, 10)

    data = _file(3, encapsulate(frames, has_bot=False), prepare=prepare)
    assert cut(data, table_of(inspect(data))) == frames


def test_extended_table_gives_lengths_without_padding() -> None:
    """Cut a frame of odd length without the byte that pads its item."""
    frames = [b"\xff\xd8\xff" + bytes(10), b"\xff\xd8\xff" + bytes(20)]

    def prepare(dataset: Any) -> None:
        dataset.ExtendedOffsetTable = struct.pack("<2Q", 0, 22)
        dataset.ExtendedOffsetTableLengths = struct.pack("<2Q", 13, 23)

    data = _file(2, encapsulate(frames, has_bot=False), prepare=prepare)
    assert cut(data, table_of(inspect(data))) == frames
    assert cut(data, table_of(inspect(data))) == oracle.encapsulated_frames(oracle.read(data))


def test_undecidable_fragments_give_no_table() -> None:
    """Give no table, and say why, where nothing tells which fragments make a frame."""
    facts = inspect(_file(2, _items(b"", b"aaaa", b"bbbb", b"cccc")))
    assert facts.frame_table is None
    assert facts.has_pixeldata
    assert facts.problems == ("7FE00010: no frame table: it cannot be told which fragments make a frame",)


def test_video_gives_no_table() -> None:
    """Give no table to a video, whose frames share one stream."""
    facts = inspect(_file(30, _items(b"", bytes(100)), MPEG2MPML))
    assert facts.frame_table is None
    assert facts.problems == ("7FE00010: no frame table: the frames of a video share one stream",)


def test_no_fragments_give_no_table() -> None:
    """Give no table where the Pixel Data holds nothing but an empty offset table."""
    facts = inspect(_file(1, _items(b"")))
    assert facts.frame_table is None
    assert facts.problems == ("7FE00010: no frame table: there is no whole fragment",)


def test_encapsulated_value_of_defined_length() -> None:
    """Find the items of a value that has a length, against the Standard."""
    frames = _fake_jpegs(3)
    dataset = make_dataset(Uids.of("defined"))
    describe_pixels(dataset, (8, 8), frames=3)
    head = to_bytes(dataset, JPEGBaseline8Bit)
    value = encapsulate(frames, has_bot=True)
    data = head + damaged.explicit_element(0x7FE00010, b"OB", value)
    assert cut(data, table_of(inspect(data))) == frames


@pytest.mark.parametrize("offset_table", ["basic", "empty", "extended"])
@pytest.mark.parametrize("lost_bytes", [1, 8, 9, 60, 100])
def test_truncated_encapsulated_data(offset_table: str, lost_bytes: int) -> None:
    """Give entries to the frames that are whole and to no other, wherever the file ends."""
    frames = _fake_jpegs(4, size=40)
    whole = kinds.encapsulated(frames, (8, 8), JPEGBaseline8Bit, offset_table=offset_table)
    data = whole[:-lost_bytes]
    expected = [frame for frame in frames if frame in data]
    facts = inspect(data)
    assert cut(data, table_of(facts)) == expected
    assert facts.problems


@pytest.mark.parametrize("offset_table", ["basic", "empty"])
@pytest.mark.parametrize("lost_bytes", [9, 20, 40, 42, 70, 80, 90])
def test_truncated_fragmented_data(offset_table: str, lost_bytes: int) -> None:
    """Give no entry to a frame of which a fragment is cut or missing."""
    frames = _fake_jpegs(4, size=40)
    whole = kinds.encapsulated(frames, (8, 8), JPEGBaseline8Bit, fragments=2, offset_table=offset_table)
    data = whole[:-lost_bytes]
    found = joined(data, table_of(inspect(data)))
    assert found == frames[: len(found)]
    assert len(found) == (3 if lost_bytes <= 76 else 2)


# -- native


@pytest.mark.parametrize("make", [kinds.native, kinds.implicit, kinds.big_endian])
def test_native_frames_of_every_byte_order(make: Callable[..., bytes]) -> None:
    """Cut native frames of each native transfer syntax, and decode them to the original."""
    data = make(PIXELS)
    facts = inspect(data)
    frames = cut(data, table_of(facts))
    order = ">u2" if make is kinds.big_endian else "<u2"
    assert frames == [frame.astype(order).tobytes() for frame in PIXELS]
    found = decode_frame(frames[3], header_of(facts), facts.transfer_syntax_uid, 3)
    np.testing.assert_array_equal(found, PIXELS[3])


def test_deflated_frames_count_in_the_inflated_file() -> None:
    """Mark a deflated instance as not rangeable; its positions hold in the inflated file."""
    data = kinds.deflated(PIXELS)
    facts = inspect(data)
    table = table_of(facts)
    assert not table.rangeable
    inflated = oracle.inflated(data, oracle.read(data))
    assert cut(inflated, table) == [frame.astype("<u2").tobytes() for frame in PIXELS]
    assert facts.size == len(data) < len(inflated)


def test_one_bit_frames_that_begin_within_a_byte() -> None:
    """Cut the bytes that hold a frame's bits; neighbours share one, and each decodes to its own pixels."""
    segments = np.random.default_rng(3).random((40, 5, 14)) < 0.5
    data = kinds.one_bit_segmentation(segments)
    facts = inspect(data)
    table = table_of(facts)
    assert set(table.lengths) == {9, 10}
    assert any(
        left + n > right for left, n, right in zip(table.offsets, table.lengths, table.offsets[1:], strict=False)
    )
    for number, frame in enumerate(cut(data, table)):
        found = decode_frame(frame, header_of(facts), facts.transfer_syntax_uid, number)
        np.testing.assert_array_equal(found, segments[number])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_pixel_data(dtype: Any) -> None:
    """Cut frames of Float and Double Float Pixel Data."""
    pixels = np.random.default_rng(1).random((3, 7, 5)).astype(dtype)
    data = kinds.float_pixels(pixels)
    facts = inspect(data)
    assert facts.has_pixeldata
    frames = cut(data, table_of(facts))
    assert frames == [frame.tobytes() for frame in pixels]
    found = decode_frame(frames[1], header_of(facts), facts.transfer_syntax_uid, 1)
    np.testing.assert_array_equal(found, pixels[1])


def _native_file(value: bytes, *, frames: int | None, photometric: str = "RGB", bits: int = 8) -> bytes:
    dataset = make_dataset(Uids.of("native", value, frames))
    describe_pixels(dataset, (3, 5), frames=frames, bits=bits, samples=3)
    dataset.PhotometricInterpretation = photometric
    dataset.add_new("PixelData", "OB", value)
    return to_bytes(dataset)


def test_frames_of_odd_length() -> None:
    """Cut frames of 45 bytes, which begin at odd positions and have no padding between them."""
    value = damaged.random_bytes(135) + b"\0"
    data = _native_file(value, frames=3)
    assert cut(data, table_of(inspect(data))) == [value[:45], value[45:90], value[90:135]]


def test_pixel_data_longer_than_its_frames() -> None:
    """Ignore what follows the last frame."""
    value = damaged.random_bytes(500)
    data = _native_file(value, frames=2)
    assert cut(data, table_of(inspect(data))) == [value[:45], value[45:90]]


@pytest.mark.parametrize("frames", [None, 1])
def test_missing_number_of_frames_means_one(frames: int | None) -> None:
    """Give a single-frame instance a table, whether or not it counts its frame."""
    value = damaged.random_bytes(46)
    data = _native_file(value, frames=frames)
    assert cut(data, table_of(inspect(data))) == [value[:45]]


def test_zero_frames() -> None:
    """Give no entry to an empty value, and one to a value that holds a frame although the header says none."""
    assert len(table_of(inspect(_native_file(b"", frames=0)))) == 0
    assert len(table_of(inspect(_native_file(bytes(46), frames=0)))) == 1


def test_truncated_native_data() -> None:
    """Give entries to whole frames only."""
    data = kinds.native(PIXELS)[:-1]
    facts = inspect(data)
    assert len(table_of(facts)) == 4
    assert "7FE00010: 4 of 5 frames are whole" in facts.problems


def test_subsampled_native_data() -> None:
    """Take YBR_FULL_422 at two bytes a pixel, unless the value is long enough for three."""
    subsampled = _native_file(bytes(60), frames=2, photometric="YBR_FULL_422")
    full = _native_file(bytes(90), frames=2, photometric="YBR_FULL_422")
    assert table_of(inspect(subsampled)).lengths == (30, 30)
    assert table_of(inspect(full)).lengths == (45, 45)


def test_bits_that_are_no_whole_bytes() -> None:
    """Cut packed 12-bit pixels at the bytes that hold them."""
    dataset = make_dataset(Uids.of("packed"))
    describe_pixels(dataset, (3, 3), frames=4, bits=12)
    dataset.add_new("PixelData", "OW", bytes(range(54)))
    data = to_bytes(dataset)
    assert table_of(inspect(data)).lengths == (14, 14, 14, 14)


def test_missing_attributes_give_no_table() -> None:
    """Give no table, and say why, where the header does not say how large a frame is."""
    dataset = make_dataset(Uids.of("bare"))
    dataset.add_new("PixelData", "OW", bytes(64))
    facts = inspect(to_bytes(dataset))
    assert facts.frame_table is None
    assert facts.has_pixeldata
    assert len(facts.problems) == 1


def test_no_pixel_data() -> None:
    """Give neither table nor problem to an instance without pixel data."""
    facts = inspect(to_bytes(make_dataset(Uids.of("none"))))
    assert facts.frame_table is None
    assert not facts.has_pixeldata
    assert facts.problems == ()


# -- build_frame_table


class _Counting(io.BytesIO):
    """Counts what is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def test_the_table_alone_reads_no_pixels() -> None:
    """Read no more than headers for the table of native and of encapsulated data."""
    for data in (kinds.native(kinds.make_frames(4, 512, 512)), slide_instance(50, "empty")):
        stream = _Counting(data)
        table = build_frame_table(stream, "file.dcm")
        assert table is not None
        assert len(table) in {4, 50}
        assert stream.read_bytes < 40_000 < len(data) / 10


def test_the_table_alone_raises_where_there_is_none() -> None:
    """Raise an error with the reason where pixel data cannot be described."""
    data = _file(2, _items(b"", b"aaaa", b"bbbb", b"cccc"))
    with pytest.raises(FrameTableError, match="which fragments") as caught:
        build_frame_table(io.BytesIO(data), "file.dcm")
    assert caught.value.instance == "file.dcm"


def _spans(table: FrameTable) -> list[tuple[int, int]]:
    return list(zip(table.offsets, table.lengths, strict=True))


def test_position_of_the_pixel_data_element() -> None:
    """Point at the tag of the Pixel Data element, and at the byte behind the first fragment's item header."""
    data = _file(2, encapsulate(_fake_jpegs(2), has_bot=True))
    table = table_of(inspect(data))
    start = table.pixel_data_offset
    assert start is not None
    assert data[start : start + 4] == b"\xe0\x7f\x10\x00"
    first, length = _spans(table)[0]
    assert struct.unpack("<HHL", data[first - 8 : first]) == (0xFFFE, 0xE000, length)
