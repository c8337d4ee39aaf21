"""Series as arrays: order, geometry, values, and what does not stack."""

from __future__ import annotations

import io
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.errors import HashMismatchError, VolumeError
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.counting_store import CountingStore
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.realfiles import real_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom import CODObject
    from cloud_optimized_dicom.storage.base import ObjectStore


def ct(index: int, series: CtSeries, change: Callable[[pydicom.Dataset], None] | None = None) -> bytes:
    """Return an instance of a CT series, changed perhaps."""
    dataset = pydicom.dcmread(io.BytesIO(series.instance(index)))
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.8, -0.6]
    dataset.ImagePositionPatient = [-100, 5 + 0.6 * 2.5 * index, 40 + 0.8 * 2.5 * index]
    dataset.PixelSpacing = [0.75, 0.5]
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
    if change is not None:
        change(dataset)
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def opened(url: str | ObjectStore, client: Any, files: list[bytes], folder: Path) -> CODObject:
    """Store files, which are of one series, and open it."""
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data)
    datastore = Datastore(url, client)
    report = datastore.ingest([Instance(path) for path in paths])
    assert report.count("new") == len(files), report.errors
    (key,) = report.series
    return datastore.open(key.study_uid, key.series_uid)


def test_slices_are_ordered_by_position(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """However the slices came, the volume runs along the normal, and the affine maps indexes to positions."""
    series = CtSeries(7, rows=12, columns=10)
    order = [3, 0, 6, 1, 5, 2, 4]
    with opened(datastore_url, gcs_client, [ct(index, series) for index in order], tmp_path) as cod:
        volume, affine = cod.read_volume()
        rescaled, _ = cod.read_volume(rescale=True)
    assert volume.dtype == np.uint16
    assert volume.shape == (7, 12, 10)
    normal = np.cross([1, 0, 0], [0, 0.8, -0.6])
    positions = [np.array([-100, 5 + 1.5 * index, 40 + 2.0 * index]) for index in range(7)]
    ascending = sorted(range(7), key=lambda index: positions[index] @ normal)
    for slice_number, index in enumerate(ascending):
        assert (volume[slice_number] == series.pixels(index)).all()
        assert np.allclose(affine @ [slice_number, 0, 0, 1], [*positions[index], 1])
    assert np.allclose(affine @ [0, 1, 0, 0], [0, 0.6, -0.45, 0])
    assert np.allclose(affine @ [0, 0, 1, 0], [0.5, 0, 0, 0])
    assert rescaled.dtype == np.float32
    assert (rescaled == volume * np.float32(2) - 1024).all()


def shifted(dataset: pydicom.Dataset) -> None:
    """Move a slice a quarter of a slice on."""
    dataset.ImagePositionPatient = [value + 0.4 for value in dataset.ImagePositionPatient]


def tilted(dataset: pydicom.Dataset) -> None:
    """Turn a slice."""
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def smaller(dataset: pydicom.Dataset) -> None:
    """Cut off the last row of a slice."""
    dataset.Rows = 11
    dataset.PixelData = dataset.PixelData[: 11 * 10 * 2]


def finer(dataset: pydicom.Dataset) -> None:
    """Claim another pixel spacing."""
    dataset.PixelSpacing = [0.7, 0.5]


def nowhere(dataset: pydicom.Dataset) -> None:
    """Forget where a slice lies."""
    del dataset.ImagePositionPatient


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shifted, "gap"),
        (tilted, "orientations"),
        (smaller, "sizes"),
        (finer, "spacings"),
        (nowhere, "without position"),
    ],
)
def test_what_does_not_stack(change: Callable[[pydicom.Dataset], None], reason: str, tmp_path: Path) -> None:
    """One slice that does not fit is a VolumeError that says in which way."""
    series = CtSeries(5, rows=12, columns=10)
    files = [ct(index, series, change if index == 3 else None) for index in range(5)]
    with (
        opened(f"{tmp_path}/store", None, files, tmp_path) as cod,
        pytest.raises(VolumeError, match=reason) as caught,
    ):
        cod.read_volume()
    assert caught.value.uri == cod.tar_uri


@pytest.mark.parametrize("index", [0, 4])
def test_what_the_ends_tell_is_refused_unread(index: int, tmp_path: Path) -> None:
    """A first or last instance that is of another kind, a localizer for instance, costs no request."""
    series = CtSeries(5, rows=12, columns=10)
    files = [ct(number, series, tilted if number == index else None) for number in range(5)]
    store = CountingStore(MemoryStore(f"memory://{uuid.uuid4().hex}"))
    with opened(store, None, files, tmp_path) as cod:
        assert len(cod.get_instances()) == 5
        store.reset()
        with pytest.raises(VolumeError, match="orientations"):
            cod.read_volume()
    assert not store.records


def test_a_damaged_slice_is_told(tmp_path: Path) -> None:
    """A slice whose bytes are not those that were stored ends the read, however many are being read."""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    series = CtSeries(5, rows=12, columns=10)
    with opened(store, None, [ct(index, series) for index in range(5)], tmp_path) as cod:
        damaged = bytearray(b"".join(store.iter_chunks(cod.key.tar)))
        record = cod.get_instance(series.instance_uid(2)).record
        assert record is not None
        damaged[record.frame_span(0).start] ^= 1
        stored = store._bucket.objects[cod.key.tar]
        store._bucket.objects[cod.key.tar] = replace(stored, data=bytes(damaged))
        with pytest.raises(HashMismatchError):
            cod.read_volume()


def test_a_deflated_volume_is_fetched_once(tmp_path: Path) -> None:
    """All frames of a deflated instance come from one read of it."""
    pixels = kinds.make_frames(6, 20, 16)
    dataset = pydicom.dcmread(io.BytesIO(kinds.deflated(pixels)))
    dataset.PerFrameFunctionalGroupsSequence = [enhanced_group(number) for number in range(6)]
    target = io.BytesIO()
    dataset.save_as(target)
    store = CountingStore(MemoryStore(f"memory://{uuid.uuid4().hex}"))
    with opened(store, None, [target.getvalue()], tmp_path) as cod:
        assert len(cod.get_instances(strict_sorting=False)) == 1
        store.reset()
        volume, _ = cod.read_volume()
    assert (volume == pixels).all()
    assert len(store.records) == 1


def enhanced_group(number: int) -> pydicom.Dataset:
    """Return where a frame lies, as enhanced instances say it."""
    group, position, orientation, measures = (pydicom.Dataset() for _ in range(4))
    position.ImagePositionPatient = [0, 0, 2 * number]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [1, 1]
    group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [orientation]
    group.PixelMeasuresSequence = [measures]
    return group


def test_a_missing_slice_and_a_double_one(tmp_path: Path) -> None:
    """A slice that is missing is a gap, two at one place are said to be."""
    series = CtSeries(6, rows=4, columns=4)
    gap = [ct(index, series) for index in (0, 1, 3, 4, 5)]
    with (
        opened(f"{tmp_path}/store/gap", None, gap, tmp_path) as cod,
        pytest.raises(VolumeError, match="behind slice"),
    ):
        cod.read_volume()

    def at_the_first(dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [-100, 5, 40]

    double = [ct(index, series, at_the_first if index == 3 else None) for index in range(5)]
    with (
        opened(f"{tmp_path}/store/double", None, double, tmp_path) as cod,
        pytest.raises(VolumeError, match="one place"),
    ):
        cod.read_volume()


def test_colour_and_nothing_are_no_volumes(tmp_path: Path) -> None:
    """Colour images, and a series without images, say why they make no volume."""
    for name, reason in (("examples_ybr_color.dcm", "colour"), ("rtplan.dcm", "no frames")):
        with (
            opened(f"{tmp_path}/store/{name}", None, [real_file(name).read()], tmp_path) as cod,
            pytest.raises(VolumeError, match=reason),
        ):
            cod.read_volume()


def test_a_real_enhanced_instance(tmp_path: Path) -> None:
    """An enhanced MR of 176 frames is one volume, at the positions of its functional groups."""
    data = real_file("philips_mprage.dcm.gz").read()
    dataset = pydicom.dcmread(io.BytesIO(data))
    with opened(f"{tmp_path}/store", None, [data], tmp_path) as cod:
        volume, affine = cod.read_volume()
    groups = dataset.PerFrameFunctionalGroupsSequence
    positions = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float)
    orientation = np.array(groups[0].PlaneOrientationSequence[0].ImageOrientationPatient, float)
    order = np.argsort(positions @ np.cross(orientation[:3], orientation[3:]), kind="stable")
    assert (volume == dataset.pixel_array[order]).all()
    found = np.array([(affine @ [number, 0, 0, 1])[:3] for number in range(len(groups))])
    assert np.abs(found - positions[order]).max() < 0.01


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR2_J2KR.dcm", "MR_small_bigendian.dcm"]
)
def test_real_slices_in_other_syntaxes(name: str, tmp_path: Path) -> None:
    """One slice is a volume of one, with pydicom's pixels, in whatever syntax it is stored."""
    data = real_file(name).read()
    with opened(f"{tmp_path}/store", None, [data], tmp_path) as cod:
        volume, affine = cod.read_volume()
    dataset = pydicom.dcmread(io.BytesIO(data))
    assert (volume == dataset.pixel_array[np.newaxis]).all()
    assert np.allclose(affine[:3, 3], np.array(dataset.ImagePositionPatient, float))
