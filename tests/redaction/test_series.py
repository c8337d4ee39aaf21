"""Redaction of stored series, in every kind of store: what is read afterwards, and that nothing of the old is left."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.bounding_box import BoundingBox
from cloud_optimized_dicom.errors import EditModeError, RedactionError, WriteOperationInReadModeError
from cloud_optimized_dicom.redaction import PixelRedaction
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets import kinds
from tests.core.test_golden_stores import GOLDEN, MANIFEST
from tests.redaction.search import RUN_BYTES, everything, leaks, runs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore

    Open = Callable[..., CODObject]

ROWS, COLUMNS = 48, 64
BOX = BoundingBox(8, 4, 40, 24)


def pixels(number: int) -> np.ndarray[Any, Any]:
    """Return 16-bit pixels without a pattern, other ones for every instance."""
    return np.random.default_rng(number).integers(0, 4096, (2, ROWS, COLUMNS), dtype=np.uint16)


def write(folder: Path, number: int, syntax: str) -> Path:
    """Write an instance of two frames, with an icon that shows part of the first, and an overlay."""
    dataset = pydicom.dcmread(Path(folder / "made.dcm"), force=True)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.77.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.75", "1.2.826.0.76"
    dataset.InstanceNumber = number
    dataset.PixelData = pixels(number).tobytes()
    icon = pydicom.Dataset()
    icon.Rows, icon.Columns, icon.SamplesPerPixel, icon.PhotometricInterpretation = 8, 40, 1, "MONOCHROME2"
    icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 16, 12, 11, 0
    icon.add_new("PixelData", "OW", pixels(number)[0][4:12, 8:48].tobytes())
    dataset.IconImageSequence = [icon]
    path = folder / f"{number}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    if syntax == "jpeg2000":
        dataset.compress(pydicom.uid.JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    return path


def hidden(number: int, box: BoundingBox = BOX) -> set[bytes]:
    """Return every run of `RUN_BYTES` bytes that lies in a row of a box, in either frame."""
    found: set[bytes] = set()
    for frame in pixels(number):
        for row in frame[box.slices()]:
            found |= runs_of(row.tobytes())
    return found


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Return a folder for sources."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "made.dcm").write_bytes(kinds.native(pixels(0)))
    return folder


@pytest.fixture(params=["native", "jpeg2000"])
def stored(datastore_url: str, gcs_client: Any, inbox: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Open:
    """Return a function that opens a stored series of three instances of two frames, with a thumbnail and an index."""
    (tmp_path / "scratch").mkdir()

    def opened(mode: Any = "r", **options: Any) -> CODObject:
        options = {"temp_dir": tmp_path / "scratch"} | options
        return CODObject(datastore_url, gcs_client, "1.2.826.0.75", "1.2.826.0.76", mode, **options)

    with opened("w", legacy_index=True) as cod:
        files = [Instance(write(inbox, number, request.param)) for number in (1, 2, 3)]
        assert len(cod.append(files).new) == 3
        cod.get_thumbnail()
    return opened


@pytest.mark.parametrize("box", [BOX, BoundingBox(0, 0, COLUMNS, ROWS)])
def test_what_is_redacted_is_gone_from_the_store(
    stored: Open, store: ObjectStore, tmp_path: Path, box: BoundingBox
) -> None:
    """Leave no object, sidecar or scratch file with a run of the hidden pixels, of the icon, or of a frame as coded."""
    uid = "1.2.826.0.77.2"
    with stored() as cod:
        frames = cod.read_frames(uid)
        others = [frame for number in (1, 3) for frame in cod.read_frames(f"1.2.826.0.77.{number}")]
        shown = cod.get_thumbnail(instance_uid=uid)
    # Markers are the same in every frame, and some tables of the coder too.
    encoded = set().union(*map(runs_of, frames))
    encoded = {run for run in encoded if len(set(run)) > RUN_BYTES // 2 and not any(run in other for other in others)}
    before = everything(store)
    assert any(leaks(data, encoded) for data in before.values())
    with stored("e") as cod:
        cod.redact_pixel_data([PixelRedaction(box, [uid])], reviewer="Dr. Test")
    after = everything(store)
    runs = hidden(2, box) | (encoded if box != BOX else set())
    assert [name for name, data in after.items() if leaks(data, runs)] == []
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []
    assert {name for name in after if name.endswith(".mp4")} == {name for name in before if name.endswith(".mp4")}
    with stored() as cod:
        again = cod.get_thumbnail(instance_uid=uid, generate_if_missing=False)
        assert (again[0, 40:60, 40:60] < shown[0, 40:60, 40:60].mean() / 2).all()
        for frame in range(2):
            expected = pixels(2)[frame]
            expected[box.slices()] = 0
            np.testing.assert_array_equal(cod.read_frame_array(uid, frame), expected)
            np.testing.assert_array_equal(cod.read_frame_array("1.2.826.0.77.1", frame), pixels(1)[frame])
        assert cod.verify().ok
        cod.integrity_check()


def test_a_thumbnail_that_no_document_names_goes(stored: Open, store: ObjectStore) -> None:
    """Delete the picture of the old pixels that a writer left which died before it committed."""
    (name,) = (info.name for info in store.list() if info.name.endswith("/thumbnail.mp4"))
    picture = store.read_object(name).data
    with stored("a") as cod:
        cod.remove_metadata_field("thumbnail")
    if not any(info.name == name for info in store.list()):
        store.create(name, BytesPayload(picture), write_id=new_write_id())
    with stored("e") as cod:
        cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.2"])], reviewer="Dr. Test")
    assert [info.name for info in store.list() if "thumbnail" in info.name] == []
    with stored() as cod:
        assert cod.get_metadata_field("thumbnail") is None


def test_the_search_finds_what_is_hidden(stored: Open, store: ObjectStore, tmp_path: Path) -> None:
    """Find the runs of the third instance, which nobody has redacted, in what is stored: its icon is never coded."""
    with stored("e") as cod:
        cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.2"])], reviewer="Dr. Test")
    assert any(leaks(data, hidden(3)) for data in everything(store).values())


def test_the_audit_record_grows(stored: Open) -> None:
    """Append an entry for every call to the field, beside whatever is there, and return the same."""
    with stored("e") as cod:
        first = cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.1"], [1])], reviewer="Dr. A")
        second = cod.redact_pixel_data(
            [PixelRedaction(BOX, ["1.2.826.0.77.1", "1.2.826.0.77.2"])], reviewer="Dr. B", fill_value=5, is_clean=True
        )
    with stored("e") as cod:
        third = cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.3"])], reviewer="Dr. A")
    with stored() as cod:
        assert cod.get_metadata_field("redactions") == [first.as_json(), second.as_json(), third.as_json()]
        entries = [entry["instances"] for entry in cod.get_metadata_field("redactions")]
        uid = "1.2.826.0.77.1"
        assert entries[0][uid]["after"] == entries[1][uid]["before"]
        record = cod.get_metadata()["cod"]["instances"][uid]
        assert (entries[1][uid]["after"]["crc32c"], entries[1][uid]["after"]["size"]) == (
            record["crc32c"],
            record["size"],
        )
        assert cod.get_instance(uid).metadata["00280301"]["Value"] == ["NO"]
        assert "source_crc32c" not in record


def test_a_field_of_another_kind_is_kept(stored: Open) -> None:
    """Keep a field of that name that is no list as the first entry."""
    with stored("a") as cod:
        cod.add_metadata_field("redactions", {"by": "another program"})
    with stored("e") as cod:
        record = cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.1"])], reviewer="Dr. A")
    with stored() as cod:
        assert cod.get_metadata_field("redactions") == [{"by": "another program"}, record.as_json()]


@pytest.mark.parametrize(
    ("compress", "syntax"),
    [
        ("htj2k", "1.2.840.10008.1.2.4.201"),
        ("jpeg2000", "1.2.840.10008.1.2.4.90"),
        (True, "1.2.840.10008.1.2.4.90"),
        ("jpegls", "1.2.840.10008.1.2.4.80"),
        ("rle", "1.2.840.10008.1.2.5"),
        (False, "1.2.840.10008.1.2.1"),
        (None, None),
    ],
)
def test_the_encoding_is_chosen(stored: Open, compress: bool | str | None, syntax: str | None) -> None:
    """Encode redacted instances, and no others, as asked; as they were where nothing is asked."""
    uid = "1.2.826.0.77.1"
    with stored() as cod:
        old = cod.get_instance(uid).metadata["00020010"]["Value"]
    with stored("e") as cod:
        cod.redact_pixel_data([PixelRedaction(BOX, [uid])], reviewer="Dr. A", compress=compress)
    with stored() as cod:
        assert cod.get_instance(uid).metadata["00020010"]["Value"] == ([syntax] if syntax else old)
        assert cod.get_instance("1.2.826.0.77.2").metadata["00020010"]["Value"] == old


def test_nothing_is_half_redacted(stored: Open, store: ObjectStore) -> None:
    """Refuse the whole call if one box does not fit, whether or not the caller goes on."""
    before = {info.name: info.version for info in store.list()}
    wrong = [PixelRedaction(BOX, ["1.2.826.0.77.1"]), PixelRedaction(BoundingBox(60, 0, 9, 9), ["1.2.826.0.77.2"])]
    with stored("e") as cod, pytest.raises(RedactionError):
        cod.redact_pixel_data(wrong, reviewer="Dr. A")
    assert {info.name: info.version for info in store.list()} == before
    with pytest.raises(RedactionError), stored("e") as cod:
        cod.redact_pixel_data(wrong, reviewer="Dr. A")
    assert {info.name: info.version for info in store.list()} == before


def test_only_an_edit_redacts(stored: Open) -> None:
    """Refuse to redact in any other mode."""
    with stored() as cod, pytest.raises(WriteOperationInReadModeError):
        cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.1"])], reviewer="Dr. A")
    with stored("a") as cod, pytest.raises(EditModeError):
        cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.1"])], reviewer="Dr. A")


def test_wrong_arguments_change_nothing(stored: Open, store: ObjectStore) -> None:
    """Refuse an empty reviewer and an unknown codec."""
    before = {info.name: info.version for info in store.list()}
    with stored("e") as cod:
        with pytest.raises(ValueError, match="reviewer"):
            cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.1"])], reviewer=" ")
        with pytest.raises(ValueError, match="compress"):
            cod.redact_pixel_data([PixelRedaction(BOX, ["1.2.826.0.77.1"])], reviewer="Dr. A", compress="jpeg")
    assert {info.name: info.version for info in store.list()} == before


def test_the_source_offered_again_does_not_come_back(stored: Open, inbox: Path) -> None:
    """Take the unredacted source for another file of the same UID, which stays out."""
    uid = "1.2.826.0.77.2"
    with stored("e") as cod:
        cod.redact_pixel_data([PixelRedaction(BOX, [uid])], reviewer="Dr. A")
    with stored("a") as cod:
        result = cod.append([Instance(inbox / "2.dcm")])
        assert (len(result.new), len(result.conflict)) == (0, 1)
    with stored() as cod:
        assert (cod.read_frame_array(uid, 0)[BOX.slices()] == 0).all()


@pytest.mark.parametrize("name", ["v2-series", "v2-series-hashed", "v2-thumbnail"])
def test_series_of_the_published_library(name: str, tmp_path: Path) -> None:
    """Redact every instance of a series that 2.2.0 wrote, whose headers hold the first bytes of the pixels."""
    (entry,) = [entry for entry in MANIFEST["series"] if entry["store"] == name]
    shutil.copytree(GOLDEN / name, tmp_path / "datastore")
    open_ = partial(CODObject, tmp_path / "datastore", None, entry["study_uid"], entry["series_uid"])
    with open_("r") as cod:
        arrays = {uid: cod.read_frame_array(uid, 0) for uid in cod.get_instances(strict_sorting=False)}
    box = BoundingBox(0, 0, min(array.shape[1] for array in arrays.values()), 12)
    rows = [row.tobytes() for array in arrays.values() for row in array[box.slices()]]
    runs = set().union(*map(runs_of, rows))
    runs = {run for run in runs if len(set(run)) > RUN_BYTES // 2}
    store = open_store(str(tmp_path / "datastore"))
    places = [place for place, data in everything(store).items() if leaks(data, runs)]
    assert {place.rpartition(".")[2] for place in places} == {"tar", "json, unpacked"}
    with open_("e") as cod:
        cod.redact_pixel_data([PixelRedaction(box, list(arrays))], reviewer="Dr. Test")
    assert [place for place, data in everything(store).items() if leaks(data, runs)] == []
    with open_("r") as cod:
        for uid, array in arrays.items():
            expected = array.copy()
            expected[box.slices()] = cod.get_metadata_field("redactions")[0]["instances"][uid]["fill"][0]
            np.testing.assert_array_equal(cod.read_frame_array(uid, 0), expected)
