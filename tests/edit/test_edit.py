"""Mode "e": files rewritten in place become the series, in every kind of store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    EditModeError,
    EditSetChangedError,
    ErrorLogExistsError,
    HashMismatchError,
    InstanceValidationError,
    LockAcquisitionError,
    StaleReadError,
)
from cloud_optimized_dicom.format.metadata.document import SeriesDocument
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from tests.core.conftest import read
from tests.core.test_verify import edit_metadata
from tests.edit.conftest import INSTANCES, contents, rewrite

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.core.conftest import Files, Open


def versions(store: ObjectStore) -> dict[str, str]:
    """Return the version of every object."""
    return {info.name: info.version for info in store.list()}


def record_of(opened: CODObject, uid: str) -> dict[str, Any]:
    """Return the JSON of a record."""
    with opened as cod:
        raw: dict[str, Any] = cod.get_metadata()["cod"]["instances"][uid]
        return raw


def names_of(store: ObjectStore) -> list[str]:
    """Return the last parts of all names."""
    return sorted(info.name.rpartition("/")[2] for info in store.list())


def test_a_rewritten_file_becomes_the_instance(stored: Open, files: Files) -> None:
    """What is written to `dicom_uri` is what is stored; all else stays, byte for byte and in its order."""
    uid = files.uids[2]
    before = contents(stored())
    with stored("e") as cod:
        assert cod.mode == "e"
        assert cod.lock
        new = rewrite(cod.get_instance(uid).dicom_uri, PatientName="Edited^Name", ImageComments="x" * 3000)
    assert contents(stored()) == before | {uid: new}
    assert list(contents(stored())) == list(before)
    with stored() as cod:
        assert cod.verify().ok
        assert cod.get_instance(uid).metadata["00100010"]["Value"] == [{"Alphabetic": "Edited^Name"}]
        assert cod.get_instance(files.uids[1]).metadata["00100010"] != cod.get_instance(uid).metadata["00100010"]
        assert cod.get_metadata_field("site") == "north"
        records = list(SeriesDocument(cod.metadata_uri, cod.get_metadata()).iter_records())
        assert [record.start for record in records] == sorted(record.start for record in records)


def test_the_record_is_that_of_the_new_file(stored: Open, files: Files, store: ObjectStore) -> None:
    """Checksum, size, header, frame table and time are new; where it came from, and what nobody knows, stays."""
    uid = files.uids[0]
    others = {"of another writer": [1], "dependencies": ["gs://in/1"]}
    edit_metadata(store, lambda document: document["cod"]["instances"][uid].update(others), stored().key)
    before = record_of(stored(), uid)
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    with stored("e") as cod:
        new = rewrite(cod.get_instance(uid).dicom_uri, PixelData=pixels.tobytes(), PatientID="another")
    after = record_of(stored(), uid)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"metadata", "headers", "offset_tables", "crc32c", "size", "modified_datetime"}
    assert (after["crc32c"], after["size"]) == (encode(crc32c(new)), len(new))
    assert after["of another writer"] == [1]
    assert after["dependencies"] == ["gs://in/1"]
    with stored() as cod:
        assert (cod.read_frame_array(uid, 0) == pixels).all()
        uri = cod.get_instance(uid).metadata["7FE00010"]["BulkDataURI"]
        assert cod.read_bulk_data(uri) == pixels.tobytes()


def test_an_edit_of_the_same_size(stored: Open, files: Files) -> None:
    """A file whose size stays is found by its checksum, whatever its times say."""
    uid = files.uids[1]
    with stored("e") as cod:
        path = Path(cod.get_instance(uid).dicom_uri)
        times = path.stat()
        path.write_bytes(path.read_bytes().replace(b"Phantom 64", b"Phantom 65"))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert contents(stored())[uid] == files.bytes(1).replace(b"Phantom 64", b"Phantom 65")


def test_every_file_edited(stored: Open, files: Files) -> None:
    """All instances rewritten, some by another file that is moved there, in one commit."""
    new = {}
    with stored("e") as cod:
        for number, (uid, instance) in enumerate(cod.get_instances().items()):
            path = Path(instance.dicom_uri)
            if number % 2:
                aside = shutil.copy(path, path.with_suffix(".tmp"))
                new[uid] = rewrite(aside, PatientName=f"Name^{number}")
                Path(aside).replace(path)
            else:
                new[uid] = rewrite(path, PatientName=f"Name^{number}")
    assert contents(stored()) == new
    with stored() as cod:
        assert cod.verify().ok
        assert len(cod.get_metadata()["cod"]["commits"]) == 2


def test_nothing_rewritten_writes_nothing(stored: Open, store: ObjectStore) -> None:
    """Files that were only read, copied over themselves or swapped change no object."""
    before = versions(store)
    with stored("e") as cod:
        paths = [Path(instance.dicom_uri) for instance in cod.get_instances().values()]
        paths[0].write_bytes(paths[0].read_bytes())
        first, second = paths[1].read_bytes(), paths[2].read_bytes()
        paths[1].write_bytes(second)
        paths[2].write_bytes(first)
    assert versions(store) == before


def test_files_that_changed_places(stored: Open, files: Files) -> None:
    """The UID in a file says which instance it is: of two that were swapped, one of them edited, that one changes."""
    before = contents(stored())
    with stored("e") as cod:
        first, second = (Path(cod.get_instance(uid).dicom_uri) for uid in files.uids[:2])
        aside = first.rename(first.with_suffix(".tmp"))
        second.rename(first)
        new = rewrite(aside.rename(second), PatientID="another")
    assert contents(stored()) == before | {files.uids[0]: new}
    with stored() as cod:
        assert cod.verify().ok
        uri = cod.get_instance(files.uids[0]).metadata["7FE00010"]["BulkDataURI"]
        assert cod.read_bulk_data(uri) == pydicom.dcmread(files.paths[0]).PixelData


@pytest.mark.parametrize(
    ("attribute", "field"),
    [("SOPInstanceUID", "added"), ("SeriesInstanceUID", "moved"), ("StudyInstanceUID", "moved")],
)
def test_another_uid_is_refused(stored: Open, files: Files, store: ObjectStore, attribute: str, field: str) -> None:
    """A file of another instance, series or study: an error that names it; nothing changes and the lock is free."""
    before = versions(store)
    with pytest.raises(EditSetChangedError) as caught, stored("e") as cod:
        rewrite(cod.get_instance(files.uids[3]).dicom_uri, PatientID="fine")
        rewrite(cod.get_instance(files.uids[1]).dicom_uri, **{attribute: "1.2.3.4"})
    error = caught.value
    assert error.uri == cod.datastore_series_uri
    found = {name: getattr(error, name) for name in ("added", "removed", "moved")}
    expected: dict[str, tuple[str, ...]] = {"added": (), "removed": (), "moved": ()}
    if field == "added":
        expected |= {"added": ("1.2.3.4",), "removed": (files.uids[1],)}
    else:
        expected["moved"] = (files.uids[1],)
    assert found == expected
    assert versions(store) == before


def test_one_file_over_another_is_refused(stored: Open, files: Files, store: ObjectStore) -> None:
    """Two files of one instance lack the other one."""
    before = versions(store)
    with pytest.raises(EditSetChangedError) as caught, stored("e") as cod:
        shutil.copy(cod.get_instance(files.uids[0]).dicom_uri, cod.get_instance(files.uids[1]).dicom_uri)
    assert (caught.value.added, caught.value.removed) == ((), (files.uids[1],))
    assert versions(store) == before


@pytest.mark.parametrize("damage", ["gone", "folder", "no DICOM", "cut off"])
def test_a_file_that_cannot_be_stored(stored: Open, files: Files, store: ObjectStore, damage: str) -> None:
    """A file that is gone or is no DICOM file any more is named; nothing changes and the lock is free."""
    before = versions(store)
    with pytest.raises(InstanceValidationError) as caught, stored("e") as cod:
        path = Path(cod.get_instance(files.uids[4]).dicom_uri)
        data = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage != "gone":
            path.write_bytes(b"not DICOM" * 100 if damage == "no DICOM" else data[:200])
    assert caught.value.uri == str(path)
    assert versions(store) == before


def test_an_exception_in_the_block(stored: Open, files: Files, store: ObjectStore) -> None:
    """After an exception the series is as it was, the lock is free, and the files are gone."""
    before = versions(store)
    with pytest.raises(KeyError), stored("e") as cod:
        path = Path(cod.get_instance(files.uids[0]).dicom_uri)
        rewrite(path, PatientID="x")
        raise KeyError
    assert versions(store) == before
    assert not path.exists()


def test_sync_off(stored: Open, files: Files, store: ObjectStore) -> None:
    """Without sync_on_exit there are files, but no lock and no upload."""
    before = versions(store)
    with stored("e", sync_on_exit=False) as cod:
        assert not cod.lock
        assert versions(store) == before
        rewrite(cod.get_instance(files.uids[0]).dicom_uri, PatientID="x")
    assert versions(store) == before


@pytest.mark.parametrize("create", [True, False])
def test_a_missing_series(datastore_url: str, gcs_client: Any, store: ObjectStore, *, create: bool) -> None:
    """There is nothing to edit in a series that does not exist, whatever `create_if_missing` says."""
    missing = CODObject(datastore_url, gcs_client, "1.2", "1.2.3", "e", create_if_missing=create)
    with pytest.raises(CODObjectNotFoundError), missing:
        pass
    assert names_of(store) == []


def test_an_empty_series(stored: Open, store: ObjectStore) -> None:
    """A series without instances has nothing to edit but its fields."""
    with stored("w"):
        pass
    before = names_of(store)
    with stored("e") as cod:
        assert cod.get_instances() == {}
        cod.add_metadata_field("site", "south")
    with stored() as cod:
        assert cod.get_metadata_field("site") == "south"
    assert names_of(store) == before


def test_which_instances_there_are_is_not_for_this_mode(stored: Open, files: Files, tmp_path: Path) -> None:
    """Adding and removing raise, naming themselves and the modes that do it; the block goes on."""
    with stored("e") as cod:
        for name, act in (
            ("append", lambda: cod.append([Instance(files.paths[0])])),
            ("remove", lambda: cod.remove(files.uids[0])),
            ("truncate", lambda: cod.truncate([])),
        ):
            with pytest.raises(EditModeError, match=f"{name} needs mode 'a' or 'w'") as caught:
                act()
            assert (caught.value.operation, caught.value.mode) == (name, "e")
        new = rewrite(cod.get_instance(files.uids[0]).dicom_uri, PatientID="x")
    assert contents(stored())[files.uids[0]] == new


def test_fields_are_committed_with_the_files(stored: Open, files: Files) -> None:
    """One commit holds both, and one of them alone as well."""
    with stored("e") as cod:
        new = rewrite(cod.get_instance(files.uids[0]).dicom_uri, PatientID="x")
        cod.add_metadata_field("edited", {"by": "me"})
        cod.remove_metadata_field("site")
    with stored("e") as cod:
        cod.add_metadata_field("seen", 1)
    with stored() as cod:
        assert cod.get_metadata_field("edited") == {"by": "me"}
        assert cod.get_metadata_field("site") is None
        assert cod.get_metadata_field("seen") == 1
        assert read(cod, files.uids[0]) == new
        assert len(cod.get_metadata()["cod"]["commits"]) == 3


def test_what_is_read_in_the_block(stored: Open, files: Files) -> None:
    """An instance opens as its file is now; its local file lies in the scratch directory and goes with the block."""
    uid = files.uids[0]
    with stored("e") as cod:
        instance = cod.get_instance(uid)
        path = Path(instance.dicom_uri)
        assert path.read_bytes() == files.bytes(0)
        assert instance.fetch() == path
        new = rewrite(path, PatientID="x")
        for opened in (instance.open(), cod.open_instance(uid), cod.open_instance(0), cod.open_instance(instance)):
            with opened as stream:
                assert stream.read() == new
        assert cod.get_instance(uid).dicom_uri == str(path)
        assert cod.extract_locally()[uid].read_bytes() == files.bytes(0), "what is stored, until the block ends"
        assert path.read_bytes() == new
    assert not path.exists()
    assert contents(stored())[uid] == new


def test_readers_beside_an_edit(stored: Open, files: Files) -> None:
    """A reader from before reads on what was not edited, and is told of what was; during the edit nothing changes."""
    with stored() as reader:
        kept, gone = reader.open_instance(files.uids[4]), reader.open_instance(files.uids[0])
        halves = kept.read(1000), gone.read(1000)
        with stored("e") as cod:
            rewrite(cod.get_instance(files.uids[0]).dicom_uri, ImageComments="y" * 2000)
            assert contents(stored())[files.uids[0]] == files.bytes(0)
            with pytest.raises(LockAcquisitionError), stored("a"):
                pass
        assert halves[0] + kept.read() == files.bytes(4)
        with pytest.raises(StaleReadError), reader.open_instance(files.uids[0]) as again:
            again.read()
        kept.close()
        gone.close()


def test_what_was_given_is_a_conflict_afterwards(stored: Open, files: Files, tmp_path: Path) -> None:
    """The original is not "same" any more and does not come back by itself; the edited file is."""
    uid = files.uids[0]
    with stored("e") as cod:
        new = rewrite(cod.get_instance(uid).dicom_uri, PatientID="x")
    edited = tmp_path / "edited.dcm"
    edited.write_bytes(new)
    with stored("a") as cod:
        result = cod.append([*files.instances(0, 1), Instance(edited)])
        outcomes = [len(result.new), len(result.same), len(result.conflict)]
    assert outcomes == [0, 2, 1]
    assert contents(stored())[uid] == new


def test_damaged_bytes_are_not_edited(stored: Open, files: Files, store: ObjectStore) -> None:
    """Stored bytes that are not those on record are an error on entering; the lock is free afterwards."""
    with stored() as cod:
        key = cod.key
        tar = store.read_object(key.tar)
        start = SeriesReader.open(store, key).document.get(files.uids[1]).start
    damaged = bytearray(tar.data)
    damaged[start + 300] ^= 1
    info = store.replace(key.tar, BytesPayload(bytes(damaged)), version=tar.info.version, write_id=new_write_id())
    found = store.read_object(key.metadata)
    document = SeriesReader.open(store, key).document
    assert document.tar is not None
    state = type(document.tar)(info.version, len(damaged), crc32c(bytes(damaged)))
    payload = BytesPayload(document.with_tar(state).dump())
    store.replace(key.metadata, payload, version=found.info.version, write_id=new_write_id())
    before = names_of(store)
    with pytest.raises(HashMismatchError) as caught, stored("e"):
        pass
    assert caught.value.instance_uid == files.uids[1]
    assert names_of(store) == before


def test_a_quarantined_series(stored: Open, files: Files) -> None:
    """An error.log stops an edit until it is overridden."""
    stored("a").upload_error_log("odd")
    with pytest.raises(ErrorLogExistsError), stored("e"):
        pass
    with stored("e", override_errors=True) as cod:
        new = rewrite(cod.get_instance(files.uids[0]).dicom_uri, PatientID="x")
    assert contents(stored())[files.uids[0]] == new


def test_a_sealed_series_is_edited(stored: Open, files: Files) -> None:
    """End-of-archive blocks go with the first edit, as with any rewrite, unless the block seals."""
    with stored("a") as cod:
        cod.seal()
    with stored("e") as cod:
        new = rewrite(cod.get_instance(files.uids[0]).dicom_uri, PatientID="x")
        cod.seal()
    assert contents(stored())[files.uids[0]] == new
    with stored() as cod:
        assert cod.verify().ok
        assert len(contents(stored())) == INSTANCES
