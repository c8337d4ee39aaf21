"""Recompression on the way in: the same pixels in fewer bytes, recognised when they come again."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import Datastore, Hints, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.events import Event, InstanceRecompressed
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.core.conftest import Files, read, write_series
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path

SYNTAXES = {
    "htj2k": "1.2.840.10008.1.2.4.201",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "rle": "1.2.840.10008.1.2.5",
}


@pytest.fixture
def slices(tmp_path: Path) -> Files:
    """Return a series of three slices that compress well."""
    return write_series(tmp_path / "slices", CtSeries(3, rows=64, columns=64))


@pytest.mark.parametrize("codec", SYNTAXES)
def test_every_store_gets_the_same_pixels_in_fewer_bytes(
    codec: str, datastore_url: str, gcs_client: Any, slices: Files
) -> None:
    """What is stored is smaller, decodes to the source's pixels, and is verified like any other instance."""
    store = Datastore(datastore_url, gcs_client)
    report = store.ingest(slices.paths, compress=codec)
    assert report.recompressions == {"recompressed": 3}
    with store.open(slices.series.uids.study, slices.series.uids.series) as cod:
        stored = 0
        for index, uid in enumerate(slices.uids):
            source = pydicom.dcmread(slices.paths[index])
            assert np.array_equal(cod.read_frame_array(uid, 0), source.pixel_array)
            data = read(cod, uid)
            stored += len(data)
            assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == SYNTAXES[codec]
        assert report.saved_bytes == sum(path.stat().st_size for path in slices.paths) - stored > 0
    (verified,) = store.verify(deep=True)
    assert verified.ok


def test_the_same_files_again_are_the_same(datastore_url: str, gcs_client: Any, slices: Files) -> None:
    """A file whose recompressed form is stored is the same, whether it is read or its hints are believed."""
    store = Datastore(datastore_url, gcs_client)
    store.ingest(slices.paths, compress="htj2k")
    for compress in ("htj2k", "jpegls", False):
        assert store.ingest(slices.paths, compress=compress).count("same") == 3
    uids = slices.series.uids
    hinted = [
        Instance(
            f"/nowhere/{index}.dcm",
            hints=Hints(
                len(slices.bytes(index)),
                encode(crc32c(slices.bytes(index))),
                slices.uids[index],
                uids.series,
                uids.study,
            ),
        )
        for index in range(3)
    ]
    assert store.ingest(hinted).count("same") == 3


def test_what_is_stored_may_come_as_a_file_itself(slices: Files, tmp_path: Path) -> None:
    """The recompressed file is another file under the same UID: a conflict, unless pixels alone are to count."""
    store = Datastore(tmp_path / "store")
    store.ingest(slices.paths[:1], compress="htj2k")
    copy = tmp_path / "copy.dcm"
    with store.open(slices.series.uids.study, slices.series.uids.series) as cod:
        copy.write_bytes(read(cod, slices.uids[0]))
    assert store.ingest([copy]).count("conflict") == 1
    assert store.ingest([copy], treat_metadata_diffs_as_same=True).count("same") == 1


def changed(path: Path, target: Path, *, pixels: bool) -> Path:
    """Write a file with another header, or with other pixels."""
    dataset = pydicom.dcmread(path)
    dataset.SeriesDescription = "another one"
    if pixels:
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
    dataset.save_as(target)
    return target


def test_pixels_are_compared_decoded(datastore_url: str, gcs_client: Any, slices: Files, tmp_path: Path) -> None:
    """Where pixels alone are to count, a recompressed instance equals a file with other header and the same pixels."""
    store = Datastore(datastore_url, gcs_client)
    store.ingest(slices.paths[:1], compress="jpegls")
    header = changed(slices.paths[0], tmp_path / "header.dcm", pixels=False)
    pixels = changed(slices.paths[0], tmp_path / "pixels.dcm", pixels=True)
    assert store.ingest([header]).count("conflict") == 1
    report = store.ingest([header, pixels], treat_metadata_diffs_as_same=True)
    assert [result.outcome for result in report.files] == ["same", "conflict"]


def test_what_is_not_recompressed_is_stored_as_it_is(tmp_path: Path) -> None:
    """Lossy, unsupported and incompressible files are stored byte for byte, each with its reason."""
    noise = tmp_path / "noise.dcm"
    dataset = pydicom.dcmread(real_file("CT_small.dcm").path)
    dataset.PixelData = np.random.default_rng(1).bytes(len(dataset.PixelData))
    dataset.SOPInstanceUID = "2.25.1"
    dataset.save_as(noise)
    files = [noise, *(real_file(name).path for name in ("JPEG-lossy.dcm", "rtdose.dcm", "reportsi.dcm"))]
    heard: list[Event] = []
    store = Datastore(tmp_path / "store")
    report = store.ingest(files, compress="htj2k", hooks=[heard.append])
    assert report.count("new") == 4
    told = {event.uri: event for event in heard if isinstance(event, InstanceRecompressed)}
    assert [told[str(path)].reason for path in files] == ["not smaller", "lossy", "unsupported", "unsupported"]
    assert all(event.detail and not event.saved_bytes for event in told.values())
    originals = {path.read_bytes() for path in files}
    for key in store.series():
        with store.open(key.study_uid, key.series_uid) as cod:
            assert {data for _, data in cod.iter_instances()} <= originals


def test_appending_recompresses_the_new_only(slices: Files, tmp_path: Path) -> None:
    """`append(compress=True)` means JPEG 2000, for what is new; what was stored before stays as it was."""
    store = Datastore(tmp_path / "store")
    store.ingest(slices.paths[:1])
    uids = slices.series.uids
    with store.open(uids.study, uids.series, "a") as cod:
        result = cod.append(slices.instances(0, 1), compress=True)
    assert [len(part) for part in result] == [1, 1, 0, 0]
    with store.open(uids.study, uids.series) as cod:
        assert read(cod, slices.uids[0]) == slices.bytes(0)
        again = pydicom.dcmread(io.BytesIO(read(cod, slices.uids[1])))
    assert again.file_meta.TransferSyntaxUID == SYNTAXES["jpeg2000"]


def test_an_unknown_codec_is_refused_at_once(slices: Files, tmp_path: Path) -> None:
    """A codec that there is not is a `ValueError` that names those there are, before anything is read."""
    with pytest.raises(ValueError, match="'htj2k'"):
        Datastore(tmp_path / "store").ingest(slices.paths, compress="zip")
    assert not (tmp_path / "store").exists()


def test_copies_are_deleted(gcs_session_client: Any, gcs_bucket: str, slices: Files, tmp_path: Path) -> None:
    """Neither copies of remote files nor recompressed ones outlive the ingest."""
    bucket = gcs_session_client.bucket(gcs_bucket)
    name = tmp_path.name
    for path in slices.paths:
        bucket.blob(f"{name}/inbox/{path.name}").upload_from_filename(str(path))
    (tmp_path / "temporary").mkdir()
    store = Datastore(f"gs://{gcs_bucket}/{name}/store", gcs_session_client)
    report = store.ingest([f"gs://{gcs_bucket}/{name}/inbox/"], compress="htj2k", temp_dir=tmp_path / "temporary")
    assert report.recompressions == {"recompressed": 3}
    assert not list((tmp_path / "temporary").iterdir())
    assert [verified.ok for verified in store.verify(deep=True)] == [True]
