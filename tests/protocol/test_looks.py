"""Several looks at a series that changes between them: in the right order, they are never put together wrongly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Hints, Instance
from cloud_optimized_dicom.errors import MetadataError, StaleReadError
from cloud_optimized_dicom.format.json_stream import dump_gzip
from cloud_optimized_dicom.ingest.dependencies import verified_document
from cloud_optimized_dicom.series.maintenance import discard_intent
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.scheduled_store import ScheduledStore
from tests.core.bulk import ingest
from tests.protocol.fleet import (
    AHEAD_SECONDS,
    LARGE,
    Fleet,
    Write,
    attempt,
    has_decided,
    holds_the_lock,
    writes_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom import CODObject
    from cloud_optimized_dicom.ingest.report import FileResult
    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.protocol.fleet import Participant

    NewFleet = Callable[[], Fleet]


def test_intent_that_moves_between_two_looks_is_found(memory_fleet: NewFleet) -> None:
    """A decision whose response was lost is found while a successor carries it from the lock to the document."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    key = fleet.files.key

    def decides(_: Participant, asked: Sequence[Any]) -> bool:
        return asked[-1].kind == "replace" and asked[-1].name == key.lock

    victim = fleet.join(Write("append", 3), decides, lose_response=True)
    looks: list[str] = []

    def second_look(asked: Sequence[Any]) -> bool:
        if victim.stalled.is_set() and asked[-1].kind == "read_object":
            looks.append(asked[-1].name)
        return len(looks) == 2

    between = victim.inner = ScheduledStore(fleet.store, stall_when=second_look)
    assert victim.start()
    heir = fleet.take_over(Write("append", 4), holds_the_lock)
    assert heir.start()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(victim.finish)
        while not outcome.done() and not between.stalled.wait(0.01):
            pass
        assert heir.finish() == "ok"
        between.go_on()
        assert outcome.result() == "ok"
    assert looks[0] == key.lock
    fleet.check_settled()


@pytest.mark.parametrize("large", [False, True], ids=["one request", "resumable"])
def test_zombie_whose_old_tar_is_gone(new_fleet: NewFleet, large: bool) -> None:
    """A writer that loses its lock while it copies bytes of the old tar is told that, not that something is missing."""
    fleet = new_fleet()
    fleet.do(Write("fill"))
    if large:
        fleet.do(Write("append", 3, version=LARGE))
    zombie = ScheduledStore(fleet.store, stall_when=lambda asked: asked[-1].kind == "read")
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(attempt, zombie, fleet.files, Write("remove", 0))
        assert zombie.stalled.wait(60)
        assert fleet.take_over(Write("overwrite", 5)).run() == "ok"
        zombie.go_on()
        assert outcome.result() == "LockVerificationError"
    fleet.check_settled()


def read(cod: CODObject, uid: str) -> bytes:
    """Return an instance's bytes."""
    with cod.open_instance(uid) as stream:
        return stream.read()


def test_intent_is_only_applied_to_its_own_document(memory_fleet: NewFleet) -> None:
    """A reader whose document is older than the one that the intent in the lock was made for does not apply it."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    key = fleet.files.key
    path = ScheduledStore(fleet.store, stall_when=lambda asked: asked[-1].kind == "stat" and asked[-1].name == key.tar)
    with fleet.open(path) as cod:
        cod.get_metadata()
        fleet.do(Write("append", 3))  # the tar that the reader knows is gone
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, cod, fleet.files.uid(1))
            assert path.stalled.wait(60)  # it has read the document again
            fleet.do(Write("remove", 0))  # every place changes
            assert fleet.join(Write("append", 4), writes_metadata).start()
            earlier = [path.operations[-2].name, path.operations[-1].name]
            path.go_on()
            assert reading.result() == fleet.files.data(1)
    assert earlier == [key.metadata, key.tar]
    fleet.check_settled()


@pytest.mark.parametrize("is_hinted", [False, True], ids=["measured", "hinted"])
def test_what_is_about_to_be_removed_is_not_stored(new_fleet: NewFleet, is_hinted: bool) -> None:
    """An ingest calls no file stored whose removal is decided: busy while that writer lives, it stores it after."""
    fleet = new_fleet()
    fleet.do(Write("fill"))
    assert fleet.join(Write("remove", 0), has_decided).start()

    def ingested(store: ObjectStore) -> FileResult:
        instance = Instance(fleet.files.path(0))
        if is_hinted:
            key, uid, crc32c = fleet.files.key, fleet.files.uid(0), instance.crc32c()
            instance = Instance(fleet.files.path(0), hints=Hints(None, crc32c, uid, key.series_uid, key.study_uid))
        (result,) = ingest(store, [instance]).files
        return result

    early = ingested(fleet.store)
    assert (early.outcome, early.retryable) == ("error", True)
    assert ingested(ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS)).outcome == "new"
    with fleet.open() as cod:
        assert read(cod, fleet.files.uid(0)) == fleet.files.data(0)


def test_what_a_decided_removal_takes_away_is_not_verified(memory_fleet: NewFleet) -> None:
    """Nobody deletes a source by the word of a document that a decided commit is about to change."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    assert fleet.join(Write("remove", 0), has_decided).start()
    with pytest.raises(StaleReadError):
        verified_document(fleet.store, fleet.files.key)


def given(fleet: Fleet, indexes: Sequence[int], *, is_hinted: bool) -> list[Instance]:
    """Return instances of the fleet's files, of which everything is claimed, or nothing."""
    instances = [Instance(fleet.files.path(index)) for index in indexes]
    if is_hinted:
        key = fleet.files.key
        for index, instance in zip(indexes, instances, strict=True):
            crc32c = Instance(fleet.files.path(index)).crc32c()
            instance.hints = Hints(None, crc32c, fleet.files.uid(index), key.series_uid, key.study_uid)
    return instances


@pytest.mark.parametrize("is_hinted", [False, True], ids=["measured", "hinted"])
@pytest.mark.parametrize("indexes", [(3,), (3, 4)], ids=["decided alone", "beside others"])
def test_what_can_never_be_finished_is_not_stored(new_fleet: NewFleet, indexes: Sequence[int], is_hinted: bool) -> None:
    """A file that only a decided commit holds, one that has lost its segment, is an error until somebody stores it."""
    fleet = new_fleet()
    fleet.do(Write("fill"))
    key = fleet.files.key
    assert fleet.join(Write("append", 3), has_decided).start()
    for info in list(fleet.store.list(key.pending)):
        fleet.store.delete(info.name)  # a lifecycle rule
    later = ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS)

    def outcomes(store: ObjectStore) -> list[str]:
        return [result.outcome for result in ingest(store, given(fleet, [0, *indexes], is_hinted=is_hinted)).files]

    refused = ["same", *("error" for _ in indexes)]
    assert outcomes(later) == refused
    assert outcomes(fleet.store) == refused  # the lock is that of the ingest before
    assert outcomes(ScheduledStore(fleet.store, ahead_seconds=2 * AHEAD_SECONDS)) == refused
    discard_intent(ScheduledStore(fleet.store, ahead_seconds=3 * AHEAD_SECONDS), key)
    fleet.store.delete(key.error_log)
    assert outcomes(fleet.store) == ["same", *("new" for _ in indexes)]


@pytest.mark.parametrize("is_hinted", [False, True], ids=["measured", "hinted"])
def test_what_is_decided_is_stored_once_it_is_finished(new_fleet: NewFleet, is_hinted: bool) -> None:
    """While the writer lives that has decided to add a file, that is busy; after its death an ingest finishes it."""
    fleet = new_fleet()
    fleet.do(Write("fill"))
    assert fleet.join(Write("append", 3), has_decided).start()
    (early,) = ingest(fleet.store, given(fleet, [3], is_hinted=is_hinted)).files
    assert (early.outcome, early.retryable) == ("error", True)
    later = ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS)
    assert [result.outcome for result in ingest(later, given(fleet, [3], is_hinted=is_hinted)).files] == ["same"]
    assert fleet.names() == ["metadata.json"]
    assert fleet.contents()[fleet.files.uid(3)] == fleet.files.data(3)


def test_a_damaged_lock_lets_nobody_guess(memory_fleet: NewFleet) -> None:
    """Where the lock cannot be read, nothing is called stored or verified; who only reads the series still can."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    key = fleet.files.key
    lock = BytesPayload(dump_gzip({"lock": {"owner": 1}}, level=1))
    fleet.store.create(key.lock, lock, write_id=new_write_id())
    with pytest.raises(MetadataError, match="damaged"):
        verified_document(fleet.store, key)
    (result,) = ingest(fleet.store, [fleet.files.path(0)]).files
    assert result.outcome == "error"
    assert "damaged" in str(result.reason)
    with fleet.open() as cod:
        assert read(cod, fleet.files.uid(0)) == fleet.files.data(0)
