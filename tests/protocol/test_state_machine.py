"""Writers and readers of one series under faults, deaths and clock jumps, operation by operation, against a dict."""

from __future__ import annotations

import tempfile
import threading
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from cloud_optimized_dicom import Instance
from cloud_optimized_dicom.append import Appender, AppendOptions
from cloud_optimized_dicom.errors import (
    CODError,
    InstanceNotFoundError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.format.metadata.record import dump_record
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.storage.memory import MemoryStore
from tests.protocol.fleet import LEASE_SECONDS, Files, Fleet, Participant, Reader, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.series.packing import NewMember
    from cloud_optimized_dicom.testing.intercepting_store import Operation

MOST_WRITERS = 24
"""In one example; the log of a series names 32 commits."""

MOST_ALIVE = 4
INSTANCES = 4
TEN_YEARS = timedelta(days=3650)

GO, RETRY = "go", "its response is lost, and it is repeated later"
FAULTS = {
    "fails": "no effect, and the writer knows",
    "is lost before": "no effect, but nobody can tell",
    "is lost after": "done, but nobody can tell",
    "is late": "done whenever it pleases, and nobody can tell",
    RETRY: "done; the adapter asks again when others have had their turn",
}


class Died(BaseException):
    """The end of a writer; whatever it tries to tidy up, it is dead."""


class Clock:
    """A server's clock that jumps."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the present instant."""
        return self.now


@cache
def material() -> tuple[Files, dict[tuple[int, int], NewMember]]:
    """Return instances as they are staged, measured once for all examples."""
    files = Files(Path(tempfile.mkdtemp(prefix="cod-machine-")))
    members: dict[tuple[int, int], NewMember] = {}
    for index in range(INSTANCES):
        for version in range(3):
            store = MemoryStore(f"memory://{uuid.uuid4().hex}")
            transaction = Transaction.begin(store, files.key, TransactionOptions(locked=False))
            with Workshop(Path()) as workshop:
                appender = Appender(transaction, None, workshop)
                appender.append([Instance(files.path(index, version))], AppendOptions(False, 10**9, 10**9))
            members[index, version] = transaction.new[files.uid(index)]
    return files, members


class SteppedWriter(Participant):
    """A writer in a thread of its own that does one operation when it is told to."""

    def __init__(self, fleet: Fleet, write: Write) -> None:
        super().__init__(fleet, write)
        self.transaction: Transaction | None = None
        self.next: Operation | None = None
        self.late: list[Callable[[], Any]] = []
        self.dead = False
        self._action = GO
        self._arrived, self._turn = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._arrived.acquire()

    @property
    def alive(self) -> bool:
        """Whether there is something left to do."""
        return self.next is not None

    def step(self, action: str = GO) -> None:
        """Let the next operation happen, or something happen to it; come back when the one after it is due."""
        self._action = action
        self._turn.release()
        self._arrived.acquire()

    def run_out(self) -> None:
        """Let everything happen that is left."""
        while self.alive:
            self.step()

    def die(self) -> None:
        """Let the writer end before its next operation."""
        self.dead = True
        if self.alive:
            self.step()

    def renew(self) -> None:
        """Do what the renewal in the background does now and then."""
        lock = self.transaction.lock if self.transaction is not None else None
        lock_is_being_written = self.next is not None and self.next.name == self.fleet.files.key.lock
        # A lock that is being let go of has no version any more; its renewal in the background has stopped before.
        if lock is None or lock.version is None or self.dead or lock_is_being_written:
            return
        try:
            lock.renew()
        except CODError:
            return

    # -- in the writer's thread

    def _work(self) -> None:
        try:
            self.outcome = self._attempt()
        except Died:
            self.outcome = "died"
        except BaseException as error:  # noqa: BLE001 - handed to the machine
            self.failure = error
        finally:
            self.next = None
            self._arrived.release()

    def _attempt(self) -> str:
        assert self.write is not None
        options = TransactionOptions(replace=self.write.mode == "w", lock=LockOptions(LEASE_SECONDS))
        try:
            transaction = self.transaction = Transaction.begin(self, self.fleet.files.key, options)
            try:
                stage(transaction, self.write)
            except CODError:
                transaction.rollback()
                raise
            transaction.commit()
        except CODError as error:
            return type(error).__name__
        return "ok"

    def around(self, operation: Operation, act: Callable[[], Any]) -> Any:
        """Wait for the turn, then do what it says."""
        if threading.current_thread() is not self._thread:
            return act()  # a renewal
        action = self._await_turn(operation)
        if action == GO:
            return act()
        if action == RETRY:
            act()
            self._await_turn(operation)
            return act()
        if action == "is lost after":
            act()
        if action == "is late":
            self.late.append(act)
        if operation.write_id is None or action == "fails":
            raise TransientStorageError(operation.name, action)
        raise WriteUnknownError(operation.name, operation.write_id, action)

    def _await_turn(self, operation: Operation) -> str:
        if not self.dead:
            self.next = operation
            self._arrived.release()
            self._turn.acquire()
        if self.dead:
            raise Died
        return self._action


def stage(transaction: Transaction, write: Write) -> None:
    """Stage a change."""
    files, members = material()
    if write.kind in {"remove", "swap"}:
        transaction.remove([files.uid(write.other if write.kind == "swap" else write.index)])
    if write.kind in {"field", "fill"}:
        transaction.set_field(f"field{write.index}", write.version)
    if write.kind == "edit":
        record, payload = members[write.index, write.version].record, members[write.index, write.version].payload
        if transaction.find(record.name_uid) is None:
            raise InstanceNotFoundError(record.name_uid)
        transaction.edit(record.name_uid, payload, dump_record(record))
    indexes = {"fill": range(3), "field": (), "remove": (), "clear": (), "edit": ()}.get(write.kind, (write.index,))
    for index in indexes:
        if transaction.find(files.uid(index)) is None:
            transaction.add(members[index, write.version])


WRITES = st.builds(
    Write,
    kind=st.sampled_from(["append", "append", "overwrite", "remove", "swap", "edit", "field", "fill", "clear"]),
    index=st.integers(0, INSTANCES - 1),
    version=st.integers(0, 2),
    other=st.integers(0, INSTANCES - 1),
).map(lambda write: Write("fill", 0, write.version) if write.kind == "fill" else write)


class Series(RuleBasedStateMachine):
    """One series; `Fleet` knows what must be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        store = MemoryStore(f"memory://{uuid.uuid4().hex}", clock=self.clock)
        self.fleet = Fleet(store, material()[0])
        self.writers: list[SteppedWriter] = []
        self.readers: list[Reader] = []
        self.seen: tuple[str, ...] = ()

    def alive(self, choice: int) -> SteppedWriter:
        """Return one of the writers that have something left to do."""
        alive = [writer for writer in self.writers if writer.alive]
        return alive[choice % len(alive)]

    def some_alive(self) -> bool:
        """Say whether anybody has something left to do."""
        return any(writer.alive for writer in self.writers)

    # -- what happens

    @precondition(lambda self: len(self.writers) < MOST_WRITERS and sum(w.alive for w in self.writers) < MOST_ALIVE)
    @rule(write=WRITES, steps=st.integers(0, 12))
    def a_writer_begins(self, write: Write, steps: int) -> None:
        """Somebody sets out to change the series, and gets some way."""
        writer = SteppedWriter(self.fleet, write)
        self.fleet.participants.append(writer)
        self.writers.append(writer)
        self.go(writer, steps)

    def go(self, writer: SteppedWriter, steps: int) -> None:
        """Let a writer do some operations."""
        for _ in range(steps):
            if writer.alive:
                writer.step()

    @precondition(some_alive)
    @rule(choice=st.integers(0, 3), steps=st.integers(1, 12))
    def a_writer_goes_on(self, choice: int, steps: int) -> None:
        """Somebody does the next operations."""
        self.go(self.alive(choice), steps)

    @precondition(some_alive)
    @rule(choice=st.integers(0, 3), fault=st.sampled_from(sorted(FAULTS)), steps=st.integers(0, 4))
    def a_fault_happens(self, choice: int, fault: str, steps: int) -> None:
        """Something goes wrong with somebody's next operation, or one soon after it."""
        writer = self.alive(choice)
        self.go(writer, steps)
        if writer.alive:
            writer.step(fault)

    @precondition(some_alive)
    @rule(choice=st.integers(0, 3))
    def a_writer_dies(self, choice: int) -> None:
        """Somebody is gone for good."""
        self.alive(choice).die()

    @precondition(some_alive)
    @rule(choice=st.integers(0, 3))
    def a_lock_is_renewed(self, choice: int) -> None:
        """Somebody's lock is renewed in the background."""
        self.alive(choice).renew()

    @rule(choice=st.integers(0, 7))
    def a_late_request_lands(self, choice: int) -> None:
        """Let a request that everybody has given up on reach the server."""
        late = [(writer, number) for writer in self.writers for number in range(len(writer.late))]
        if late:
            writer, number = late[choice % len(late)]
            land(writer.late.pop(number))

    @rule(seconds=st.sampled_from([1, 60, 121, 121, 3600, -60, -3600]))
    def the_clock_jumps(self, seconds: int) -> None:
        """Move the server's clock on, or set it back."""
        self.clock.now += timedelta(seconds=seconds)

    @precondition(lambda self: len(self.readers) < 3 and self.fleet.committed())
    @rule()
    def a_reader_opens(self) -> None:
        """Somebody opens the series to read it now and later."""
        self.readers.append(Reader(self.fleet))

    @precondition(lambda self: self.readers)
    @rule(choice=st.integers(0, 2))
    def a_reader_reads(self, choice: int) -> None:
        """Somebody reads all of what was there when the series was opened."""
        self.readers[choice % len(self.readers)].check()

    # -- what always holds

    @invariant()
    def every_state_can_be_read(self) -> None:
        """Whoever opens the series now finds a committed state of it, and the bytes of every instance."""
        listed = self.fleet.store.list(f"{self.fleet.files.key.folder}")
        versions = tuple(info.version for info in listed)
        if versions == self.seen:
            return
        self.seen = versions
        if self.fleet.committed():
            reader = Reader(self.fleet)
            reader.check()
            reader.close()
        assert "error.log" not in self.fleet.names()

    @invariant()
    def nobody_is_lied_to(self) -> None:
        """Find every success in the history or in the lock, and nobody in what cannot happen."""
        commits = self.fleet.committed()
        decided = Reader.decided(self.fleet)
        for writer in self.writers:
            if writer.failure is not None:
                raise writer.failure
            if writer.outcome == "ok":
                assert set(writer.own_commits) <= {*commits, decided}

    def teardown(self) -> None:
        """Let everybody die and everything late land; the next writer then finds all that was decided."""
        for writer in self.writers:
            writer.die()
            for act in writer.late:
                land(act)
        self.clock.now += TEN_YEARS
        self.fleet.check_settled()
        for reader in self.readers:
            reader.check()
            reader.close()


def land(act: Callable[[], Any]) -> None:
    """Let a late request happen, if its precondition still holds."""
    try:
        act()
    except StorageError:
        return


def run(examples: int) -> None:
    """Run so many examples."""
    profile = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,  # a run that fails today fails tomorrow
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Series, settings=profile)  # type: ignore[no-untyped-call]


def test_100_histories() -> None:
    """In 100 histories of writers, readers, faults and clock jumps nothing is lost, mixed or misreported."""
    run(100)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_2000_histories() -> None:
    """In 2,000 other histories, neither."""
    run(2000)
