"""One series of hashed UIDs: what is stored where, and what happens where one side does not know of the hashing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject, Hints, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import HashedUidsError, HintMismatchError, SeriesMismatchError
from cloud_optimized_dicom.events import FileDone
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.core.conftest import read, write_series
from tests.core.test_append import changed
from tests.hashed.functions import KEYED, Table, is_told, pseudonym

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.core.conftest import Files, Open


def hashed(files: Files, *indexes: int) -> list[Instance]:
    """Return files as instances that are hashed."""
    return [Instance(files.paths[index], uid_hash_func=pseudonym) for index in indexes]


@pytest.fixture
def stored(open_hashed: Open, files: Files) -> Open:
    """Return `open_hashed` after the first two instances were stored."""
    with open_hashed("w", hashed_uids=True) as cod:
        assert len(cod.append(hashed(files, 0, 1)).new) == 2
    return open_hashed


def test_names_are_hashes_and_content_is_not(stored: Open, files: Files, store: ObjectStore) -> None:
    """Objects, keys, members, URIs of bulk data hold hashes; the records' UIDs, the header and the file do not."""
    for info in store.list():
        assert not is_told(files, info.name)
    uid = pseudonym(files.uids[0])
    with stored() as cod:
        document = cod.get_metadata()
        record = document["cod"]["instances"].pop(uid)
        assert set(document["cod"]["instances"]) == {pseudonym(files.uids[1])}
        assert (document["deid_study_uid"], document["deid_series_uid"]) == (cod.key.study_uid, cod.key.series_uid)
        assert not {"study_uid", "series_uid"} & set(document)
        assert record["uri"] == f"{cod.tar_uri}://instances/{uid}.dcm"
        assert record["instance_uid"] == files.uids[0]
        assert record["original_path"] == str(files.paths[0])
        instance = cod.get_instance(uid)
        assert instance.metadata["00080018"]["Value"] == [files.uids[0]]
        assert read(cod, instance) == files.bytes(0)
        assert cod.verify().ok
        assert set(cod.extract_locally()) == {pseudonym(uid) for uid in files.uids[:2]}


def test_a_stored_instance_knows_its_hashes(stored: Open, files: Files) -> None:
    """Without a function an instance of a hashed series says what it is stored under, and is known to belong to it."""
    with stored() as cod:
        instance = cod.get_instance(pseudonym(files.uids[0]))
        assert instance.instance_uid() == files.uids[0]
        assert instance.hashed_instance_uid() == pseudonym(files.uids[0])
        assert (instance.hashed_study_uid(), instance.get_series_uid(hashed=True)) == (
            cod.key.study_uid,
            cod.key.series_uid,
        )
        assert cod.assert_instance_belongs_to_cod_object(instance)
        assert cod.assert_instance_belongs_to_cod_object(hashed(files, 1)[0])
        with pytest.raises(HashedUidsError, match="no uid_hash_func"):
            instance.hash_uid("1.2.3")


def test_a_staged_instance_knows_its_hashes(stored: Open, files: Files, tmp_path: Path) -> None:
    """So does one that the block has just added, which can go on into another series without the function."""
    with stored("a") as cod:
        assert len(cod.append(hashed(files, 2)).new) == 1
        instance = cod.get_instances()[pseudonym(files.uids[2])]
        assert instance.is_hashed
        assert instance.get_instance_uid(hashed=True) == pseudonym(files.uids[2])
        assert (instance.hashed_study_uid(), instance.hashed_series_uid()) == (cod.key.study_uid, cod.key.series_uid)
        assert cod.assert_instance_belongs_to_cod_object(instance)
        with pytest.raises(HashedUidsError, match="no uid_hash_func"):
            instance.hash_uid("1.2.3")
        place = tmp_path / "copy", None, cod.key.study_uid, cod.key.series_uid
        with CODObject(*place, "w", hashed_uids=True) as copy:
            assert len(copy.append([instance]).new) == 1
    with CODObject(*place) as copy:
        assert read(copy, pseudonym(files.uids[2])) == files.bytes(2)


def test_a_staged_instance_that_is_not_hashed_has_no_hashes(datastore_url: str, gcs_client: Any, files: Files) -> None:
    """An instance that was added to a series of its own UIDs is known to belong to it, and has no hashes."""
    uids = files.series.uids
    with CODObject(datastore_url, gcs_client, uids.study, uids.series, "w") as cod:
        cod.append(files.instances(0))
        instance = cod.get_instance(files.uids[0])
        assert not instance.is_hashed
        assert cod.assert_instance_belongs_to_cod_object(instance)
        with pytest.raises(HashedUidsError, match="no uid_hash_func"):
            instance.hashed_instance_uid()


def test_a_stored_series_says_by_itself_that_it_is_hashed(stored: Open, files: Files) -> None:
    """Nobody has to pass `hashed_uids` to read a stored series, to add to it or to remove from it."""
    with stored("a") as cod:
        assert len(cod.append(hashed(files, 2)).new) == 1
        cod.remove(hashed(files, 0)[0])
        cod.add_metadata_field("site", "north")
    with stored("r", hashed_uids=True) as cod:
        assert set(cod.get_instances()) == {pseudonym(uid) for uid in files.uids[1:3]}
        assert "deid_study_uid" in cod.get_metadata()
    with stored("w") as cod:
        assert len(cod.append(hashed(files, 3)).new) == 1
    with stored() as cod:
        assert cod.get_metadata()["deid_series_uid"] == cod.key.series_uid
        assert set(cod.get_instances()) == {pseudonym(files.uids[3])}


@pytest.mark.parametrize("mode", ["r", "a", "w"])
def test_a_series_that_is_not_hashed_is_not_taken_for_one(
    mode: str, datastore_url: str, gcs_client: Any, files: Files
) -> None:
    """Opening a series of its own UIDs with `hashed_uids` is an error in every mode, and changes nothing."""
    uids = files.series.uids

    def opened(mode: Any, **options: Any) -> CODObject:
        return CODObject(datastore_url, gcs_client, uids.study, uids.series, mode, **options)

    with opened("w") as cod:
        cod.append(files.instances(0))
        before = cod.get_metadata()["cod"]["instances"].keys()
    with pytest.raises(HashedUidsError, match="not one of hashed UIDs"), opened(mode, hashed_uids=True) as cod:
        cod.get_metadata()
    with pytest.raises(HashedUidsError):
        CODObject.from_uri(f"{cod.tar_uri}", gcs_client, "r", hashed_uids=True).get_metadata()
    with opened("a") as cod:
        assert cod.get_metadata()["cod"]["instances"].keys() == before


def test_instances_of_the_other_kind_are_refused_one_by_one(stored: Open, files: Files) -> None:
    """Without a function, a file is no instance of a hashed series: an error with its reason, and nothing stored."""
    heard: list[FileDone] = []
    with stored("a", hooks=[heard.append]) as cod:
        result = cod.append([*files.instances(2), *hashed(files, 3)])
        assert [len(part) for part in result] == [1, 0, 0, 1]
        ((instance, error),) = result.errors
        assert instance.dicom_uri == str(files.paths[2])
        assert isinstance(error, HashedUidsError)
        assert "no uid_hash_func" in error.reason
        assert not is_told(files, str(error))
        with pytest.raises(HashedUidsError):
            cod.assert_instance_belongs_to_cod_object(instance)
        with pytest.raises(HashedUidsError):
            cod.remove(instance)
    assert [event.outcome for event in heard if isinstance(event, FileDone)] == ["error", "new"]


def test_a_hashed_instance_is_not_stored_under_its_own_uids(
    datastore_url: str, gcs_client: Any, files: Files, store: ObjectStore
) -> None:
    """An instance with a function is refused by a series of its own UIDs, hinted as stored there or not."""
    uids = files.series.uids
    hints = Hints(len(files.bytes(0)), encode(crc32c(files.bytes(0))), files.uids[0], uids.series, uids.study)
    with CODObject(datastore_url, gcs_client, uids.study, uids.series, "w") as cod:
        assert len(cod.append(files.instances(0)).new) == 1
        known = Instance(files.paths[0], hints=hints, uid_hash_func=pseudonym)
        result = cod.append([known, *hashed(files, 1)])
        assert [len(part) for part in result] == [0, 0, 0, 2]
        for _, error in result.errors:
            assert isinstance(error, HashedUidsError)
            assert not is_told(files, str(error))
        with pytest.raises(HashedUidsError, match="not one of hashed UIDs"):
            cod.assert_instance_belongs_to_cod_object(known)


def test_a_new_series_that_nobody_called_hashed(datastore_url: str, gcs_client: Any, files: Files) -> None:
    """Hashed names without `hashed_uids`: instances with a function are told that the series is not hashed."""
    study, series = pseudonym(files.series.uids.study), pseudonym(files.series.uids.series)
    with CODObject(datastore_url, gcs_client, study, series, "w") as cod:
        result = cod.append([*hashed(files, 0), *files.instances(1)])
        first, second = (error for _, error in result.errors)
        assert isinstance(first, HashedUidsError)
        assert isinstance(second, SeriesMismatchError)


def test_another_functions_hashes_are_of_another_series(stored: Open, files: Files) -> None:
    """A file whose UIDs hash to others than the series' is told so by its hashed UIDs."""
    with stored("a") as cod:
        other = Instance(files.paths[2], uid_hash_func=KEYED.pseudonym)
        ((_, error),) = cod.append([other]).errors
    assert isinstance(error, SeriesMismatchError)
    assert KEYED.pseudonym(files.series.uids.study) in str(error)
    assert not is_told(files, str(error))


def test_files_that_a_function_refuses_are_errors_of_their_own(stored: Open, files: Files) -> None:
    """A table that lacks one instance's UID, a hint that is wrong: those files fail, the others are stored."""
    uids = files.series.uids
    table = Table([uids.study, uids.series, *files.uids[:3]])
    instances = [Instance(path, uid_hash_func=table) for path in files.paths[1:4]]
    instances.append(Instance(files.paths[4], hints=Hints(instance_uid=files.uids[0]), uid_hash_func=pseudonym))
    with stored("a") as cod:
        result = cod.append(instances)
    assert [len(part) for part in result] == [1, 1, 0, 2]
    (_, refused), (_, wrong) = result.errors
    assert isinstance(refused, HashedUidsError)
    assert isinstance(wrong, HintMismatchError)
    assert (wrong.hinted, wrong.found) == (pseudonym(files.uids[0]), pseudonym(files.uids[4]))
    assert not any(is_told(files, str(error)) for error in (refused, wrong))


def test_events_tell_hashed_uids(stored: Open, files: Files) -> None:
    """Of an append every event names what is stored, whether the file was read or its hints were believed."""
    uids = files.series.uids
    hints = Hints(len(files.bytes(0)), encode(crc32c(files.bytes(0))), files.uids[0])
    heard: list[Any] = []
    with stored("a", hooks=[heard.append]) as cod:
        known = Instance("gone.dcm", hints=hints, uid_hash_func=pseudonym)
        result = cod.append([known, *hashed(files, 2)])
        assert (len(result.same), len(result.new)) == (1, 1)
    done = [event for event in heard if isinstance(event, FileDone)]
    assert [(event.outcome, event.study_uid, event.series_uid, event.instance_uid) for event in done] == [
        ("same", pseudonym(uids.study), pseudonym(uids.series), pseudonym(files.uids[0])),
        ("new", pseudonym(uids.study), pseudonym(uids.series), pseudonym(files.uids[2])),
    ]
    assert not is_told(files, repr(heard))


@pytest.mark.parametrize("as_same", [False, True])
def test_two_uids_of_one_hash_are_a_conflict(as_same: bool, open_hashed: Open, tmp_path: Path, files: Files) -> None:
    """An instance that hashes to the name of another is never "same", not even with equal pixels; the first stays."""
    uids = files.series.uids

    def colliding(uid: str) -> str:
        return pseudonym(uid) if uid in {uids.study, uids.series} else "2.25.1"

    other = changed(files.paths[0], tmp_path / "other.dcm", SOPInstanceUID=f"{files.uids[0]}.1")
    with open_hashed("w", hashed_uids=True) as cod:
        assert len(cod.append([Instance(files.paths[0], uid_hash_func=colliding)]).new) == 1
    hints = Hints(len(files.bytes(0)), encode(crc32c(files.bytes(0))), f"{files.uids[0]}.1")
    with open_hashed("a") as cod:
        instances = [Instance(path, uid_hash_func=colliding) for path in (other, files.paths[1])]
        result = cod.append(instances, treat_metadata_diffs_as_same=as_same)
        assert [len(part) for part in result] == [0, 0, 2, 0]
        # The very checksum of the stored file, claimed of a file of another UID.
        hinted = Instance(other, hints=hints, uid_hash_func=colliding)
        assert not cod.append([hinted]).same
    with open_hashed() as cod:
        assert read(cod, "2.25.1") == files.bytes(0)


def test_two_series_of_one_hash_do_not_become_one(open_hashed: Open, files: Files, tmp_path: Path) -> None:
    """Files of another series whose UIDs have the same hashes are errors, in the same append and in a later one."""
    other = write_series(tmp_path / "other", CtSeries(2, rows=16, columns=16, seed=7))
    study, series = files.series.uids.study, files.series.uids.series
    names = {other.series.uids.study: study, other.series.uids.series: series}

    def colliding(uid: str) -> str:
        return pseudonym(names.get(uid, uid))

    def instances(files: Files, *indexes: int) -> list[Instance]:
        return [Instance(files.paths[index], uid_hash_func=colliding) for index in indexes]

    with open_hashed("w", hashed_uids=True) as cod:
        result = cod.append([*instances(files, 0), *instances(other, 0), *instances(files, 1)])
        assert [len(part) for part in result] == [2, 0, 0, 1]
        assert len(cod.append(instances(other, 1)).errors) == 1
    with open_hashed("a") as cod:
        result = cod.append([*instances(other, 0, 1), *instances(files, 0, 2)])
        assert [len(part) for part in result] == [1, 1, 0, 2]
    for _, error in result.errors:
        assert isinstance(error, HashedUidsError)
        assert "another series" in error.reason
        assert not is_told(other, str(error))
    with open_hashed("w") as cod:  # what is replaced is in nobody's way
        assert [len(part) for part in cod.append(instances(other, 0, 1))] == [2, 0, 0, 0]


def test_equal_pixels_of_one_uid_are_the_same_where_that_is_asked_for(
    stored: Open, tmp_path: Path, files: Files
) -> None:
    """A changed header of the same instance is what `treat_metadata_diffs_as_same` is for, hashed or not."""
    other = changed(files.paths[0], tmp_path / "other.dcm", PatientID="other")
    with stored("a") as cod:
        given = Instance(other, uid_hash_func=pseudonym)
        assert len(cod.append([given]).conflict) == 1
        assert len(cod.append([Instance(other, uid_hash_func=pseudonym)], treat_metadata_diffs_as_same=True).same) == 1


def test_an_instance_goes_from_one_hashed_series_to_another(stored: Open, files: Files, tmp_path: Path) -> None:
    """Copied without the function, an instance of a hashed series keeps the names that it has."""
    with (
        stored() as source,
        CODObject(
            tmp_path / "copy", None, source.key.study_uid, source.key.series_uid, "w", hashed_uids=True
        ) as target,
    ):
        result = target.append(source.get_instances().values())
        assert [len(part) for part in result] == [2, 0, 0, 0]
    with CODObject(tmp_path / "copy", None, target.key.study_uid, target.key.series_uid) as copy:
        assert set(copy.get_instances()) == {pseudonym(uid) for uid in files.uids[:2]}
        assert read(copy, pseudonym(files.uids[0])) == files.bytes(0)


def test_large_values_are_found_by_hashed_names(tmp_path: Path) -> None:
    """The BulkDataURI of a header names the hashed member, and is read by it."""
    files = write_series(tmp_path / "large", CtSeries(1, rows=64, columns=64))
    uids, uid = files.series.uids, pseudonym(files.uids[0])
    place = tmp_path / "store", None, pseudonym(uids.study), pseudonym(uids.series)
    with CODObject(*place, "w", hashed_uids=True) as cod:
        assert len(cod.append(hashed(files, 0)).new) == 1
    with CODObject(*place) as cod:
        uri = cod.get_instance(uid).metadata["7FE00010"]["BulkDataURI"]
        assert uri.startswith(f"{cod.tar_uri}://instances/{uid}.dcm?offset=")
        assert files.bytes(0).endswith(cod.read_bulk_data(uri))


def test_thumbnails_are_of_hashed_names(stored: Open, files: Files) -> None:
    """What the document says of a thumbnail names instances as they are stored."""
    with stored("a") as cod:
        assert cod.get_thumbnail().shape == (2, 128, 128, 3)
    with stored() as cod:
        assert set(cod.get_metadata()["thumbnail"]["instances"]) == {pseudonym(uid) for uid in files.uids[:2]}
        assert not is_told(files, str(cod.get_metadata()["thumbnail"]))
        assert cod.get_instance_by_thumbnail_index(1).instance_uid() == files.uids[1]
        assert cod.get_thumbnail(instance_uid=pseudonym(files.uids[0])).shape == (128, 128, 3)
