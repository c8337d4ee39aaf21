"""Thumbnails of series: made, kept, found again, made anew, in every kind of store."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.errors import (
    FrameDecodeError,
    InstanceNotFoundError,
    SeriesMissingPixelDataError,
    StaleReadError,
)
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, SimulatedCrash, StoreFault, StoreFaultKind
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from cloud_optimized_dicom.thumbnail import ThumbnailCoordConverter, ThumbnailDocument, ThumbnailNotFoundError
from cloud_optimized_dicom.thumbnail.encode import encode_jpeg
from cloud_optimized_dicom.thumbnail.sheet import contact_sheet
from tests.core.test_verify import LaterStore
from tests.thumbnail.scenes import UIDS, image, names_of, open_series, ramp, report, store_series, uid, write

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v2-thumbnail"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for files."""
    made = tmp_path / "files"
    made.mkdir()
    return made


@pytest.fixture
def memory() -> MemoryStore:
    """Return an empty store in memory."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


def slopes(pictures: np.ndarray[Any, Any]) -> list[int]:
    """Return 1 or -1 for each picture that grows brighter, or darker, from left to right."""
    series = pictures[np.newaxis] if pictures.ndim == 3 else pictures
    return [int(np.sign(float(p[:, -20:].mean()) - float(p[:, :20].mean()))) for p in series]


def test_a_thumbnail_is_committed_with_the_rest(store: ObjectStore, folder: Path) -> None:
    """Asked for in a writing mode, it is stored with the new instances, in every store, and read from there."""
    with open_series(store, "w") as cod:
        cod.append(write(folder, image(2, ramp(turned=True)), image(1, ramp()), report(3)))
        made = cod.get_thumbnail(thumbnail_size=64)
    assert names_of(store) == {".tar", "/metadata.json", "/thumbnail.mp4"}
    with open_series(store) as cod:
        found = cod.get_thumbnail(generate_if_missing=False)
        assert (found == made).all()
        assert found.shape == (2, 64, 64, 3)
        assert slopes(found) == [1, -1]
        assert [cod.get_instance_by_thumbnail_index(i).instance_uid() for i in range(2)] == [uid(1), uid(2)]
        assert slopes(cod.get_thumbnail(False, uid(2))) == [-1]
        assert cod.get_thumbnail(False, uid(2)).shape == (64, 64, 3)
        assert cod.verify().ok


def test_one_frame_is_a_jpeg_and_several_a_video(store: ObjectStore, folder: Path) -> None:
    """One frame makes a JPEG file; when the series grows it is made anew as a video, and the JPEG goes."""
    store_series(store, folder, image(1, ramp(20, 40)))
    with open_series(store, "a") as cod:
        assert cod.get_thumbnail().shape == (128, 128, 3)
    assert "/thumbnail.jpg" in names_of(store)
    store_series(store, folder, image(2, np.stack([ramp(turned=True), ramp()])))
    with open_series(store, "a") as cod:
        assert slopes(cod.get_thumbnail()) == [1, -1, 1]
        assert cod.get_thumbnail(instance_uid=uid(2)).shape == (2, 128, 128, 3)
    assert names_of(store) == {".tar", "/metadata.json", "/thumbnail.mp4"}


def test_a_reader_makes_what_is_missing_and_stores_nothing(memory: MemoryStore, folder: Path) -> None:
    """In mode "r" a missing thumbnail is made from the frames, once, and the store stays as it is."""
    store_series(memory, folder, image(1, ramp()), image(2, ramp(turned=True)))
    before = names_of(memory)
    with open_series(memory) as cod:
        assert cod.get_instance_by_thumbnail_index(1).instance_uid() == uid(2)
        assert slopes(cod.get_thumbnail()) == [1, -1]
        assert cod.get_thumbnail() is cod.get_thumbnail()
    assert names_of(memory) == before
    with open_series(memory) as cod, pytest.raises(ThumbnailNotFoundError):
        cod.get_thumbnail(generate_if_missing=False)


def test_the_size_is_what_was_asked_for(memory: MemoryStore, folder: Path) -> None:
    """A stored thumbnail of another size is made anew; where nothing is to be made it is returned as it is."""
    store_series(memory, folder, image(1, ramp()), image(2, ramp()))
    with open_series(memory, "a") as cod:
        assert cod.get_thumbnail(thumbnail_size=97).shape == (2, 97, 97, 3)
    with open_series(memory) as cod:
        assert cod.get_thumbnail(False, None, 64).shape == (2, 97, 97, 3)
        assert cod.get_thumbnail(True, None, 64).shape == (2, 64, 64, 3)
        with pytest.raises(ValueError, match="pixel"):
            cod.get_thumbnail(thumbnail_size=0)


def test_a_thumbnail_of_other_instances_is_not_used(memory: MemoryStore, folder: Path) -> None:
    """After an append the stored one is stale; the next that is asked for shows what the series holds."""
    store_series(memory, folder, image(1, ramp()))
    with open_series(memory, "a") as cod:
        cod.get_thumbnail()
    store_series(memory, folder, report(5))
    with open_series(memory) as cod:
        assert slopes(cod.get_thumbnail(False)) == [1], "an instance without pixel data changes nothing"
    store_series(memory, folder, image(2, ramp(turned=True)))
    with open_series(memory) as cod:
        with pytest.raises(ThumbnailNotFoundError):
            cod.get_thumbnail(False)
        assert slopes(cod.get_thumbnail()) == [1, -1]


def test_other_pixels_under_a_uid_make_it_stale(memory: MemoryStore, folder: Path) -> None:
    """A series that was replaced by one of the same UIDs and other bytes does not show the old thumbnail."""
    store_series(memory, folder, image(1, ramp()))
    with open_series(memory, "a") as cod:
        cod.get_thumbnail()
    with open_series(memory, "w") as cod:
        cod.append(write(folder, image(1, ramp(turned=True))))
        assert slopes(cod.get_thumbnail()) == [-1]
    with open_series(memory) as cod:
        assert slopes(cod.get_thumbnail(False)) == [-1]
    with open_series(memory, "w") as cod:
        cod.append(write(folder, image(1, ramp())))
    assert names_of(memory) == {".tar", "/metadata.json"}


@pytest.mark.parametrize("after", ["remove", "truncate"])
def test_what_shows_removed_pixels_is_deleted(store: ObjectStore, folder: Path, after: str) -> None:
    """Removing an instance removes the thumbnail that shows it, the object and what the document says of it."""
    store_series(store, folder, image(1, ramp()), image(2, ramp(turned=True)))
    with open_series(store, "a") as cod:
        cod.get_thumbnail()
    with open_series(store, "a") as cod:
        if after == "remove":
            cod.remove(uid(2))
        else:
            cod.truncate(uid(1))
    assert names_of(store) == {".tar", "/metadata.json"}
    with open_series(store) as cod:
        assert cod.get_metadata_field("thumbnail") is None


def test_a_thumbnail_made_before_a_removal_is_not_stored(memory: MemoryStore, folder: Path) -> None:
    """In one block, what was drawn before an instance was removed is dropped; what is drawn afterwards is kept."""
    store_series(memory, folder, image(1, ramp()), image(2, ramp(turned=True)))
    with open_series(memory, "a") as cod:
        assert slopes(cod.get_thumbnail()) == [1, -1]
        cod.remove(uid(2))
    assert names_of(memory) == {".tar", "/metadata.json"}
    with open_series(memory, "a") as cod:
        cod.remove(uid(1))
        cod.append(write(folder, image(3, ramp(turned=True))))
        assert slopes(cod.get_thumbnail()) == [-1]
    with open_series(memory) as cod:
        assert slopes(cod.get_thumbnail(False)) == [-1]


def test_an_exception_stores_nothing(memory: MemoryStore, folder: Path) -> None:
    """What was drawn in a block that fails is dropped with the rest."""
    store_series(memory, folder, image(1, ramp()))
    before = names_of(memory)

    def fail() -> None:
        with open_series(memory, "a") as cod:
            cod.get_thumbnail()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names_of(memory) == before


def test_an_object_that_the_document_does_not_mean_is_not_shown(store: ObjectStore, folder: Path) -> None:
    """Another picture under the name (a writer died before its commit), or none, is as if there were no thumbnail."""
    store_series(store, folder, image(1, ramp()))
    with open_series(store, "a") as cod:
        cod.get_thumbnail()
        name = f"{cod.key.folder}/thumbnail.jpg"
    foreign = BytesPayload(encode_jpeg(np.zeros((128, 128, 3), np.uint8)))
    store.replace(name, foreign, version=store.stat(name).version, write_id=new_write_id())
    with open_series(store) as cod:
        with pytest.raises(ThumbnailNotFoundError):
            cod.get_thumbnail(False)
        assert slopes(cod.get_thumbnail()) == [1]
    with open_series(store, "a") as cod:
        cod.get_thumbnail()
    with open_series(store) as cod:
        assert slopes(cod.get_thumbnail(False)) == [1], "the next writer puts it right"
    store.delete(name)
    with open_series(store) as cod, pytest.raises(ThumbnailNotFoundError):
        cod.get_thumbnail(False)


def change_all(store: ObjectStore, folder: Path) -> None:
    """Replace the one instance, whose picture is a JPEG, by two, in one commit together with their thumbnail."""
    with open_series(store, "a") as cod:
        cod.remove(uid(1))
        cod.append(write(folder, image(2, ramp(turned=True)), image(3, ramp(turned=True))))
        cod.get_thumbnail()


def series_with_thumbnail(folder: Path) -> MemoryStore:
    """Return a store that holds one instance and its thumbnail."""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    store_series(store, folder, image(1, ramp()))
    with open_series(store, "a") as cod:
        cod.get_thumbnail()
    return store


def operations_of_the_change(folder: Path) -> list[str]:
    """Return the verbs of :func:`change_all`, in order."""
    store = FaultyStore(series_with_thumbnail(folder))
    change_all(store, folder)
    return [operation.kind for operation in store.operations]


@pytest.mark.parametrize("kind", [StoreFaultKind.CRASH_BEFORE, StoreFaultKind.CRASH_AFTER])
def test_a_crash_at_any_request_leaves_old_or_new(folder: Path, kind: StoreFaultKind) -> None:
    """Wherever a writer dies that changes the thumbnail, readers get the right one, and the next writer stores it."""
    for skip in range(len(operations_of_the_change(folder))):
        inner = series_with_thumbnail(folder)
        with contextlib.suppress(SimulatedCrash):
            change_all(FaultyStore(inner, [StoreFault(kind, skip=skip)]), folder)
        with open_series(inner) as cod:
            expected = [1] if uid(1) in cod.get_instances() else [-1, -1]
            with contextlib.suppress(StaleReadError):  # between the tar and the document of a decided removal
                assert slopes(cod.get_thumbnail()) == expected
        with open_series(LaterStore(inner), "a") as cod:
            expected = [1] if uid(1) in cod.get_instances() else [-1, -1]
            cod.get_thumbnail()
        with open_series(inner) as cod:
            assert slopes(cod.get_thumbnail(False)) == expected
            assert cod.verify().ok
        thumbnails = {name for name in names_of(inner) if "thumbnail" in name}
        assert names_of(inner) - thumbnails == {".tar", "/metadata.json"}
        if expected == [-1, -1]:
            assert thumbnails == {"/thumbnail.mp4"}, "no picture of what was removed is left"


def test_a_series_without_pixel_data_has_none(memory: MemoryStore, folder: Path) -> None:
    """Where no instance has pixel data there is an error that says so, and it pickles."""
    store_series(memory, folder, report(1))
    with open_series(memory) as cod, pytest.raises(SeriesMissingPixelDataError, match="no instance") as caught:
        cod.get_thumbnail()
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.uri, again.reason) == (caught.value.uri, caught.value.reason)


def test_what_does_not_decode_is_left_out(memory: MemoryStore, folder: Path) -> None:
    """An instance that nothing can draw is named as left out, and the thumbnail counts as one of the series."""
    broken = image(1, ramp(), BitsStored=20)
    store_series(memory, folder, broken, image(2, ramp()), image(3, ramp(turned=True)))
    with open_series(memory, "a") as cod:
        assert slopes(cod.get_thumbnail()) == [1, -1]
        with pytest.raises(InstanceNotFoundError):
            cod.get_thumbnail(instance_uid=uid(1))
        with pytest.raises(InstanceNotFoundError):
            cod.get_instance_by_thumbnail_index(2)
    with open_series(memory) as cod:
        described = ThumbnailDocument.parse(cod.get_metadata_field("thumbnail"))
        assert list(described.left_out) == [uid(1)]
        assert slopes(cod.get_thumbnail(False)) == [1, -1]
    with open_series(memory, "w") as cod:
        cod.append(write(folder, broken))
        with pytest.raises(FrameDecodeError):
            cod.get_thumbnail()


def test_the_document_says_what_each_picture_shows(memory: MemoryStore, folder: Path) -> None:
    """The field has the keys of the format; positions of a frame map into its picture."""
    store_series(memory, folder, image(1, ramp(300, 484)), image(2, np.stack([ramp(64, 32)] * 3)))
    with open_series(memory, "a") as cod:
        cod.get_thumbnail()
    with open_series(memory) as cod:
        field = cod.get_metadata_field("thumbnail")
        uri = f"{cod.datastore_series_uri}/thumbnail.mp4"
    assert (field["version"], field["uri"]) == ("1.0", uri)
    assert field["thumbnail_index_to_instance_frame"] == [[uid(1), 0], [uid(2), 0], [uid(2), 1], [uid(2), 2]]
    frames = field["instances"][uid(2)]["frames"]
    assert [frame["thumbnail_index"] for frame in frames] == [1, 2, 3]
    converter = ThumbnailCoordConverter.from_anchors(frames[2]["anchors"])
    assert converter.to_thumbnail(64, 32) == (128, 96)
    described = ThumbnailDocument.parse(field)
    assert described.dump() == field
    assert described.converter(3) == converter
    assert pickle.loads(pickle.dumps(described)) == described


@pytest.mark.parametrize(
    "raw", [5, {}, {"uri": "x"}, {"uri": 1, "instances": [], "thumbnail_index_to_instance_frame": [[1, 2]]}]
)
def test_a_field_that_is_no_thumbnail_counts_as_none(memory: MemoryStore, folder: Path, raw: Any) -> None:
    """Whatever somebody wrote into the field, the thumbnail is made."""
    store_series(memory, folder, image(1, ramp()))
    with open_series(memory, "a") as cod:
        cod.add_metadata_field("thumbnail", raw)
    with open_series(memory) as cod:
        assert slopes(cod.get_thumbnail()) == [1]
        assert cod.get_instance_by_thumbnail_index(-1).instance_uid() == uid(1)


def test_the_golden_thumbnail_is_read(tmp_path: Path) -> None:
    """The published library's thumbnail decodes where it lies, its pictures map, and it goes when instances go."""
    shutil.copytree(GOLDEN, tmp_path / "store")
    datastore = Datastore(tmp_path / "store")
    (key,) = datastore.series()
    with datastore.open(key.study_uid, key.series_uid) as cod:
        pictures = cod.get_thumbnail(False)
        assert pictures.shape == (3, 128, 128, 3)
        described = ThumbnailDocument.parse(cod.get_metadata_field("thumbnail"))
        shown = [cod.get_instance_by_thumbnail_index(index).instance_uid() for index in range(3)]
        assert shown == [picture.instance_uid for picture in described.frames]
        assert shown == list(cod.get_instances())
        assert described.converter(0).to_original(128, 128) == (16, 16)
        ours = cod.get_thumbnail(True, None, 96)
        for mine, theirs in zip(ours, pictures, strict=True):
            small = theirs[::4, ::4].ravel()
            assert np.corrcoef(mine[::3, ::3].ravel(), small)[0, 1] > 0.9
    with datastore.open(key.study_uid, key.series_uid, "a") as cod:
        cod.remove(shown[0])
    assert not list((tmp_path / "store").rglob("thumbnail.*"))


def test_frames_come_by_range_and_nothing_else(folder: Path) -> None:
    """On a strict server a thumbnail is the document and exactly the frames' bytes, and a stored one two requests."""
    frames = kinds.make_frames(40, 64, 64)
    with GcsServer() as server:
        server.create_bucket("thumbs")

        def opened(mode: Any = "r") -> CODObject:
            return CODObject("gs://thumbs", server.client(), UIDS.study, UIDS.series, mode)

        with opened("w") as cod:
            cod.append(write(folder, image(1, frames)))
        with opened() as cod:
            server.reset_counters()
            assert cod.get_thumbnail().shape == (40, 128, 128, 3)
            assert sum(request.bytes_out for request in server.counters()) == frames.nbytes
            assert len(server.counters()) == 1
        with opened("a") as cod:
            cod.get_thumbnail()
        server.reset_counters()
        with opened() as cod:
            cod.get_thumbnail()
        assert len(server.counters()) == 2


def test_many_slices_are_few_requests(folder: Path) -> None:
    """Of a series of single frames, little besides the frames is fetched."""
    with GcsServer() as server:
        server.create_bucket("thumbs")
        client = server.client()
        with CODObject("gs://thumbs", client, UIDS.study, UIDS.series, "w") as cod:
            cod.append(write(folder, *(image(number, ramp(128, 128)) for number in range(1, 31))))
        with CODObject("gs://thumbs", client, UIDS.study, UIDS.series) as cod:
            server.reset_counters()
            cod.get_thumbnail()
            assert sum(request.bytes_out for request in server.counters()) <= 1.25 * 30 * 128 * 128 * 2
            assert len(server.counters()) <= 4


@pytest.mark.parametrize(("absent", "frames"), [("PIL", 1), ("av", 2)])
def test_without_the_extra_it_is_named(tmp_path: Path, folder: Path, absent: str, frames: int) -> None:
    """Without Pillow or PyAV the package works; a thumbnail says what to install."""
    store_series(str(tmp_path / "store"), folder, image(1, np.stack([ramp()] * frames)))
    script = f"""
import sys
sys.modules["{absent}"] = None
from cloud_optimized_dicom import CODObject
from cloud_optimized_dicom.errors import MissingDependencyError
with CODObject({str(tmp_path / "store")!r}, None, {UIDS.study!r}, {UIDS.series!r}) as cod:
    try:
        cod.get_thumbnail()
    except MissingDependencyError as error:
        print(error.extra)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "thumbnail\n"


def test_a_sheet_has_the_pictures_in_order() -> None:
    """A sheet shows pictures row by row; of too many, evenly chosen ones, the ends among them."""
    pictures = np.arange(100, dtype=np.uint8)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones((1, 4, 4, 3), np.uint8)
    sheet = contact_sheet(pictures[:5])
    assert sheet.shape == (8, 12, 3)
    assert sheet[::4, ::4, 0].tolist() == [[0, 1, 2], [3, 4, 0]]
    few = contact_sheet(pictures, most=9)[::4, ::4, 0].ravel()
    assert (few[0], few[-1], len(few)) == (0, 99, 9)
    assert contact_sheet(pictures[3]).shape == (4, 4, 3)
