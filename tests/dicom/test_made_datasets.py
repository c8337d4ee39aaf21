"""Made datasets: the header is what pydicom says, whatever is written into a file."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.dicom import oracle
from tests.dicom.helpers import header_of, inspect
from tests.dicom.made import dicom_files

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
