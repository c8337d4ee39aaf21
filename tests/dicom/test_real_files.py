"""Every file of set (a): what is accepted, and that header, frames and checksums are what others say they are."""

from __future__ import annotations

import io
import warnings
from collections import Counter

import crcmod
import numpy as np
import pytest

from cloud_optimized_dicom.dicom.decode import decode_frame
from cloud_optimized_dicom.dicom.frames import build_frame_table
from tests.dicom import oracle
from tests.dicom.helpers import accepted_files, cut, facts_of, header_of, inspected, joined
from tests.realfiles import RealFile, real_file, real_files

CRC32C = crcmod.mkCrcFun(0x11EDC6F41, initCrc=0, xorOut=0xFFFFFFFF)

# pydicom gives up at the missing delimiter and returns an empty dataset, where ours keeps everything.
LOST_BY_PYDICOM = "emri_small_jpeg_2k_lossless_too_short.dcm"

every_accepted_file = pytest.mark.parametrize("file", accepted_files(), ids=lambda file: file.name)


def test_the_set_is_whole() -> None:
    """Find all packages that set (a) consists of, with distinct names."""
    files = real_files()
    assert len(files) >= 269
    assert len({file.name for file in files}) == len(files)


def test_what_is_refused_says_why() -> None:
    """Refuse exactly the files that lack a usable UID or are no DICOM, each with its reason."""
    reasons = Counter(reason for file in real_files() if isinstance(reason := inspected(file), str))
    assert reasons == {
        "a DICOMDIR, not an instance": 8,
        "has no instance UID (00080018)": 9,
        "has no series UID (0020000E)": 12,
        "instance UID of 64 characters is not 1 to 64 digits and dots": 1,
        "not DICOM: neither the prefix 'DICM' nor a dataset": 1,
    }


def test_every_file_with_uids_is_accepted() -> None:
    """Accept every file in which pydicom finds three UIDs that may be object names."""
    for file in real_files():
        if isinstance(inspected(file), str):
            try:
                dataset = oracle.read(file.read())
            except Exception:  # noqa: BLE001  (whatever pydicom cannot open)
                continue
            assert not oracle.has_uids(dataset, legal=True), file.name


@every_accepted_file
def test_header_equals_pydicoms(file: RealFile) -> None:
    """Give the header that pydicom gives; every BulkDataURI names the bytes of the value."""
    data = file.read()
    dataset = oracle.read(data)
    if file.name.endswith(LOST_BY_PYDICOM):
        assert len(dataset) == 0
        return
    found = oracle.with_bulk_data(header_of(facts_of(file)), oracle.inflated(data, dataset))
    assert list(oracle.differences(oracle.header(dataset), found)) == []


@every_accepted_file
def test_uids_are_the_datasets(file: RealFile) -> None:
    """Take the three UIDs from the dataset and keep them in the header."""
    facts = facts_of(file)
    header = header_of(facts)
    found = [header[tag]["Value"] for tag in ("00080018", "0020000E", "0020000D")]
    assert found == [[facts.instance_uid], [facts.series_uid], [facts.study_uid]]


@every_accepted_file
def test_frames_equal_pydicoms(file: RealFile) -> None:
    """Cut the frames that pydicom cuts, or the pieces of the native value."""
    table = facts_of(file).frame_table
    data = file.read()
    dataset = oracle.read(data)
    if "PixelData" not in dataset:
        assert table is None or file.name.endswith(LOST_BY_PYDICOM)
        return
    assert table is not None
    body = oracle.inflated(data, dataset)
    if dataset["PixelData"].is_undefined_length:
        assert joined(body, table) == oracle.encapsulated_frames(dataset)
    else:
        assert cut(body, table) == oracle.native_frames(dataset)


@every_accepted_file
def test_checksums_equal_another_implementations(file: RealFile) -> None:
    """Measure size and CRC32C of the file and of every frame as crcmod does."""
    data = file.read()
    facts = facts_of(file)
    assert (facts.size, facts.crc32c) == (len(data), CRC32C(data))
    if facts.frame_table is not None:
        frames = cut(oracle.inflated(data, oracle.read(data)), facts.frame_table)
        assert facts.frame_table.crc32cs == tuple(CRC32C(frame) for frame in frames)


@every_accepted_file
def test_frame_table_alone_equals_the_inspected_one(file: RealFile) -> None:
    """Build the same table, but for its checksums, without reading the pixels."""
    facts = facts_of(file)
    table = build_frame_table(io.BytesIO(file.read()), file.name)
    if facts.frame_table is None:
        assert table is None
    else:
        assert table is not None
        assert (table.offsets, table.lengths) == (facts.frame_table.offsets, facts.frame_table.lengths)
        assert (table.fragment_counts, table.crc32cs) == (facts.frame_table.fragment_counts, None)


def test_problems_name_what_is_damaged() -> None:
    """List problems for the damaged files of the set, and for no other."""
    found = {file.name.rpartition("/")[2]: facts_of(file).problems for file in accepted_files()}
    assert {name: problems for name, problems in found.items() if problems} == {
        "MR_truncated.dcm": ("7FE00010: the data ends within the value", "7FE00010: 0 of 1 frames are whole"),
        "badVR.dcm": ("00280008: is no number and was kept as text",),
        "rtplan_truncated.dcm": (
            "300A00B0: the data ends within the value",
            "300A0111: the data ends within the value",
            "300A012C: the data ends within the value",
        ),
        "emri_small_jpeg_2k_lossless_too_short.dcm": ("7FE00010: the sequence delimiter is missing",),
    }


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_bigendian.dcm",
        "SC_rgb_small_odd_big_endian.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_rle_2frame.dcm",
        "SC_rgb_32bit_2frame.dcm",
        "liver.dcm",
        "liver_expb.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "color3d_jpeg_baseline.dcm",
        "image_dfl.dcm",
        "OBXXXX1A_expb_2frame.dcm",
    ],
)
def test_decoded_frames_equal_pydicoms_pixels(name: str) -> None:
    """Decode the last frame, cut alone, to what pydicom's pixel_array holds there."""
    file = real_file(name)
    data, facts = file.read(), facts_of(file)
    dataset = oracle.read(data)
    assert facts.frame_table is not None
    last = len(facts.frame_table) - 1
    frame = joined(oracle.inflated(data, dataset), facts.frame_table)[last]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = dataset.pixel_array
        found = decode_frame(frame, header_of(facts), facts.transfer_syntax_uid, last)
    np.testing.assert_array_equal(found, expected[last] if int(dataset.get("NumberOfFrames") or 1) > 1 else expected)
