"""Whatever is read while a series changes is of one state of it, wherever between two requests the change falls."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.errors import InstanceNotFoundError, StaleReadError
from cloud_optimized_dicom.storage.memory import MemoryStore
from tests.read.scenes import (
    APPENDS,
    FACES_OF_SLICES,
    FACES_OF_SLIDES,
    STORED,
    TOUCHES_IT,
    WRITES,
    DisturbedStore,
    Files,
    age,
    copy_of,
    slices_of,
    slides_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore


_FAST = {("append", "ours"), ("replace", "ours"), ("half a remove", "ours"), ("remove another", "older")}
SCENES_OF_SLIDES = [
    pytest.param(write, writer, marks=() if (write, writer) in _FAST else pytest.mark.slow)
    for write in WRITES
    for writer in ("ours", "older")
]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return CT slices."""
    return slices_of(tmp_path_factory.mktemp("beside") / "slices")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return slides."""
    return slides_of(tmp_path_factory.mktemp("beside") / "slides")


def prepared(files: Files, writer: str) -> MemoryStore:
    """Return a store with the series, as we or an older writer would have it."""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    files.store(store, files.paths[:STORED])
    if writer == "older":
        age(store, files.key)
    return store


def outcome(face: Callable[[ObjectStore, Files], Any], store: ObjectStore, files: Files) -> Any:
    """Return what is read, or the type of the error that a reader must expect."""
    try:
        return face(store, files)
    except (StaleReadError, InstanceNotFoundError, FileNotFoundError) as error:
        return type(error)


def check_every_moment(files: Files, face: Callable[[ObjectStore, Files], Any], write: str, writer: str) -> None:
    """Let the write fall before each operation of the reader in turn."""
    before = prepared(files, writer)
    after = copy_of(before)
    WRITES[write](after, files)
    counted = DisturbedStore(copy_of(before), -1, lambda: None)
    old, new = face(counted, files), outcome(face, copy_of(after), files)
    # The first append of ours to an older writer's tar writes it anew, without its end blocks.
    rewrites = writer == "older" and face is FACES_OF_SLICES["tar"]
    for at in range(len(counted.operations)):
        store = copy_of(before)
        disturbed = DisturbedStore(store, at, lambda store=store: WRITES[write](store, files))  # type: ignore[misc]
        found = outcome(face, disturbed, files)
        if isinstance(found, type):
            assert write not in APPENDS or rewrites, f"{found.__name__} at {at}: an append disturbs nobody"
            assert old != new or write in TOUCHES_IT, f"{found.__name__} at {at}, though what is read is as before"
        else:
            assert found in (old, new), f"at {at} of {counted.operations}"


@pytest.mark.parametrize("writer", ["ours", "older"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("face", FACES_OF_SLICES)
def test_slices_that_change_while_they_are_read(face: str, write: str, writer: str, slices: Files) -> None:
    """A whole series, or a slice of it, is read as it was or as it is, or a clear error says that it has gone."""
    check_every_moment(slices, FACES_OF_SLICES[face], write, writer)


@pytest.mark.parametrize(("write", "writer"), SCENES_OF_SLIDES)
@pytest.mark.parametrize("face", FACES_OF_SLIDES)
def test_slides_that_change_while_they_are_read(face: str, write: str, writer: str, slides: Files) -> None:
    """Parts of a slide are all of the same slide, wherever it has moved to, or a clear error says that it has gone."""
    check_every_moment(slides, FACES_OF_SLIDES[face], write, writer)


def test_the_tar_of_a_copied_store(slices: Files, tmp_path: Any) -> None:
    """The tar of a datastore that was copied, whose versions are not those on record, can be pulled."""
    source = prepared(slices, "ours")
    for info in source.list():
        path = tmp_path / "copy" / info.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_object(info.name).data)
    with Datastore(tmp_path / "copy").open(slices.key.study_uid, slices.key.series_uid) as cod:
        assert cod.pull_tar().read_bytes() == b"".join(source.iter_chunks(slices.key.tar))
