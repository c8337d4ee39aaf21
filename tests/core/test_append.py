"""New, same, conflict, error: deduplication by UID and CRC32C, hints, limits."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Hints, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import HintMismatchError, InstanceValidationError, SeriesMismatchError
from cloud_optimized_dicom.events import FileDone, SeriesCommitted
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from tests.core.conftest import read

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.core.conftest import Files, Open


def changed(path: Path, target: Path, **values: Any) -> Path:
    """Write a copy of a file with other header values."""
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


def test_the_same_file_again_is_same(stored: Open, files: Files, tmp_path: Path) -> None:
    """A stored file is recognised wherever it now lies, and nothing is written for it."""
    copy = shutil.copy(files.paths[1], tmp_path / "elsewhere.dcm")
    with stored("a") as cod:
        result = cod.append([*files.instances(0), Instance(copy)])
    assert [len(part) for part in result] == [0, 2, 0, 0]


def test_other_bytes_under_a_stored_uid_conflict(stored: Open, files: Files, tmp_path: Path) -> None:
    """A differing file is a conflict; the stored one stays."""
    other = changed(files.paths[0], tmp_path / "other.dcm", PatientID="other")
    with stored("a") as cod:
        result = cod.append([Instance(other)])
    assert [len(part) for part in result] == [0, 0, 1, 0]
    with stored() as cod:
        assert read(cod, files.uids[0]) == files.bytes(0)


def test_header_differences_may_count_as_same(stored: Open, files: Files, tmp_path: Path) -> None:
    """Equal pixel data can be enough to be the same; different pixel data never is."""
    header = changed(files.paths[0], tmp_path / "header.dcm", PatientID="other")
    pixels = changed(files.paths[1], tmp_path / "pixels.dcm", PixelData=bytes(16 * 16 * 2))
    with stored("a") as cod:
        result = cod.append([Instance(header), Instance(pixels)], treat_metadata_diffs_as_same=True)
    assert [len(part) for part in result] == [0, 1, 1, 0]


def test_a_remote_duplicate_is_remembered(stored: Open, files: Files, tmp_path: Path) -> None:
    """Where a conflicting file lies is written down, once, if it lies in a remote store."""
    inbox = MemoryStore("memory://inbox-of-duplicates")
    other = changed(files.paths[0], tmp_path / "other.dcm", PatientID="other").read_bytes()
    if inbox.find("other.dcm") is None:
        inbox.create("other.dcm", BytesPayload(other), write_id=new_write_id())
    for _ in range(2):
        with stored("a") as cod:
            assert len(cod.append([Instance("memory://inbox-of-duplicates/other.dcm")]).conflict) == 1
    with stored() as cod:
        record = cod.get_instance(files.uids[0]).record
        assert record is not None
        assert record.diff_hash_dupe_paths == ("memory://inbox-of-duplicates/other.dcm",)
        assert cod.verify().ok


def test_within_one_call_the_first_wins(open_cod: Open, files: Files, tmp_path: Path) -> None:
    """Two files of one UID in a batch: equal ones are stored once, of differing ones the first is."""
    copy = shutil.copy(files.paths[0], tmp_path / "copy.dcm")
    other = changed(files.paths[0], tmp_path / "other.dcm", PatientID="other")
    with open_cod("w") as cod:
        result = cod.append([*files.instances(0), Instance(copy), Instance(other)])
        assert [len(part) for part in result] == [1, 1, 1, 0]
    with open_cod() as cod:
        assert read(cod, files.uids[0]) == files.bytes(0)


def test_one_uri_twice_is_one_instance_without_hints(open_cod: Open, files: Files) -> None:
    """The same URI twice is one instance, and hints that were given for it are believed no more."""
    wrong = Instance(files.paths[0], hints=Hints(size=1))
    with open_cod("w") as cod:
        result = cod.append([wrong, Instance(files.paths[0])])
    assert [len(part) for part in result] == [1, 0, 0, 0]


def test_hints_of_a_stored_file_cost_no_read(stored: Open, files: Files) -> None:
    """A hinted UID and CRC32C that are stored mean same, without the file even existing."""
    hints = Hints(instance_uid=files.uids[0], crc32c=encode(crc32c(files.bytes(0))), size=len(files.bytes(0)))
    with stored("a") as cod:
        result = cod.append([Instance("/nowhere/at/all.dcm", hints=hints)])
    assert [len(part) for part in result] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 1), ("crc32c", "AAAAAA=="), ("instance_uid", "1.2"), ("series_uid", "1.3"), ("study_uid", "1.4")],
)
def test_a_wrong_hint_is_an_error(field: str, value: Any, stored: Open, files: Files) -> None:
    """A hint that does not describe the file stops that file, whichever hint it is, and no other."""
    wrong = Instance(files.paths[3], hints=Hints(**{field: value}))
    with stored("a") as cod:
        result = cod.append([wrong, *files.instances(4)])
    ((instance, error),) = result.errors
    assert instance is wrong
    assert isinstance(error, HintMismatchError)
    assert (error.field, error.hinted) == (field, value)
    assert result.new[0].dicom_uri == str(files.paths[4])
    with stored() as cod:
        assert set(cod.get_instances()) == {*files.uids[:3], files.uids[4]}


def test_right_hints_are_verified(open_cod: Open, files: Files) -> None:
    """Right hints change nothing about a new file."""
    uids = files.series.uids
    hints = Hints(len(files.bytes(0)), encode(crc32c(files.bytes(0))), files.uids[0], uids.series, uids.study)
    with open_cod("w") as cod:
        assert len(cod.append([Instance(files.paths[0], hints=hints)]).new) == 1


def test_an_instance_of_another_series_is_refused(stored: Open, files: Files, tmp_path: Path) -> None:
    """A file of another series, or another study, is an error that names both."""
    series = changed(files.paths[3], tmp_path / "series.dcm", SeriesInstanceUID="1.2.3")
    study = changed(files.paths[3], tmp_path / "study.dcm", StudyInstanceUID="1.2.4")
    with stored("a") as cod:
        result = cod.append([Instance(series), Instance(study)])
    assert [type(error) for _, error in result.errors] == [SeriesMismatchError] * 2
    assert "1.2.3" in str(result.errors[0][1])


def test_size_limits(stored: Open, files: Files) -> None:
    """A file above the limit is an error of its own; a series above its limit is refused as a whole."""
    gib = 1 << 30
    with stored("a") as cod:
        result = cod.append(files.instances(3), max_instance_size=100 / gib)
        assert isinstance(result.errors[0][1], InstanceValidationError)
        with pytest.raises(ValueError, match="max_series_size"):
            cod.append(files.instances(3, 4), max_series_size=len(files.bytes(0)) * 4.5 / gib)
        assert len(cod.append(files.instances(3), max_series_size=len(files.bytes(0)) * 4.5 / gib).new) == 1
    with stored() as cod:
        assert len(cod.get_instances()) == 4


def test_local_origins_are_deleted_after_the_commit_only(stored: Open, files: Files) -> None:
    """With delete_local_origin new files go once they are stored; same ones and failed blocks keep theirs."""
    with pytest.raises(RuntimeError), stored("a") as cod:
        cod.append(files.instances(3), delete_local_origin=True)
        raise RuntimeError
    assert files.paths[3].exists()
    with stored("a") as cod:
        cod.append(files.instances(0, 3), delete_local_origin=True)
        assert files.paths[3].exists()
    assert files.paths[0].exists()
    assert not files.paths[3].exists()


def test_events_tell_what_happens(open_cod: Open, files: Files) -> None:
    """A hook hears of every file and of the commit."""
    heard: list[Any] = []
    with open_cod("w", hooks=[heard.append]) as cod:
        cod.append([*files.instances(0), Instance("/nowhere.dcm")])
    done = [event for event in heard if isinstance(event, FileDone)]
    assert [(event.outcome, event.size_bytes) for event in done] == [("new", len(files.bytes(0))), ("error", 0)]
    (committed,) = [event for event in heard if isinstance(event, SeriesCommitted)]
    assert committed.instances == 1


def test_hashed_uids(datastore_url: str, gcs_client: Any, files: Files, store: ObjectStore) -> None:
    """In a de-identified datastore names and keys hold hashes, records the real UIDs."""

    def hashed(uid: str) -> str:
        return f"2.25.{crc32c(uid.encode())}"

    study, series = hashed(files.series.uids.study), hashed(files.series.uids.series)
    with CODObject(datastore_url, gcs_client, study, series, "w", hashed_uids=True) as cod:
        result = cod.append([Instance(files.paths[0], uid_hash_func=hashed), Instance(files.paths[1])])
        assert isinstance(result.errors[0][1], ValueError)
    with CODObject(datastore_url, gcs_client, study, series, "r") as cod:
        document = cod.get_metadata()
        assert document["deid_study_uid"] == study
        assert "study_uid" not in document
        (uid,) = document["cod"]["instances"]
        assert uid == hashed(files.uids[0])
        assert cod.get_instance(uid).instance_uid() == files.uids[0]
        assert read(cod, uid) == files.bytes(0)
        assert cod.verify().ok
    assert any(info.name.endswith(f"{series}.tar") for info in store.list())


def test_a_file_that_changes_between_measuring_and_storing(stored: Open, files: Files) -> None:
    """Bytes that are no longer those that were measured are never committed, and the series stays as it was."""
    with pytest.raises(Exception, match=r".") as caught, stored("a") as cod:
        cod.append(files.instances(3))
        data = bytearray(files.bytes(3))
        data[-1] ^= 1
        files.paths[3].write_bytes(data)
    assert "PatientName" not in str(caught.value)
    with stored("a") as cod:
        assert set(cod.get_instances()) == set(files.uids[:3])
        assert cod.verify().findings[0].kind == "lock-present"


def test_what_is_removed_again_keeps_its_local_file(open_cod: Open, files: Files) -> None:
    """Only the files of what was stored are deleted, not of what left the block, or of a block that failed."""
    with open_cod("a") as cod:
        cod.append(files.instances(0, 1), delete_local_origin=True)
        cod.remove(files.uids[0])
    assert [files.paths[index].exists() for index in (0, 1)] == [True, False]
    cod = open_cod("a")
    with pytest.raises(RuntimeError), cod:
        cod.append(files.instances(2), delete_local_origin=True)
        raise RuntimeError
    with cod:
        cod.add_metadata_field("site", "north")
    assert files.paths[2].exists()
