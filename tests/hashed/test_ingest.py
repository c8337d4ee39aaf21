"""Many files under hashed UIDs: where they go, how they are known again, and that no report tells an original UID."""

from __future__ import annotations

import gzip
import tarfile
import uuid
import zipfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore, Hints, Instance
from cloud_optimized_dicom.events import FileDone, SeriesCommitted
from cloud_optimized_dicom.series.look import Look
from cloud_optimized_dicom.series.maintenance import recover_series
from cloud_optimized_dicom.storage.clock import utc_now
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, SimulatedCrash, StoreFault, StoreFaultKind
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.bulk import ingest, memory_store, send, write_many
from tests.core.conftest import read, write_series
from tests.core.test_append import changed
from tests.core.test_bulk_requests import BUCKET, hints_of, locks, operations
from tests.hashed.functions import KEYED, PSEUDONYM, Table, is_told, key_of, pseudonym
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.conftest import Files
    from tests.core.test_bulk_requests import Scene


def stored(datastore: Datastore, files: Files) -> dict[str, bytes]:
    """Return what the hashed series of some files holds, by UID."""
    key = key_of(files)
    with datastore.open(key.study_uid, key.series_uid, hashed_uids=True) as cod:
        assert cod.verify().ok
        return dict(cod.iter_instances())


def expected(files: Files) -> dict[str, bytes]:
    """Return what it should hold."""
    return {pseudonym(uid): files.bytes(index) for index, uid in enumerate(files.uids)}


@pytest.mark.parametrize("function", [pseudonym, PSEUDONYM], ids=["function", "name"])
def test_everything_is_stored_under_hashed_uids(
    function: Any, datastore_url: str, gcs_client: Any, tmp_path: Path
) -> None:
    """Series, members, report and events show hashed UIDs alone; a second run finds every file the same."""
    many = write_many(tmp_path / "in", 3)
    datastore = Datastore(datastore_url, gcs_client)
    heard: list[Any] = []
    report = datastore.ingest([tmp_path / "in"], uid_hash_func=function, hooks=[heard.append])
    assert report.count("new") == 9
    assert set(report.series) == {key_of(files) for files in many} == set(datastore.series())
    for files in many:
        assert stored(datastore, files) == expected(files)
        assert not is_told(files, repr(report) + repr(heard))
        names = {result.instance_uid for result in report.files if result.series == key_of(files)}
        assert names == set(expected(files))
    done = [event for event in heard if isinstance(event, FileDone)]
    assert {SeriesKey(event.study_uid or "", event.series_uid or "") for event in done} == set(report.series)
    assert sum(isinstance(event, SeriesCommitted) for event in heard) == 3
    assert datastore.ingest([tmp_path / "in"], uid_hash_func=function).count("same") == 9


def test_sources_of_every_kind_are_hashed(tmp_path: Path, files: Files) -> None:
    """Members of archives and objects of buckets are stored under hashed UIDs as plain files are."""
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(files.paths[0], "0.dcm")
    inbox = memory_store()
    url = send(inbox, "1.dcm", files.bytes(1))
    packed = tmp_path / "in.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(files.paths[2], "2.dcm")
    datastore = Datastore(tmp_path / "store")
    report = datastore.ingest([tmp_path / "in.zip", url, packed, *files.paths[3:]], uid_hash_func=pseudonym)
    assert [result.outcome for result in report.files] == ["new"] * 5, report
    assert stored(datastore, files) == expected(files)


def test_real_files_are_hashed(tmp_path: Path) -> None:
    """Multi-frame, encapsulated and headers of their own kinds: stored, read and checked under hashed UIDs."""
    names = [
        "examples_ybr_color.dcm",
        "SC_rgb_rle_2frame.dcm",
        "JPEG2000.dcm",
        "rtdose.dcm",
        "rtplan.dcm",
        "MR_small.dcm",
    ]
    paths = [real_file(name).path for name in names]
    datastore = Datastore(tmp_path / "store")
    report = datastore.ingest(paths, uid_hash_func=pseudonym)
    assert report.count("new") == len(names)
    assert all(one.ok for one in datastore.verify())
    for path, result in zip(paths, report.files, strict=True):
        assert result.series is not None
        assert result.instance_uid is not None
        with datastore.open(result.series.study_uid, result.series.series_uid) as cod:
            instance = cod.get_instance(result.instance_uid)
            assert result.instance_uid == pseudonym(instance.instance_uid())
            assert read(cod, instance) == path.read_bytes()
            if instance.has_pixeldata:
                assert cod.read_frames(result.instance_uid, [0])[0]


def test_instances_keep_the_function_that_they_have(tmp_path: Path) -> None:
    """The function of an ingest is for what has none: an instance with its own is stored under that one's hashes."""
    own, other, plain = write_many(tmp_path / "in", 3, instances=1)
    datastore = Datastore(tmp_path / "store")
    given = Instance(own.paths[0], uid_hash_func=KEYED.pseudonym)
    bare = Instance(other.paths[0])
    assert datastore.ingest([given, bare], uid_hash_func=pseudonym).count("new") == 2
    assert bare.hashed_series_uid() == pseudonym(other.series.uids.series)
    # Without a function of the ingest those that have one are still hashed, and the rest is not.
    assert datastore.ingest([Instance(own.paths[0], uid_hash_func=KEYED.pseudonym), plain.paths[0]]).count("new") == 1
    uids = own.series.uids
    assert set(datastore.series()) == {
        SeriesKey(KEYED.pseudonym(uids.study), KEYED.pseudonym(uids.series)),
        key_of(other),
        SeriesKey(plain.series.uids.study, plain.series.uids.series),
    }


def test_stored_instances_of_a_hashed_series_stay_hashed(tmp_path: Path, files: Files) -> None:
    """Instances of a hashed series that are given to an ingest without a function keep their names."""
    first, second = Datastore(tmp_path / "first"), Datastore(tmp_path / "second")
    first.ingest(files.paths, uid_hash_func=pseudonym)
    key = key_of(files)
    with first.open(key.study_uid, key.series_uid) as cod:
        report = second.ingest(cod.get_instances().values())
    assert report.count("new") == 5
    assert stored(second, files) == expected(files)


def test_one_bad_hash_stops_no_other_file(tmp_path: Path) -> None:
    """A series or an instance that a table lacks: its files are errors that tell no UID, all others are stored."""
    known, unknown = write_many(tmp_path / "in", 2)
    uids = known.series.uids
    table = Table([uids.study, uids.series, *known.uids[:2]])
    report = Datastore(tmp_path / "store").ingest([*known.paths, *unknown.paths], uid_hash_func=table)
    assert [result.outcome for result in report.files] == ["new", "new", "error", "error", "error", "error"]
    assert {result.reason for result in report.errors} == {"its uid_hash_func raised KeyError"}
    assert not any(is_told(files, repr(report)) for files in (known, unknown))
    assert not any(result.retryable for result in report.errors)


def test_what_a_function_may_not_return_never_reaches_a_path(tmp_path: Path, files: Files) -> None:
    """A function that makes names of another kind stores nothing."""
    report = Datastore(tmp_path / "store").ingest(files.paths, uid_hash_func=lambda uid: f"../{uid}")
    assert report.count("error") == 5
    assert all("not 1 to 64 digits and dots" in str(result.reason) for result in report.files)
    assert not is_told(files, repr(report))
    assert not list(Datastore(tmp_path / "store").series())


def test_hinted_files_that_cannot_be_hashed_are_errors_of_their_own(tmp_path: Path, files: Files) -> None:
    """Hints of an instance that the table lacks fail that file alone; wrong hints are told by hashed UIDs."""
    uids = files.series.uids
    datastore = Datastore(tmp_path / "store")
    table = Table([uids.study, uids.series, *files.uids[1:]])
    datastore.ingest(files.paths[1:2], uid_hash_func=pseudonym)
    instances = [Instance(files.paths[index], hints=hints_of(files, index)) for index in range(4)]
    instances[3].hints = Hints(instance_uid=files.uids[4], series_uid=uids.series, study_uid=uids.study)
    report = datastore.ingest(instances, uid_hash_func=table)
    assert [result.outcome for result in report.files] == ["error", "same", "new", "error"]
    assert report.files[0].instance_uid is None
    reason = str(report.files[3].reason)
    assert pseudonym(files.uids[3]) in reason
    assert pseudonym(files.uids[4]) in reason
    assert not is_told(files, repr(report))


def test_a_hint_of_the_wrong_series_is_told_by_hashed_uids(tmp_path: Path) -> None:
    """A file that is hinted into another series is an error, which names the hashed ones."""
    files, other = write_many(tmp_path / "in", 2, instances=1)
    uids = other.series.uids
    wrong = Instance(files.paths[0], hints=Hints(study_uid=uids.study, series_uid=uids.series))
    report = Datastore(tmp_path / "store").ingest([wrong], uid_hash_func=pseudonym)
    assert report.count("error") == 1
    assert pseudonym(uids.series) in str(report.files[0].reason)
    assert not is_told(files, repr(report))
    assert not is_told(other, repr(report))


def test_conflicts_are_those_of_hashed_uids(tmp_path: Path, files: Files) -> None:
    """Another file of a stored UID, and another UID of a stored hash, are conflicts; what is stored stays."""
    datastore = Datastore(tmp_path / "store")
    uids = files.series.uids

    def colliding(uid: str) -> str:
        return pseudonym(uid) if uid in {uids.study, uids.series} else "2.25.7"

    other = changed(files.paths[0], tmp_path / "other.dcm", PatientID="other")
    datastore.ingest(files.paths[:1], uid_hash_func=colliding)
    report = datastore.ingest([other, *files.paths], uid_hash_func=colliding, treat_metadata_diffs_as_same=False)
    assert [result.outcome for result in report.files] == ["conflict", "same", *["conflict"] * 4]
    key = key_of(files)
    with datastore.open(key.study_uid, key.series_uid) as cod:
        assert read(cod, "2.25.7") == files.bytes(0)
    assert not is_told(files, repr(report))


def test_recompressed_files_are_known_again(tmp_path: Path) -> None:
    """Recompression and hashing go together: the source's checksum is on record, under the hashed UID."""
    files = write_series(tmp_path / "in", CtSeries(3, rows=64, columns=64))
    datastore = Datastore(tmp_path / "store")
    report = datastore.ingest(files.paths, uid_hash_func=pseudonym, compress="jpegls")
    assert (report.count("new"), dict(report.recompressions)) == (3, {"recompressed": 3})
    known = [Instance("gone.dcm", hints=hints_of(files, index)) for index in range(3)]
    assert datastore.ingest(known, uid_hash_func=pseudonym).count("same") == 3
    assert datastore.ingest(files.paths, uid_hash_func=pseudonym).count("same") == 3
    assert all(one.ok for one in datastore.verify(deep=True))


def test_worker_processes_need_no_function(tmp_path: Path, files: Files) -> None:
    """What runs in other processes sees no hash function: one that does not pickle is as good."""
    datastore = Datastore(tmp_path / "store")
    report = datastore.ingest(files.paths, uid_hash_func=lambda uid: pseudonym(uid), workers=2, compress="rle")  # noqa: PLW0108
    assert report.count("new") == 5
    assert set(stored(datastore, files)) == set(expected(files))


def test_a_series_of_the_other_kind_is_left_alone(files: Files) -> None:
    """Where a series of its own UIDs has the name that a hash gives, what is hashed is an error; the rest is stored."""
    store = memory_store()
    uids = files.series.uids
    ingest(store, files.paths[:1])
    key = SeriesKey(uids.study, uids.series)
    before = Look.at(store, key)

    def unchanged(uid: str) -> str:
        return uid

    given = [Instance(path, uid_hash_func=unchanged) for path in files.paths[:2]]
    report = ingest(store, [*given, files.paths[2]])
    assert [result.outcome for result in report.files] == ["error", "error", "new"]
    assert all("not one of hashed UIDs" in str(result.reason) for result in report.errors)
    assert before.document is not None
    seen = Look.at(store, key).document
    assert seen is not None
    assert len(seen.document.instances) == 2
    assert not seen.document.hashed_uids


def test_files_without_a_function_do_not_get_into_a_hashed_series(tmp_path: Path, files: Files) -> None:
    """Files whose own UIDs are the hashed names of a series are errors: nothing tells that they belong there."""
    datastore = Datastore(tmp_path / "store")

    def unchanged(uid: str) -> str:
        return uid

    assert datastore.ingest(files.paths[:1], uid_hash_func=unchanged).count("new") == 1
    report = datastore.ingest(files.paths[:2])
    assert [result.outcome for result in report.files] == ["error", "error"]
    assert "no uid_hash_func" in str(report.files[0].reason)


# -- requests


def test_hinted_again_costs_two_requests(scene: Scene, files: Files) -> None:
    """Hints are of original UIDs; what they name as stored costs a list and the document, no lock and no source."""
    scene.datastore.ingest(files.paths, uid_hash_func=pseudonym)
    scene.requests()
    known = [Instance(f"gs://{BUCKET}/gone/{index}.dcm", hints=hints_of(files, index)) for index in range(5)]
    report = scene.datastore.ingest(known, uid_hash_func=PSEUDONYM)
    asked = scene.requests()
    assert report.count("same") == 5
    assert {result.instance_uid for result in report.files} == set(expected(files))
    assert len(asked) <= 2, operations(asked)
    assert not locks(asked)
    assert not is_told(files, repr(asked))


def test_a_new_hashed_series_costs_what_any_does(scene: Scene, files: Files) -> None:
    """Hashing asks for nothing on top: at most eight requests, and none names an original UID."""
    assert scene.datastore.ingest(files.paths, uid_hash_func=pseudonym).count("new") == 5
    asked = scene.requests()
    assert len(asked) <= 8, operations(asked)
    assert not is_told(files, repr(asked))


def test_the_lock_of_a_hashed_series_has_hashed_keys(tmp_path: Path, files: Files) -> None:
    """Older writers that look into the lock find the keys of a hashed series there."""
    datastore, key = Datastore(tmp_path / "store"), key_of(files)
    datastore.ingest(files.paths[:1], uid_hash_func=pseudonym)
    with datastore.open(key.study_uid, key.series_uid, "a", hashed_uids=True):
        body = gzip.decompress(datastore.store.read_object(key.lock).data)
    assert b'"deid_study_uid"' in body
    assert not is_told(files, body.decode())


def test_a_writer_that_dies_leaves_a_series_of_hashed_uids(files: Files) -> None:
    """Killed before any operation of a first write, it is finished or swept under hashed UIDs, and gone on with."""
    key, kinds, at = key_of(files), set(), 0
    while True:
        late = timedelta()
        inner = MemoryStore(f"memory://{uuid.uuid4().hex}", clock=lambda: utc_now() + late)  # noqa: B023 - as it is then
        store = FaultyStore(inner, [StoreFault(StoreFaultKind.CRASH_BEFORE, skip=at)])
        instances = [Instance(path, uid_hash_func=pseudonym) for path in files.paths]
        try:
            ingest(store, instances)
        except SimulatedCrash:
            at += 1
        else:
            break
        late = timedelta(hours=1)
        kinds.add(recover_series(inner, key).outcome)
        seen = Look.at(inner, key).document
        assert seen is None or (seen.document.hashed_uids and len(seen.document.instances) == 5)
        instances = [Instance(path, uid_hash_func=pseudonym) for path in files.paths]
        assert ingest(inner, instances).count("same" if seen is not None else "new") == 5
        assert not is_told(files, repr(list(inner.list(""))))
    assert {"finished", "swept"} <= kinds
    assert at > 5
