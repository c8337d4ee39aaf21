"""Segmentations of many segments, made and read by highdicom: chosen segments cost about their share."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from benchmarks.tools import counted
from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path

SEGMENTS, SLICES, SIZE = 24, 12, 320


@pytest.fixture(scope="module")
def labels() -> Any:
    """Return which segment each voxel belongs to, 0 for none."""
    return np.random.default_rng(5).integers(0, SEGMENTS + 1, (SLICES, SIZE, SIZE)).astype(np.uint8)


@pytest.fixture(scope="module")
def segmentation(labels: Any) -> bytes:
    """Return a 1-bit segmentation of 24 segments on 12 slices: 288 frames, 3.7 MB."""
    images = [pydicom.dcmread(io.BytesIO(data)) for data in CtSeries(SLICES, rows=SIZE, columns=SIZE)]
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"structure {number}",
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
        )
        for number in range(1, SEGMENTS + 1)
    ]
    made = highdicom.seg.Segmentation(
        images,
        labels,
        "BINARY",
        descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    target = io.BytesIO()
    made.save_as(target)
    return target.getvalue()


def test_chosen_segments_cost_their_share(segmentation: bytes, labels: Any, tmp_path: Path) -> None:
    """Two segments of 24 are the right voxels; beside the header no frame is moved but theirs, which lie apart."""
    path = tmp_path / "segmentation.dcm"
    path.write_bytes(segmentation)
    with GcsServer() as server:
        server.create_bucket("segments")
        store = Datastore("gs://segments/archive", server.client())
        (key,) = store.ingest([path]).series
        with store.open(key.study_uid, key.series_uid) as cod:
            cod.get_instances()
            with counted(server) as cost, cod.open_instance(0) as file:
                read = highdicom.seg.segread(file, lazy_frame_retrieval=True)
                volume = read.get_volume(segment_numbers=[3, 17], combine_segments=True).array
    assert set(np.unique(volume)) == {0, 3, 17}
    for number in (3, 17):
        assert np.array_equal(volume == number, labels == number)
    header, frame = segmentation.index(b"\xe0\x7f\x10\x00") + 12, SIZE * SIZE // 8
    assert cost() == (1 + 2 * SLICES, header + 2 * SLICES * frame)


def test_segmentations_in_every_store(segmentation: bytes, datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Frames and files of a made segmentation and of a real one are what highdicom and pydicom read from the file."""
    for name, data in (("made", segmentation), ("liver", real_file("liver.dcm").read())):
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(data)
        store = Datastore(f"{datastore_url}/{name}", gcs_client)
        (key,) = store.ingest([Instance(path)]).series
        expected = highdicom.seg.segread(io.BytesIO(data))
        with store.open(key.study_uid, key.series_uid) as cod:
            (uid,) = cod.get_instances()
            with cod.open_instance(uid) as file:
                read = highdicom.seg.segread(file, lazy_frame_retrieval=True)
                for frame in (1, 2, int(expected.NumberOfFrames)):
                    assert np.array_equal(read.get_stored_frame(frame), expected.get_stored_frame(frame))
            pixels = expected.pixel_array
            for frame in (0, len(pixels) - 1):
                assert np.array_equal(cod.read_frame_array(uid, frame), pixels[frame])
