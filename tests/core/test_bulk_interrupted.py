"""An ingest of many series that is interrupted, or killed, and started again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.bulk import BulkOptions
from cloud_optimized_dicom.events import SeriesCommitted
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.base import DEFAULT_ATTRIBUTES
from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsControl, GcsServer
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.bulk import Listener, ingest, memory_store, send, write_many
from tests.crash.forks import Forks
from tests.crash.kills import KillingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import Attributes, ObjectInfo, ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.testing.intercepting_store import Operation
    from tests.core.conftest import Files

Result = TypeVar("Result")
LEASE_SECONDS = 0.5
PATIENT = BulkOptions(wait_seconds=20, lease_seconds=LEASE_SECONDS)


def press_ctrl_c() -> None:
    """Interrupt the main thread, as a terminal does."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class InterruptedStore(InterceptingStore):
    """A store in which Ctrl-C is pressed while a segment is on its way; it arrives before the segment does."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.pressed = False

    def create(
        self, name: str, payload: Payload, *, write_id: str, attributes: Attributes = DEFAULT_ATTRIBUTES
    ) -> ObjectInfo:
        """Press, and read the payload until somebody forbids that."""
        if "/.pending/" in name:
            if not self.pressed:
                self.pressed = True
                press_ctrl_c()
            give_up_at = time.monotonic() + 30
            while time.monotonic() < give_up_at:
                with payload.open() as stream:
                    stream.read(1)
                time.sleep(0.01)
        return super().create(name, payload, write_id=write_id, attributes=attributes)


class LateStore(InterceptingStore):
    """A store in which Ctrl-C is pressed when the first series has decided, and before it is visible."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.pressed = False

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Press before the first concatenation."""
        if operation.kind == "concat" and not self.pressed:
            self.pressed = True
            press_ctrl_c()
            time.sleep(0.1)
        return act()


def keys_of(made: Iterable[Files]) -> set[SeriesKey]:
    """Return where files belong."""
    return {SeriesKey(files.series.uids.study, files.series.uids.series) for files in made}


def check_settled(store: ObjectStore, made: Iterable[Files]) -> None:
    """Expect that every series is there whole or not at all, and that no writer has left anything."""
    names = [info.name for info in store.list()]
    assert not [name for name in names if ".pending/" in name or name.endswith((".lock", ".log"))]
    found = set(Datastore(store).series())
    assert found <= keys_of(made)
    assert len(names) == 2 * len(found)
    for files in made:
        key = SeriesKey(files.series.uids.study, files.series.uids.series)
        if key in found:
            assert list(SeriesReader.open(store, key).document.instances) == files.uids
    assert all(verified.ok for verified in Datastore(store).verify(deep=True))


@pytest.mark.parametrize("series", [1, 5])
def test_ctrl_c_before_the_decision(tmp_path: Path, series: int) -> None:
    """Interrupted while segments go up, nothing is visible, locks are released, copies are gone; then it is done."""
    inbox, store, scratch = memory_store(), memory_store(), tmp_path / "scratch"
    scratch.mkdir()
    made = write_many(tmp_path / "files", series)
    urls = [send(inbox, f"{files.series.seed}/{index}.dcm", files.bytes(index)) for files in made for index in range(3)]
    interrupted = InterruptedStore(store) if series > 1 else SingleInterruptedStore(store)
    with pytest.raises(KeyboardInterrupt):
        ingest(interrupted, urls, directory=scratch)
    assert not list(scratch.iterdir())
    check_settled(store, made)
    assert not list(Datastore(store).series())
    assert ingest(store, urls).count("new") == 3 * series
    check_settled(store, made)


class SingleInterruptedStore(InterceptingStore):
    """A store in which Ctrl-C is pressed by the thread that writes, in the middle of a segment."""

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Press before a segment is written."""
        if operation.kind == "create" and "/.pending/" in operation.name:
            signal.raise_signal(signal.SIGINT)
        return act()


def test_ctrl_c_behind_the_decision(tmp_path: Path) -> None:
    """A series that has decided is finished, and told of; others are given up whole."""
    store, listener = memory_store(), Listener()
    made = write_many(tmp_path, 5)
    with pytest.raises(KeyboardInterrupt):
        ingest(LateStore(store), [tmp_path], hooks=[listener])
    check_settled(store, made)
    committed = {event.series_uri for event in listener.events if isinstance(event, SeriesCommitted)}
    assert committed == {store.url_of(key.folder) for key in Datastore(store).series()}
    assert committed
    ingest(store, [tmp_path])
    check_settled(store, made)
    assert set(Datastore(store).series()) == keys_of(made)


def test_ctrl_c_while_waiting_for_another_writer(tmp_path: Path) -> None:
    """Who waits for a lock when Ctrl-C comes stops waiting, and leaves the other writer's lock alone."""
    made = write_many(tmp_path, 3)
    store = memory_store()
    uids = made[1].series.uids

    class Waited(InterceptingStore):
        pressed = False

        def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
            if operation.kind == "read_object" and operation.name.endswith(".lock") and not self.pressed:
                self.pressed = True
                press_ctrl_c()
            return act()

    with Datastore(store).open(uids.study, uids.series, "w") as cod:
        with pytest.raises(KeyboardInterrupt):
            ingest(Waited(store), [tmp_path], BulkOptions(wait_seconds=600))
        cod.append(made[1].instances())
    check_settled(store, made)


# -- killed


def ingest_and_die(root: Path, folder: Path, scratch: Path, fatal: int | None, after: bool) -> int:
    """Ingest into a local store, and die around one of its operations; return how many there were."""
    store = KillingStore(LocalStore(root), fatal, after=after)
    ingest(store, [folder], PATIENT, directory=scratch)
    return len(store.operations)


def kill_at_bucket(endpoint: str, inbox: str, scratch: Path, fault: Fault) -> None:
    """Ingest from a bucket into a bucket, whose server kills this process at one of its requests."""
    # The client library's look-up for traces is one request more, at a moment that no test can foresee.
    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"
    os.environ["STORAGE_EMULATOR_HOST"] = endpoint
    GcsControl(endpoint).inject(Fault(**(fault.as_json() | {"pid": os.getpid()})))
    ingest(open_store("gs://killing/target"), [f"{inbox}/"], PATIENT, directory=scratch)


def test_killed_again_and_again(tmp_path: Path) -> None:
    """A run that is killed at any moment and started again until it is done stores every file once."""
    root, folder, scratch = tmp_path / "store", tmp_path / "files", tmp_path / "scratch"
    scratch.mkdir()
    made = write_many(folder, 4)
    chance = random.Random(5)
    deaths = 0
    with Forks() as forks:
        for _ in range(40):
            # Later and later, so that some progress is made in between.
            fatal = chance.randrange(3, 12 + 3 * deaths)
            ended = forks.run(ingest_and_die, root, folder, scratch, fatal, chance.random() < 0.5)
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.result
            deaths += 1
        assert deaths > 2
    store = LocalStore(root)
    time.sleep(2 * LEASE_SECONDS)
    list(Datastore(store).recover(wait_seconds=20))
    check_settled(store, made)
    assert set(Datastore(store).series()) == keys_of(made)


def test_killed_again_and_again_at_a_bucket(tmp_path: Path) -> None:
    """The same between buckets: killed as the server receives requests, before or after they took effect."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made = write_many(tmp_path / "files", 3)
    chance = random.Random(6)
    deaths = 0
    with GcsServer() as server, Forks() as forks:
        server.create_bucket("killing")
        store = GcsStore("killing", "target", server.client())
        inbox = GcsStore("killing", "inbox", server.client())
        for files in made:
            for index in range(3):
                send(inbox, f"{files.series.seed}/{index}.dcm", files.bytes(index))
        for _ in range(40):
            kind = chance.choice([FaultKind.KILL_BEFORE, FaultKind.KILL_AFTER])
            fault = Fault(kind, skip=chance.randrange(5, 20 + 4 * deaths), pid=2**22 + 1)
            ended = forks.run(kill_at_bucket, server.url, inbox.url, scratch, fault)
            server.clear_faults()
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.result
            deaths += 1
        assert deaths > 2
        time.sleep(1 + 2 * LEASE_SECONDS)
        recovered = list(Datastore(store).recover(wait_seconds=20))
        assert {result.outcome for result in recovered} <= {"nothing", "finished", "swept"}, recovered
        check_settled(store, made)
        assert set(Datastore(store).series()) == keys_of(made)
