"""What a repair mends, each time as a commit, and what it leaves alone."""

from __future__ import annotations

import io
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.format.tar import member_header, padding_bytes
from cloud_optimized_dicom.series.repair import repair_series
from cloud_optimized_dicom.series.tar_check import VerifyOptions
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.uids import SeriesKey, member_name
from tests.core.test_golden_stores import GOLDEN, MANIFEST
from tests.core.test_verify import (
    DyingStore,
    LaterStore,
    PowerCut,
    edit_metadata,
    kinds,
    member_start,
    tar_of,
    write_over,
)
from tests.core.tiny import KEY, Flip, FlippingStore, append_tiny, open_tiny, tiny_file, tiny_store, uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore

DEEP = VerifyOptions(deep=True)


def state_of(store: ObjectStore) -> dict[str, str]:
    """Return the version of every object."""
    return {info.name: info.version for info in store.list()}


def commits_of(store: ObjectStore, key: SeriesKey = KEY) -> list[str]:
    """Return the ids of the commits."""
    with open_tiny(store, key=key) as cod:
        return list(cod.get_metadata()["cod"].get("commits", []))


def files_of(store: ObjectStore, key: SeriesKey = KEY) -> dict[str, bytes]:
    """Return every instance's bytes."""
    files = {}
    with open_tiny(store, key=key) as cod:
        for name, instance in cod.get_instances(strict_sorting=False).items():
            with instance.open() as stream:
                files[name] = stream.read()
    return files


def older_store(tmp_path: Path, name: str) -> tuple[ObjectStore, SeriesKey]:
    """Return a copy of a golden store and its series."""
    datastore = Datastore(shutil.copytree(GOLDEN / name, tmp_path / name))
    (key,) = datastore.series()
    return datastore.store, key


def member(name: str, data: bytes) -> bytes:
    """Return a member of a tar."""
    return member_header(name, len(data)) + data + bytes(padding_bytes(len(data)))


def forget(*indexes: int) -> Callable[[dict[str, Any]], None]:
    """Return an edit that makes a document one of an older writer, which died before it recorded these instances."""

    def edit(document: dict[str, Any]) -> None:
        document["cod"].pop("tar", None)
        document["cod"].pop("commits", None)
        for index in indexes:
            document["cod"]["instances"].pop(uid(index), None)

    return edit


# -- orphans


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_instance_that_only_the_tar_has_is_recorded(number: int, tmp_path: Path) -> None:
    """A member of an older writer's tar that no record names gets one, wherever it lies, and reads back."""
    store, key = older_store(tmp_path, "v2-series")
    files = files_of(store, key)
    lost = list(files)[number]
    edit_metadata(store, lambda document: document["cod"]["instances"].pop(lost), key)
    assert kinds(verify_series(store, key), damage=False) == ["orphan-member"]
    result = repair_series(store, key)
    assert result.reason is None
    assert f"instance {lost}: recorded, it was in the tar only" in result.actions
    assert verify_series(store, key, DEEP).ok
    assert files_of(store, key) == files
    assert len(commits_of(store, key)) == 1
    with open_tiny(store, key=key) as cod:
        assert cod.get_instance(lost).metadata["00080018"]["Value"] == [lost]
        assert len(cod.read_frames(lost)) == 1


def test_only_instances_of_the_series_are_recorded(tmp_path: Path) -> None:
    """A member that is no DICOM, of another series, of another name than its own, or cut off stays what it is."""
    other = SeriesKey(KEY.study_uid, "1.2.3.4")
    strangers = [
        member("notes.txt", b"not DICOM"),
        member(member_name("1.2.3"), b"not DICOM"),
        member(member_name(uid(1)), tiny_file(1, other)),
        member(member_name("1.2.3.5"), tiny_file(2)),
        member(member_name(uid(4)), tiny_file(4))[:-512],
    ]
    for stranger in strangers:
        store = tiny_store(tmp_path, 0)
        write_over(store, KEY.tar, tar_of(store) + stranger)
        edit_metadata(store, forget())
        assert kinds(verify_series(store, KEY), damage=False) == ["orphan-member"]
        result = repair_series(store, KEY)
        assert result.reason is None
        assert result.actions == ("the tar's generation, size and CRC32C were recorded",)
        assert kinds(verify_series(store, KEY), damage=False) == ["orphan-member"]
        assert files_of(store) == {uid(0): tiny_file(0)}


def test_of_several_members_of_one_name_none_is_chosen(tmp_path: Path) -> None:
    """Two members of one UID are recorded once where they are equal, and not at all where they differ."""
    for second, recorded in ((tiny_file(1), True), (tiny_file(1)[:-1] + b"\x7f", False)):
        store = tiny_store(tmp_path, 0)
        twins = member(member_name(uid(1)), tiny_file(1)) + member(member_name(uid(1)), second)
        write_over(store, KEY.tar, tar_of(store) + twins)
        edit_metadata(store, forget())
        repair_series(store, KEY)
        assert (uid(1) in files_of(store)) is recorded
        assert not verify_series(store, KEY).damaged


def test_orphans_of_a_hashed_series_are_left_alone(tmp_path: Path) -> None:
    """Where UIDs are the caller's hashes nobody else can tell whether a file belongs to the series."""
    store, key = older_store(tmp_path, "v2-series-hashed")
    lost = list(files_of(store, key))[1]
    edit_metadata(store, lambda document: document["cod"]["instances"].pop(lost), key)
    assert repair_series(store, key).reason is None
    assert lost not in files_of(store, key)
    assert kinds(verify_series(store, key), damage=False) == ["orphan-member"]


# -- tables and checksums


def test_an_older_frame_table_is_rebuilt(tmp_path: Path) -> None:
    """A wrong table of an older writer becomes a right one that is believed, with a checksum for every frame."""
    store, key = older_store(tmp_path, "v2-rtdose")
    assert kinds(verify_series(store, key), damage=False) == ["frame-table-legacy"]
    files = files_of(store, key)
    ((name, data),) = files.items()
    with open_tiny(store, key=key) as cod:
        frames = cod.read_frames(name)
    result = repair_series(store, key)
    assert result.actions[0] == f"instance {name}: frame table rebuilt, 15 frames"
    assert verify_series(store, key, DEEP).ok
    assert files_of(store, key) == files
    with open_tiny(store, key=key) as cod:
        record = cod.get_instance(name).record
        assert record is not None
        table = record.frame_table
        assert table is not None
        assert table.trusted
        assert cod.read_frames(name) == frames
    assert table.crc32cs == tuple(crc32c(frame) for frame in frames)
    assert b"".join(data[table.offsets[at] :][: table.lengths[at]] for at in range(15)) == b"".join(frames)
    assert len(commits_of(store, key)) == 1


@pytest.mark.parametrize("name", sorted({entry["store"] for entry in MANIFEST["series"]} - {"v2-hanging-lock"}))
def test_every_older_store_gets_what_it_lacks(name: str, tmp_path: Path) -> None:
    """After a repair an older series has its tar's checksum and tables to be believed; another one does nothing."""
    store, key = older_store(tmp_path, name)
    files = files_of(store, key)
    others = {info.name: info.version for info in store.list() if info.name != key.metadata}
    result = repair_series(store, key)
    if name == "v2-error-log":
        assert result.actions == ()
        assert "ErrorLogExistsError" in (result.reason or "")
        return
    assert result.reason is None
    report = verify_series(store, key, DEEP)
    assert kinds(report, damage=True) == []
    assert set(kinds(report, damage=False)) <= {"no-instances"}
    assert files_of(store, key) == files
    assert {info.name: info.version for info in store.list() if info.name != key.metadata} == others
    with open_tiny(store, key=key) as cod:
        document = cod.get_metadata()["cod"]
        instances = cod.get_instances(strict_sorting=False).values()
        tables = [instance.record.frame_table for instance in instances if instance.record and instance.has_pixeldata]
    assert all(table is not None and table.trusted and table.crc32cs is not None for table in tables)
    if files:
        assert document["tar"]["size"] == store.stat(key.tar).size
    before = state_of(store)
    assert repair_series(store, key).actions == ()
    assert state_of(store) == before


def test_after_a_copy_the_new_versions_are_recorded(tmp_path: Path) -> None:
    """A copied series is read as it is; a repair has its document name the tar's new version."""
    store = tiny_store(tmp_path, 0, 1)
    write_over(store, KEY.tar, tar_of(store))
    assert verify_series(store, KEY).ok
    assert repair_series(store, KEY).actions == ("the tar's generation, size and CRC32C were recorded",)
    with open_tiny(store) as cod:
        assert cod.get_metadata()["cod"]["tar"]["generation"] == store.stat(KEY.tar).version
    assert len(commits_of(store)) == 2


# -- what stays as it is


def test_a_sound_series_is_not_touched(tmp_path: Path) -> None:
    """Where there is nothing to mend there is no commit, and no object changes."""
    store = tiny_store(tmp_path, 0, 1, 2)
    before = state_of(store)
    result = repair_series(store, KEY)
    assert (result.actions, result.reason) == ((), None)
    assert state_of(store) == before


def test_damaged_bytes_are_not_touched(tmp_path: Path) -> None:
    """A rotten instance stays damaged, its record stays, and nothing vouches for its bytes afterwards."""
    for index in range(2):
        store = tiny_store(tmp_path, 0, 1)
        edit_metadata(store, forget())
        rotten = FlippingStore(store, Flip(KEY.tar, member_start(store, index) + 700, 1))
        found = verify_series(rotten, KEY).findings
        assert kinds(verify_series(rotten, KEY), damage=True) == ["checksum-mismatch"]
        before = state_of(store)
        result = repair_series(rotten, KEY)
        assert (result.actions, result.reason) == ((), None)
        assert verify_series(rotten, KEY).findings == found
        assert state_of(store) == before


def test_a_damaged_instance_keeps_no_other_from_being_mended(tmp_path: Path) -> None:
    """Beside a rotten instance an orphan is recorded, and the damage is still told."""
    store = tiny_store(tmp_path, 0, 1)
    edit_metadata(store, forget(1))
    rotten = FlippingStore(store, Flip(KEY.tar, 800, 1))
    assert repair_series(rotten, KEY).actions == (f"instance {uid(1)}: recorded, it was in the tar only",)
    assert "checksum-mismatch" in kinds(verify_series(rotten, KEY), damage=True)
    assert list(files_of(store)) == [uid(0), uid(1)]


def test_a_series_whose_tar_is_another_is_quarantined_not_mended(tmp_path: Path) -> None:
    """A tar that the metadata was not written for is damage that no repair may explain away."""
    store = tiny_store(tmp_path, 0)
    edit_metadata(store, lambda document: document["cod"]["instances"].clear())
    write_over(store, KEY.tar, tar_of(store) + member(member_name(uid(1)), tiny_file(1)))
    result = repair_series(store, KEY)
    assert result.actions == ()
    assert "TarValidationError" in (result.reason or "")
    assert verify_series(store, KEY).damaged


# -- others at work


def test_leftovers_are_swept_and_decided_commits_finished(tmp_path: Path) -> None:
    """A repair begins as any writer does: with what a dead one left."""
    outcomes = set()
    for lives in range(12):
        store = tiny_store(tmp_path, 0)
        try:
            append_tiny(DyingStore(store, lives), tmp_path, 1)
        except PowerCut:
            result = repair_series(LaterStore(store), KEY)
            assert result.reason is None
            outcomes.add(result.actions)
            assert verify_series(store, KEY).ok
    assert outcomes == {
        (),
        ("the commit that a dead writer had decided was finished",),
        ("what a dead writer left was swept",),
    }


def test_a_series_that_is_held_is_said_to_be_busy(tmp_path: Path) -> None:
    """While somebody writes nothing is repaired, and the reason names who."""
    store, key = older_store(tmp_path, "v2-rtdose")
    with open_tiny(store, "a", key=key):
        result = repair_series(store, key)
    assert (result.actions, result.busy) == ((), True)
    assert "is held by" in (result.reason or "")
    assert repair_series(store, key).actions


def test_a_repaired_tar_is_still_a_tar(tmp_path: Path) -> None:
    """After a repair other tools list every recorded instance, and the next append works."""
    store = tiny_store(tmp_path, 0, 1)
    edit_metadata(store, forget(1))
    repair_series(store, KEY)
    append_tiny(store, tmp_path, 2)
    assert verify_series(store, KEY, DEEP).ok
    with tarfile.open(fileobj=io.BytesIO(tar_of(store))) as archive:
        assert archive.getnames() == [member_name(uid(index)) for index in range(3)]
    assert files_of(store) == {uid(index): tiny_file(index) for index in range(3)}
