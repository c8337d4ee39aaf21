"""Modes, commits and what an exception leaves, in every kind of store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    ErrorLogExistsError,
    InstanceNotFoundError,
    InvalidUidError,
    LockAcquisitionError,
    LockVerificationError,
    StaleReadError,
    WriteOperationInReadModeError,
)
from tests.core.conftest import read

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.core.conftest import Files, Open


def content(opened: CODObject) -> dict[str, bytes]:
    """Return every instance's bytes by UID."""
    with opened as cod:
        return {uid: read(cod, uid) for uid in cod.get_instances()}


def names(store: ObjectStore) -> list[str]:
    """Return the last parts of all object names."""
    return [info.name.rpartition("/")[2] for info in store.list()]


def test_w_then_a_then_r(open_cod: Open, files: Files) -> None:
    """A series is made, added to, and read back byte for byte."""
    with open_cod("w") as cod:
        cod.append(files.instances(0, 1))
    with open_cod("a") as cod:
        cod.append(files.instances(2, 3, 4))
    assert content(open_cod()) == {uid: files.bytes(index) for index, uid in enumerate(files.uids)}


def test_w_replaces_what_is_there(stored: Open, files: Files) -> None:
    """Mode w starts empty: instances and custom fields of before are gone after its commit."""
    with stored("a") as cod:
        cod.add_metadata_field("site", "north")
    with stored("w") as cod:
        assert cod.get_instances() == {}
        cod.append(files.instances(4))
    assert content(stored()) == {files.uids[4]: files.bytes(4)}
    with stored() as cod:
        assert cod.get_metadata_field("site") is None
        assert cod.verify().ok


def test_nothing_staged_writes_nothing(stored: Open, store: ObjectStore) -> None:
    """Opening for append and leaving changes no object."""
    before = [(info.name, info.version) for info in store.list()]
    with stored("a"):
        pass
    assert [(info.name, info.version) for info in store.list()] == before


def test_an_exception_in_the_block_drops_what_was_staged(stored: Open, files: Files, store: ObjectStore) -> None:
    """After an exception the series is as it was, and no lock and no segment stays."""
    before = content(stored())
    with pytest.raises(RuntimeError, match="mine"), stored("a") as cod:
        cod.append(files.instances(3))
        cod.remove(files.uids[0])
        raise RuntimeError("mine")
    assert content(stored()) == before
    assert set(names(store)) == {"metadata.json", names(store)[0]}


def test_only_two_objects_stay(stored: Open, store: ObjectStore, files: Files) -> None:
    """A committed series is its tar and its metadata.json and nothing else."""
    assert sorted(names(store)) == sorted([f"{files.series.uids.series}.tar", "metadata.json"])


def test_r_refuses_every_write(stored: Open, files: Files) -> None:
    """Each writing operation of a reader raises, naming itself."""
    with stored() as cod:
        writes: list[tuple[str, Any]] = [
            ("append", lambda: cod.append(files.instances(3))),
            ("remove", lambda: cod.remove(files.uids[0])),
            ("truncate", lambda: cod.truncate(files.uids[0])),
            ("add_metadata_field", lambda: cod.add_metadata_field("a", 1)),
            ("remove_metadata_field", lambda: cod.remove_metadata_field("a")),
            ("upload_error_log", lambda: cod.upload_error_log("no")),
        ]
        for name, write in writes:
            with pytest.raises(WriteOperationInReadModeError, match=name):
                write()


def test_a_reader_takes_no_lock_and_minds_none(stored: Open, files: Files) -> None:
    """While a writer holds the lock, readers read; a second writer is told who holds it."""
    with stored("a") as cod:
        assert cod.lock
        cod.append(files.instances(3))
        assert len(content(stored())) == 3
        with pytest.raises(LockAcquisitionError) as caught, stored("a"):
            pass
        assert caught.value.owner
        assert 0 <= caught.value.age_seconds < 120
        assert caught.value.expires is not None
    assert not cod.lock
    assert len(content(stored())) == 4


def test_sync_off_uploads_nothing(stored: Open, files: Files, store: ObjectStore) -> None:
    """Without sync_on_exit there is no lock and no upload, but what would be stored can be looked at."""
    before = [(info.name, info.version) for info in store.list()]
    with stored("a", sync_on_exit=False) as cod:
        assert len(cod.append(files.instances(3)).new) == 1
        assert not cod.lock
        assert len(cod.get_instances()) == 4
        assert read(cod, files.uids[3]) == files.bytes(3)
    assert [(info.name, info.version) for info in store.list()] == before


def test_what_is_staged_is_seen_in_the_block(stored: Open, files: Files) -> None:
    """In the block the series looks as it will be committed."""
    with stored("a") as cod:
        cod.append(files.instances(3))
        cod.remove(files.uids[0])
        cod.add_metadata_field("site", {"n": [1]})
        assert list(cod.get_instances()) == files.uids[1:4]
        assert read(cod, files.uids[3]) == files.bytes(3)
        assert read(cod, files.uids[1]) == files.bytes(1)
        assert cod.get_metadata_field("site") == {"n": [1]}
    assert list(content(stored())) == files.uids[1:4]


@pytest.mark.parametrize("mode", ["r", "a", "w"])
def test_a_missing_series(mode: str, open_cod: Open) -> None:
    """A reader says that it is missing; a writer does where it may not make it."""
    with pytest.raises(CODObjectNotFoundError), open_cod(mode, create_if_missing=False):
        pass


@pytest.mark.parametrize("mode", ["x", "E", "", "rw"])
def test_other_modes_are_refused(mode: str, open_cod: Open) -> None:
    """An unknown mode is a ValueError."""
    with pytest.raises(ValueError, match="mode"):
        open_cod(mode)


@pytest.mark.parametrize("uid", ["", "1" * 65, "1.2/3", "..", "../1", "1.2a", "1 2", "1.2\n", "1.2\\3"])
def test_uids_that_must_not_reach_a_path(uid: str, datastore_url: str, gcs_client: Any) -> None:
    """A UID that is not 1 to 64 digits and dots is refused at once, without being repeated."""
    with pytest.raises(InvalidUidError) as caught:
        CODObject(datastore_url, gcs_client, "1.2", uid, "r")
    assert not uid or uid not in str(caught.value)
    with pytest.raises(ValueError, match="study"):
        CODObject(datastore_url, gcs_client, uid, "1.2", "r")


def test_writing_needs_a_with_block(stored: Open, files: Files) -> None:
    """Outside a with block nothing would release the lock, so nothing is taken."""
    with pytest.raises(LockVerificationError, match="with"):
        stored("a").append(files.instances(3))


def test_quarantine(stored: Open, files: Files) -> None:
    """An error.log stops writers until it is overridden; readers read on."""
    stored("a").upload_error_log("looked odd")
    with pytest.raises(ErrorLogExistsError), stored("a"):
        pass
    assert len(content(stored())) == 3
    with stored("a", override_errors=True) as cod:
        cod.append(files.instances(3))
    assert len(content(stored())) == 4
    with stored() as cod:
        assert [finding.kind for finding in cod.verify().findings] == ["error-log"]


def test_metadata_fields(stored: Open) -> None:
    """Custom fields are set, kept, replaced, removed; the format's own keys are refused."""
    with stored("a") as cod:
        cod.add_metadata_field("a", [1, {"b": None}])
        cod.add_metadata_field("c", "x")
    with stored("a") as cod:
        assert cod.get_metadata_field("a") == [1, {"b": None}]
        cod.get_metadata()["cod"]["instances"].clear()  # a copy: nothing happens to the series
        for value in (float("nan"), b"bytes", {1, 2}):
            with pytest.raises(ValueError, match="no JSON value"):
                cod.add_metadata_field("x", value)
        with pytest.raises(ValueError, match="exists"):
            cod.add_metadata_field("a", 2, overwrite_existing=False)
        cod.add_metadata_field("a", 2)
        cod.remove_metadata_field("c")
        cod.remove_metadata_field("never there")
        for own in ("cod", "study_uid", "deid_series_uid"):
            with pytest.raises(ValueError, match="belongs"):
                cod.add_metadata_field(own, 1)
    with stored() as cod:
        assert cod.get_metadata_field("a") == 2
        assert cod.get_metadata_field("c") is None
        assert cod.get_metadata_field("cod") is None
        assert len(cod.get_instances()) == 3
        assert len(cod.get_metadata()["cod"]["commits"]) == 3


def test_remove_and_truncate(stored: Open, files: Files) -> None:
    """Removed instances are gone from tar and metadata; an unknown UID removes nothing."""
    with stored("a") as cod:
        cod.append(files.instances(3, 4))
    with pytest.raises(InstanceNotFoundError), stored("a") as cod:
        cod.remove([files.uids[0], "1.2.3"])
    with stored("a") as cod:
        cod.remove([cod.get_instance(files.uids[1])])
    assert list(content(stored())) == [files.uids[index] for index in (0, 2, 3, 4)]
    with stored("a") as cod, pytest.raises(InstanceNotFoundError):
        cod.truncate(["9.9"])
    with stored("a") as cod:
        cod.truncate([files.uids[4], files.uids[0]])
    assert content(stored()) == {files.uids[0]: files.bytes(0), files.uids[4]: files.bytes(4)}
    with stored("a") as cod:
        cod.remove(files.uids[0])
        cod.remove(files.uids[4])
    with stored() as cod:
        assert cod.get_instances() == {}
        assert [finding.kind for finding in cod.verify().findings] == ["no-instances"]
        assert cod.get_metadata()["cod"]["tar"]["size"] == 0
    with stored("a") as cod:
        cod.append(files.instances(1))
    assert content(stored()) == {files.uids[1]: files.bytes(1)}


def test_an_instance_removed_and_added_again_in_one_block(stored: Open, files: Files) -> None:
    """Removing and re-adding leaves the new file in the place of the old."""
    with stored("a") as cod:
        cod.remove(files.uids[0])
        assert len(cod.append(files.instances(0)).new) == 1
    assert len(content(stored())) == 3
    with stored() as cod:
        assert cod.verify().ok


def test_series_by_uri(stored: Open, files: Files, gcs_client: Any) -> None:
    """The URIs of tar, folder, metadata and instance all name the series."""
    with stored() as cod:
        uris = [cod.tar_uri, cod.datastore_series_uri, cod.datastore_series_uri + "/", cod.metadata_uri]
        uris.append(cod.get_instance(files.uids[0]).dicom_uri)
        assert str(cod) == f"CODObject({cod.datastore_series_uri})"
        assert cod.error_log_uri == cod.datastore_series_uri + "/error.log"
        assert cod.index_uri == cod.datastore_series_uri + "/index.sqlite"
    for uri in uris:
        with CODObject.from_uri(uri, gcs_client) as again:
            assert len(again.get_instances()) == 3
    with pytest.raises(ValueError, match="names no series"):
        CODObject.from_uri("gs://bucket/elsewhere")


def test_local_copies(stored: Open, files: Files) -> None:
    """The tar and its instances can be had as local files, checked, for as long as the block lasts."""
    with stored() as cod:
        tar = cod.pull_tar()
        assert tar.stat().st_size == cod.get_metadata()["cod"]["tar"]["size"]
        extracted = cod.extract_locally()
        assert {uid: path.read_bytes() for uid, path in extracted.items()} == {
            uid: files.bytes(index) for index, uid in enumerate(files.uids[:3])
        }
        fetched = cod.get_instance(files.uids[2])
        path = fetched.fetch()
        assert path.read_bytes() == files.bytes(2)
        assert fetched.dicom_uri == str(path)
    assert not tar.exists()
    assert not any(path.exists() for path in extracted.values())


def test_a_tar_that_was_replaced_is_not_pulled(stored: Open, files: Files) -> None:
    """A tar that another writer has replaced since the series was opened is not taken for the one that was opened."""
    with stored() as cod:
        with stored("a") as writer:
            writer.remove(files.uids[0])
        with pytest.raises(StaleReadError, match="replaced"):
            cod.pull_tar()


def test_instances_by_place_and_object(stored: Open, files: Files) -> None:
    """An instance opens by UID, by place in reading order, and by itself."""
    with stored() as cod:
        for key in (files.uids[1], 1, cod.get_instance(files.uids[1]), Instance(files.paths[1])):
            assert read(cod, key) == files.bytes(1)
        with pytest.raises(InstanceNotFoundError):
            cod.get_instance_by_index(3)
        with pytest.raises(InstanceNotFoundError):
            cod.get_instance("1.2.3")
        assert cod.assert_instance_belongs_to_cod_object(cod.get_instance(files.uids[0]))
