"""The shipped synthetic datasets: readable by pydicom, deterministic, of the size that was asked for."""

from __future__ import annotations

import io
import resource
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.large import write_large_instance
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from tests.dicom import oracle
from tests.dicom.helpers import inspect, table_of

if TYPE_CHECKING:
    from pathlib import Path

MiB = 1 << 20


def test_ct_series_is_one_series_of_distinct_instances() -> None:
    """Make instances of one series with distinct UIDs, numbers, positions and pixels, that pydicom reads strictly."""
    series = CtSeries(12, 32, 48, seed=5)
    read = [oracle.read(data, force=False) for data in series]
    assert {dataset.SeriesInstanceUID for dataset in read} == {series.uids.series}
    assert [dataset.SOPInstanceUID for dataset in read] == [series.instance_uid(n) for n in range(12)]
    assert all(dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID for dataset in read)
    assert [dataset.InstanceNumber for dataset in read] == list(range(1, 13))
    assert [dataset.SliceLocation for dataset in read] == [804 - n for n in range(12)]
    assert [dataset.ImagePositionPatient[2] for dataset in read] == [804 - n for n in range(12)]
    assert len({dataset.PixelData for dataset in read}) == 12
    for number, dataset in enumerate(read):
        np.testing.assert_array_equal(dataset.pixel_array, series.pixels(number))
        assert dataset.pixel_array.std() > 100


def test_ct_header_is_as_rich_as_a_real_one() -> None:
    """Have about 160 elements, private ones and sequences among them."""
    elements = list(oracle.read(CtSeries(1, 8, 8).instance(0)).iterall())
    assert 150 <= len(elements) <= 190
    assert sum(element.tag.is_private for element in elements) > 40
    assert sum(element.VR == "SQ" for element in elements) >= 3


def test_ct_series_is_deterministic_and_takes_uids() -> None:
    """Make the same bytes from the same seed, others from another, and use the UIDs that are given."""
    assert CtSeries(3, 8, 8, seed=1).instance(2) == CtSeries(3, 8, 8, seed=1).instance(2)
    assert CtSeries(3, 8, 8, seed=1).instance(2) != CtSeries(3, 8, 8, seed=2).instance(2)
    dataset = oracle.read(CtSeries(1, 8, 8, study_uid="1.2.3", series_uid="1.2.4").instance(0))
    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID) == ("1.2.3", "1.2.4")
    with pytest.raises(IndexError):
        CtSeries(3, 8, 8).instance(3)


def test_slide_is_a_multi_frame_jpeg() -> None:
    """Decode every tile of a slide with pydicom, neighbours differing."""
    uids = Uids("1.2", "1.3", "1.4")
    dataset = oracle.read(slide_instance(20, "extended", tile_size=32, uids=uids), force=False)
    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID) == ("1.2", "1.3", "1.4")
    pixels = dataset.pixel_array
    assert pixels.shape == (20, 32, 32, 3)
    assert all((left != right).any() for left, right in pairwise(pixels))


def test_large_instance_is_written_as_a_stream() -> None:
    """Write as many bytes as said, of which no two megabytes are alike."""
    stream = io.BytesIO()
    written = write_large_instance(stream, 5 * MiB, rows=512, columns=512)
    data = stream.getvalue()
    assert written == len(data) > 5 * MiB
    dataset = pydicom.dcmread(io.BytesIO(data))
    assert dataset.NumberOfFrames == 10
    chunks = [dataset.PixelData[start : start + MiB] for start in range(0, 5 * MiB, MiB)]
    assert len(set(chunks)) == 5
    assert len(table_of(inspect(data))) == 10
    with pytest.raises(ValueError, match="do not fit"):
        write_large_instance(stream, 1 << 33)


@pytest.mark.slow
def test_two_gigabytes_take_no_memory(tmp_path: Path) -> None:
    """Inspect an instance of 2 GB in less than 50 MB more than was used before."""
    path = tmp_path / "large.dcm"
    with path.open("wb") as stream:
        write_large_instance(stream, 2_000_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("rb") as stream:
        facts = inspect_dicom(stream, str(path), bulk_data_uri=lambda uid, _: uid)
        table = table_of(facts)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
        assert facts.size == path.stat().st_size
        last = table.span(len(table) - 1)
        assert last.stop == facts.size
        stream.seek(last.start)
        assert table.crc32cs is not None
        assert crc32c(stream.read()) == table.crc32cs[-1]
