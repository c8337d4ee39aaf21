"""The published library and we on series of hashed UIDs: each reads, checks and changes what the other wrote."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore, Hints, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import HashedUidsError
from cloud_optimized_dicom.uids import SeriesKey
from tests.hashed.functions import pseudonym as hashed
from tests.interop.test_both_ways import check_our_index

if TYPE_CHECKING:
    from cloud_optimized_dicom import IngestReport
    from tests.interop.conftest import Shared

pytestmark = pytest.mark.slow

HASHED = {"hashed_uids": True}


@pytest.fixture
def scene(shared: Shared) -> Shared:
    """Return a series that nobody has written yet, under its hashed UIDs."""
    uids = shared.files.series.uids
    return replace(shared, key=SeriesKey(hashed(uids.study), hashed(uids.series)))


def given(scene: Shared, *indexes: int) -> list[Instance]:
    """Return files as instances that are hashed."""
    return [Instance(scene.files.paths[index], uid_hash_func=hashed) for index in indexes]


def we_ingest(scene: Shared, *indexes: int) -> IngestReport:
    """Store files as `Datastore.ingest` does."""
    paths = [scene.files.paths[index] for index in indexes]
    return Datastore(scene.url, scene.client).ingest(paths, uid_hash_func=hashed)


def check_both(scene: Shared, *indexes: int) -> None:
    """Make sure that they and we find exactly these files under their hashed UIDs, sound, their headers untouched."""
    expected = {hashed(uid): crc for uid, crc in scene.expected(*indexes).items()}
    assert scene.theirs("read", options=HASHED) == expected
    assert scene.theirs("headers", options=HASHED) == {hashed(uid): uid for uid in scene.expected(*indexes)}
    assert scene.theirs("check", options=HASHED)
    assert scene.we_read() == expected
    with scene.ours(hashed_uids=True) as cod:
        document = cod.get_metadata()
        assert (document["deid_study_uid"], document["deid_series_uid"]) == (scene.key.study_uid, scene.key.series_uid)
        assert not {"study_uid", "series_uid"} & set(document)


def test_what_they_wrote_we_change(scene: Shared) -> None:
    """A hashed series of theirs: an ingest adds to it, we remove, edit and set a field; they read each state."""
    assert scene.they_write("w", 0, 1, 2, options=HASHED)["new"] == 3
    check_both(scene, 0, 1, 2)
    report = we_ingest(scene, 1, 2, 3, 4)
    assert [result.outcome for result in report.files] == ["same", "same", "new", "new"]
    check_our_index(scene)
    check_both(scene, 0, 1, 2, 3, 4)
    with scene.ours("a") as cod:
        cod.remove(hashed(scene.files.uids[0]))
        cod.remove(given(scene, 1)[0])
        cod.add_metadata_field("site", "north")
    check_both(scene, 2, 3, 4)
    assert scene.theirs("field", name="site", options=HASHED) == "north"
    with scene.ours("w", hashed_uids=True) as cod:
        assert len(cod.append(given(scene, 5)).new) == 1
    check_our_index(scene)
    check_both(scene, 5)


def test_what_they_wrote_we_edit(scene: Shared) -> None:
    """In edit mode of ours a file of a hashed series of theirs changes, and stays under its hashed UID."""
    scene.they_write("w", 0, 1, options=HASHED)
    uid = hashed(scene.files.uids[1])
    with scene.ours("e") as cod:
        path = cod.get_instance(uid).fetch()
        path.write_bytes(path.read_bytes().replace(b"Phantom", b"PHANTOM"))
    edited = scene.files.bytes(1).replace(b"Phantom", b"PHANTOM")
    assert edited != scene.files.bytes(1)
    expected = {hashed(scene.files.uids[0]): zlib.crc32(scene.files.bytes(0)), uid: zlib.crc32(edited)}
    assert scene.theirs("read", options=HASHED) == expected == scene.we_read()
    assert scene.theirs("check", options=HASHED)
    check_our_index(scene)


def test_what_we_wrote_they_read_and_append_to(scene: Shared) -> None:
    """A hashed series of an ingest of ours: with an index they read and check it, sealed they append; and so do we."""
    assert we_ingest(scene, 0, 1).count("new") == 2
    for first in (2, 4):
        with scene.ours("a", legacy_index=True, hashed_uids=True) as cod:
            cod.seal()
        check_our_index(scene)
        check_both(scene, *range(first))
        found = scene.they_write("a", 0, first, options=HASHED)
        assert (found["same"], found["new"]) == (1, 1), found
        check_both(scene, *range(first + 1))
        assert [result.outcome for result in we_ingest(scene, first, first + 1).files] == ["same", "new"]
        check_both(scene, *range(first + 2))


def test_hints_are_of_original_uids_to_both(scene: Shared) -> None:
    """What they stored is known to our hints, which are of the files' own UIDs: no source is there to be read."""
    scene.they_write("w", 0, 1, options=HASHED)
    uids = scene.files.series.uids
    known = []
    for index in (0, 1):
        data = scene.files.bytes(index)
        hints = Hints(len(data), encode(crc32c(data)), scene.files.uids[index], uids.series, uids.study)
        known.append(Instance(f"gs://bucket/gone/{index}.dcm", hints=hints))
    report = Datastore(scene.url, scene.client).ingest(known, uid_hash_func=hashed)
    assert report.count("same") == 2
    assert set(report.series) == {scene.key}


def test_older_and_newer_records_are_migrated_under_their_hashed_uids(scene: Shared) -> None:
    """Migration, repair and verification leave the names of a hashed series of theirs as they are."""
    scene.they_write("w", 0, 1, options=HASHED)
    datastore = Datastore(scene.url, scene.client)
    assert [result.reason for result in datastore.migrate()] == [None]
    assert [result.reason for result in datastore.repair()] == [None]
    (report,) = datastore.verify(deep=True)
    assert report.ok, report.findings
    check_both(scene, 0, 1)


@pytest.mark.parametrize("who", ["they", "we"])
def test_both_refuse_instances_of_the_other_kind(who: str, scene: Shared) -> None:
    """A file without a function in a hashed series, one with it in another: an error of the file, nothing stored."""

    def outcome(key: SeriesKey, mode: str, index: int, *, series: bool, instance: bool) -> tuple[int, str]:
        here = replace(scene, key=key)
        if who == "they":
            found = here.they_write(mode, index, options={"hashed_uids": series}, hash=instance)
            return found["new"], "".join(found["why"])
        with here.ours(mode, hashed_uids=series, legacy_index=True) as cod:
            result = cod.append([Instance(here.files.paths[index], uid_hash_func=hashed if instance else None)])
        return len(result.new), "".join(str(error) for _, error in result.errors)

    uids = scene.files.series.uids
    own = SeriesKey(uids.study, uids.series)
    assert outcome(scene.key, "w", 0, series=True, instance=True)[0] == 1
    assert outcome(own, "w", 0, series=False, instance=False)[0] == 1
    for key, series in ((scene.key, True), (own, False)):
        new, why = outcome(key, "a", 1, series=series, instance=not series)
        assert new == 0
        assert "uid_hash_func" in why
    check_both(scene, 0)
    replace(scene, key=own).check_both(0)


def test_a_series_of_its_own_uids_is_taken_for_hashed_by_them_alone(scene: Shared) -> None:
    """They read a series of original UIDs as if it was hashed; we refuse to; without the flag both read both."""
    uids = scene.files.series.uids
    plain: Any = replace(scene, key=SeriesKey(uids.study, uids.series))
    plain.they_write("w", 0)
    scene.they_write("w", 0, options=HASHED)
    assert plain.theirs("read", options=HASHED) == plain.expected(0)
    with pytest.raises(HashedUidsError), plain.ours(hashed_uids=True):
        pass
    assert plain.theirs("read") == plain.expected(0) == plain.we_read()
    assert scene.theirs("read") == scene.we_read()
