"""Redaction of one file: every kind of pixels and encoding, what else shows the pixels, and what the header says."""

from __future__ import annotations

import io
import struct
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, parse_basic_offsets
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSNearLossless,
)

from cloud_optimized_dicom.bounding_box import BoundingBox, PixelRedaction
from cloud_optimized_dicom.dicom.transcode.model import Target
from cloud_optimized_dicom.errors import (
    RedactionBoxOutOfBoundsError,
    RedactionError,
    RedactionFillValueError,
    RedactionFrameOutOfRangeError,
    RedactionTargetMissingError,
)
from cloud_optimized_dicom.redaction.image import OpenImage, open_image, read_image
from cloud_optimized_dicom.redaction.model import RedactionOptions, Region, TargetFile
from cloud_optimized_dicom.redaction.paint import NativeLayout, fill_native
from cloud_optimized_dicom.redaction.redact import redact_files
from cloud_optimized_dicom.redaction.write import Work, write_redacted
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from tests.dicom import oracle
from tests.dicom.helpers import inspect, joined, table_of
from tests.realfiles import real_file
from tests.redaction.checks import UID as NAME
from tests.redaction.checks import WHEN, assert_redacted, by_ours, by_pydicom, redacted
from tests.redaction.checks import target as target_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BOX = BoundingBox(3, 2, 4, 5)
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def noise(dtype: str, *shape: int, bits: int = 0) -> NDArray[Any]:
    """Return random pixels of the whole range of a type, or of fewer bits."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind)
    pixels = np.random.default_rng(7).integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
    return pixels >> (8 * kind.itemsize - bits) if bits else pixels


def image(pixels: NDArray[Any], syntax: str, value: bytes | None = None, **attributes: Any) -> Dataset:
    """Return an instance of frames (frames, rows, columns[, samples]), native unless `value` has them encoded."""
    samples = pixels.shape[3] if pixels.ndim == 4 else 1
    bits = 8 * pixels.dtype.itemsize
    dataset = make_dataset(Uids.of("redaction", syntax, pixels.shape, bits, sorted(map(str, attributes.items()))))
    describe_pixels(dataset, (pixels.shape[1], pixels.shape[2]), frames=len(pixels), bits=bits, samples=samples)
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    native = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    raw = native + b"\0" * (len(native) % 2) if value is None else value
    dataset.add_new("PixelData", "OB" if bits == 8 or value is not None else "OW", raw)
    dataset["PixelData"].is_undefined_length = value is not None
    for keyword, attribute in attributes.items():
        setattr(dataset, keyword, attribute)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def written(dataset: Dataset) -> bytes:
    """Return the file of a dataset."""
    return to_bytes(dataset, str(dataset.file_meta.TransferSyntaxUID))


# -- pixels


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize("frames", [1, 3])
def test_native_pixels_stay_native(syntax: str, dtype: str, frames: int, tmp_path: Path) -> None:
    """Overwrite native samples of every size and byte order in an image of odd size, and nothing else."""
    data = written(image(noise(dtype, frames, 11, 9), syntax))
    after, done = redacted(data, tmp_path, [BOX])
    assert_redacted(data, after, [BOX], done)
    least = 0 if dtype[0] == "u" else np.iinfo(dtype).min
    assert done.fill == (least,)
    expected = ExplicitVRLittleEndian if syntax == DeflatedExplicitVRLittleEndian else syntax
    assert done.after.transfer_syntax_uid == expected


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_native_colour_is_filled_by_pixel_and_by_plane(syntax: str, planar: int, dtype: str, tmp_path: Path) -> None:
    """Give every sample its own value, whichever way the samples lie."""
    pixels = noise(dtype, 2, 11, 10, 3)
    dataset = image(pixels, syntax, PlanarConfiguration=planar)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    shown = pixels.transpose(0, 3, 1, 2) if planar else pixels
    dataset.PixelData = np.ascontiguousarray(shown).astype(f"{order}{dtype}").tobytes()
    data = written(dataset)
    after, done = redacted(data, tmp_path, [BOX], fill_value=(9, 8, 7))
    assert_redacted(data, after, [BOX], done)
    assert done.fill == (9, 8, 7)


@pytest.mark.parametrize("value", [0, 1])
def test_bits_are_filled_one_by_one(value: int, tmp_path: Path) -> None:
    """Fill boxes of 1-bit frames that share bytes with each other, in some frames only."""
    segments = noise("u1", 5, 7, 9) > 127
    data = kinds.one_bit_segmentation(segments)
    redaction = PixelRedaction(BOX, [NAME], [1, 4])
    after, done = redacted(data, tmp_path, [redaction], fill_value=value)
    found = list(by_pydicom(after))
    expected = segments.astype(np.uint8)
    expected[[1, 4], 2:7, 3:7] = value
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(list(by_ours(after)), expected)
    assert done.fill == (value,)


@pytest.mark.parametrize("table", [False, True])
def test_native_pixels_in_items_are_found(table: bool, tmp_path: Path) -> None:
    """Fill the box, not bytes off it, where a native syntax has its pixels in items, and write them without items."""
    pixels = noise("u2", 2, 12, 9)
    frames = [frame.tobytes() for frame in pixels]
    data = written(image(pixels, ExplicitVRLittleEndian))
    header = b"\xe0\x7f\x10\x00OW\0\0"
    wrapped = data[: data.index(header)] + b"\xe0\x7f\x10\x00OB\0\0" + b"\xff" * 4
    wrapped += encapsulate(frames, has_bot=table) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    after, done = redacted(wrapped, tmp_path, [PixelRedaction(BOX, [NAME], [1])])
    assert_redacted(data, after, [BOX], done, [1])
    assert done.after.transfer_syntax_uid == ExplicitVRLittleEndian


def test_bits_in_items_of_a_native_syntax_are_refused(tmp_path: Path) -> None:
    """Refuse frames of bits of which nobody can say whether each has its bytes to itself."""
    segments = noise("u1", 2, 7, 9) > 127
    data = kinds.one_bit_segmentation(segments)
    header = b"\xe0\x7f\x10\x00OB\0\0"
    wrapped = data[: data.index(header)] + header + b"\xff" * 4
    wrapped += encapsulate([np.packbits(frame, bitorder="little").tobytes() for frame in segments])
    error = refused(wrapped + b"\xfe\xff\xdd\xe0\0\0\0\0", tmp_path, [PixelRedaction(BOX, [NAME])])
    assert error.instance_uid == NAME


def test_compressed_bits_are_redacted(tmp_path: Path) -> None:
    """Decode frames of single bits that were coded, each of which has its bytes to itself."""
    segments = (noise("u1", 2, 7, 9) > 127).astype(np.uint8)
    frames = [bytes(imagecodecs.jpeg2k_encode(one, codecformat="j2k", reversible=True)) for one in segments]
    dataset = image(segments, "1.2.840.10008.1.2.4.90", encapsulate(frames))
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    after, done = redacted(written(dataset), tmp_path, [BOX], fill_value=1)
    segments[:, 2:7, 3:7] = 1
    np.testing.assert_array_equal(list(by_ours(after)), segments)
    assert done.after.transfer_syntax_uid == ExplicitVRLittleEndian


def test_pixels_in_a_text_are_refused(tmp_path: Path) -> None:
    """Refuse pixel data that says to be a text."""
    data = written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian))
    header = b"\xe0\x7f\x10\x00OW\0\0"
    error = refused(data.replace(header, header.replace(b"OW", b"UT")), tmp_path, [PixelRedaction(BOX, [NAME])])
    assert error.instance_uid == NAME


def test_pixels_without_a_vr_get_one(tmp_path: Path) -> None:
    """Redact pixel data that has no VR in a file where every other element has."""
    data = written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian))
    header = b"\xe0\x7f\x10\x00OW\0\0"
    after, done = redacted(data.replace(header, header[:4]), tmp_path, [BOX])
    assert header + struct.pack("<L", 2 * 11 * 9) in after
    assert_redacted(data, after, [BOX], done)


def test_a_box_of_bits_takes_no_memory_of_the_frame(tmp_path: Path) -> None:
    """Hold the places of the box, not of all samples, where these are found one by one."""
    dataset = image(np.zeros((1, 1024, 1024), np.uint8), ExplicitVRLittleEndian)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    dataset.PixelData = b"\xff" * (1024 * 1024 // 8)
    path = tmp_path / "instance.dcm"
    path.write_bytes(written(dataset))
    pixels = read_image(NAME, target_of(path)).pixels
    with (tmp_path / "bits").open("w+b") as file:
        file.write(dataset.PixelData)
        file.flush()
        tracemalloc.start()
        fill_native(file, NativeLayout(0, 1, pixels, big_endian=False, swapped=False), {0: [BOX]}, (0,))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20
    bits = np.unpackbits(np.frombuffer((tmp_path / "bits").read_bytes(), np.uint8), bitorder="little")
    assert bits.size - bits.sum() == BOX.width * BOX.height


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_in_big_endian_words_are_found(planar: int, tmp_path: Path) -> None:
    """Fill samples of three colours that lie swapped in words, by pixel and by plane, in one frame of two."""
    pixels = noise("u1", 2, 11, 10, 3)
    dataset = image(pixels, ExplicitVRBigEndian, PlanarConfiguration=planar)
    plain = image(pixels, ExplicitVRLittleEndian, PlanarConfiguration=planar)
    raw = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if planar else pixels).tobytes()
    plain.PixelData = raw
    del dataset.PixelData
    dataset.add_new("PixelData", "OW", np.frombuffer(raw, "<u2").astype(">u2").tobytes())
    after, done = redacted(written(dataset), tmp_path, [PixelRedaction(BOX, [NAME], [1])], fill_value=(9, 8, 7))
    assert_redacted(written(plain), after, [BOX], done, [1])


def test_a_plan_holds_no_header(tmp_path: Path) -> None:
    """Keep of each file what the redaction needs, as all are planned before the first is written."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)
    dataset.DerivationCodeSequence = DicomSequence([Dataset()])
    dataset.add_new((0x6002, 0x0010), "US", 4)
    path = tmp_path / "instance.dcm"
    path.write_bytes(written(dataset))
    kept = read_image(NAME, target_of(path)).header
    assert {"00080018", "00100010", "7FE00010"}.isdisjoint(kept)
    assert {"00089215", "00280010", "60020010"} <= kept.keys()


@pytest.mark.parametrize("columns", [8, 9])
def test_bytes_in_big_endian_words_are_found(columns: int, tmp_path: Path) -> None:
    """Fill samples of a byte that lie swapped in words, in frames that may begin within one."""
    pixels = noise("u1", 2, 11, columns)
    dataset = image(pixels, ExplicitVRBigEndian)
    words = np.frombuffer(pixels.tobytes(), "<u2").astype(">u2").tobytes()
    del dataset.PixelData
    dataset.add_new("PixelData", "OW", words)
    after, done = redacted(written(dataset), tmp_path, [BOX])
    assert_redacted(written(image(pixels, ExplicitVRLittleEndian)), after, [BOX], done)


def test_bits_in_big_endian_words_are_found(tmp_path: Path) -> None:
    """Fill bits that lie in swapped words."""
    segments = noise("u1", 3, 7, 9) > 127
    dataset = dcmread(io.BytesIO(kinds.one_bit_segmentation(segments)))
    words = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    del dataset.PixelData
    dataset.add_new("PixelData", "OW", words)
    after, _ = redacted(to_bytes(dataset, ExplicitVRBigEndian), tmp_path, [BOX], fill_value=1)
    expected = segments.astype(np.uint8)
    expected[:, 2:7, 3:7] = 1
    np.testing.assert_array_equal(list(by_ours(after)), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_floats_are_filled(dtype: str, tmp_path: Path) -> None:
    """Fill boxes of (Double) Float Pixel Data; 0 where nothing is given."""
    pixels = np.random.default_rng(1).normal(size=(2, 9, 8)).astype(dtype)
    data = kinds.float_pixels(pixels)
    for fill in (None, 1.5):
        after, done = redacted(data, tmp_path, [BOX], fill_value=fill)
        assert_redacted(data, after, [BOX], done)
        assert done.fill == (fill or 0.0,)


@pytest.mark.parametrize("target", [None, *Target])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_frames_that_no_box_touches_stay(dtype: str, target: Target | None, tmp_path: Path) -> None:
    """Redact one frame of three in a compressed file, whose other frames keep every pixel."""
    first = written(image(noise(dtype, 3, 16, 12, bits=7), ExplicitVRLittleEndian))
    data, _ = redacted(first, tmp_path, [BoundingBox(0, 0, 1, 1)], target=Target.HTJ2K)
    after, done = redacted(data, tmp_path, [PixelRedaction(BOX, [NAME], [1])], target=target)
    assert_redacted(data, after, [BOX], done, [1])
    encoded = zip(*(joined(file, table_of(inspect(file))) for file in (data, after)), strict=True)
    same = [old == new for old, new in encoded]
    assert same == ([True, False, True] if target in {None, Target.HTJ2K} else [False] * 3)


def coded(pixels: NDArray[Any], syntax: str) -> list[bytes]:
    """Return frames in a compressed transfer syntax, without loss."""
    number = int(syntax.rpartition(".")[2])
    if number in {57, 70}:
        return [bytes(imagecodecs.ljpeg_encode(frame, bitspersample=16)) for frame in pixels]
    if number in {90, 91}:
        return [bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True)) for frame in pixels]
    if number in {80, 81}:
        return [bytes(imagecodecs.jpegls_encode(frame)) for frame in pixels]
    return [bytes(imagecodecs.htj2k_encode(frame, reversible=True)) for frame in pixels]


@pytest.mark.parametrize("target", [None, Target.HTJ2K, Target.JPEG2000])
@pytest.mark.parametrize("number", [57, 70, 80, 81, 90, 91, 201, 202, 203])
def test_every_compressed_syntax_loses_nothing(number: int, target: Target | None, tmp_path: Path) -> None:
    """Keep the pixels outside the box of two of three frames, whatever coded them, as they were before it did."""
    pixels = noise("u2", 3, 16, 12)
    syntax = f"1.2.840.10008.1.2.4.{number}"
    data = written(image(pixels, syntax, encapsulate(coded(pixels, syntax))))
    after, done = redacted(data, tmp_path, [PixelRedaction(BOX, [NAME], [0, 2])], target=target)
    assert_redacted(written(image(pixels, ExplicitVRLittleEndian)), after, [BOX], done, [0, 2])
    own = syntax if number in {80, 90, 201} else Target.HTJ2K.transfer_syntax_uid
    assert done.after.transfer_syntax_uid == (own if target is None else target.transfer_syntax_uid)
    assert "LossyImageCompression" not in dcmread(io.BytesIO(after))


def test_run_lengths_as_long_as_the_pixels_raise_no_warning(tmp_path: Path) -> None:
    """Encode to RLE an image that takes, items and all, as many bytes as without, of which pydicom would warn."""
    pixels = (np.arange(16 * 17) % 251).astype(np.uint8).reshape(1, 16, 17)
    box = BoundingBox(0, 0, 8, 16)  # per row 2 bytes of a run and 10 of literals; a header of 64 bytes, items of 16
    data = written(image(pixels, ExplicitVRLittleEndian))
    after, done = redacted(data, tmp_path, [box], target=Target.RLE)
    assert_redacted(data, after, [box], done)
    assert [len(frame) + 16 for frame in joined(after, table_of(inspect(after)))] == [16 * 17]


@pytest.mark.parametrize("table", ["basic", "empty", "extended", "wrong"])
@pytest.mark.parametrize("target", [None, Target.JPEG2000])
def test_every_offset_table_is_read_and_a_right_one_is_written(
    table: str, target: Target | None, tmp_path: Path
) -> None:
    """Find the frames by whatever offset table there is, and leave a Basic Offset Table that says where they are."""
    data = kinds.htj2k(kinds.make_frames(4, 17, 19), offset_table=table)
    after, done = redacted(data, tmp_path, [BOX], target=target)
    assert_redacted(kinds.htj2k(kinds.make_frames(4, 17, 19)), after, [BOX], done)
    dataset = dcmread(io.BytesIO(after))
    starts = parse_basic_offsets(dataset.PixelData)
    assert len(starts) == 4
    assert "ExtendedOffsetTable" not in dataset


def test_large_images_get_an_extended_offset_table(tmp_path: Path) -> None:
    """Write an Extended Offset Table where 32 bits may not suffice."""
    data = kinds.htj2k(kinds.make_frames(3, 17, 19))
    after, done = redacted(data, tmp_path, [BOX], basic_table_limit_bytes=1)
    assert_redacted(data, after, [BOX], done)
    dataset = dcmread(io.BytesIO(after))
    assert len(dataset.ExtendedOffsetTable) == 24
    assert parse_basic_offsets(dataset.PixelData) == []


@dataclass(frozen=True)
class CountedImage(OpenImage):
    """An image that notes which of its frames are decoded."""

    decoded: list[int] = field(default_factory=list)

    def samples(self, frame: int) -> tuple[NDArray[Any], str]:
        """Decode a frame, and note it."""
        self.decoded.append(frame)
        return super().samples(frame)


@pytest.mark.parametrize(
    ("bits", "frames", "options", "decoded"),
    [
        (16, None, {}, [0, 1, 2]),
        (16, None, {"native": True}, [0, 1, 2]),
        (16, (0,), {}, [0]),
        (16, (1,), {}, [0, 1]),  # the first for its photometric interpretation
        (1, None, {}, [0, 1, 2]),  # which HTJ2K does not take
    ],
)
def test_no_frame_is_decoded_twice(
    bits: int, frames: tuple[int, ...] | None, options: dict[str, Any], decoded: list[int], tmp_path: Path
) -> None:
    """Decode the first frame, whose photometric interpretation is asked for beforehand, once, as any other."""
    pixels = noise("u2" if bits > 1 else "u1", 3, 16, 12) >> (0 if bits > 1 else 7)
    syntax = "1.2.840.10008.1.2.4.90"
    dataset = image(pixels, syntax, encapsulate(coded(pixels, syntax)))
    if bits == 1:
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
    path = tmp_path / "instance.dcm"
    path.write_bytes(written(dataset))
    with open_image(read_image(NAME, target_of(path))) as opened, (tmp_path / "redacted.dcm").open("w+b") as file:
        counted = CountedImage(opened.image, opened.source, opened.elements)
        write_redacted(Work(counted, (Region(BOX, frames),), RedactionOptions("Dr. Test", WHEN, **options)), file)
    assert counted.decoded == decoded
    for frame in range(3) if frames is None else frames:
        pixels[frame, 2:7, 3:7] = 0
    np.testing.assert_array_equal(list(by_ours((tmp_path / "redacted.dcm").read_bytes())), pixels)


def test_encapsulated_uncompressed_frames_become_native(tmp_path: Path) -> None:
    """Store frames of Encapsulated Uncompressed as plain explicit little endian."""
    pixels = kinds.make_frames(3, 17, 19)
    after, done = redacted(kinds.encapsulated_uncompressed(pixels), tmp_path, [BOX])
    assert_redacted(kinds.native(pixels), after, [BOX], done)
    assert done.after.transfer_syntax_uid == ExplicitVRLittleEndian


@pytest.mark.parametrize("target", [None, Target.HTJ2K, Target.JPEG2000])
def test_subsampled_native_colour_gets_chrominance_for_every_pixel(target: Target | None, tmp_path: Path) -> None:
    """Turn YBR_FULL_422 into YBR_FULL, so that a box may begin at an odd column; black is (0, 128, 128)."""
    stored = noise("u1", 2, 8, 12, 2)
    dataset = image(np.repeat(stored[..., :1], 3, axis=3), ExplicitVRLittleEndian)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = stored.tobytes()
    data = written(dataset)
    after, done = redacted(data, tmp_path, [BOX], target=target)
    assert_redacted(data, after, [BOX], done)
    assert done.fill == (0, 128, 128)
    assert dcmread(io.BytesIO(after)).PhotometricInterpretation == "YBR_FULL"


def test_lossy_sources_say_so_from_then_on(tmp_path: Path) -> None:
    """Store what a baseline JPEG decodes to without loss, and record that it once was lossy."""
    pixels = noise("u1", 2, 16, 24)
    frames = [bytes(imagecodecs.jpeg8_encode(frame, level=80)) for frame in pixels]
    data = written(image(pixels, JPEGBaseline8Bit, encapsulate(frames)))
    after, done = redacted(data, tmp_path, [BOX])
    assert_redacted(data, after, [BOX], done)
    dataset = dcmread(io.BytesIO(after))
    assert dataset.file_meta.TransferSyntaxUID == Target.HTJ2K.transfer_syntax_uid
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"
    assert dataset.LossyImageCompressionRatio > 0


@pytest.mark.parametrize(("level", "lossy"), [(0, None), (3, "01")])
def test_what_was_coded_without_loss_is_not_called_lossy(level: int, lossy: str | None, tmp_path: Path) -> None:
    """Look at the codestream where the transfer syntax allows both."""
    pixels = noise("u1", 1, 16, 24)
    frames = [bytes(imagecodecs.jpegls_encode(frame, level=level)) for frame in pixels]
    data = written(image(pixels, JPEGLSNearLossless, encapsulate(frames)))
    after, done = redacted(data, tmp_path, [BOX])
    assert_redacted(data, after, [BOX], done)
    assert dcmread(io.BytesIO(after)).get("LossyImageCompression") == lossy


def test_bytes_behind_the_frames_go(tmp_path: Path) -> None:
    """Leave out what pixel data has beyond its frames, where more of the picture may lie."""
    pixels = noise("u2", 1, 11, 9)
    dataset = image(pixels, ExplicitVRLittleEndian)
    dataset.PixelData += b"SECRET" * 4
    after, done = redacted(written(dataset), tmp_path, [BOX])
    assert b"SECRET" not in after
    assert_redacted(written(image(pixels, ExplicitVRLittleEndian)), after, [BOX], done)


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("target", [None, Target.HTJ2K])
def test_bytes_behind_the_last_element_go(count: int, target: Target | None, tmp_path: Path) -> None:
    """Leave out what is too short for an element, as the published library's edits leave it behind every file."""
    data = written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian))
    after, done = redacted(data + b"SECRETS"[:count], tmp_path, [BOX], target=target)
    assert_redacted(data, after, [BOX], done)
    (tmp_path / "clean").mkdir()
    clean, _ = redacted(data, tmp_path / "clean", [BOX], target=target)
    assert len(after) == len(clean)


@pytest.mark.parametrize(
    ("attributes", "fill"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}, 4095),
        ({"PhotometricInterpretation": "MONOCHROME2", "BitsStored": 12}, 0),
    ],
)
def test_black_is_the_default(attributes: dict[str, Any], fill: int, tmp_path: Path) -> None:
    """Fill with what is displayed as black, within the stored bits."""
    data = written(image(noise("u2", 1, 11, 9, bits=12), ExplicitVRLittleEndian, HighBit=11, **attributes))
    for target in (None, Target.JPEG2000):
        after, done = redacted(data, tmp_path, [BOX], target=target)
        assert_redacted(data, after, [BOX], done)
        assert done.fill == (fill,)


def test_the_darkest_entry_of_a_palette_is_the_default(tmp_path: Path) -> None:
    """Fill PALETTE COLOR with the index of its darkest colour."""
    dataset = image(noise("u1", 1, 11, 9), ExplicitVRLittleEndian, PhotometricInterpretation="PALETTE COLOR")
    shades = np.full(256, 60000, "<u2")
    shades[77] = 300
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", shades.tobytes())
    after, done = redacted(written(dataset), tmp_path, [BOX])
    assert done.fill == (77,)
    assert_redacted(written(dataset), after, [BOX], done)


def test_a_grey_level_serves_colour(tmp_path: Path) -> None:
    """Take one value for three samples as a grey."""
    data = written(image(noise("u1", 1, 11, 9, 3), ExplicitVRLittleEndian))
    after, done = redacted(data, tmp_path, [BOX], fill_value=40)
    assert_redacted(data, after, [BOX], done)
    assert done.fill == (40, 40, 40)


# -- what else would show the pixels


def preview(pixels: NDArray[Any]) -> Dataset:
    """Return an item of Icon Image Sequence."""
    item = Dataset()
    item.Rows, item.Columns = pixels.shape
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit, item.PixelRepresentation = 7, 0
    item.add_new("PixelData", "OB", pixels.tobytes())
    return item


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("target", [None, Target.HTJ2K])
def test_previews_go_wherever_they_are(syntax: str, undefined: bool, target: Target | None, tmp_path: Path) -> None:
    """Remove icons of the image and of items however deep, and keep what stands beside them."""
    icon = noise("u1", 8, 8)[::-1]
    dataset = image(noise("u2", 1, 11, 9), syntax)
    inner, outer = Dataset(), Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3.4"
    inner.IconImageSequence = DicomSequence([preview(icon)])
    outer.CodeMeaning = "kept"
    outer.ReferencedImageSequence = DicomSequence([inner])
    dataset.IconImageSequence = DicomSequence([preview(icon)])
    dataset.RequestAttributesSequence = DicomSequence([outer, outer])
    dataset["RequestAttributesSequence"].is_undefined_length = undefined
    data = written(dataset)
    plain = oracle.inflated(data, oracle.read(data))
    assert plain.count(icon.tobytes()) == 3
    after, done = redacted(data, tmp_path, [BOX], target=target)
    assert icon.tobytes() not in after
    found = dcmread(io.BytesIO(after))
    assert "IconImageSequence" not in found
    items = found.RequestAttributesSequence
    assert [item.CodeMeaning for item in items] == ["kept", "kept"]
    assert [item.ReferencedImageSequence[0].ReferencedSOPInstanceUID for item in items] == ["1.2.3.4"] * 2
    assert_redacted(data, after, [BOX], done)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_overlays_are_cleared_under_the_box(syntax: str, tmp_path: Path) -> None:
    """Clear the bits of an overlay under the box, by its origin, and no others."""
    dataset = image(noise("u2", 1, 11, 9), syntax)
    bits = np.ones((2, 6, 5), np.uint8)
    packed = np.packbits(bits, bitorder="little")
    packed = np.append(packed, np.uint8(0)) if packed.size % 2 else packed
    words = packed.reshape(-1, 2)[:, ::-1].tobytes() if syntax == ExplicitVRBigEndian else packed.tobytes()
    block = {0x10: ("US", 6), 0x11: ("US", 5), 0x15: ("IS", 2), 0x40: ("CS", "G"), 0x50: ("SS", [4, 5])}
    block |= {0x100: ("US", 1), 0x102: ("US", 0), 0x3000: ("OW", words)}
    for element, (vr, value) in block.items():
        dataset.add_new((0x6002, element), vr, value)
    after, _ = redacted(written(dataset), tmp_path, [BOX])
    raw = np.frombuffer(dcmread(io.BytesIO(after))[0x6002, 0x3000].value, np.uint8)
    raw = raw.reshape(-1, 2)[:, ::-1].reshape(-1) if syntax == ExplicitVRBigEndian else raw
    found = np.unpackbits(raw, bitorder="little")[: bits.size].reshape(bits.shape)
    # Row 4, column 5 of the image, from 1, is the overlay's first pixel; the box covers rows 2 to 6, columns 3 to 6.
    bits[:, 0:4, 0:3] = 0
    np.testing.assert_array_equal(found, bits)


def test_an_overlay_that_nothing_places_goes(tmp_path: Path) -> None:
    """Drop overlay data without the size that would say what of it lies under the box."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)
    dataset.add_new((0x6000, 0x3000), "OW", b"\xff" * 16)
    after, _ = redacted(written(dataset), tmp_path, [BOX])
    assert (0x6000, 0x3000) not in dcmread(io.BytesIO(after))


@pytest.mark.parametrize("target", [None, Target.HTJ2K])
def test_overlays_in_unused_bits_stay_outside_and_go_inside(target: Target | None, tmp_path: Path) -> None:
    """Keep an overlay in the upper bits of native pixels, but for the box."""
    pixels = noise("u2", 1, 11, 9)
    dataset = image(pixels, ExplicitVRLittleEndian, BitsStored=12, HighBit=11)
    for element, value in {0x10: 11, 0x11: 9, 0x100: 16, 0x102: 12}.items():
        dataset.add_new((0x6000, element), "US", value)
    after, _ = redacted(written(dataset), tmp_path, [BOX], target=target)
    found = np.frombuffer(dcmread(io.BytesIO(after)).PixelData[: pixels.nbytes], "<u2").reshape(pixels.shape)
    pixels[:, 2:7, 3:7] = 0
    np.testing.assert_array_equal(found, pixels)


def test_overlay_frames_that_nothing_counts_go(tmp_path: Path) -> None:
    """Clear what lies behind the frames that the overlay says to have: nothing says where it lies."""
    dataset = image(noise("u2", 3, 11, 9), ExplicitVRLittleEndian)
    block = {0x10: ("US", 11), 0x11: ("US", 9), 0x40: ("CS", "G"), 0x50: ("SS", [1, 1])}
    block |= {0x100: ("US", 1), 0x102: ("US", 0), 0x3000: ("OW", b"\xff" * 38)}
    for element, (vr, value) in block.items():
        dataset.add_new((0x6000, element), vr, value)
    after, _ = redacted(written(dataset), tmp_path, [BOX])
    found = np.unpackbits(np.frombuffer(dcmread(io.BytesIO(after))[0x6000, 0x3000].value, np.uint8), bitorder="little")
    assert found[: 11 * 9].sum() == 11 * 9 - BOX.width * BOX.height
    assert found[11 * 9 :].sum() == 0


@pytest.mark.parametrize("target", [None, Target.HTJ2K])
@pytest.mark.parametrize("tag", [0xFFFCFFFC, 0x7F000010, 0x7F020010, 0x7F000020, 0x7FE00020, 0x7FE00030, 0x7FE00040])
def test_other_places_of_pixels_go(tag: int, target: Target | None, tmp_path: Path) -> None:
    """Remove padding behind the dataset, and retired elements that hold pixels or what they are made from."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)
    dataset.add_new(tag, "OB" if tag == 0xFFFCFFFC else "OW", b"SECRET")
    before = written(dataset)
    after, done = redacted(before, tmp_path, [BOX], target=target)
    assert b"SECRET" in before
    assert b"SECRET" not in after
    assert tag not in dcmread(io.BytesIO(after))
    assert_redacted(written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)), after, [BOX], done)


def test_nothing_points_to_the_old_pixels(tmp_path: Path) -> None:
    """Remove the address of a pixel data provider, of items too."""
    dataset, item = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian), Dataset()
    dataset.add_new(0x00287FE0, "UR", "https://example.org/pixels")
    item.add_new(0x00287FE0, "UR", "https://example.org/pixels")
    item.CodeMeaning = "kept"
    dataset.RequestAttributesSequence = DicomSequence([item])
    after, _ = redacted(written(dataset), tmp_path, [BOX])
    assert b"example.org" not in after
    assert dcmread(io.BytesIO(after)).RequestAttributesSequence[0].CodeMeaning == "kept"


@pytest.mark.parametrize("target", [None, Target.HTJ2K])
def test_a_preamble_of_another_format_goes(target: Target | None, tmp_path: Path) -> None:
    """Write a preamble of zeros: offsets of a TIFF file in it would point to other bytes (PS3.10 section 7.1)."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)
    tiff = struct.pack("<2sHL", b"II", 42, 4096).ljust(128, b"\1")
    before = to_bytes(dataset, ExplicitVRLittleEndian, preamble=tiff)
    assert before.startswith(b"II")
    after, done = redacted(before, tmp_path, [BOX], target=target)
    assert after[:132] == bytes(128) + b"DICM"
    assert_redacted(before, after, [BOX], done)


# -- the header


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("target", [None, Target.HTJ2K])
def test_the_header_says_what_was_done(syntax: str, target: Target | None, tmp_path: Path) -> None:
    """Set the de-identification and derivation attributes, once, and leave every other element as it was."""
    dataset = image(noise("u2", 1, 11, 9), syntax, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    dataset.DerivationDescription = "Cropped"
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = 0, 65535
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "113100", "DCM"
    item.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = DicomSequence([item])
    dataset.add_new((0x0009, 0x0010), "LO", "SOMEBODY")
    dataset.add_new((0x0009, 0x1001), "UN", b"\1\2\3\4")
    before = written(dataset)
    after, _ = redacted(before, tmp_path, [BOX], target=target)
    again, _ = redacted(after, tmp_path, [BoundingBox(0, 0, 2, 2)], target=target)
    for file in (after, again):
        found = dcmread(io.BytesIO(file))
        assert found.ImageType == ["DERIVED", "PRIMARY", "AXIAL"]
        assert found.DerivationDescription == "Cropped; Regions of the pixel data overwritten"
        assert [code.CodeValue for code in found.DerivationCodeSequence] == ["113047"]
        assert found.DeidentificationMethod == "Pixel data redacted by cloud-optimized-dicom"
        assert [code.CodeValue for code in found.DeidentificationMethodCodeSequence] == ["113100", "113101"]
        assert "BurnedInAnnotation" not in found
        assert found.SOPInstanceUID == dataset.SOPInstanceUID
        changed = {"00080008", "00082111", "00089215", "00120063", "00120064", "00280106", "00280107", "7FE00010"}
        old, new = oracle.header(oracle.read(before)), oracle.header(oracle.read(file))
        kept = {tag: value for tag, value in old.items() if tag not in changed and not tag.startswith("0002")}
        assert {tag: new.get(tag) for tag in kept} == kept
        assert new.keys() - old.keys() == {"00089215", "00120063"}


def test_texts_are_added_as_values_of_their_own(tmp_path: Path) -> None:
    """Add a value where another one only contains it, and one more to many."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)
    dataset.DerivationDescription = "Regions of the pixel data overwritten twice"
    dataset.DeidentificationMethod = [f"Method {number} " + "x" * 50 for number in range(30)]
    after, _ = redacted(written(dataset), tmp_path, [BOX])
    found = dcmread(io.BytesIO(after))
    assert found.DerivationDescription.split("; ")[1:] == ["Regions of the pixel data overwritten"]
    assert found.DeidentificationMethod[30:] == ["Pixel data redacted by cloud-optimized-dicom"]


def test_a_full_description_stays(tmp_path: Path) -> None:
    """Keep a text that has no room for one more, which the codes say too."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian, DerivationDescription="x" * 1000)
    after, _ = redacted(written(dataset), tmp_path, [BOX])
    found = dcmread(io.BytesIO(after))
    assert found.DerivationDescription == "x" * 1000
    assert [code.CodeValue for code in found.DerivationCodeSequence] == ["113047"]


def test_elements_out_of_order_are_replaced_where_they_are(tmp_path: Path) -> None:
    """Write no element twice in a file whose elements do not ascend."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian, ImageType=["ORIGINAL", "PRIMARY"])
    data = written(dataset)
    start, element = data.index(b"\x08\x00\x08\x00CS"), b"\x08\x00\x08\x00CS\x10\x00ORIGINAL\\PRIMARY"
    assert data[start : start + len(element)] == element
    last = data.index(b"\x28\x00\x00\x01US")
    moved = data[:start] + data[start + len(element) : last] + element + data[last:]
    after, _ = redacted(moved, tmp_path, [BOX])
    assert after.count(b"\x08\x00\x08\x00CS") == 1
    assert dcmread(io.BytesIO(after)).ImageType == ["DERIVED", "PRIMARY"]


@pytest.mark.parametrize(
    ("given", "is_clean", "expected"), [("YES", False, "YES"), ("YES", True, "NO"), (None, True, "NO")]
)
def test_burned_in_annotation_is_for_the_reviewer_to_say(
    given: str | None, is_clean: bool, expected: str, tmp_path: Path
) -> None:
    """Set Burned In Annotation to NO only if the reviewer states that nothing is left."""
    dataset = image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)
    if given:
        dataset.BurnedInAnnotation = given
    after, _ = redacted(written(dataset), tmp_path, [BOX], is_clean=is_clean)
    assert dcmread(io.BytesIO(after)).BurnedInAnnotation == expected


# -- refusals


def refused(data: bytes, folder: Path, redactions: list[PixelRedaction]) -> RedactionError:
    """Redact two files, the first of which would do; return the error, sure that neither has changed."""
    good = written(image(noise("u2", 1, 30, 30), ExplicitVRLittleEndian))
    paths = {"1.1": folder / "1.1.dcm", NAME: folder / "1.2.3.dcm"}
    paths["1.1"].write_bytes(good)
    paths[NAME].write_bytes(data)
    options = RedactionOptions("Dr. Test", WHEN)
    wanted = [PixelRedaction(BoundingBox(0, 0, 2, 2), ["1.1"]), *redactions]
    with pytest.raises(RedactionError) as caught:
        redact_files(wanted, {uid: target_of(path) for uid, path in paths.items()}, options, "memory://x")
    assert (paths["1.1"].read_bytes(), paths[NAME].read_bytes()) == (good, data)
    assert sorted(item.name for item in folder.iterdir()) == ["1.1.dcm", "1.2.3.dcm"]
    return caught.value


@pytest.mark.parametrize(
    "box", [(6, 0, 4, 4), (0, 8, 4, 4), (-1, 0, 4, 4), (0, -1, 4, 4), (0, 0, 0, 4), (0, 0, 4, -4), (9, 11, 1, 1)]
)
def test_boxes_that_leave_the_image_are_refused(box: tuple[int, int, int, int], tmp_path: Path) -> None:
    """Refuse a box beyond any edge, or an empty one, before any file is touched."""
    data = written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian))
    error = refused(data, tmp_path, [PixelRedaction(BoundingBox(*box), [NAME])])
    assert isinstance(error, RedactionBoxOutOfBoundsError)
    assert (error.instance_uid, error.box) == (NAME, box)


@pytest.mark.parametrize("frame", [-1, 2])
def test_frames_that_are_not_there_are_refused(frame: int, tmp_path: Path) -> None:
    """Refuse a frame out of range; frames count from 0."""
    data = written(image(noise("u2", 2, 11, 9), ExplicitVRLittleEndian))
    error = refused(data, tmp_path, [PixelRedaction(BOX, [NAME], [0, frame])])
    assert isinstance(error, RedactionFrameOutOfRangeError)
    assert (error.instance_uid, error.frame, error.frames) == (NAME, frame, 2)


def test_instances_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """Refuse a UID that the series does not hold."""
    data = written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian))
    error = refused(data, tmp_path, [PixelRedaction(BOX, [NAME, "9.9"])])
    assert isinstance(error, RedactionTargetMissingError)
    assert (error.instance_uid, error.uri) == ("9.9", "memory://x")


@pytest.mark.parametrize(
    ("shape", "bits", "fill"),
    [
        ((1, 11, 9), 12, 4096),
        ((1, 11, 9), 12, -1),
        ((1, 11, 9), 12, 1.5),
        ((1, 11, 9), 12, True),
        ((1, 11, 9), 12, (1, 2, 3)),
        ((1, 11, 9, 3), 8, (1, 2)),
        ((1, 11, 9, 3), 8, (1, 2, 256)),
    ],
)
def test_fills_that_do_not_fit_are_refused(shape: tuple[int, ...], bits: int, fill: Any, tmp_path: Path) -> None:
    """Refuse a fill beyond Bits Stored, of another kind, or of another number of samples."""
    data = written(
        image(noise("u2" if bits > 8 else "u1", *shape), ExplicitVRLittleEndian, BitsStored=bits, HighBit=bits - 1)
    )
    redaction = PixelRedaction(BOX, [NAME])
    (tmp_path / "one").mkdir()
    with pytest.raises(RedactionFillValueError):
        redacted(data, tmp_path / "one", [redaction], fill_value=fill)
    assert (tmp_path / "one" / "instance.dcm").read_bytes() == data


@pytest.mark.parametrize(
    "name", ["rtplan.dcm", "MR_truncated.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "nothing"]
)
def test_what_cannot_be_redacted_is_refused(name: str, tmp_path: Path) -> None:
    """Refuse a file without pixel data, a truncated one, and one that does not decode, and leave the others too."""
    if name == "nothing":
        data = b"no DICOM"
    elif name.startswith("JPEG2000"):
        data = kinds.encapsulated([b"\xff\x4f\xff\x51no codestream"], (11, 9), "1.2.840.10008.1.2.4.90")
    else:
        data = real_file(name).read()
    error = refused(data, tmp_path, [PixelRedaction(BOX, [NAME])])
    assert error.instance_uid == NAME


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, Target.JPEG2000])
def test_stored_bits_that_are_not_the_lowest_are_refused(syntax: Target | str, tmp_path: Path) -> None:
    """Refuse pixels whose High Bit says that others than the lowest bits are stored: the fill would lie in others."""
    pixels = noise("u2", 1, 11, 9)
    compressed = isinstance(syntax, Target)
    uid = syntax.transfer_syntax_uid if isinstance(syntax, Target) else syntax
    dataset = image(pixels, uid, encapsulate(coded(pixels, uid)) if compressed else None, BitsStored=12, HighBit=15)
    error = refused(written(dataset), tmp_path, [PixelRedaction(BOX, [NAME])])
    assert "outside Bits Stored" in str(error)


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, Target.JPEG2000])
def test_overlays_in_unused_bits_that_would_be_lost_are_refused(syntax: Target | str, tmp_path: Path) -> None:
    """Refuse pixels that have to be decoded to their stored bits, with an overlay in the others."""
    pixels = noise("u2", 1, 11, 9)
    compressed = isinstance(syntax, Target)
    uid = syntax.transfer_syntax_uid if isinstance(syntax, Target) else syntax
    dataset = image(pixels, uid, encapsulate(coded(pixels, uid)) if compressed else None, BitsStored=12, HighBit=11)
    for element, value in {0x10: 11, 0x11: 9, 0x100: 16, 0x102: 12}.items():
        dataset.add_new((0x6000, element), "US", value)
    error = refused(written(dataset), tmp_path, [PixelRedaction(BOX, [NAME])])
    assert "outside Bits Stored" in str(error)


def test_a_video_is_refused(tmp_path: Path) -> None:
    """Refuse a transfer syntax that nothing decodes."""
    data = kinds.encapsulated([b"\0\0\1\xb3" * 8], (11, 9), "1.2.840.10008.1.2.4.100")
    assert "1.2.840.10008.1.2.4.100" in str(refused(data, tmp_path, [PixelRedaction(BOX, [NAME])]))


def test_a_file_of_another_instance_is_refused(tmp_path: Path) -> None:
    """Refuse a file that holds another instance than the one that is named, such as one that was moved there."""
    path = tmp_path / "instance.dcm"
    path.write_bytes(written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)))
    with pytest.raises(RedactionError, match="holds"):
        redact_files([PixelRedaction(BOX, [NAME])], {NAME: TargetFile(path, "1.2")}, RedactionOptions("Dr. Test", WHEN))


@pytest.mark.parametrize("redactions", [[], [PixelRedaction(BOX, [])], [PixelRedaction(BOX, [NAME], [])]])
def test_a_redaction_of_nothing_is_refused(redactions: list[PixelRedaction], tmp_path: Path) -> None:
    """Refuse to redact nothing: no redactions, no instances or no frames."""
    path = tmp_path / "instance.dcm"
    path.write_bytes(written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)))
    with pytest.raises(RedactionError):
        redact_files(redactions, {NAME: target_of(path)}, RedactionOptions("Dr. Test", WHEN))


def test_somebody_has_to_ask_for_it(tmp_path: Path) -> None:
    """Refuse a redaction without a reviewer."""
    path = tmp_path / "instance.dcm"
    path.write_bytes(written(image(noise("u2", 1, 11, 9), ExplicitVRLittleEndian)))
    with pytest.raises(ValueError, match="reviewer"):
        redact_files([PixelRedaction(BOX, [NAME])], {NAME: target_of(path)}, RedactionOptions(" ", WHEN))


def test_the_record_says_who_what_and_when(tmp_path: Path) -> None:
    """Keep of each file its checksums before and after, and of each box its place, frames and fill."""
    data = written(image(noise("u2", 2, 11, 9), ExplicitVRLittleEndian))
    path = tmp_path / "instance.dcm"
    path.write_bytes(data)
    redaction = PixelRedaction(BOX, [NAME], [1])
    record = redact_files([redaction, redaction], {NAME: target_of(path)}, RedactionOptions("Dr. Test", WHEN)).as_json()
    before, after = inspect(data), inspect(path.read_bytes())
    assert (record["reviewer"], record["when"], record["is_clean"]) == ("Dr. Test", WHEN.isoformat(), False)
    done = record["instances"][NAME]
    assert done["boxes"] == [{"x": 3, "y": 2, "width": 4, "height": 5, "frames": [1]}]
    assert done["fill"] == [0]
    assert (done["before"]["size"], done["after"]["size"]) == (before.size, after.size)
    assert done["before"]["crc32c"] != done["after"]["crc32c"]
