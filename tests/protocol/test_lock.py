"""The lock of a series: leases by the server's clock, renewal, loss, waiting, locks of older writers."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.errors import LockAcquisitionError, LockVerificationError
from cloud_optimized_dicom.format.metadata.document import Change
from cloud_optimized_dicom.lock.lease import LockOptions, SeriesLock, acquire
from cloud_optimized_dicom.lock.record import Intent, LockRecord, parse_lock
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.scheduled_store import ScheduledStore
from cloud_optimized_dicom.uids import SeriesKey
from tests.limits import no_new_threads
from tests.protocol.fleet import AHEAD_SECONDS, Files, Fleet, Write, attempt, before, has_decided

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation

    NewFleet = Callable[[], Fleet]

GOLDEN = Path(__file__).parents[1] / "golden" / "v2-hanging-lock"
YEAR_SECONDS = 366 * 86400.0


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Fleet:
    """Return a fleet with a stored series, on each kind of store."""
    fleet = new_fleet()
    fleet.do(Write("fill"))
    return fleet


@pytest.fixture
def store() -> MemoryStore:
    """Return an empty store in memory."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


def lock_in(store: ObjectStore, key: SeriesKey) -> LockRecord:
    """Return what the lock blob says."""
    return parse_lock(key.lock, store.read_object(key.lock).data)


def begin(store: ObjectStore, key: SeriesKey, **options: Any) -> Transaction:
    """Open a series for writing, with options of the lock."""
    return Transaction.begin(store, key, TransactionOptions(lock=LockOptions(**options)))


# -- renewal


class Renewals(ScheduledStore):
    """A store that tells when its user has renewed the lock so many times."""

    def __init__(self, inner: ObjectStore, count: int) -> None:
        super().__init__(inner)
        self.reached = threading.Event()
        self._count = count

    def around(self, operation: Operation, act: Callable[[], Any]) -> Any:
        """Count what was done."""
        result = super().around(operation, act)
        if [op.kind for op in self.operations].count("replace") >= self._count:
            self.reached.set()
        return result


def test_renewal_keeps_a_lock_beyond_its_lease(memory_fleet: NewFleet) -> None:
    """A lock that is renewed in the background outlives its lease, at ever new versions, and its holder commits."""
    fleet = memory_fleet()
    renewing = Renewals(fleet.store, 5)
    with fleet.open(renewing, "a", lease_seconds=1.5) as cod:
        acquired = cod.lock_generation
        assert renewing.reached.wait(60)  # five thirds of a lease
        assert cod.lock_generation != acquired
        assert attempt(fleet.store, fleet.files, Write("append", 1)) == "LockAcquisitionError"
        Write("append", 0).stage(cod, fleet.files)
        assert cod.lock
    assert list(fleet.contents()) == [fleet.files.uid(0)]
    assert fleet.names() == ["metadata.json"]


def test_renewal_never_undoes_the_decision(store: MemoryStore, fleet_files: Files) -> None:
    """A renewal that waits while the intent is being written leaves the intent in the lock."""
    key = fleet_files.key
    slow = ScheduledStore(store, stall_when=lambda asked: asked[-1].kind == "replace")
    lock = acquire(slow, key, LockOptions(), hashed_uids=False).lock
    intent = Intent("decision", None, None, (), None, Change(set_fields={"field1": 1}))
    deciding = threading.Thread(target=lock.decide, args=(intent,))
    deciding.start()
    assert slow.stalled.wait(60)
    renewing = threading.Thread(target=lock.renew)
    renewing.start()
    time.sleep(0.1)  # for the renewal to come as far as it can
    slow.go_on()
    deciding.join()
    renewing.join()
    found = lock_in(store, key).intent
    assert found is not None
    assert found.write_id == "decision"
    lock.release()


def test_renewal_never_brings_a_finished_intent_back(memory_fleet: NewFleet) -> None:
    """A renewal that waits while an inherited intent is being cleared does not write it into the lock again."""
    fleet = memory_fleet()
    fleet.do(Write("fill"))
    assert fleet.take_over(Write("append", 3), has_decided).start()

    def clears(asked: Sequence[Operation]) -> bool:
        return [operation.kind for operation in asked].count("replace") == 2  # the first one took the lock over

    slow = ScheduledStore(fleet.store, stall_when=clears, ahead_seconds=AHEAD_SECONDS)
    lock = acquire(slow, fleet.files.key, LockOptions(), hashed_uids=False).lock
    assert lock.inherited is not None
    clearing = threading.Thread(target=lock.clear)
    clearing.start()
    assert slow.stalled.wait(60)
    renewing = threading.Thread(target=lock.renew)
    renewing.start()
    time.sleep(0.1)
    slow.go_on()
    clearing.join()
    renewing.join()
    assert lock_in(fleet.store, fleet.files.key).intent is None
    lock.release()


# -- loss


def test_stalled_renewals_lose_the_lock(memory_fleet: NewFleet) -> None:
    """A writer whose every request, renewals too, stalls for longer than a tiny lease is deposed and told so."""
    for step in range(2, 5):
        fleet = memory_fleet()
        fleet.do(Write("fill"))
        zombie = fleet.join(Write("append", 3), before(step))
        assert zombie.start(lease_seconds=0.05)
        time.sleep(0.15)
        rival = fleet.join(Write("append", 4))  # by the real clock
        assert rival.run() == "ok"
        assert zombie.finish() == "LockVerificationError"
        fleet.check_settled()


def test_lost_lock_is_seen_before_the_next_write(fleet: Fleet) -> None:
    """Once a renewal has found the lock lost, the commit writes nothing any more."""
    key = fleet.files.key
    path = ScheduledStore(fleet.store)
    loser = begin(path, key)
    rival = begin(ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS), key)
    assert loser.lock is not None
    with pytest.raises(LockVerificationError):
        loser.lock.renew()
    loser.set_field("field1", 1)
    asked = len(path.operations)
    with pytest.raises(LockVerificationError):
        loser.commit()
    assert {operation.kind for operation in path.operations[asked:]} <= {"read_object", "delete"}
    rival.rollback()
    assert fleet.names() == ["metadata.json"]
    fleet.check_settled()


def test_release_never_deletes_a_successors_lock(fleet: Fleet) -> None:
    """A deposed writer that rolls back, or fails, leaves its successor's lock where it is."""
    key = fleet.files.key
    loser = begin(fleet.store, key)
    rival = begin(ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS), key)
    loser.rollback()
    assert rival.lock is not None
    assert fleet.store.stat(key.lock).version == rival.lock.version
    rival.lock.renew()
    rival.rollback()
    assert fleet.store.find(key.lock) is None


def test_lock_is_released_when_the_block_fails(fleet: Fleet) -> None:
    """An exception in the block drops what was staged and lets the lock go."""
    earlier = fleet.contents()

    def fail() -> None:
        with fleet.open(mode="a") as cod:
            Write("append", 3).stage(cod, fleet.files)
            raise KeyError("of the user's")

    with pytest.raises(KeyError):
        fail()
    assert fleet.names() == ["metadata.json"]
    assert fleet.contents() == earlier


# -- leases, by the server's clock


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self) -> datetime:
        """Return the present instant."""
        return self.now


@pytest.mark.parametrize("year", [1999, 2099])
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_only_the_servers_clock_counts(fleet_files: Files, tmp_path: Path, kind: str, year: int) -> None:
    """A lock is respected for exactly its lease by the server's clock, however far that is from the clients'."""
    clock = Clock(datetime(year, 1, 1, tzinfo=UTC))
    name = uuid.uuid4().hex
    store = MemoryStore(f"memory://{name}", clock=clock) if kind == "memory" else LocalStore(tmp_path, clock=clock)
    acquire(store, fleet_files.key, LockOptions(lease_seconds=10), hashed_uids=False)
    clock.now += timedelta(seconds=10)
    with pytest.raises(LockAcquisitionError) as caught:
        begin(store, fleet_files.key)
    assert caught.value.age_seconds == 10
    assert caught.value.expires == clock.now
    clock.now += timedelta(seconds=0.001)
    assert attempt(store, fleet_files, Write("append", 0)) == "ok"


def test_clock_that_goes_back_expires_nothing(fleet_files: Files) -> None:
    """A server clock that is set back makes a lock younger, never older."""
    clock = Clock(datetime(2030, 1, 1, tzinfo=UTC))
    store = MemoryStore(f"memory://{uuid.uuid4().hex}", clock=clock)
    acquire(store, fleet_files.key, LockOptions(lease_seconds=10), hashed_uids=False)
    clock.now -= timedelta(days=365)
    with pytest.raises(LockAcquisitionError):
        begin(store, fleet_files.key)


def test_busy_says_by_whom_and_how_long(fleet: Fleet) -> None:
    """The error for a lock that is held names its holder, its age and its end."""
    holder = begin(fleet.store, fleet.files.key, lease_seconds=60)
    later = ScheduledStore(fleet.store, ahead_seconds=30)
    with pytest.raises(LockAcquisitionError) as caught:
        begin(later, fleet.files.key)
    error = caught.value
    assert error.owner == lock_in(fleet.store, fleet.files.key).owner is not None
    assert 29 <= error.age_seconds <= 60
    assert error.expires == fleet.store.read_object(fleet.files.key.lock).info.updated + timedelta(seconds=60)
    assert error.uri.endswith(".gradient.lock")
    holder.rollback()


# -- waiting


def test_waiting_writer_gets_the_lock_when_it_is_released(fleet: Fleet) -> None:
    """A writer that waits begins as soon as the holder is done, with what the holder did in hand."""
    holder = fleet.join(Write("append", 3), has_decided)
    assert holder.start()
    waiting = fleet.join(Write("append", 4))
    thread = threading.Thread(target=waiting.run, kwargs={"wait_seconds": 60})
    thread.start()
    while [op.kind for op in waiting.operations].count("read_object") < 2:  # it was refused twice
        time.sleep(0.01)
    assert waiting.outcome is None
    assert holder.finish() == "ok"
    thread.join()
    assert waiting.outcome == "ok"
    listed = [op.kind for op in waiting.operations].count("list")
    tried = [op.kind for op in waiting.operations if op.name == fleet.files.key.lock].count("create")
    assert listed == tried > 2  # every attempt lists anew
    fleet.check_settled()


def test_waiting_ends(memory_fleet: NewFleet) -> None:
    """A writer that has waited in vain says that the lock is held."""
    fleet = memory_fleet()
    holder = begin(fleet.store, fleet.files.key)
    waiting = fleet.join(Write("append", 4))
    assert waiting.run(wait_seconds=0.3) == "LockAcquisitionError"
    assert [op.kind for op in waiting.operations].count("create") > 1
    holder.rollback()


# -- intents


def test_intent_is_carried_along_over_takeovers(fleet: Fleet) -> None:
    """An intent stays in the lock while two successors in a row take over and die; the third one finishes it."""
    assert fleet.join(Write("append", 3), has_decided).start()
    decided = lock_in(fleet.store, fleet.files.key).intent
    assert decided is not None
    owners = {lock_in(fleet.store, fleet.files.key).write_id}
    for index in (4, 5):
        dead = fleet.take_over(Write("append", index), lambda participant, _: participant.holding)
        assert dead.start()
        assert lock_in(fleet.store, fleet.files.key).intent == decided
        owners.add(lock_in(fleet.store, fleet.files.key).write_id)
        assert fleet.files.uid(3) not in fleet.contents()
    assert len(owners) == 3
    fleet.check_settled()
    assert fleet.files.uid(3) in fleet.contents()
    assert fleet.files.uid(4) not in fleet.contents()


def test_renewal_of_an_heir_keeps_the_intent(fleet: Fleet) -> None:
    """A successor that renews the lock before it has finished the inherited intent keeps it there."""
    assert fleet.join(Write("append", 3), has_decided).start()
    rival = ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS)
    lock = acquire(rival, fleet.files.key, LockOptions(), hashed_uids=False).lock
    lock.renew()
    assert lock_in(fleet.store, fleet.files.key).intent == lock.inherited is not None
    fleet.check_settled()


# -- locks of older writers


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[LocalStore, SeriesKey]:
    """Return a copy of a datastore whose older writer left its lock behind, and its series."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    (lock,) = (tmp_path / "golden").rglob(".gradient.lock")
    key = SeriesKey.parse(str(lock.parent))
    assert key is not None
    return LocalStore(tmp_path / "golden"), key


def put_lock(store: ObjectStore, key: SeriesKey, instances: dict[str, Any]) -> bytes:
    """Make a lock as older writers do: the series' document, gzipped."""
    body = {"study_uid": key.study_uid, "series_uid": key.series_uid, "cod": {"instances": instances}, "thumbnail": {}}
    data = gzip.compress(json.dumps(body).encode())
    store.create(key.lock, BytesPayload(data), write_id=new_write_id())
    return data


def test_older_writers_lock_is_respected_for_ever(hanging: tuple[LocalStore, SeriesKey]) -> None:
    """A lock without a lease keeps our writers out, years later too, and stays as it is."""
    store, key = hanging
    data = store.read_object(key.lock).data
    for ahead in (0.0, YEAR_SECONDS, 20 * YEAR_SECONDS):
        with pytest.raises(LockAcquisitionError) as caught:
            begin(ScheduledStore(store, ahead_seconds=ahead), key)
        assert caught.value.owner is None
        assert caught.value.expires is None
    assert store.read_object(key.lock).data == data


def test_older_writers_lock_with_instances_is_never_overridden(hanging: tuple[LocalStore, SeriesKey]) -> None:
    """An age for empty locks does not touch a lock whose body holds instances: it may be all there is of them."""
    store, key = hanging
    assert lock_in(store, key).holds_instances
    with pytest.raises(LockAcquisitionError):
        begin(ScheduledStore(store, ahead_seconds=YEAR_SECONDS), key, empty_lock_override_age=1)


def test_empty_lock_of_an_older_writer_is_overridden_at_its_age(fleet: Fleet) -> None:
    """A lock without lease and instances is taken over after the hours given, not before."""
    key = fleet.files.key
    put_lock(fleet.store, key, {})
    for hours, ahead, outcome in (
        (None, 3 * 3600.0, "LockAcquisitionError"),
        (2, 1.5 * 3600, "LockAcquisitionError"),
        (2, 2.5 * 3600, "ok"),
    ):
        writer = fleet.join(Write("append", 3), ahead_seconds=ahead)
        assert writer.run(empty_lock_override_age=hours) == outcome
    fleet.check_settled()


def test_decided_lock_of_ours_looks_full_to_an_older_writer(fleet: Fleet) -> None:
    """The body of a lock of ours is a series document: empty while nothing is decided, with the records afterwards."""
    key = fleet.files.key
    holder = begin(fleet.store, key)
    body = json.loads(gzip.decompress(fleet.store.read_object(key.lock).data))
    assert (body["study_uid"], body["series_uid"]) == (key.study_uid, key.series_uid)
    assert body["cod"]["instances"] == {}
    holder.rollback()
    assert fleet.join(Write("append", 3), has_decided).start()
    body = json.loads(gzip.decompress(fleet.store.read_object(key.lock).data))
    assert list(body["cod"]["instances"]) == [fleet.files.uid(3)]
    fleet.check_settled()


@pytest.mark.parametrize(
    "data",
    [b"", b"not a document", b'{"lock": 3}', gzip.compress(b"[1, 2]", mtime=0)],
    ids=["empty", "no JSON", "odd", "a list"],
)
def test_unreadable_lock_is_respected(memory_fleet: NewFleet, data: bytes) -> None:
    """A lock that cannot be understood is some other writer's, and is never taken over."""
    fleet = memory_fleet()
    fleet.store.create(fleet.files.key.lock, BytesPayload(data), write_id=new_write_id())
    with pytest.raises(LockAcquisitionError):
        begin(ScheduledStore(fleet.store, ahead_seconds=YEAR_SECONDS), fleet.files.key)


def test_released_lock_cannot_be_renewed(store: MemoryStore, fleet_files: Files) -> None:
    """A lock that was let go says so."""
    lock: SeriesLock = acquire(store, fleet_files.key, LockOptions(), hashed_uids=False).lock
    lock.release()
    with pytest.raises(LockVerificationError):
        lock.renew()
    assert store.find(fleet_files.key.lock) is None


def test_a_lock_that_cannot_be_renewed_is_let_go(store: MemoryStore, fleet_files: Files) -> None:
    """Where no thread can be started to renew it, that is what the writer hears, and the lock is free again."""
    key = fleet_files.key
    with no_new_threads(), pytest.raises(RuntimeError, match="start new thread"):
        begin(store, key)
    assert list(store.list()) == []
    begin(store, key).rollback()
