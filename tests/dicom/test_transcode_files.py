"""Recompression of every file of set (a) to every target: equal pixels by two decoders, every other element equal."""

from __future__ import annotations

import base64
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
from pydicom.pixels import get_decoder

from cloud_optimized_dicom.dicom.transcode.model import Kept, Reason, Recompressed, Target
from cloud_optimized_dicom.dicom.transcode.transcoder import Transcoder
from tests.dicom import oracle
from tests.dicom.helpers import accepted_files, facts_of, header_of, joined, source_in, table_of, uri_of
from tests.realfiles import RealFile, real_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.dicom.transcode.model import TranscodeOutcome

# What a recompression may change: file meta length, Transfer Syntax, Photometric Interpretation, Planar Configuration,
# Pixel Data; and the retired lengths that would be wrong.
CHANGED = {"00020000", "00020010", "00280004", "00280006", "7FE00010"}
DROPPED = {"00080001", "7FE00001", "7FE00002", "7FE00003"}
SECOND = {Target.HTJ2K: "htj2k", Target.JPEG2000: "jpeg2k", Target.JPEGLS: "jpegls"}
BIG_ENDIAN = "1.2.840.10008.1.2.2"
LARGEST_FAST_BYTES = 3 << 20  # RLE is coded by Python, twice


def cases() -> Iterator[Any]:
    """Yield every file with every target; the large ones take RLE long."""
    for file in accepted_files():
        size = len(file.read())
        for target in Target:
            slow = target is Target.RLE and size > LARGEST_FAST_BYTES
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(file, target, id=f"{file.name}-{target.value}", marks=marks)


@pytest.fixture(scope="module")
def transcoder() -> Iterator[Transcoder]:
    """Return a transcoder of two processes."""
    with Transcoder(2) as transcoder:
        yield transcoder


def recompress(transcoder: Transcoder, data: bytes, target: Target, folder: Path) -> TranscodeOutcome:
    """Recompress a file by its path: a worker does it whole, where it is small."""
    return transcoder.transcode(source_in(folder, data), target, folder, bulk_data_uri=uri_of)


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    """Return all frames by pydicom, colours not converted; JPEG Lossless by GDCM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = oracle.read(data)
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        gdcm = dataset.file_meta.TransferSyntaxUID in {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
        plugin = "gdcm" if gdcm else ""
        indexes = range(int(dataset.get("NumberOfFrames") or 1))
        return np.stack([decoder.as_array(dataset, index=n, raw=True, decoding_plugin=plugin)[0] for n in indexes])


def by_imagecodecs(frames: list[bytes], target: Target, bits: int | None) -> np.ndarray[Any, Any]:
    """Return frames by imagecodecs; `bits` is where the sign of JPEG-LS samples lies, None for unsigned ones."""
    options = {"planar": False} if target is Target.HTJ2K else {}
    decode = getattr(imagecodecs, f"{SECOND[target]}_decode")
    found = np.stack([decode(frame, **options) for frame in frames])
    if target is Target.JPEGLS and bits is not None:
        sign = 1 << (bits - 1)
        return (found.astype(np.int32) ^ sign) - sign
    return found


def little_words(header: Any) -> Any:
    """Return a header of a big endian file with the bytes of OW values, which are shown as they lie, swapped."""
    if isinstance(header, list):
        return [little_words(item) for item in header]
    if not isinstance(header, dict):
        return header
    swap = lambda value: np.frombuffer(value, ">u2").astype("<u2").tobytes()  # noqa: E731
    if header.get("vr") == "OW" and "bytes" in header:
        return header | {"bytes": swap(header["bytes"])}
    if header.get("vr") == "OW" and "InlineBinary" in header:
        value = swap(base64.b64decode(header["InlineBinary"]))
        return header | {"InlineBinary": base64.b64encode(value).decode()}
    return {key: little_words(value) for key, value in header.items()}


def unpacked(frame: bytes, dataset: Any) -> np.ndarray[Any, Any]:
    """Return an RLE frame by imagecodecs: byte planes, the most significant of each sample first (PS3.5 annex G)."""
    count, *starts = np.frombuffer(frame[:64], "<u4").tolist()
    bounds = [*starts[:count], len(frame)]
    size = dataset.Rows * dataset.Columns
    planes = [imagecodecs.packbits_decode(frame[a:b])[:size] for a, b in itertools.pairwise(bounds)]
    raw = np.frombuffer(b"".join(planes), np.uint8).reshape(dataset.SamplesPerPixel, -1, size)
    samples = np.ascontiguousarray(raw[:, ::-1].transpose(2, 0, 1)).view(
        f"<{'i' if dataset.PixelRepresentation else 'u'}{raw.shape[1]}"
    )
    shape = (dataset.Rows, dataset.Columns)
    return samples.reshape(shape if dataset.SamplesPerPixel == 1 else (*shape, dataset.SamplesPerPixel))


@pytest.mark.parametrize(("file", "target"), list(cases()))
def test_recompressed_files_say_the_same(
    file: RealFile, target: Target, transcoder: Transcoder, tmp_path: Path
) -> None:
    """Keep every pixel, by two decoders, and every element but those that describe the encoding, or leave no file."""
    data = file.read()
    outcome = recompress(transcoder, data, target, tmp_path)
    if isinstance(outcome, Kept):
        assert list(tmp_path.iterdir()) == []
        return
    made = outcome.path.read_bytes()
    assert outcome.facts.size == len(made) < len(data)
    assert outcome.saved_bytes == len(data) - len(made)
    assert outcome.facts.problems == facts_of(file).problems
    assert outcome.facts.transfer_syntax_uid == target.transfer_syntax_uid
    expected = pixels(data)
    np.testing.assert_array_equal(pixels(made), expected)
    _check_second_decoder(made, outcome, target, expected)
    _check_elements(file, data, made, outcome)


def _check_second_decoder(made: bytes, outcome: Recompressed, target: Target, expected: Any) -> None:
    frames = joined(made, table_of(outcome.facts))
    assert len(frames) == len(expected)
    dataset = oracle.read(made)
    if target is Target.RLE:
        np.testing.assert_array_equal(np.stack([unpacked(frame, dataset) for frame in frames]), expected)
        return
    bits = dataset.BitsStored if dataset.PixelRepresentation else None
    np.testing.assert_array_equal(by_imagecodecs(frames, target, bits), expected)


def _check_elements(file: RealFile, data: bytes, made: bytes, outcome: Recompressed) -> None:
    body = oracle.inflated(data, oracle.read(data))
    before = oracle.with_bulk_data(header_of(facts_of(file)), body)
    if facts_of(file).transfer_syntax_uid == BIG_ENDIAN:
        before = little_words(before)
    after = oracle.with_bulk_data(header_of(outcome.facts), made)
    removed = before.keys() - after.keys()
    assert {tag for tag in removed if not tag.endswith("0000")} <= DROPPED
    assert after.keys() <= before.keys() | {"00020000"}
    for tag in before.keys() & after.keys() - CHANGED:
        assert after[tag] == before[tag], tag
    dataset = oracle.read(made)
    assert oracle.encapsulated_frames(dataset) == joined(made, table_of(outcome.facts))
    meta_stop = made.index(b"\2\0\0\0UL\4\0") + 12 + dataset.file_meta.FileMetaInformationGroupLength
    assert made[meta_stop : meta_stop + 2] != b"\2\0"
    assert made[:128] == (data[:128] if data[128:132] == b"DICM" else bytes(128))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("JPEG2000.dcm", Reason.LOSSY),
        ("SC_rgb_jpeg_dcmtk.dcm", Reason.LOSSY),
        ("JPEG-lossy.dcm", Reason.LOSSY),
        ("GDCMJ2K_TextGBR.dcm", Reason.LOSSY),  # says lossless, and is coded with the irreversible wavelet
        ("rtdose.dcm", Reason.UNSUPPORTED),
        ("liver.dcm", Reason.UNSUPPORTED),
        ("SC_ybr_full_422_uncompressed.dcm", Reason.UNSUPPORTED),
        ("mlut_18.dcm", Reason.UNSUPPORTED),  # bits above Bits Stored are in use
        ("MR_truncated.dcm", Reason.UNSUPPORTED),
        ("MR_small_padded.dcm", Reason.UNSUPPORTED),
        ("rtplan.dcm", Reason.UNSUPPORTED),
        ("MR_small_jpeg_ls_lossless.dcm", Reason.NOT_SMALLER),
    ],
)
def test_what_stays_says_why(name: str, reason: Reason, transcoder: Transcoder, tmp_path: Path) -> None:
    """Leave lossy, unsupported, damaged and incompressible files alone, for the reason at hand."""
    outcome = recompress(transcoder, real_file(name).read(), Target.HTJ2K, tmp_path)
    assert isinstance(outcome, Kept)
    assert (outcome.reason, outcome.saved_bytes) == (reason, 0)
    assert list(tmp_path.iterdir()) == []


def test_most_files_become_smaller(transcoder: Transcoder, tmp_path: Path) -> None:
    """Recompress at least a hundred files of the set, implicit, big endian, RLE and JPEG Lossless ones among them."""
    seen = set()
    count = 0
    for file in accepted_files():
        outcome = recompress(transcoder, file.read(), Target.HTJ2K, tmp_path)
        if isinstance(outcome, Recompressed):
            outcome.path.unlink()
            count += 1
            seen.add(facts_of(file).transfer_syntax_uid)
    assert count >= 100
    assert {f"1.2.840.10008.1.2{suffix}" for suffix in ("", ".1", ".2", ".5", ".4.70")} <= seen
