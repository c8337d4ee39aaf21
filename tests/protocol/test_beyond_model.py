"""What the text of the protocol says beyond its model: copies, vanished segments, many segments, foreign writers."""

from __future__ import annotations

import shutil
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_optimized_dicom import CODObject, Datastore, Instance
from cloud_optimized_dicom.append import Appender, AppendOptions
from cloud_optimized_dicom.errors import (
    CommitUnknownError,
    ConflictError,
    ErrorLogExistsError,
    LockVerificationError,
    TarValidationError,
)
from cloud_optimized_dicom.format.metadata.document import COMMITS_KEPT, SeriesDocument
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.series.packing import MAX_SEGMENTS, segmented
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.storage.base import MAX_CONCAT_SOURCES, Attributes, new_write_id
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.scheduled_store import ScheduledStore
from tests.protocol.fleet import (
    AHEAD_SECONDS,
    Fleet,
    Reader,
    Write,
    before,
    contents,
    has_decided,
    tidies,
    writes_metadata,
    writes_tar,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.protocol.fleet import Stall

    NewFleet = Callable[[], Fleet]

GZIPPED = Attributes(content_type="application/json", content_encoding="gzip")
GOLDEN = Path(__file__).parents[1] / "golden" / "v2-series"


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Fleet:
    """Return a fleet with a stored series, on each kind of store."""
    fleet = new_fleet()
    fleet.do(Write("fill"))
    return fleet


# -- copied stores

DEATHS: dict[str, Stall] = {
    "decided": has_decided,
    "before the tar": writes_tar,
    "between tar and metadata": writes_metadata,
    "before tidying up": tidies,
}
CHANGES = {
    "append": Write("append", 3),
    "overwrite": Write("overwrite", 0, version=1),
    "remove": Write("remove", 1),
    "field": Write("field", 1, version=5),
}


def die(fleet: Fleet, change: Write, death: Stall) -> None:
    """Let a writer die where `death` says; one that makes no tar dies at the nearest place."""
    if change.kind == "field" and death in {writes_tar, tidies}:
        death = has_decided
    assert fleet.join(change, death).start()


def copy_of(fleet: Fleet, store: ObjectStore) -> Fleet:
    """Return the fleet of a copied series, with the same history."""
    return Fleet(store, fleet.files, fleet.ledger)


def finish_the_copy(copy: Fleet, commits: int) -> None:
    """Read the copy as it is, let its next writer come by, and compare."""
    reader = Reader(copy)
    reader.check()
    copy.check_settled()
    reader.check()
    reader.close()
    assert len(copy.committed()) == commits


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sidecars", [True, False], ids=["whole", "without sidecars"])
def test_copied_folder_is_finished_where_it_lies(
    tmp_path: Path, memory_fleet: NewFleet, change: str, death: str, sidecars: bool
) -> None:
    """A copy (cp -r) of a datastore with a decided commit is finished by its next writer; so is the original."""
    fleet = Fleet(LocalStore(tmp_path / "original"), memory_fleet().files)
    fleet.do(Write("fill"))
    die(fleet, CHANGES[change], DEATHS[death])
    ignored = None if sidecars else shutil.ignore_patterns(".cod")
    shutil.copytree(tmp_path / "original", tmp_path / "copy", ignore=ignored)
    finish_the_copy(copy_of(fleet, LocalStore(tmp_path / "copy")), 3)
    fleet.check_settled()
    assert len(fleet.committed()) == 3


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("change", CHANGES)
def test_copied_prefix_is_finished_where_it_lies(
    gcs_session_client: Any, gcs_bucket: str, memory_fleet: NewFleet, change: str, death: str
) -> None:
    """A copy of a prefix, all of its generations new, is finished by its next writer; so is the original."""
    source, target = uuid.uuid4().hex, uuid.uuid4().hex
    fleet = Fleet(open_store(f"gs://{gcs_bucket}/{source}", gcs_session_client), memory_fleet().files)
    fleet.do(Write("fill"))
    die(fleet, CHANGES[change], DEATHS[death])
    bucket = gcs_session_client.bucket(gcs_bucket)
    for blob in list(gcs_session_client.list_blobs(gcs_bucket, prefix=f"{source}/")):
        copied = bucket.copy_blob(blob, bucket, blob.name.replace(source, target))
        assert copied.generation != blob.generation
    finish_the_copy(copy_of(fleet, open_store(f"gs://{gcs_bucket}/{target}", gcs_session_client)), 3)
    fleet.check_settled()
    assert len(fleet.committed()) == 3


def test_first_write_in_a_copied_lock_is_finished(tmp_path: Path, memory_fleet: NewFleet) -> None:
    """A copy of a series that had been decided but never written is finished too."""
    for death in (has_decided, writes_metadata):
        name = death.__name__
        fleet = Fleet(LocalStore(tmp_path / name / "original"), memory_fleet().files)
        die(fleet, Write("append", 0), death)
        shutil.copytree(tmp_path / name / "original", tmp_path / name / "copy")
        copy = copy_of(fleet, LocalStore(tmp_path / name / "copy"))
        copy.check_settled()
        assert copy.files.uid(0) in copy.contents()


def test_copied_series_is_written_on(tmp_path: Path, memory_fleet: NewFleet) -> None:
    """A copied series that nobody was writing takes appends and rewrites, and its document then names its own tar."""
    fleet = Fleet(LocalStore(tmp_path / "original"), memory_fleet().files)
    fleet.do(Write("fill"))
    for number, write in enumerate(CHANGES.values()):
        shutil.copytree(tmp_path / "original", tmp_path / f"copy{number}")
        copy = copy_of(fleet, LocalStore(tmp_path / f"copy{number}"))
        copy.do(write)
        document = read_document(copy.store, copy.files.key)[0]
        assert document.tar is not None
        assert document.tar.generation == copy.store.stat(copy.files.key.tar).version
        copy.check_settled()


def test_copied_lock_of_another_series_state_changes_nothing(fleet: Fleet) -> None:
    """An intent that was made for other bytes than those here is refused, and nothing of the series is touched."""
    assert fleet.join(Write("append", 3), has_decided).start()
    key = fleet.files.key
    lock = fleet.store.read_object(key.lock).data
    fleet.check_settled()
    fleet.do(Write("append", 4))
    earlier, commits = fleet.contents(), fleet.committed()
    body = lock.replace(b"", b"")
    fleet.store.create(key.lock, BytesPayload(body), write_id=new_write_id(), attributes=GZIPPED)
    assert fleet.take_over(Write("append", 5)).run() == "ok"  # the log names it: it is finished, not repeated
    assert fleet.committed()[: len(commits)] == commits
    assert set(earlier.items()) <= set(fleet.contents().items())
    fleet.check_settled()


# -- segments


def members(sizes: list[int]) -> list[BytesPayload]:
    """Return payloads of so many bytes, each of a byte of its own."""
    return [BytesPayload(bytes([number % 256]) * size) for number, size in enumerate(sizes)]


@given(
    sizes=st.lists(st.one_of(st.integers(0, 50), st.integers(0, 3000)), max_size=120),
    limit=st.one_of(st.integers(1, 200), st.just(10**6)),
)
def test_never_more_than_31_segments(sizes: list[int], limit: int) -> None:
    """However many members of whatever sizes, the segments are at most 31, in order, and hold every byte once."""
    payloads = members(sizes)
    segments = segmented(payloads, limit)
    assert len(segments) <= MAX_SEGMENTS == MAX_CONCAT_SOURCES - 1
    assert b"".join(segment.open().read() for segment in segments) == b"".join(p.data for p in payloads)
    assert sum(sizes) > limit or len(segments) <= 1


def begin_many(fleet: Fleet, store: ObjectStore, count: int) -> Transaction:
    """Stage so many instances, each in a segment of its own as far as that goes."""
    options = TransactionOptions(segment_bytes=1)
    transaction = Transaction.begin(store, fleet.files.key, options)
    instances = [Instance(fleet.files.path(index)) for index in range(100, 100 + count)]
    with Workshop(Path()) as workshop:
        appender = Appender(transaction, None, workshop)
        assert len(appender.append(instances, AppendOptions(False, 10**9, 10**9)).new) == count
    return transaction


@pytest.mark.parametrize("count", [31, 45])
def test_many_segments_are_one_commit(fleet: Fleet, count: int) -> None:
    """An append that fills all 31 segments beside the tar itself is one concatenation."""
    path = ScheduledStore(fleet.store)
    begin_many(fleet, path, count).commit()
    kinds = [(op.kind, op.name.startswith(fleet.files.key.pending)) for op in path.operations]
    assert kinds.count(("create", True)) == MAX_SEGMENTS
    assert kinds.count(("concat", False)) == 1
    assert fleet.names() == ["metadata.json"]
    found = fleet.contents()
    assert all(found[fleet.files.uid(index)] == fleet.files.data(index) for index in range(100, 100 + count))


class Killed(BaseException):
    """The end of a process."""


class DyingStore(ScheduledStore):
    """A store whose user dies at its first concatenation."""

    def around(self, operation: Any, act: Callable[[], Any]) -> Any:
        """Act while the user is alive."""
        if "concat" in {op.kind for op in [*self.operations, operation]}:
            self.operations.append(operation)
            raise Killed
        return super().around(operation, act)


def test_many_segments_are_finished_by_a_successor(fleet: Fleet) -> None:
    """A decided commit of 31 segments is finished, and all of them are swept, by the next writer."""
    with pytest.raises(Killed):
        begin_many(fleet, DyingStore(fleet.store), 40).commit()
    assert len(fleet.names()) == MAX_SEGMENTS + 2
    rival = ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS)
    Transaction.begin(rival, fleet.files.key, TransactionOptions()).rollback()
    assert fleet.names() == ["metadata.json"]
    assert len(fleet.contents()) == 3 + 40 + 1


# -- vanished segments


def segments_of(fleet: Fleet) -> list[str]:
    """Return the staged segments."""
    return [info.name for info in fleet.store.list(fleet.files.key.pending)]


@pytest.mark.parametrize("change", ["append", "overwrite", "remove"])
def test_vanished_segment_quarantines_and_says_so(fleet: Fleet, change: str) -> None:
    """When somebody deleted a staged segment of a decided commit, writers stop with a reason; readers read on."""
    earlier = fleet.contents()
    die(fleet, CHANGES[change], has_decided)
    (segment,) = segments_of(fleet)
    fleet.store.delete(segment)  # a lifecycle rule
    reader = Reader(fleet)
    rival = ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS)
    with pytest.raises(TarValidationError, match="vanished"), fleet.open(rival, "a"):
        pass
    assert b"vanished" in fleet.store.read_object(fleet.files.key.error_log).data
    with pytest.raises(ErrorLogExistsError), fleet.open(rival, "a"):
        pass
    with pytest.raises(TarValidationError, match="vanished"), fleet.open(rival, "a", override_errors=True):
        pass
    assert fleet.contents() == earlier
    reader.check()
    reader.close()
    assert [finding.kind for finding in verify(fleet) if finding.damage] == []
    assert sorted(fleet.names()) == [".gradient.lock", "error.log", "metadata.json"]  # the intent is still on record


def verify(fleet: Fleet) -> Any:
    """Return the findings of a verification."""
    (report,) = Datastore(fleet.store).verify()
    return report.findings


def test_segment_vanishes_under_its_own_writer(fleet: Fleet) -> None:
    """A writer whose segment is deleted behind its decision says so, and leaves its decision on record."""
    earlier = fleet.contents()
    writer = fleet.join(Write("append", 3), writes_tar)
    assert writer.start()
    (segment,) = segments_of(fleet)
    fleet.store.delete(segment)
    assert writer.finish() == "TarValidationError"
    assert fleet.contents() == earlier
    assert {".gradient.lock", "error.log"} < set(fleet.names())


def test_segments_swept_by_a_successor_have_not_vanished(fleet: Fleet) -> None:
    """A zombie whose segments were used and swept by its successor quarantines nothing."""
    for death in (has_decided, writes_tar):
        zombie = fleet.join(Write("append", 3 if death is has_decided else 4), death)
        assert zombie.start()
        assert fleet.take_over(Write("field", 1, version=1)).run() == "ok"
        assert zombie.finish() == "ok"
    assert fleet.names() == ["metadata.json"]
    fleet.check_settled()


# -- writers outside the protocol


def break_in(fleet: Fleet) -> None:
    """Change the metadata as an older writer does: without looking at our lock, without our log."""
    key = fleet.files.key
    document, version = read_document(fleet.store, key)
    cod = {name: value for name, value in document.raw["cod"].items() if name != "commits"}
    foreign = SeriesDocument(document.uri, {**document.raw, "cod": cod, "broken_in": True})
    data = BytesPayload(foreign.dump())
    fleet.store.replace(key.metadata, data, version=version, write_id=new_write_id(), attributes=GZIPPED)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ["before the decision", "after the decision", "before the metadata"])
def test_older_writer_that_breaks_in_is_a_conflict(fleet: Fleet, change: str, moment: str) -> None:
    """Metadata that changed under our lock without a commit is reported, never written over or taken for success."""
    stalls: dict[str, Stall] = {
        "before the decision": lambda _, asked: asked[-1].kind == "replace",
        "after the decision": has_decided,
        "before the metadata": writes_metadata,
    }
    writer = fleet.join(CHANGES[change], stalls[moment])
    assert writer.start()
    break_in(fleet)
    assert writer.finish() == "ConflictError"
    assert read_document(fleet.store, fleet.files.key)[0].raw["broken_in"] is True


def test_heir_meets_an_older_writer(fleet: Fleet) -> None:
    """A successor that cannot finish a decided commit, because an older writer broke in, says so."""
    die(fleet, Write("append", 3), has_decided)
    break_in(fleet)
    rival = ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS)
    with pytest.raises(ConflictError), fleet.open(rival, "a"):
        pass
    assert ".gradient.lock" in fleet.names()


def test_tar_replaced_from_outside_quarantines(fleet: Fleet) -> None:
    """A tar that is not the recorded one, with our lock proven, is quarantined; readers say so too."""
    key = fleet.files.key
    tar = fleet.store.stat(key.tar)
    fleet.store.replace(key.tar, BytesPayload(b"foreign" * 100), version=tar.version, write_id=new_write_id())
    with pytest.raises(TarValidationError), fleet.open(mode="a"):
        pass
    assert "error.log" in fleet.names()
    with fleet.open() as cod, pytest.raises(TarValidationError):
        contents(cod)


# -- a long sleep


@pytest.mark.parametrize("commits", [COMMITS_KEPT - 1, COMMITS_KEPT])
def test_zombie_that_slept_for_many_commits(memory_fleet: NewFleet, commits: int) -> None:
    """A decided writer that wakes after as many commits as the log keeps is told its success, or nobody can know."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    zombie = fleet.join(Write("append", 3), writes_metadata)
    assert zombie.start()
    for number in range(commits):
        assert fleet.take_over(Write("field", 1, version=number)).run() == "ok"
    assert zombie.finish() == ("ok" if commits < COMMITS_KEPT else "CommitUnknownError")
    assert fleet.files.uid(3) in fleet.contents()


@pytest.mark.parametrize("earlier", [3, COMMITS_KEPT + 3])
def test_zombie_on_a_series_with_a_long_log(memory_fleet: NewFleet, earlier: int) -> None:
    """A writer that lost its lock undecided is told so for certain, however long the log of the series is already."""
    fleet = memory_fleet()
    fleet.do(Write("fill"), *(Write("field", 1, version=number) for number in range(earlier)))
    for index, stall in enumerate((before(3), lambda _, asked: asked[-1].kind == "replace")):
        zombie = fleet.join(Write("append", 3 + index), stall)
        assert zombie.start()
        assert fleet.take_over(Write("field", 2, version=index)).run() == "ok"
        assert zombie.finish() == "LockVerificationError"
    assert fleet.names() == ["metadata.json"]
    assert fleet.files.uid(3) not in fleet.contents()


def test_zombie_that_reads_an_older_series(tmp_path: Path) -> None:
    """A writer whose look at an older writer's series falls apart because it lost its lock is told just that."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    store = LocalStore(tmp_path / "golden")
    (key,) = Datastore(store).series()
    zombie = ScheduledStore(store, stall_when=lambda asked: asked[-1].kind == "stat")  # it has read the metadata

    def wake() -> None:
        zombie.stalled.wait()
        rival = ScheduledStore(store, ahead_seconds=AHEAD_SECONDS)
        with CODObject(rival, None, key.study_uid, key.series_uid, "w"):
            pass
        zombie.go_on()

    thread = threading.Thread(target=wake)
    thread.start()
    with pytest.raises(LockVerificationError), CODObject(zombie, None, key.study_uid, key.series_uid, "a"):
        pass
    thread.join()
    assert store.find(key.error_log) is None


def test_heir_that_slept_for_many_commits(memory_fleet: NewFleet) -> None:
    """A successor that sleeps for longer than the log reaches back is told that it lost its lock, not of a break-in."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    die(fleet, Write("append", 3), has_decided)
    heir = fleet.take_over(Write("append", 4), writes_tar)
    assert heir.start()
    for number in range(COMMITS_KEPT + 1):
        assert fleet.take_over(Write("field", 1, version=number)).run() == "ok"
    assert heir.finish() == "LockVerificationError"
    assert fleet.files.uid(3) in fleet.contents()


def test_unknown_outcome_says_which_commit(memory_fleet: NewFleet) -> None:
    """The error for an unknown outcome names the commit, which the log tells later."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    zombie = fleet.join(Write("append", 3), writes_metadata)
    assert zombie.start()
    for number in range(COMMITS_KEPT):
        fleet.take_over(Write("field", 1, version=number)).run()
    assert zombie.finish() == CommitUnknownError.__name__
    assert len(zombie.own_commits) == 1
