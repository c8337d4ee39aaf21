"""What an edit does to the thumbnail of its series, in every kind of store."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloud_optimized_dicom import CODObject
from cloud_optimized_dicom.storage.memory import MemoryStore
from tests.core.test_golden_stores import GOLDEN, MANIFEST
from tests.edit.conftest import rewrite
from tests.thumbnail.scenes import UIDS, image, names_of, open_series, ramp, report, store_series, uid

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore


@pytest.fixture
def memory() -> MemoryStore:
    """Return an empty store in memory."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for files."""
    made = tmp_path / "files"
    made.mkdir()
    return made


def slopes(pictures: np.ndarray[Any, Any]) -> list[int]:
    """Return 1 or -1 for each picture that grows brighter, or darker, from left to right."""
    series = pictures[np.newaxis] if pictures.ndim == 3 else pictures
    return [int(np.sign(float(p[:, -20:].mean()) - float(p[:, :20].mean()))) for p in series]


def drawn(store: ObjectStore, folder: Path, size: int = 64) -> str:
    """Store two images, a report and their thumbnail; return the name of its object."""
    store_series(store, folder, image(1, ramp()), image(2, ramp()), report(3))
    with open_series(store, "a") as cod:
        cod.get_thumbnail(thumbnail_size=size)
        return f"{cod.key.folder}/thumbnail.mp4"


def test_other_pixels_are_drawn_anew(store: ObjectStore, folder: Path) -> None:
    """The thumbnail of an edited series shows the new pixels, in the size that it had."""
    name = drawn(store, folder)
    before = store.stat(name).version
    with open_series(store, "e") as cod:
        rewrite(cod.get_instance(uid(2)).dicom_uri, PixelData=ramp(turned=True).tobytes())
    assert store.stat(name).version != before
    with open_series(store) as cod:
        found = cod.get_thumbnail(generate_if_missing=False)
        assert found.shape == (2, 64, 64, 3)
        assert slopes(found) == [1, -1]
        assert cod.verify().ok


def test_the_same_pixels_keep_the_thumbnail(store: ObjectStore, folder: Path) -> None:
    """An edit of what is not drawn leaves the object as it is, and the document says that it shows the new files."""
    name = drawn(store, folder)
    before = store.stat(name).version
    with open_series(store, "e") as cod:
        for number in (1, 2, 3):
            rewrite(cod.get_instance(uid(number)).dicom_uri, PatientName="Another^Name")
    assert store.stat(name).version == before
    with open_series(store) as cod:
        assert slopes(cod.get_thumbnail(generate_if_missing=False)) == [1, 1]


def test_another_window_is_drawn_anew(memory: MemoryStore, folder: Path) -> None:
    """What frames are drawn by counts as much as the frames."""
    name = drawn(memory, folder)
    before = memory.stat(name).version
    with open_series(memory, "e") as cod:
        rewrite(cod.get_instance(uid(1)).dicom_uri, PhotometricInterpretation="MONOCHROME1")
    assert memory.stat(name).version != before
    with open_series(memory) as cod:
        assert slopes(cod.get_thumbnail(generate_if_missing=False)) == [-1, 1]


def test_one_that_is_asked_for_in_the_block(memory: MemoryStore, folder: Path) -> None:
    """A thumbnail made in the block shows what is stored; what is committed shows what was edited."""
    store_series(memory, folder, image(1, ramp()), image(2, ramp()))
    with open_series(memory, "e") as cod:
        assert slopes(cod.get_thumbnail(thumbnail_size=32)) == [1, 1]
        rewrite(cod.get_instance(uid(1)).dicom_uri, PixelData=ramp(turned=True).tobytes())
    with open_series(memory) as cod:
        assert slopes(cod.get_thumbnail(False)) == [-1, 1]
    with open_series(memory, "e") as cod:
        assert cod.get_thumbnail(thumbnail_size=48).shape == (2, 48, 48, 3)
        rewrite(cod.get_instance(uid(1)).dicom_uri, PatientID="x")
    with open_series(memory) as cod:
        assert cod.get_thumbnail(False).shape == (2, 48, 48, 3)
        assert slopes(cod.get_thumbnail(False)) == [-1, 1]


def test_what_cannot_be_drawn_is_dropped(store: ObjectStore, folder: Path) -> None:
    """Where no pixels are left to draw, no picture of the old ones stays."""
    drawn(store, folder)
    with open_series(store, "e") as cod:
        for number in (1, 2):
            path = cod.get_instance(uid(number)).dicom_uri
            shutil.copy(folder / "2-2.dcm", path)
            rewrite(path, SOPInstanceUID=uid(number))
    assert names_of(store) == {".tar", "/metadata.json"}
    with open_series(store) as cod:
        assert cod.get_metadata_field("thumbnail") is None


def test_a_series_without_a_thumbnail_gets_none(memory: MemoryStore, folder: Path) -> None:
    """Nobody asked for one."""
    store_series(memory, folder, image(1, ramp()))
    with open_series(memory, "e") as cod:
        rewrite(cod.get_instance(uid(1)).dicom_uri, PixelData=ramp(turned=True).tobytes())
    assert names_of(memory) == {".tar", "/metadata.json"}


def test_without_the_extra_it_is_dropped(tmp_path: Path, folder: Path) -> None:
    """Where nothing can draw, an edit of pixels still works, and the old picture goes."""
    script = """
import sys
sys.modules["PIL"] = sys.modules["av"] = None  # as if they were not installed
from pathlib import Path
from cloud_optimized_dicom import CODObject
with CODObject(sys.argv[1], None, sys.argv[2], sys.argv[3], "e") as cod:
    path = Path(cod.get_instance(sys.argv[4]).dicom_uri)
    path.write_bytes(path.read_bytes()[:-2] + b"\\1\\1")
"""
    place = tmp_path / "store"
    place.mkdir()
    with open_series(place, "w") as cod:
        store = cod.store
    drawn(store, folder)
    command = [sys.executable, "-c", script, str(place), UIDS.study, UIDS.series, uid(2)]
    subprocess.run(command, check=True)
    assert names_of(store) == {".tar", "/metadata.json"}


def test_the_thumbnail_of_an_older_writer(tmp_path: Path) -> None:
    """It cannot say which pixels it shows: after any edit it is drawn anew."""
    entry = next(entry for entry in MANIFEST["series"] if entry["store"] == "v2-thumbnail")
    place = Path(shutil.copytree(GOLDEN / "v2-thumbnail", tmp_path / "store"))
    with CODObject(place, None, entry["study_uid"], entry["series_uid"], "e") as cod:
        old = {info.version for info in cod.store.list() if info.name.endswith(".mp4")}
        first = next(iter(cod.get_instances(strict_sorting=False)))
        rewrite(cod.get_instance(first).dicom_uri, PatientID="x")
    with CODObject(place, None, entry["study_uid"], entry["series_uid"]) as cod:
        (new,) = (info.version for info in cod.store.list() if info.name.endswith(".mp4"))
        assert old
        assert new not in old
        assert cod.get_thumbnail(False).shape[-3:] == (128, 128, 3)
