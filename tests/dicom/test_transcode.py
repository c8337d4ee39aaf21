"""Recompression of files made for one trait each, and of workers that fail."""

from __future__ import annotations

import io
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from cloud_optimized_dicom.dicom.transcode.codecs import CODECS, Codec
from cloud_optimized_dicom.dicom.transcode.model import Kept, PixelFormat, Reason, Recompressed, Target
from cloud_optimized_dicom.dicom.transcode.plan import plan_transcode
from cloud_optimized_dicom.dicom.transcode.transcoder import Settings, Transcoder
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.processes.pool import WorkerPool
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from tests.dicom.helpers import joined, source_in, table_of, uri_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.dicom.transcode.model import TranscodeOutcome

WAVELETS = (Target.HTJ2K, Target.JPEG2000)
FRAME = kinds.make_frames(1, 48, 40)


@pytest.fixture(scope="module")
def transcoder() -> Iterator[Transcoder]:
    """Return a transcoder of two processes."""
    with Transcoder(2) as transcoder:
        yield transcoder


def run(transcoder: Transcoder, data: bytes, target: Target, folder: Path) -> TranscodeOutcome:
    """Recompress a file held in memory."""
    return transcoder.transcode(io.BytesIO(data), target, folder, bulk_data_uri=uri_of)


def made(outcome: TranscodeOutcome) -> pydicom.FileDataset:
    """Return the new file, which must be there."""
    assert isinstance(outcome, Recompressed), outcome
    return pydicom.dcmread(outcome.path)


def grey(pixels: Any, stored: int, *, signed: bool = False) -> Dataset:
    """Return a dataset of one grey frame whose pixel data is native, little endian."""
    dataset = make_dataset(Uids.of("grey", pixels.shape, stored, signed))
    describe_pixels(dataset, pixels.shape, bits=pixels.itemsize * 8)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, stored - 1, int(signed)
    dataset.add_new("PixelData", "OW", pixels.tobytes() + b"\0" * (pixels.nbytes % 2))
    return dataset


def colour(photometric: str, planar: int, bits: int = 8) -> tuple[Dataset, Any]:
    """Return a dataset of one frame of three samples, and its pixels, colour by pixel."""
    base = (FRAME[0] >> 4).astype(f"<u{bits // 8}")
    pixels = np.stack([base, base // 2 + 7, base // 3 + 50], axis=-1)
    dataset = make_dataset(Uids.of("colour", photometric, planar, bits))
    describe_pixels(dataset, base.shape, bits=bits, samples=3)
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = photometric, planar
    ordered = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if planar else pixels
    dataset.add_new("PixelData", "OW" if bits > 8 else "OB", ordered.tobytes())
    return dataset, pixels


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize(
    ("stored", "allocated"), [(2, 8), (7, 8), (8, 8), (5, 16), (8, 16), (10, 16), (13, 16), (16, 16)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_odd_bit_depths_and_signs(
    target: Target, stored: int, allocated: int, signed: bool, transcoder: Transcoder, tmp_path: Path
) -> None:
    """Keep every value of any depth and sign, the extreme ones among them."""
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    ramp = np.linspace(low, high, 64 * 50).round().astype(f"<{'i' if signed else 'u'}{allocated // 8}")
    pixels = ramp.reshape(64, 50)
    assert (pixels.min(), pixels.max()) == (low, high)
    again = made(run(transcoder, to_bytes(grey(pixels, stored, signed=signed)), target, tmp_path))
    np.testing.assert_array_equal(again.pixel_array, pixels)
    assert (again.BitsStored, again.PixelRepresentation) == (stored, int(signed))


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_goes_through_the_reversible_transform(
    target: Target, planar: int, bits: int, transcoder: Transcoder, tmp_path: Path
) -> None:
    """Label RGB as YBR_RCT where it is transformed so, and as colour by pixel unless it is RLE."""
    dataset, pixels = colour("RGB", planar, bits)
    again = made(run(transcoder, to_bytes(dataset), target, tmp_path))
    np.testing.assert_array_equal(again.pixel_array, pixels)
    assert again.PhotometricInterpretation == ("YBR_RCT" if target in WAVELETS else "RGB")
    assert again.PlanarConfiguration == (1 if target is Target.RLE else 0)
    if target in WAVELETS:
        assert _uses_colour_transform(again)


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("planar", [0, 1])
def test_ybr_full_stays_as_it_is(target: Target, planar: int, transcoder: Transcoder, tmp_path: Path) -> None:
    """Transform no luminance and chrominance a second time."""
    dataset, pixels = colour("YBR_FULL", planar)
    again = made(run(transcoder, to_bytes(dataset), target, tmp_path))
    assert again.PhotometricInterpretation == "YBR_FULL"
    np.testing.assert_array_equal(pydicom.pixels.pixel_array(again, raw=True), pixels)
    if target in WAVELETS:
        assert not _uses_colour_transform(again)


def _uses_colour_transform(dataset: Dataset) -> bool:
    codestream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    return codestream[codestream.index(b"\xff\x52") + 8] == 1


@pytest.mark.parametrize("target", Target)
def test_bits_above_bits_stored_are_not_lost(target: Target, transcoder: Transcoder, tmp_path: Path) -> None:
    """Leave an image alone that uses bits which a codec drops, or a reader of encoded data would not ignore."""
    pixels = FRAME[0] | np.uint16(0x8000)
    outcome = run(transcoder, to_bytes(grey(pixels, 12)), target, tmp_path)
    assert outcome == Kept(Reason.UNSUPPORTED, "bits above Bits Stored are in use")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_other_encodings_become_explicit_little_endian(
    syntax: str, undefined: bool, transcoder: Transcoder, tmp_path: Path
) -> None:
    """Convert nested sequences, private elements and numbers of every width to values that read the same."""
    dataset = grey(FRAME[0].astype("<u2"), 12)
    item = Dataset()
    item.ReferencedSOPClassUID, item.SelectorFDValue, item.SelectorATValue = "1.2.3", [1.5, -2.5], 0x00100020
    outer = Dataset()
    outer.SelectorULValue, outer.SelectorFLValue, outer.SelectorSSValue = [1, 70000], 0.25, -3
    outer.ReferencedImageSequence = [item, Dataset()]
    outer["ReferencedImageSequence"].is_undefined_length = undefined
    dataset.ReferencedStudySequence = [outer]
    dataset["ReferencedStudySequence"].is_undefined_length = undefined
    dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"abcd")
    dataset.RedPaletteColorLookupTableDescriptor = [4, 0, 16]
    dataset.add_new("RedPaletteColorLookupTableData", "OW", struct.pack("<4H", 1, 2, 3, 4))
    if syntax == ExplicitVRBigEndian:
        _swap(dataset)
    outcome = run(transcoder, to_bytes(dataset, syntax), Target.HTJ2K, tmp_path)
    again = made(outcome)
    assert again.original_encoding == (False, True)
    expected = pydicom.dcmread(io.BytesIO(to_bytes(dataset, syntax)))
    if syntax == ExplicitVRBigEndian:
        _swap(expected)
    for element in expected:
        if element.keyword != "PixelData":
            assert again[element.tag] == element
    np.testing.assert_array_equal(again.pixel_array, FRAME[0])


def _swap(dataset: Dataset) -> None:
    for keyword in ("PixelData", "RedPaletteColorLookupTableData"):
        dataset[keyword].value = np.frombuffer(dataset[keyword].value, "<u2").astype(">u2").tobytes()


def test_what_cannot_be_converted_exactly_stays(transcoder: Transcoder, tmp_path: Path) -> None:
    """Refuse a big endian value of unknown type, which nobody can swap."""
    dataset = grey(FRAME[0].astype("<u2"), 12)
    dataset.PixelData = FRAME[0].astype(">u2").tobytes()
    dataset.private_block(0x0029, "NOBODY KNOWS", create=True).add_new(0x10, "UN", b"abcd")
    outcome = run(transcoder, to_bytes(dataset, ExplicitVRBigEndian), Target.HTJ2K, tmp_path)
    assert outcome == Kept(Reason.UNSUPPORTED, "the byte order within a value of VR UN is not known")


def test_an_unknown_private_element_of_an_implicit_file_is_kept(transcoder: Transcoder, tmp_path: Path) -> None:
    """Write a private element that no dictionary knows as UN, with its bytes."""
    dataset = grey(FRAME[0], 12)
    dataset.private_block(0x0029, "NOBODY KNOWS", create=True).add_new(0x10, "UN", b"abcd")
    again = made(run(transcoder, to_bytes(dataset, ImplicitVRLittleEndian), Target.HTJ2K, tmp_path))
    assert (again[0x00291010].VR, again[0x00291010].value) == ("UN", b"abcd")


def test_only_the_encoding_changes_byte_for_byte(transcoder: Transcoder, tmp_path: Path) -> None:
    """Copy an explicit little endian file raw: preamble, odd text, and what lies behind the pixel data."""
    dataset = grey(FRAME[0], 12)
    dataset.add_new("DataSetTrailingPadding", "OB", b"\1\2\3\4")
    data = to_bytes(dataset, preamble=b"II*\0" + b"x" * 124).replace(b"Synthetic^Case", b"Synth\xe9tic^Case")
    outcome = run(transcoder, data, Target.HTJ2K, tmp_path)
    assert isinstance(outcome, Recompressed)
    result = outcome.path.read_bytes()
    body = data[data.index(b"\x08\x00\x16\x00UI") : data.index(b"\xe0\x7f\x10\x00")]
    assert result[:128] == data[:128]
    assert body in result
    assert result.endswith(data[-16:])


def test_wrong_lengths_are_left_out(transcoder: Transcoder, tmp_path: Path) -> None:
    """Drop the retired lengths that the new encoding makes wrong, and keep those that stay right."""
    dataset, _ = colour("RGB", 0)
    data = to_bytes(dataset)
    for group in (b"\x28\x00", b"\xe0\x7f", b"\x20\x00"):
        at = data.index(
            group + (b"\x10\x00O" if group == b"\xe0\x7f" else b"\x02\x00" if group == b"\x28\x00" else b"\x0d\x00")
        )
        data = data[:at] + group + b"\0\0UL\4\0" + struct.pack("<L", 1000) + data[at:]
    again = made(run(transcoder, data, Target.HTJ2K, tmp_path))
    assert 0x00200000 in again
    assert 0x00280000 not in again
    assert 0x7FE00000 not in again


def test_signed_datasets_stay(transcoder: Transcoder, tmp_path: Path) -> None:
    """Leave a digitally signed instance alone, whose signature covers the encoded pixels."""
    dataset = grey(FRAME[0], 12)
    dataset.DigitalSignaturesSequence = [Dataset()]
    outcome = run(transcoder, to_bytes(dataset), Target.HTJ2K, tmp_path)
    assert outcome == Kept(Reason.UNSUPPORTED, "the dataset is signed digitally")


def test_pixels_that_were_lossy_once_are_recompressed(transcoder: Transcoder, tmp_path: Path) -> None:
    """Recompress exact values whatever their history, and keep the record of it."""
    dataset = grey(FRAME[0], 12)
    dataset.LossyImageCompression = "01"
    again = made(run(transcoder, to_bytes(dataset), Target.HTJ2K, tmp_path))
    assert again.LossyImageCompression == "01"


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("target", Target)
def test_offset_tables_name_every_frame(extended: bool, target: Target, tmp_path: Path) -> None:
    """Write frames in order, in small batches, under a table that pydicom and our own inspection agree with."""
    frames = kinds.make_frames(23, 20, 31) // 64
    settings = Settings(basic_table_limit_bytes=0 if extended else 1 << 32, batch_bytes=4000)
    with Transcoder(2, settings=settings) as transcoder:
        outcome = run(transcoder, kinds.native(frames), target, tmp_path)
    again = made(outcome)
    assert ("ExtendedOffsetTable" in again) == extended
    np.testing.assert_array_equal(again.pixel_array, frames)
    assert isinstance(outcome, Recompressed)
    tables = (again.ExtendedOffsetTable, again.ExtendedOffsetTableLengths) if extended else None
    expected = list(pydicom.encaps.generate_frames(again.PixelData, extended_offsets=tables, number_of_frames=23))
    found = joined(outcome.path.read_bytes(), table_of(outcome.facts))
    assert [frame.rstrip(b"\0") for frame in found] == [frame.rstrip(b"\0") for frame in expected]
    if not extended:
        offsets = pydicom.encaps.parse_basic_offsets(again.PixelData)
        table = table_of(outcome.facts)
        assert offsets == [offset - table.offsets[0] for offset in table.offsets]


def test_fragmented_sources_are_joined(transcoder: Transcoder, tmp_path: Path) -> None:
    """Recompress frames that come in several fragments each, with their old tables gone."""
    blocks = np.random.default_rng(0).integers(0, 4000, (3, 8, 8), dtype=np.uint16)
    frames = np.kron(blocks, np.ones((1, 16, 16), np.uint16))  # flat areas, where JPEG-LS beats wavelets
    data = kinds.jpeg2000(frames, fragments=3)
    again = run(transcoder, data, Target.JPEGLS, tmp_path)
    np.testing.assert_array_equal(made(again).pixel_array, frames)


def test_a_lossy_codestream_in_a_lossless_syntax_stays(transcoder: Transcoder, tmp_path: Path) -> None:
    """Look into the codestream where the transfer syntax may not be believed."""
    encoded = imagecodecs.jpeg2k_encode(FRAME[0], level=40, codecformat="j2k", reversible=False)
    data = kinds.encapsulated([encoded], FRAME[0].shape, JPEG2000Lossless)
    outcome = run(transcoder, data, Target.JPEGLS, tmp_path)
    assert isinstance(outcome, Kept)
    assert outcome.reason is Reason.LOSSY


def test_noise_is_not_made_larger(transcoder: Transcoder, tmp_path: Path) -> None:
    """Leave an image alone that does not become smaller, and no file behind."""
    noise = np.random.default_rng(0).integers(0, 1 << 16, (200, 200), dtype=np.uint16)
    outcome = run(transcoder, to_bytes(grey(noise, 16)), Target.HTJ2K, tmp_path)
    assert isinstance(outcome, Kept)
    assert outcome.reason is Reason.NOT_SMALLER
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bits_allocated": 32, "bits_stored": 32, "high_bit": 31}, Reason.UNSUPPORTED),
        ({"bits_allocated": 1, "bits_stored": 1, "high_bit": 0}, Reason.UNSUPPORTED),
        ({"high_bit": 15}, Reason.UNSUPPORTED),
        ({"bits_stored": 17, "high_bit": 16}, Reason.UNSUPPORTED),
        ({"rows": 60000, "columns": 60000}, Reason.UNSUPPORTED),
        ({"rows": 0}, Reason.UNSUPPORTED),
        ({"samples_per_pixel": 3, "photometric_interpretation": "YBR_FULL_422"}, Reason.UNSUPPORTED),
        ({"samples_per_pixel": 3, "photometric_interpretation": "RGB"}, Reason.UNSUPPORTED),
        ({"samples_per_pixel": 4, "photometric_interpretation": "CMYK"}, Reason.UNSUPPORTED),
        ({"photometric_interpretation": "RGB"}, Reason.UNSUPPORTED),
        ({"transfer_syntax_uid": "1.2.3"}, Reason.UNSUPPORTED),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.50"}, Reason.LOSSY),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.91"}, Reason.LOSSY),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.81"}, Reason.LOSSY),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.203"}, Reason.LOSSY),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.102"}, Reason.LOSSY),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.201"}, Reason.NOT_SMALLER),
    ],
)
def test_the_plan_needs_no_pixels(changes: dict[str, Any], reason: Reason) -> None:
    """Decide from the description alone what will not be touched."""
    plain = {
        "rows": 4, "columns": 4, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 12, "high_bit": 11,
        "is_signed": False, "planar_configuration": None, "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1, "transfer_syntax_uid": ExplicitVRLittleEndian,
    }  # fmt: skip
    plan = plan_transcode(PixelFormat(**(plain | changes)), Target.HTJ2K)
    assert isinstance(plan, Kept)
    assert plan.reason is reason
    assert not isinstance(plan_transcode(PixelFormat(**plain), Target.HTJ2K), Kept)


# -- codecs and workers that fail


def encode_one_bit_wrong(pixels: Any, image: PixelFormat) -> bytes:
    """Encode with the lowest bit of one pixel flipped."""
    wrong = pixels.copy()
    wrong[-1, -1] ^= 1
    return CODECS[Target.HTJ2K].encode(wrong, image)


def encode_or_crash(pixels: Any, image: PixelFormat) -> bytes:
    """Crash as a codec does, on images of 48 rows."""
    if image.rows == 48:
        os.kill(os.getpid(), signal.SIGSEGV)
    return CODECS[Target.HTJ2K].encode(pixels, image)


def meet(folder: Path, number: int, count: int) -> int:
    """Say that this one is here, wait until all are, and return the process."""
    (folder / str(number)).touch()
    while len(list(folder.iterdir())) < count:
        time.sleep(0.01)
    return os.getpid()


def encode_never(pixels: Any, image: PixelFormat) -> bytes:
    """Wait for the end of the process."""
    del pixels, image
    signal.pause()
    return b""


def decode_never(frame: bytes, image: PixelFormat) -> Any:
    """Fail."""
    raise RuntimeError(f"{len(frame)} {image.rows}")


def with_encoder(encode: Any, decode: Any = CODECS[Target.HTJ2K].decode, limit: int = 2000) -> Settings:
    """Return settings in which HTJ2K is coded so, in batches of so many bytes."""
    return Settings(codecs={Target.HTJ2K: Codec(encode, decode)}, batch_bytes=limit)


@pytest.mark.parametrize(
    "settings",
    [with_encoder(encode_one_bit_wrong), with_encoder(CODECS[Target.HTJ2K].encode, decode_never)],
    ids=["other pixels", "does not decode"],
)
def test_a_codec_that_errs_is_caught(settings: Settings, tmp_path: Path) -> None:
    """Keep the source if one bit of one frame comes back otherwise, or nothing does."""
    with Transcoder(2, settings=settings) as transcoder:
        outcome = run(transcoder, kinds.native(kinds.make_frames(5, 32, 32)), Target.HTJ2K, tmp_path)
    assert isinstance(outcome, Kept)
    assert outcome.reason is Reason.MISMATCH
    assert list(tmp_path.iterdir()) == []


def test_a_crashing_codec_harms_its_own_file_only(tmp_path: Path) -> None:
    """Keep the file whose codec dies, and recompress those that are on their way beside it."""
    fatal, fine = kinds.native(FRAME), kinds.native(kinds.make_frames(4, 40, 40))
    settings = with_encoder(encode_or_crash)
    with Transcoder(2, settings=settings) as transcoder, ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(lambda data: run(transcoder, data, Target.HTJ2K, tmp_path), [fatal, fine] * 6))
    assert [outcome.reason for outcome in outcomes] == [Reason.UNSUPPORTED, Reason.RECOMPRESSED] * 6
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("target", Target)
def test_a_worker_makes_the_same_of_a_whole_file(transcoder: Transcoder, target: Target, tmp_path: Path) -> None:
    """Recompress a small file in one process to the bytes and facts that several make of its frames."""
    data = kinds.native(kinds.make_frames(7, 40, 31) // 64)
    pieces = run(transcoder, data, target, tmp_path)
    whole = transcoder.transcode(source_in(tmp_path, data), target, tmp_path, bulk_data_uri=uri_of)
    assert isinstance(pieces, Recompressed)
    assert isinstance(whole, Recompressed)
    assert whole.path.read_bytes() == pieces.path.read_bytes()
    assert (whole.facts, whole.saved_bytes) == (pieces.facts, pieces.saved_bytes)


def test_a_whole_file_that_is_none_is_refused(transcoder: Transcoder, tmp_path: Path) -> None:
    """Raise for a small file that is no DICOM file, naming it, and go on."""
    path = source_in(tmp_path, b"no DICOM file" * 100)
    with pytest.raises(InstanceValidationError, match=re.escape(str(path))):
        transcoder.transcode(path, Target.HTJ2K, tmp_path, bulk_data_uri=uri_of)
    with pytest.raises(FileNotFoundError):
        transcoder.transcode(tmp_path / "none.dcm", Target.HTJ2K, tmp_path, bulk_data_uri=uri_of)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (with_encoder(encode_one_bit_wrong, limit=1 << 20), Reason.MISMATCH),
        (with_encoder(encode_or_crash, limit=1 << 20), Reason.UNSUPPORTED),
    ],
    ids=["other pixels", "crash"],
)
def test_a_codec_that_fails_on_a_whole_file_harms_it_only(settings: Settings, reason: Reason, tmp_path: Path) -> None:
    """Keep a small file whose codec errs or dies, leave nothing of it, and recompress the others."""
    fatal, fine = source_in(tmp_path, kinds.native(FRAME)), tmp_path.parent / "fine.dcm"
    fine.write_bytes(kinds.native(kinds.make_frames(4, 40, 40)))
    with Transcoder(2, settings=settings) as transcoder:
        for _ in range(3):
            outcome = transcoder.transcode(fatal, Target.HTJ2K, tmp_path, bulk_data_uri=uri_of)
            assert outcome.reason is reason
            assert list(tmp_path.iterdir()) == []
        if reason is Reason.UNSUPPORTED:
            assert isinstance(transcoder.transcode(fine, Target.HTJ2K, tmp_path, bulk_data_uri=uri_of), Recompressed)


def test_closing_ends_whole_files_and_leaves_nothing(tmp_path: Path) -> None:
    """Raise in the calls whose small files workers have on their way, and delete what they began."""
    path = source_in(tmp_path, kinds.native(FRAME))
    transcoder = Transcoder(2, settings=with_encoder(encode_never, limit=1 << 20))
    with ThreadPoolExecutor(3) as threads:
        calls = [
            threads.submit(transcoder.transcode, path, Target.HTJ2K, tmp_path, bulk_data_uri=uri_of) for _ in range(3)
        ]
        while len(list(tmp_path.iterdir())) < 2:
            threading.Event().wait(0.01)
        transcoder.close()
        assert all(isinstance(call.exception(), CancelledError) for call in calls)
    assert list(tmp_path.iterdir()) == []


def test_closing_cancels_and_leaves_nothing(tmp_path: Path) -> None:
    """Raise in the calls that are on their way, delete what they began, end the processes."""
    transcoder = Transcoder(2, settings=with_encoder(encode_never))
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(run, transcoder, kinds.native(FRAME), Target.HTJ2K, tmp_path) for _ in range(3)]
        while len(list(tmp_path.iterdir())) < 3:
            threading.Event().wait(0.01)
        transcoder.close()
        assert all(isinstance(call.exception(), CancelledError) for call in calls)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CancelledError):
        run(transcoder, kinds.native(FRAME), Target.HTJ2K, tmp_path)


def test_workers_do_what_they_are_told_in_other_processes(tmp_path: Path) -> None:
    """Call functions elsewhere, at once in as many processes as were asked for."""
    with WorkerPool(2) as pool:
        futures = [pool.submit(meet, tmp_path, number, 2) for number in range(2)]
        found = {future.result(60) for future in futures}
    assert os.getpid() not in found
    assert len(found) == 2


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    """Import no main module in the workers, so that a plain script is not run again by each."""
    source = tmp_path / "in.dcm"
    source.write_bytes(kinds.native(FRAME))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from cloud_optimized_dicom.dicom.transcode.model import Target\n"
        "from cloud_optimized_dicom.dicom.transcode.transcoder import Transcoder\n"
        "from cloud_optimized_dicom.ingest.measure import relative_uri\n"
        "print('begin')\n"
        "with Transcoder(2) as transcoder:\n"
        "    done = transcoder.transcode(sys.argv[1], Target.HTJ2K, sys.argv[2], bulk_data_uri=relative_uri)\n"
        "print(done.reason)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(source), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["begin", "recompressed"]


@pytest.mark.slow
def test_a_gigabyte_takes_no_more_memory_than_a_frame(tmp_path: Path) -> None:
    """Recompress 1 GiB of frames within 200 MB here and 200 MB in each worker."""
    source = tmp_path / "large.dcm"
    frames = 512
    base = (np.add.outer(np.arange(1024), np.arange(1024)) % 4000).astype("<u2")
    dataset = make_dataset(Uids.of("gigabyte"))
    describe_pixels(dataset, (1024, 1024), frames=frames)
    with source.open("wb") as file:
        file.write(to_bytes(dataset) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, frames << 21))
        for number in range(frames):
            file.write((base + np.uint16(number)).tobytes())
    script = (
        "import resource, sys\n"
        "from cloud_optimized_dicom.dicom.transcode.model import Target\n"
        "from cloud_optimized_dicom.dicom.transcode.transcoder import Transcoder\n"
        "with Transcoder(2) as transcoder:\n"
        "    done = transcoder.transcode(sys.argv[1], Target.HTJ2K, sys.argv[2], bulk_data_uri=lambda u, s: '')\n"
        # Not ru_maxrss, which a process inherits from the one that started it.
        "own = next(int(line.split()[1]) >> 10 for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(done.reason, own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(source), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    reason, own_mib, worker_mib = done.stdout.split()
    assert reason == "recompressed"
    assert int(own_mib) < 200
    assert int(worker_mib) < 200
