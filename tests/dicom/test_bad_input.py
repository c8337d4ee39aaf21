"""One file at a time of every bad kind: what is refused, and what is kept with what could be read."""

from __future__ import annotations

import json
import logging
import struct
import threading
import tracemalloc
import warnings
import zlib
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from cloud_optimized_dicom.dicom.header import MAX_DEPTH, MAX_ELEMENTS
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.testing.datasets import damaged, kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, make_dataset, to_bytes
from tests.dicom import oracle
from tests.dicom.helpers import cut, header_of, inspect, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

PIXELS = kinds.make_frames(3, 8, 8)
FRAMES = [frame.astype("<u2").tobytes() for frame in PIXELS]
NOT_DICOM = "not DICOM: neither the prefix 'DICM' nor a dataset"


def reason_of(data: bytes) -> str:
    """Return why a file is refused."""
    with pytest.raises(InstanceValidationError) as caught:
        inspect(data)
    assert caught.value.uri == "file.dcm"
    return caught.value.reason


# -- refused


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xe0" + bytes(300),
        b"%PDF-1.7 " + bytes(300),
        b"Dear colleague,\n" * 20,
        b"PK\x03\x04" + bytes(300),
        bytes(300),
        bytes(3),
        damaged.random_bytes(4096),
    ],
    ids=["jpeg", "pdf", "text", "zip", "zeros", "tiny", "noise"],
)
def test_other_files_are_not_dicom(data: bytes) -> None:
    """Refuse what neither has the DICM prefix nor looks like a dataset."""
    assert reason_of(data) == NOT_DICOM


def test_empty_file() -> None:
    """Refuse an empty file."""
    assert reason_of(b"") == "the file is empty"


@pytest.mark.parametrize("size", [132, 140, 200, 400, 520])
def test_file_that_ends_before_its_uids(size: int) -> None:
    """Say that a file is truncated where it ends before its last UID."""
    assert reason_of(kinds.native(PIXELS)[:size]).startswith("is truncated: has no ")


@pytest.mark.parametrize(
    ("keyword", "reason"),
    [
        ("SOPInstanceUID", "has no instance UID (00080018)"),
        ("SeriesInstanceUID", "has no series UID (0020000E)"),
        ("StudyInstanceUID", "has no study UID (0020000D)"),
    ],
)
@pytest.mark.parametrize("is_present", [True, False])
def test_missing_or_empty_uid(keyword: str, reason: str, *, is_present: bool) -> None:
    """Refuse a file without one of the three UIDs, or with an empty one."""
    dataset = make_dataset(Uids.of("uids"))
    data = to_bytes(dataset)
    uid = getattr(dataset, keyword).encode()
    element = data.rindex(uid + b"\0") - 8  # the last one: the file meta information names the instance too
    if is_present:
        data = data[:element] + data[element : element + 6] + b"\0\0" + data[element + 8 + len(uid) + 1 :]
    else:
        data = data[:element] + data[element + 8 + len(uid) + 1 :]
    assert reason_of(data) == reason


@pytest.mark.parametrize(
    "uid", [b"../../etc/passwd", b"1.2/3.4", b"1.2.A.4", b"..", b"1." + b"2" * 63, b"1.2 3", b"1.2\n3"]
)
def test_illegal_uid_is_refused_and_not_repeated(uid: bytes) -> None:
    """Refuse a UID that may not be part of a path, without its text in the reason."""
    dataset = make_dataset(Uids.of("illegal"))
    data = to_bytes(dataset)
    old = struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", 44) + dataset.SeriesInstanceUID.encode() + b"\0"
    padded = uid + b"\0" * (len(uid) % 2)
    new = struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", len(padded)) + padded
    assert data.count(old) == 1
    reason = reason_of(data.replace(old, new))
    assert reason == f"series UID of {len(uid)} characters is not 1 to 64 digits and dots"


def test_several_uids() -> None:
    """Refuse a file with two SOP Instance UIDs in one element."""
    dataset = make_dataset(Uids.of("several"))
    old = dataset.SOPInstanceUID.encode()
    data = to_bytes(dataset)
    position = data.rindex(old)
    new = old[:20] + b"\\" + old[21:]
    assert reason_of(data[:position] + new + data[position + len(old) :]) == "has 2 instance UIDs"


def test_deflated_noise() -> None:
    """Refuse a deflated file whose dataset does not inflate at all."""
    assert reason_of(deflated_file(b"\xff" * 200)) == "the deflated dataset cannot be inflated"


@pytest.mark.slow
def test_endless_elements() -> None:
    """Refuse a file in which millions of zeros pass for elements, before they take memory."""
    data = to_bytes(make_dataset(Uids.of("endless"))) + bytes(8 * (MAX_ELEMENTS + 1))
    assert reason_of(data) == f"has more than {MAX_ELEMENTS} data elements"


# -- read all the same


@pytest.mark.parametrize(
    "change",
    [damaged.with_tiff_preamble, damaged.without_preamble, damaged.without_meta],
    ids=["tiff preamble", "no preamble", "no file meta"],
)
@pytest.mark.parametrize("make", [kinds.native, kinds.implicit, kinds.big_endian])
def test_any_preamble_and_none(change: Callable[[bytes], bytes], make: Callable[..., bytes]) -> None:
    """Read a file with any preamble, with none, and without file meta information, in every byte order."""
    plain = make(PIXELS)
    data = change(plain)
    expected, found = inspect(plain), inspect(data)
    assert found.instance_uid == expected.instance_uid
    assert found.transfer_syntax_uid == expected.transfer_syntax_uid
    assert cut(data, table_of(found)) == cut(plain, table_of(expected))


@pytest.mark.parametrize("written", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(
    "declared",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_wrong_transfer_syntax(declared: str, written: str) -> None:
    """Read a native file by what its dataset shows, and report that syntax."""
    facts = inspect(damaged.wrong_syntax(declared, written))
    assert facts.transfer_syntax_uid == written
    assert facts.problems == ()
    assert len(table_of(facts)) == 1


def test_native_data_that_claims_to_be_jpeg() -> None:
    """Describe native data as it lies there, though the file meta information says JPEG."""
    data = kinds.native(PIXELS).replace(
        b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0", b"\2\0\x10\0UI\x16\x00" + JPEGBaseline8Bit.encode(), 1
    )
    assert cut(data, table_of(inspect(data))) == FRAMES


@pytest.mark.parametrize("undefined_length", [True, False])
@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 2000])
def test_deep_nesting(depth: int, *, undefined_length: bool) -> None:
    """Keep what nests up to the limit, drop what is deeper, and name it."""
    data = damaged.nested(depth, undefined_length=undefined_length)
    facts = inspect(data + damaged.explicit_element(0x00420010, b"UT", b"behind"))
    found = 0
    item = header_of(facts)
    assert item["00420010"] == {"vr": "UT", "Value": ["behind"]}
    while "0040A730" in item:
        found += 1
        item = item["0040A730"]["Value"][0]
    assert found == min(depth, MAX_DEPTH)
    dropped = f"0040A730: is nested deeper than {MAX_DEPTH} sequences and was dropped"
    assert facts.problems == ((dropped,) if depth > MAX_DEPTH else ())


def test_claim_of_gigabytes_of_pixels() -> None:
    """Keep an instance whose Rows and Columns claim 8.6 GB, with no frame and little memory."""
    data = damaged.huge_claim()
    tracemalloc.start()
    facts = inspect(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(table_of(facts)) == 0
    assert facts.problems == ("7FE00010: 0 of 1 frames are whole",)
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("tag", "vr"), [(0x00104000, b"UT"), (0x00420011, b"OB"), (0x00081199, b"SQ"), (0x7FE00010, b"OW")]
)
def test_length_of_gigabytes_in_a_small_file(tag: int, vr: bytes) -> None:
    """Keep an instance with a value that claims 3 GB, with what is there of it and little memory."""
    tracemalloc.start()
    facts = inspect(damaged.long_value(tag, vr=vr))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts.problems[0] == f"{tag:08X}: the data ends within the value"
    assert f"{tag:08X}" in header_of(facts)
    assert peak < 1 << 20


def test_many_frames_of_nothing() -> None:
    """Give no entries for two thousand million frames in a few bytes."""
    dataset = make_dataset(Uids.of("many"))
    dataset.NumberOfFrames = 2**31 - 1
    dataset.Rows = dataset.Columns = dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = 8
    dataset.add_new("PixelData", "OB", bytes(10))
    assert len(table_of(inspect(to_bytes(dataset)))) == 10


@pytest.mark.parametrize(("vr", "value"), [(b"US", b"\1\2\3"), (b"FD", b"\1" * 12), (b"SL", b"\1\2")])
def test_binary_value_of_wrong_length(vr: bytes, value: bytes) -> None:
    """Keep the bytes of a number that is no number as UN, and name the element."""
    facts = inspect(damaged.wrong_length(0x00281054, vr, value))
    assert header_of(facts)["00281054"]["vr"] == "UN"
    assert facts.problems[0].startswith("00281054: has a length that is not a multiple of ")


def test_unknown_vr() -> None:
    """Keep the bytes of an element whose VR does not exist as UN, and name the element."""
    data = to_bytes(make_dataset(Uids.of("vr"))) + struct.pack("<HH2sH", 0x0042, 0x0010, b"ZZ", 2) + b"ab"
    facts = inspect(data)
    assert header_of(facts)["00420010"] == {"vr": "UN", "InlineBinary": "YWI="}
    assert facts.problems == ("00420010: has an unknown VR; kept as UN",)


def test_stray_delimiter() -> None:
    """Drop a sequence delimiter that ends no sequence, and read on behind it."""
    data = to_bytes(make_dataset(Uids.of("stray"))) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    facts = inspect(data + damaged.explicit_element(0x00420010, b"UT", b"behind"))
    assert header_of(facts)["00420010"]["Value"] == ["behind"]
    assert facts.problems == ("FFFEE0DD: is a delimiter without a sequence and was dropped",)


def test_not_a_number() -> None:
    """Write NaN and infinity as null, NaN in a decimal string as text, and name both elements."""
    facts = inspect(damaged.not_finite())
    header = header_of(facts)
    assert header["00189313"] == {"vr": "FD", "Value": [1.5, None, None]}
    assert header["00281052"] == {"vr": "DS", "Value": ["NaN"]}
    assert [problem[:8] for problem in facts.problems] == ["00189313", "00281052"]
    assert b"Infinity" not in facts.header


def deflated_file(deflated_dataset: bytes) -> bytes:
    """Return a deflated instance with this in place of its dataset."""
    data = kinds.deflated(PIXELS)
    return data[: len(data) - len(damaged.without_meta(data))] + deflated_dataset


@pytest.mark.parametrize("lost_bytes", [1, 50, 150])
def test_truncated_deflated_file(lost_bytes: int) -> None:
    """Keep what a cut deflated dataset inflates to."""
    data = kinds.deflated(PIXELS)
    facts = inspect(data[:-lost_bytes])
    whole = oracle.inflated(data, oracle.read(data))
    assert facts.problems[0] == "00020010: the deflated dataset ends early"
    assert cut(whole, table_of(facts)) == FRAMES[: len(table_of(facts))]
    assert len(table_of(facts)) < 3 or lost_bytes == 1


def test_damaged_deflated_file() -> None:
    """Keep what a damaged deflated dataset inflates to up to the damage."""
    deflater = zlib.compressobj(wbits=-15)
    sound = deflater.compress(damaged.without_meta(kinds.native(PIXELS))[:-100])
    reserved_block_type = b"\x07"
    facts = inspect(deflated_file(sound + deflater.flush(zlib.Z_FULL_FLUSH) + reserved_block_type))
    assert facts.problems[0] == "00020010: the deflated dataset is damaged"
    assert len(table_of(facts)) == 2


def test_deflate_bomb_stays_out_of_memory() -> None:
    """Inflate a thousandfold into a file, not into memory."""
    plain = damaged.without_meta(kinds.native(PIXELS)) + damaged.explicit_element(0xFFFCFFFC, b"OB", bytes(64 << 20))
    deflater = zlib.compressobj(9, wbits=-15)
    data = deflated_file(deflater.compress(plain) + deflater.flush())
    tracemalloc.start()
    facts = inspect(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not table_of(facts).rangeable
    assert peak < 24 << 20
    assert len(data) < 1 << 20


# -- silence


def test_no_warning_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Emit no Python warning and log nothing, however bad the values are."""
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        inspect(damaged.not_finite())
        inspect(damaged.nested(100))
        inspect(damaged.wrong_length())
    assert caplog.records == []


def test_threads_get_the_same_facts() -> None:
    """Give the same facts in many threads at once."""
    data = [kinds.native(PIXELS), kinds.implicit(PIXELS), damaged.not_finite(), damaged.nested(40)]
    expected = [inspect(item) for item in data]
    found: list[bool] = []

    def work() -> None:
        found.extend([inspect(item) for item in data] == expected for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40


def test_header_is_compact_utf8_json() -> None:
    """Serialise the header compactly, in UTF-8, without escapes."""
    dataset = make_dataset(Uids.of("utf8"))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "Müller^Jürgen=山田^太郎"
    facts = inspect(to_bytes(dataset))
    assert "Müller^Jürgen".encode() in facts.header
    assert b": " not in facts.header
    assert facts.header == json.dumps(json.loads(facts.header), ensure_ascii=False, separators=(",", ":")).encode()
