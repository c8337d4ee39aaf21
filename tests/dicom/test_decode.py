"""A frame decoded alone is what pydicom's pixel_array holds there, for every kind of pixels and encoding."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from cloud_optimized_dicom.dicom.decode import FrameDecoder, decode_frame, pixel_description
from cloud_optimized_dicom.errors import FrameDecodeError
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from tests.dicom import oracle
from tests.dicom.helpers import header_of, inspect, joined, table_of
from tests.realfiles import RealFile, real_file, real_files

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

HTJ2K = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203))
JPEG2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def expected_frames(data: bytes, **options: Any) -> NDArray[Any] | None:
    """Return what pydicom makes of a file, one array a frame, or None where it fails."""
    dataset = oracle.read(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = pixel_array(dataset, **options)
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            return None
    single = pixels.ndim == (2 if dataset.SamplesPerPixel == 1 else 3)
    return pixels[None] if single else pixels


def found_frames(data: bytes, frames: range | list[int] | None = None) -> list[NDArray[Any]]:
    """Return what ours makes of chosen frames of a file, each cut and decoded alone."""
    facts = inspect(data)
    encoded = joined(oracle.inflated(data, oracle.read(data)), table_of(facts))
    decoder = FrameDecoder.of(header_of(facts), facts.transfer_syntax_uid)
    return [decoder.decode(encoded[number], number) for number in (range(len(encoded)) if frames is None else frames)]


def expected_frame(dataset: Dataset, number: int) -> NDArray[Any]:
    """Return what pydicom makes of one frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dataset.get("BitsAllocated") != 1:
            return np.asarray(pixel_array(dataset, index=number))
        frames = pixel_array(dataset)  # of bits, pydicom cuts not every frame alone
        return np.asarray(frames[number] if frames.ndim > 2 else frames)


def assert_equals_pydicom(data: bytes, every: int = 1) -> int:
    """Compare every so-many-th frame of a file, its type too; return how many were compared."""
    dataset = oracle.read(data)
    count = int(dataset.get("NumberOfFrames") or 1)
    numbers = sorted({*range(0, count, every), count - 1})
    for number, found in zip(numbers, found_frames(data, numbers), strict=True):
        np.testing.assert_array_equal(found, expected_frame(dataset, number), strict=True)
        found[0] = 0  # writeable
    return len(numbers)


def is_decodable(data: bytes) -> bool:
    """Tell whether a file can be stored and pydicom decodes it."""
    dataset = oracle.read(data)
    if not oracle.has_uids(dataset, legal=True):
        return False
    try:
        expected_frame(dataset, 0)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):
        return False
    return True


@pytest.fixture(scope="module", name="decodable")
def _decodable() -> list[RealFile]:
    return [file for file in real_files() if is_decodable(file.read())]


def image(
    pixels: NDArray[Any], transfer_syntax: str, value: bytes, *, stored: int = 0, vr: str = "OW", **attributes: Any
) -> bytes:
    """Return an instance of frames (frames, rows, columns[, samples]) whose Pixel Data is `value`."""
    samples = pixels.shape[3] if pixels.ndim == 4 else 1
    bits = 8 * pixels.dtype.itemsize
    dataset = make_dataset(
        Uids.of("decode", transfer_syntax, pixels.shape, bits, stored, vr, sorted(attributes.items()))
    )
    describe_pixels(dataset, (pixels.shape[1], pixels.shape[2]), frames=len(pixels), bits=bits, samples=samples)
    dataset.BitsStored = stored or bits
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    for keyword, attribute in attributes.items():
        setattr(dataset, keyword, attribute)
    dataset.add_new("PixelData", vr, value + b"\0" * (len(value) % 2))
    dataset["PixelData"].is_undefined_length = transfer_syntax not in NATIVE
    return to_bytes(dataset, transfer_syntax)


def noise(dtype: str, *shape: int) -> NDArray[Any]:
    """Return random pixels of the whole range of a type."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind)
    return np.random.default_rng(5).integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


# -- real files


def test_frames_of_every_real_file(decodable: list[RealFile]) -> None:
    """Decode the first, the last and some frames between of each real file to what pydicom has, warnings as errors."""
    assert len(decodable) > 150
    assert sum(assert_equals_pydicom(file.read(), 19) for file in decodable) > 200


@pytest.mark.slow
def test_every_frame_of_every_real_file(decodable: list[RealFile]) -> None:
    """Decode each frame of each real file to what pydicom has."""
    assert sum(assert_equals_pydicom(file.read()) for file in decodable) > 500


# -- native


@pytest.mark.parametrize("transfer_syntax", NATIVE)
@pytest.mark.parametrize("stored", [1, 5, 12, 15, 16])
@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_bits_above_the_stored_ones_do_not_count(dtype: str, stored: int, transfer_syntax: str) -> None:
    """Read any number of stored bits, signed and unsigned, whatever stands above the high bit."""
    pixels = noise(dtype, 3, 5, 7)
    order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    value = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data = image(pixels, transfer_syntax, value, stored=stored)
    assert_equals_pydicom(data)
    found = found_frames(data)[2].astype(np.int64)
    assert ((found - pixels[2]) % (1 << stored) == 0).all()
    low = -(1 << (stored - 1)) if dtype == "i2" else 0
    assert found.min() >= low
    assert found.max() < low + (1 << stored)


@pytest.mark.parametrize("transfer_syntax", NATIVE)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u8"])
@pytest.mark.parametrize("by_plane", [0, 1])
def test_native_colour_of_every_depth(dtype: str, by_plane: int, transfer_syntax: str) -> None:
    """Read colour by pixel and by plane, frames of an odd number of bytes and swapped bytes too."""
    pixels = noise(dtype, 3, 3, 5, 3)
    order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    stored = (pixels.transpose(0, 3, 1, 2) if by_plane else pixels).astype(pixels.dtype.newbyteorder(order)).tobytes()
    if dtype in {"u1", "i1"} and order == ">":
        stored = np.frombuffer(stored + b"\0" * (len(stored) % 2), "u2").byteswap().tobytes()
    data = image(pixels, transfer_syntax, stored, PlanarConfiguration=by_plane)
    assert_equals_pydicom(data)
    np.testing.assert_array_equal(found_frames(data), pixels)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_native_ybr_comes_as_rgb(photometric: str) -> None:
    """Convert YBR_FULL, and YBR_FULL_422 with its shared chrominance, to RGB."""
    pixels = noise("u1", 2, 4, 6, 3)
    value = pixels.tobytes() if photometric == "YBR_FULL" else noise("u1", 2 * 4 * 6 * 2).tobytes()
    assert_equals_pydicom(image(pixels, ExplicitVRLittleEndian, value, vr="OB", PhotometricInterpretation=photometric))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_pixels(dtype: Any) -> None:
    """Read float pixels of either width, infinities and NaN too."""
    pixels = np.random.default_rng(1).random((3, 7, 5)).astype(dtype)
    pixels[0, 0, :3] = math.nan, math.inf, -math.inf
    assert_equals_pydicom(kinds.float_pixels(pixels))


@pytest.mark.parametrize("shape", [(9, 5, 3), (40, 5, 14), (3, 16, 8)])
def test_bits(shape: tuple[int, int, int]) -> None:
    """Read frames of bits that begin anywhere in a byte."""
    assert_equals_pydicom(kinds.one_bit_segmentation(np.random.default_rng(3).random(shape) < 0.5))


@pytest.mark.parametrize("shape", [(9, 5, 3), (40, 5, 14), (3, 16, 8)])
def test_bits_in_big_endian_words(shape: tuple[int, int, int]) -> None:
    """Read bits from words whose bytes are swapped, which pydicom takes for bytes (PS3.5 2016b sections 8.1.1, A.3)."""
    bits = np.random.default_rng(3).random(shape) < 0.5
    little = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    words = np.frombuffer(little + b"\0" * (len(little) % 2), "<u2")
    data = image(bits.astype("u1"), ExplicitVRBigEndian, words.astype(">u2").tobytes(), BitsAllocated=1, BitsStored=1)
    np.testing.assert_array_equal(found_frames(data), bits)


def test_bits_in_items_of_their_own() -> None:
    """Read encapsulated uncompressed bits, where every frame begins with a byte (PS3.5 section A.4.11)."""
    bits = np.random.default_rng(3).random((5, 3, 7)) < 0.5
    frames = [np.packbits(frame.reshape(-1), bitorder="little").tobytes() for frame in bits]
    header = {
        "00280002": {"Value": [1]},
        "00280010": {"Value": [3]},
        "00280011": {"Value": [7]},
        "00280100": {"Value": [1]},
        "00280101": {"Value": [1]},
        "00280103": {"Value": [0]},
    }
    for number, frame in enumerate(frames):
        found = decode_frame(frame, header, kinds.ENCAPSULATED_UNCOMPRESSED, number)
        np.testing.assert_array_equal(found, bits[number])


# -- compressed


@pytest.mark.parametrize(("dtype", "samples"), [("u1", 1), ("i1", 1), ("u2", 1), ("i2", 1), ("u1", 3), ("u2", 3)])
def test_run_lengths(dtype: str, samples: int) -> None:
    """Read run lengths of every width, with runs and without, as pydicom does."""
    pixels = noise(dtype, 2, 6, 150, *([3] if samples == 3 else []))
    pixels[:, 2:4] = 3
    data = image(pixels, ExplicitVRLittleEndian, pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    dataset = oracle.read(data)
    dataset.PlanarConfiguration = 0
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    assert_equals_pydicom(to_bytes(dataset, RLELossless))
    np.testing.assert_array_equal(found_frames(to_bytes(dataset, RLELossless)), pixels)


def test_padded_run_lengths_warn_of_nothing() -> None:
    """Leave out what an RLE segment holds beyond the frame, without the warning that pydicom gives."""
    pixels = noise("u1", 1, 4, 4)
    segment = bytes([15]) + pixels.tobytes() + bytes([256 - 3, 9])
    frame = np.array([1, 64, *[0] * 14], "<u4").tobytes() + segment
    data = image(pixels, RLELossless, encapsulate([frame]), vr="OB")
    assert_equals_pydicom(data)


@pytest.mark.parametrize("transfer_syntax", HTJ2K)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
def test_htj2k(dtype: str, transfer_syntax: str) -> None:
    """Read all three HTJ2K syntaxes, signed and unsigned, to the pixels that were encoded."""
    pixels = noise(dtype, 2, 33, 21)
    data = image(pixels, transfer_syntax, encapsulate([bytes(imagecodecs.htj2k_encode(frame)) for frame in pixels]))
    assert_equals_pydicom(data)
    np.testing.assert_array_equal(found_frames(data), pixels)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("by_plane", [0, 1])
def test_htj2k_colour(photometric: str, dtype: str, by_plane: int) -> None:
    """Read RGB whether or not the codestream has the reversible transform; a planar configuration does not matter."""
    pixels = noise(dtype, 1, 33, 21, 3)
    frames = [bytes(imagecodecs.htj2k_encode(frame, rgb=photometric == "YBR_RCT", reversible=True)) for frame in pixels]
    attributes = {"PhotometricInterpretation": photometric, "PlanarConfiguration": by_plane}
    data = image(pixels, HTJ2K[0], encapsulate(frames), **attributes)
    np.testing.assert_array_equal(found_frames(data), pixels)
    if by_plane == 0:
        assert_equals_pydicom(data)


def test_htj2k_of_the_other_sign() -> None:
    """Read a codestream of unsigned samples as the signed ones that the header says, as pydicom does."""
    pixels = noise("i2", 1, 12, 12)
    frames = [bytes(imagecodecs.htj2k_encode(frame)) for frame in pixels.view("u2")]
    data = image(pixels, HTJ2K[0], encapsulate(frames))
    assert_equals_pydicom(data)
    np.testing.assert_array_equal(found_frames(data), pixels)


@pytest.mark.parametrize("transfer_syntax", JPEG2000)
@pytest.mark.parametrize(("dtype", "stored"), [("u1", 8), ("i1", 8), ("u2", 12), ("u2", 16), ("i2", 12), ("i2", 16)])
def test_jpeg2000(dtype: str, stored: int, transfer_syntax: str) -> None:
    """Read JPEG 2000 of either sign and of any precision to the pixels that were encoded."""
    pixels = noise(dtype, 2, 33, 21) >> (8 * np.dtype(dtype).itemsize - stored)
    options = {"codecformat": "j2k", "reversible": True, "bitspersample": stored}
    frames = [bytes(imagecodecs.jpeg2k_encode(frame, **options)) for frame in pixels]
    data = image(pixels, transfer_syntax, encapsulate(frames), stored=stored)
    assert_equals_pydicom(data)
    np.testing.assert_array_equal(found_frames(data), pixels)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_jpeg2000_colour(photometric: str, dtype: str) -> None:
    """Read RGB whether or not the codestream has the reversible transform."""
    pixels = noise(dtype, 1, 33, 21, 3)
    transform = photometric == "YBR_RCT"
    frames = [
        bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True, mct=transform)) for frame in pixels
    ]
    data = image(pixels, JPEG2000[0], encapsulate(frames), PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(found_frames(data), pixels)
    assert_equals_pydicom(data)


def test_jpeg2000_of_the_other_sign() -> None:
    """Read a codestream of unsigned samples of 13 bits as the signed ones that the header says, as pydicom does."""
    pixels = noise("i2", 1, 12, 12) >> 3
    unsigned = pixels.view("u2") & 0x1FFF
    options = {"codecformat": "j2k", "reversible": True, "bitspersample": 13}
    frames = [bytes(imagecodecs.jpeg2k_encode(frame, **options)) for frame in unsigned]
    data = image(pixels, JPEG2000[0], encapsulate(frames), stored=13)
    assert_equals_pydicom(data)
    np.testing.assert_array_equal(found_frames(data), pixels)


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_bigendian.dcm", "CT_small.dcm", "liver.dcm", "SC_rgb.dcm"])
def test_a_frame_decodes_into_an_array(name: str) -> None:
    """Fill a given array, of the frame's type or of another, with what is decoded, whether or not that is in place."""
    data = real_file(name).read()
    facts = inspect(data)
    decoder = FrameDecoder.of(header_of(facts), facts.transfer_syntax_uid)
    for number, encoded in enumerate(joined(data, table_of(facts))):
        frame = decoder.decode(encoded, number)
        for dtype in (frame.dtype, np.float64):
            filled = np.full(frame.shape, 77, dtype)
            decoder.decode_into(filled, encoded, number)
            np.testing.assert_array_equal(filled, frame)


@pytest.mark.parametrize("stored", [9, 12, 16])
@pytest.mark.parametrize("dtype", ["u2", "i2", "u4"])
def test_bits_above_the_stored_ones_do_not_come_along(dtype: str, stored: int) -> None:
    """Fill an array in place with the stored bits alone, and refuse a frame that is too short for it."""
    pixels = noise(dtype, 1, 7, 6)
    facts = inspect(image(pixels, ExplicitVRLittleEndian, pixels.tobytes(), stored=stored))
    decoder = FrameDecoder.of(header_of(facts), facts.transfer_syntax_uid)
    filled = np.zeros((7, 6), dtype)
    decoder.decode_into(filled, pixels.tobytes())
    np.testing.assert_array_equal(filled, decoder.decode(pixels.tobytes()))
    with pytest.raises(FrameDecodeError):
        decoder.decode_into(filled, pixels.tobytes()[:-1])


def lossless_jpeg(pixels: NDArray[np.uint16], predictor: int, precision: int) -> bytes:
    """Encode by ISO/IEC 10918-1 annex H with any predictor; every difference's category is a code of 5 bits."""
    rows, columns = pixels.shape
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    frame = b"\xff\xd8\xff\xc4" + (2 + len(table)).to_bytes(2, "big") + table
    frame += b"\xff\xc3\x00\x0b" + bytes([precision]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    frame += b"\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00" + bytes([predictor, 0, 0])
    bits = []
    for row in range(rows):
        for column in range(columns):
            left = int(pixels[row, column - 1]) if column else 0
            above = int(pixels[row - 1, column]) if row else 0
            corner = int(pixels[row - 1, column - 1]) if row and column else 0
            if row == 0:
                guess = left if column else 1 << (precision - 1)
            elif column == 0:
                guess = above
            else:
                guess = {1: left, 4: left + above - corner, 7: (left + above) // 2}[predictor]
            difference = (int(pixels[row, column]) - guess + (1 << 15)) % (1 << 16) - (1 << 15)
            category = 16 if difference == -(1 << 15) else abs(difference).bit_length()
            bits.append(f"{category:05b}")
            if 0 < category < 16:
                bits.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    return frame + coded + b"\xff\xd9"


@pytest.mark.parametrize("predictor", [1, 4, 7])
@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"])
def test_jpeg_lossless_wraps_around(transfer_syntax: str, predictor: int) -> None:
    """Decode JPEG Lossless by GDCM, which wraps samples beyond their precision around, where pylibjpeg clamps them."""
    pixels = noise("u2", 1, 16, 16)
    frame = lossless_jpeg(pixels[0], predictor, 12)
    data = image(pixels, transfer_syntax, encapsulate([frame]), vr="OB", stored=12)
    expected = pixels & 0xFFF
    np.testing.assert_array_equal(found_frames(data), expected)
    np.testing.assert_array_equal(expected_frames(data, decoding_plugin="gdcm"), expected)
    assert (expected_frames(data, decoding_plugin="pylibjpeg") != expected).any()


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("ids", [b"RGB", b"\x01\x02\x03"])
@pytest.mark.parametrize("jfif", [True, False])
def test_jpeg_that_names_its_own_colours(photometric: str, ids: bytes, jfif: bool) -> None:
    """Believe component identifiers and the JFIF marker as pydicom does, without the warnings that it gives."""
    original = oracle.encapsulated_frames(oracle.read(real_file("SC_rgb_jpeg.dcm").read()))[0]
    frame = bytearray(bytes(imagecodecs.jpeg8_encode(noise("u1", 16, 16, 3), level=90)))
    assert original[:2] == frame[:2] == b"\xff\xd8"
    start, scan = frame.index(b"\xff\xc0"), frame.index(b"\xff\xda")
    frame[start + 10 : start + 19 : 3] = ids
    frame[scan + 5 : scan + 11 : 2] = ids
    name = frame.index(b"JFIF")
    if not jfif:
        frame[name : name + 4] = b"none"
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    assert_equals_pydicom(
        image(pixels, "1.2.840.10008.1.2.4.50", encapsulate([bytes(frame)]), PhotometricInterpretation=photometric)
    )


# -- the decoder as a value


def test_a_decoder_is_a_small_value() -> None:
    """Make a decoder once, send it to another process, and have it do with the part of the header that matters."""
    data = kinds.native(kinds.make_frames(2, 8, 8))
    facts = inspect(data)
    decoder = FrameDecoder.of(header_of(facts), facts.transfer_syntax_uid, "a.tar://instances/1.2.dcm")
    again = pickle.loads(pickle.dumps(decoder))
    assert again == decoder
    assert len(pickle.dumps(decoder)) < 1000
    assert (
        FrameDecoder.of(pixel_description(header_of(facts)), decoder.transfer_syntax_uid, decoder.instance) == decoder
    )


WITHOUT = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from cloud_optimized_dicom.dicom.decode import decode_frame
from cloud_optimized_dicom.errors import CODError
import json
header, frame, syntax = json.loads(sys.stdin.read())
try:
    print(decode_frame(bytes.fromhex(frame), header, syntax).tolist())
except CODError as error:
    print(type(error).__name__, getattr(error, "extra", error))
"""


def decoded_without(blocked: list[str], data: bytes) -> str:
    """Return what a process prints that cannot import some codecs."""
    facts = inspect(data)
    frame = joined(data, table_of(facts))[0]
    header = {tag: value for tag, value in header_of(facts).items() if tag.startswith("0028")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT.format(blocked=blocked)],
        input=json.dumps([header, frame.hex(), facts.transfer_syntax_uid]),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_missing_codec_names_the_extra() -> None:
    """Without any codec, compressed frames say what to install; JPEG Lossless does so without GDCM alone."""
    pixels = kinds.make_frames(1, 6, 6)
    codecs = ["gdcm", "pylibjpeg", "libjpeg", "openjpeg", "imagecodecs", "PIL", "jpeg_ls"]
    assert decoded_without(codecs, kinds.htj2k(pixels)) == "MissingDependencyError codecs"
    assert decoded_without(codecs, kinds.jpeg2000(pixels)) == "MissingDependencyError codecs"
    lossless = image(pixels, "1.2.840.10008.1.2.4.70", encapsulate([bytes(imagecodecs.ljpeg_encode(pixels[0]))]))
    assert decoded_without(["gdcm"], lossless) == "MissingDependencyError codecs"
    assert decoded_without(["imagecodecs"], kinds.htj2k(pixels)) == str(pixels[0].tolist())
    assert decoded_without(["gdcm", "pylibjpeg", "PIL"], kinds.htj2k(pixels)) == str(pixels[0].tolist())
    assert decoded_without(codecs, kinds.native(pixels)) == str(pixels[0].tolist())
