"""The header's rules, where real files do not show them: bulk data, character sets, context-dependent VRs."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.testing.datasets import damaged, kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from tests.dicom import oracle
from tests.dicom.helpers import header_of, inspect
from tests.realfiles import real_file

SYNTAXES = pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def assert_equals_oracle(data: bytes) -> dict[str, Any]:
    """Compare our header with pydicom's, and return ours."""
    dataset = oracle.read(data)
    header = header_of(inspect(data))
    found = oracle.with_bulk_data(header, oracle.inflated(data, dataset))
    assert list(oracle.differences(oracle.header(dataset), found)) == []
    return header


# -- bulk data


@pytest.mark.parametrize("size", [1024, 1026])
@SYNTAXES
def test_binary_values_over_1024_bytes_are_left_out(size: int, syntax: str) -> None:
    """Write a binary value of 1024 bytes into the header, and the place of a longer one, nested or not."""
    dataset = make_dataset(Uids.of("bulk", size))
    item = Dataset()
    item.add_new(0x00420011, "OB", damaged.random_bytes(size, 1))
    dataset.add_new(0x00420011, "OB", damaged.random_bytes(size, 2))
    dataset.add_new(0x0040A730, "SQ", [item, item])
    header = assert_equals_oracle(to_bytes(dataset, syntax))
    key = "InlineBinary" if size == 1024 else "BulkDataURI"
    assert key in header["00420011"]
    assert key in header["0040A730"]["Value"][1]["00420011"]


def test_pixel_data_is_always_left_out() -> None:
    """Leave Pixel Data out, however small; of an encapsulated one the range begins with its first item."""
    header = assert_equals_oracle(kinds.native(kinds.make_frames(1, 4, 4)))
    assert set(header["7FE00010"]) == {"vr", "BulkDataURI"}
    data = slide_instance(2, "basic", tile_size=16)
    start, stop = map(int, assert_equals_oracle(data)["7FE00010"]["BulkDataURI"].split(":"))
    assert data[start : start + 4] == b"\xfe\xff\x00\xe0"
    assert data[stop:] == b"\xfe\xff\xdd\xe0\0\0\0\0"


def test_bulk_data_of_a_deflated_file_counts_in_the_inflated_one() -> None:
    """Count positions of a deflated file within the inflated one."""
    assert_equals_oracle(kinds.deflated(kinds.make_frames(3, 30, 30)))


def test_bulk_data_uri_gets_uid_and_range() -> None:
    """Make each URI from the dataset's SOP Instance UID and the value's range."""
    pixels = kinds.make_frames(1, 4, 4)
    data = kinds.native(pixels)
    asked: list[tuple[str, ByteRange]] = []

    def uri(instance_uid: str, span: ByteRange) -> str:
        asked.append((instance_uid, span))
        return "made"

    facts = inspect_dicom(io.BytesIO(data), "file.dcm", bulk_data_uri=uri)
    assert header_of(facts)["7FE00010"] == {"vr": "OW", "BulkDataURI": "made"}
    assert asked == [(facts.instance_uid, ByteRange(len(data) - 32, len(data)))]


def test_elements_behind_the_pixel_data_are_kept() -> None:
    """Read on behind native and encapsulated Pixel Data."""
    for data in (kinds.native(kinds.make_frames(1, 4, 4)), slide_instance(3, "empty", tile_size=16)):
        header = assert_equals_oracle(data + damaged.explicit_element(0xFFFCFFFC, b"OB", b"padding!"))
        assert header["FFFCFFFC"]["InlineBinary"]


def test_the_datasets_uid_counts() -> None:
    """Take the SOP Instance UID of the dataset where the file meta information has another."""
    dataset = make_dataset(Uids.of("meta"))
    data = to_bytes(dataset)
    other = "2.25.1" + dataset.SOPInstanceUID[6:]
    changed = data.replace(dataset.SOPInstanceUID.encode(), other.encode(), 1)
    facts = inspect(changed)
    assert facts.instance_uid == dataset.SOPInstanceUID
    assert header_of(facts)["00020003"]["Value"] == [other]


# -- VRs that depend on their context


@pytest.mark.parametrize("signed", [0, 1])
@SYNTAXES
def test_signed_or_unsigned(signed: int, syntax: str) -> None:
    """Read US or SS by Pixel Representation, in nested lookup tables too."""
    dataset = make_dataset(Uids.of("signed", signed))
    describe_pixels(dataset, (2, 2))
    dataset.PixelRepresentation = signed
    vr = "SS" if signed else "US"
    lut = Dataset()
    lut.add_new("LUTDescriptor", vr, [4, 0, 16])
    lut.add_new("LUTData", "OW", bytes(8))
    dataset.add_new("SmallestImagePixelValue", vr, -5 if signed else 65531)
    dataset.ModalityLUTSequence = [lut]
    dataset.add_new("PixelData", "OW", bytes(8))
    header = assert_equals_oracle(to_bytes(dataset, syntax))
    assert header["00280106"] == {"vr": vr, "Value": [-5 if signed else 65531]}
    assert header["00283000"]["Value"][0]["00283002"]["vr"] == vr


def test_a_dataset_that_begins_with_a_late_group() -> None:
    """Believe the transfer syntax where the first tag is known, though its group swapped is an early one."""
    data = to_bytes(make_dataset(Uids.of("late group")), ExplicitVRBigEndian)
    start = data.index(struct.pack(">HH", 8, 0x16))
    late = struct.pack(">HH2sHLf", 0x5600, 0x0010, b"OF", 0, 4, 1.5)
    assert assert_equals_oracle(data[:start] + late + data[start:])["56000010"]["InlineBinary"] == "P8AAAA=="


@pytest.mark.parametrize(("raw", "entries"), [((-329, 0, 16), 65207), ((-329,), -329), ((4, 0, 16), 4), ((), None)])
def test_entries_of_a_signed_lut_descriptor(raw: tuple[int, ...], entries: int | None) -> None:
    """Read the number of entries as unsigned where there are three values, as pydicom does."""
    data = to_bytes(make_dataset(Uids.of("entries")))
    value = struct.pack(f"<{len(raw)}h", *raw)
    header = assert_equals_oracle(data + struct.pack("<HH2sH", 0x0028, 0x1101, b"SS", len(value)) + value)
    assert next(iter(header["00281101"].get("Value", ())), None) == entries


@SYNTAXES
def test_private_elements(syntax: str) -> None:
    """Give private elements of known creators their VR, and others UN where the file does not say."""
    dataset = make_dataset(Uids.of("private"))
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "1000")
    dataset.private_block(0x0021, "NOBODY KNOWS", create=True).add_new(0x01, "LO", "text")
    header = assert_equals_oracle(to_bytes(dataset, syntax))
    assert header["0019100C"] == {"vr": "IS", "Value": [1000]}
    assert header["00211001"]["vr"] == ("LO" if syntax == ExplicitVRLittleEndian else "UN")


def test_un_is_undone_where_the_tag_is_known() -> None:
    """Read an element that was written as UN with the VR of its tag."""
    head = to_bytes(make_dataset(Uids.of("un")))
    data = head + damaged.explicit_element(0x00420010, b"UN", b"A title ")
    assert assert_equals_oracle(data)["00420010"] == {"vr": "ST", "Value": ["A title"]}


def test_un_of_undefined_length_is_a_sequence() -> None:
    """Read an undefined length UN as an implicit VR sequence (PS3.5 section 6.2.2)."""
    item = struct.pack("<HHL", 0x0008, 0x1150, 4) + b"1.2\0"
    value = struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    data = to_bytes(make_dataset(Uids.of("un sq"))) + damaged.explicit_element(0x00420013, b"UN", value, 0xFFFFFFFF)
    header = assert_equals_oracle(data)
    assert header["00420013"] == {"vr": "SQ", "Value": [{"00081150": {"vr": "UI", "Value": ["1.2"]}}]}


# -- text


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 192", "山田^太郎".encode(), "山田^太郎"),
        (b"ISO_IR 144", b"\xbb\xee\xda^\xdf", "Люк^п"),
        (b"ISO-IR 100", b"\xe9", "é"),
        (b"utf-8", "é".encode(), "é"),
        (b"NO SUCH SET", b"\xe9", "é"),
        (b"GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada=山田^太郎"),
    ],
)
def test_character_sets(charset: bytes, raw: bytes, text: str) -> None:
    """Decode names in each kind of character set, misspelt ones too, as pydicom does."""
    data = to_bytes(make_dataset(Uids.of("charset", charset)))
    data = damaged.without_meta(data)
    padded = charset + b" " * (len(charset) % 2)
    raw += b" " * (len(raw) % 2)
    data = struct.pack("<HH2sH", 8, 5, b"CS", len(padded)) + padded + data
    old = data[data.index(b"\x10\x00\x10\x00PN") :][: 8 + 14]
    data = data.replace(old, struct.pack("<HH2sH", 0x10, 0x10, b"PN", len(raw)) + raw)
    name = assert_equals_oracle(data)["00100010"]["Value"][0]
    assert "=".join(name.values()) == text


def test_text_that_is_not_of_its_character_set() -> None:
    """Keep such text with replacement characters, and name the element."""
    dataset = make_dataset(Uids.of("broken text"))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    data = to_bytes(dataset) + struct.pack("<HH2sH", 0x0042, 0x0010, b"ST", 4) + b"a\xff\xfeb"
    facts = inspect(data)
    assert header_of(facts)["00420010"]["Value"] == ["a\ufffd\ufffdb"]
    assert facts.problems == ("00420010: some bytes are not of its character set and were replaced",)
    assert "ÿ" not in "".join(facts.problems)


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("DS", b"1.5\\-2e3 ", {"vr": "DS", "Value": [1.5, -2000.0]}),
        ("DS", b"1.5\\\\2 ", {"vr": "DS", "Value": [1.5, None, 2.0]}),
        ("DS", b"    ", {"vr": "DS"}),
        ("DS", b"12 mm ", {"vr": "DS", "Value": ["12 mm"]}),
        ("DS", b"1.5\\nan ", {"vr": "DS", "Value": ["1.5", "nan"]}),
        ("IS", b"7.0 ", {"vr": "IS", "Value": [7]}),
        ("IS", b"1e400 ", {"vr": "IS", "Value": ["1e400"]}),
        ("CS", b"A\\\\B", {"vr": "CS", "Value": ["A", "", "B"]}),
        ("AE", b" STORE\\ X", {"vr": "AE", "Value": ["STORE", "X"]}),
        ("AT", b"\x10\0\x20\0\xe0\x7f\x10\0", {"vr": "AT", "Value": ["00100020", "7FE00010"]}),
        ("PN", b"A^B\\", {"vr": "PN", "Value": [{"Alphabetic": "A^B"}, None]}),
        ("PN", b"==x ", {"vr": "PN", "Value": [{"Alphabetic": "", "Ideographic": "", "Phonetic": "x"}]}),
        ("LT", b" a\\b ", {"vr": "LT", "Value": [" a\\b"]}),
        ("UI", b"1.2\\3.4\0", {"vr": "UI", "Value": ["1.2", "3.4"]}),
        ("SS", b"\xff\xff\x01\0", {"vr": "SS", "Value": [-1, 1]}),
        ("TM", b"", {"vr": "TM"}),
    ],
)
def test_values_of_each_kind(vr: str, raw: bytes, expected: dict[str, Any]) -> None:
    """Convert values of each kind as PS3.18 Annex F asks, and as pydicom does where it can."""
    data = to_bytes(make_dataset(Uids.of("values")))
    data += struct.pack("<HH2sH", 0x0043, 0x0010, vr.encode(), len(raw)) + raw
    assert assert_equals_oracle(data)["00430010"] == expected


# -- anything


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_files_are_kept_or_refused(draw: st.DataObject) -> None:
    """Keep or refuse a real file with random bytes changed: no other outcome, no range outside the file."""
    name = draw.draw(st.sampled_from(["CT_small.dcm", "rtplan.dcm", "SC_rgb_rle_2frame.dcm", "reportsi.dcm"]))
    data = bytearray(real_file(name).read()[:6000])
    for _ in range(draw.draw(st.integers(1, 12))):
        position = draw.draw(st.integers(128, len(data) - 5))
        data[position : position + 4] = draw.draw(
            st.sampled_from([b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\0\0\0\0"])
            | st.binary(min_size=4, max_size=4)
        )
    try:
        facts = inspect(bytes(data))
    except InstanceValidationError:
        return
    for stop in _bulk_stops(header_of(facts)):
        assert stop <= len(data)
    if facts.frame_table is not None:
        assert all(facts.frame_table.span(n).stop <= len(data) for n in range(len(facts.frame_table)))


def _bulk_stops(document: Any) -> list[int]:
    if isinstance(document, list):
        return [stop for item in document for stop in _bulk_stops(item)]
    if not isinstance(document, dict):
        return []
    own = [int(document["BulkDataURI"].split(":")[1])] if isinstance(document.get("BulkDataURI"), str) else []
    return own + [stop for value in document.values() for stop in _bulk_stops(value)]


def test_ct_header_equals_pydicoms() -> None:
    """Give the header of a synthetic CT, with its private blocks and sequences, as pydicom does."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        header = assert_equals_oracle(CtSeries(3, 16, 16).instance(2))
    assert len(header) > 140
