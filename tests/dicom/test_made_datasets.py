"""Made datasets: the header is what pydicom says, whatever is written into a file."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings

from tests.dicom import oracle
from tests.dicom.helpers import header_of, inspect
from tests.dicom.made import dicom_files

UIDS = {
    (0x0008, 0x0018): b"1.2.826.0.1.0\0",
    (0x0020, 0x000D): b"1.2.826.0.1.1\0",
    (0x0020, 0x000E): b"1.2.826.0.1.2\0",
}
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def assert_header_equals_pydicoms(data: bytes) -> None:
    """Compare our header with pydicom's, element by element."""
    dataset = oracle.read(data)
    found = oracle.with_bulk_data(header_of(inspect(data)), oracle.inflated(data, dataset))
    assert list(oracle.differences(oracle.header(dataset), found)) == []


@settings(patient, max_examples=300)
@given(dicom_files())
def test_made_headers_equal_pydicoms(data: bytes) -> None:
    """Give the header that pydicom gives for some hundred made files."""
    assert_header_equals_pydicoms(data)


@pytest.mark.slow
@settings(patient, max_examples=10_000)
@given(dicom_files())
@pytest.mark.timeout(900)
def test_ten_thousand_made_headers_equal_pydicoms(data: bytes) -> None:
    """Give the header that pydicom gives for ten thousand made files."""
    assert_header_equals_pydicoms(data)


@pytest.mark.parametrize("group", [0x0100, 0x2200])
def test_a_dataset_may_begin_with_the_length_of_a_late_group(group: int) -> None:
    """A first tag that only looks swapped, (0100,0000), is read in the byte order of the transfer syntax."""
    elements = [(group, 0x0000, bytes(4)), *((group, number, uid) for (group, number), uid in UIDS.items())]
    dataset = b"".join(struct.pack("<HHL", *tag, len(value)) + value for *tag, value in elements)
    syntax = b"1.2.840.10008.1.2\0"
    meta = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(syntax)) + syntax
    assert_header_equals_pydicoms(bytes(128) + b"DICM" + meta + dataset)
