"""Many at once: real processes that append to one series, contenders for one lock, readers beside a busy writer."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.errors import LockAcquisitionError, StaleReadError
from cloud_optimized_dicom.series.maintenance import recover_series
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.gcs_server import GcsControl
from cloud_optimized_dicom.testing.scheduled_store import ScheduledStore
from tests.protocol.fleet import (
    AHEAD_SECONDS,
    Files,
    Fleet,
    Write,
    attempt,
    has_decided,
    holds_the_lock,
    writes_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.protocol.fleet import Stall

    NewFleet = Callable[[], Fleet]

SHARED = pytest.mark.parametrize("store_kind", ["local", "gcs"])


class Place(NamedTuple):
    """A datastore as another process opens it."""

    url: str
    endpoint: str | None

    def open(self) -> ObjectStore:
        """Open it."""
        client = GcsControl(self.endpoint).client() if self.endpoint is not None else None
        return open_store(self.url, client)


@pytest.fixture
def place(datastore_url: str, store_kind: str, request: pytest.FixtureRequest) -> Place:
    """Return an empty place that processes share."""
    return Place(datastore_url, request.getfixturevalue("gcs_endpoint") if store_kind == "gcs" else None)


# -- processes that append


def append_in_a_process(place: Place, folder: Path, indexes: range, gate: Any, outcomes: Any) -> None:
    """Append instances when all processes are there, each in a commit of its own."""
    files, store = Files(folder), place.open()
    gate.wait()
    for index in indexes:
        outcomes.put((index, attempt(store, files, Write("append", index), wait_seconds=600)))


def race_of_processes(place: Place, folder: Path, processes: int, each: int) -> None:
    """Let processes append disjoint instances to one series, and look at what is there."""
    files = Files(folder)
    for index in range(processes * each):
        files.path(index)
    context = multiprocessing.get_context("spawn")
    gate, outcomes = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(
            target=append_in_a_process,
            args=(place, folder, range(number * each, (number + 1) * each), gate, outcomes),
        )
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    told = dict(outcomes.get(timeout=900) for _ in range(processes * each))
    for worker in workers:
        worker.join()
    assert told == dict.fromkeys(range(processes * each), "ok")
    check_all_stored(place.open(), files, processes * each)


def check_all_stored(store: ObjectStore, files: Files, count: int) -> None:
    """Check that the series holds exactly so many instances, each once, with its bytes, and nothing else."""
    with CODObject(store, None, files.key.study_uid, files.key.series_uid, "r") as cod:
        instances = cod.get_instances()
        assert list(instances) == [files.uid(index) for index in range(count)]
        for index, instance in enumerate(instances.values()):
            with instance.open() as stream:
                assert stream.read() == files.data(index)
        recorded = cod.get_metadata()["cod"]["tar"]["size"]
    # Each member once and no bytes besides: header block, file, zeros up to the next block.
    assert recorded == sum(512 + -(-len(files.data(index)) // 512) * 512 for index in range(count))
    (report,) = Datastore(store).verify()
    assert report.findings == ()
    assert [info.name for info in store.list(f"{files.key.folder}/")] == [files.key.metadata]


@SHARED
def test_6_processes_append_to_one_series(place: Place, tmp_path: Path) -> None:
    """Processes that append disjoint instances to one series at once all succeed, and each instance is there once."""
    (tmp_path / "files").mkdir()
    race_of_processes(place, tmp_path / "files", 6, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@SHARED
def test_50_processes_append_to_one_series(place: Place, tmp_path: Path) -> None:
    """Fifty processes that append disjoint instances to one series at once all succeed; each instance is there once."""
    (tmp_path / "files").mkdir()
    race_of_processes(place, tmp_path / "files", 50, 1)


# -- contenders for one expired lease


def contend(fleet: Fleet, contenders: int) -> tuple[list[str], int]:
    """Let threads contend for the lock of a dead writer; return their outcomes and how many ever held it at once."""
    gate = threading.Barrier(contenders)
    inside, most, counting = 0, 0, threading.Lock()

    def work(number: int) -> str:
        nonlocal inside, most
        gate.wait()
        try:
            with fleet.open(mode="a") as cod:
                with counting:
                    inside += 1
                    most = max(most, inside)
                Write("append", 10 + number).stage(cod, fleet.files)
                time.sleep(0.01)
                with counting:
                    inside -= 1
        except LockAcquisitionError as error:
            return type(error).__name__
        return "ok"

    with ThreadPoolExecutor(contenders) as pool:
        return list(pool.map(work, range(contenders))), most


@pytest.mark.parametrize("decided", [False, True], ids=["undecided", "decided"])
def test_20_contenders_for_an_expired_lease(new_fleet: NewFleet, decided: bool) -> None:
    """Of contenders for the lock of a dead writer one holds it at a time; the others are told that it is busy."""
    fleet = new_fleet()
    fleet.do(Write("fill"))
    dead = fleet.join(Write("append", 3), has_decided if decided else holds_the_lock)
    assert dead.start(lease_seconds=0.01)
    time.sleep(2.1 if fleet.store.url.startswith("gs:") else 0.1)  # the clock of HTTP has whole seconds
    outcomes, most = contend(fleet, 20)
    assert most == 1
    assert set(outcomes) <= {"ok", "LockAcquisitionError"}
    won = [number for number, outcome in enumerate(outcomes) if outcome == "ok"]
    assert won
    expected = {0, 1, 2, *(10 + number for number in won), *([3] if decided else [])}
    with fleet.open() as cod:
        assert set(cod.get_instances()) == {fleet.files.uid(index) for index in expected}
    assert fleet.names() == ["metadata.json"]


# -- two recoveries at once

SCENES: dict[str, Stall] = {
    "staged": lambda _, asked: asked[-1].kind == "replace",
    "decided": has_decided,
    "torn": writes_metadata,
}


@pytest.mark.parametrize("scene", SCENES)
def test_two_recoveries_at_once(memory_fleet: NewFleet, scene: str) -> None:
    """A recovery that is stalled at any of its operations while another one runs does no harm."""
    for step in range(40):
        fleet = memory_fleet()
        fleet.do(Write("fill"))
        assert fleet.join(Write("append", 3), SCENES[scene]).start()
        first = ScheduledStore(
            fleet.store, stall_when=lambda asked, number=step: len(asked) == number + 1, ahead_seconds=AHEAD_SECONDS
        )
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(recover_series, first, fleet.files.key)
            while not result.done() and not first.stalled.wait(0.01):
                pass
            second = recover_series(ScheduledStore(fleet.store, ahead_seconds=AHEAD_SECONDS), fleet.files.key)
            first.go_on()
            outcomes = {result.result().outcome, second.outcome}
        assert outcomes <= {"finished", "swept", "nothing", "busy", "failed"}
        if "failed" in outcomes:  # the one that lost its lock
            assert "lost the lock" in f"{result.result().reason} {second.reason}"
            assert "finished" in outcomes or scene == "staged"
        assert (fleet.files.uid(3) in fleet.contents()) == (scene != "staged")
        fleet.check_settled()
        if not first.stalled.is_set():
            return
    raise AssertionError("a recovery never ends")


def test_recovery_beside_a_living_writer_is_busy(new_fleet: NewFleet) -> None:
    """A recovery leaves a series alone whose writer is alive."""
    fleet = new_fleet()
    writer = fleet.join(Write("append", 3), has_decided)
    assert writer.start()
    assert recover_series(fleet.store, fleet.files.key).outcome == "busy"
    assert writer.finish() == "ok"
    assert recover_series(fleet.store, fleet.files.key).outcome == "nothing"


# -- a reader beside a busy writer


class Busy:
    """A writer in a loop: instance 0 is there all the time, in ever new versions; others come and go."""

    def __init__(self, fleet: Fleet, appends: int, overwrites: int) -> None:
        self.fleet = fleet
        self.done = threading.Event()
        self._every = appends // overwrites
        self._appends = appends

    def run(self) -> None:
        """Append, and overwrite the series now and then."""
        try:
            for number in range(self._appends):
                if number % self._every == 0:
                    assert self._write(Write("overwrite", 0, version=number % 7)) == "ok"
                assert self._write(Write("append", 1 + number % self._every, version=number % 5)) == "ok"
        finally:
            self.done.set()

    def _write(self, write: Write) -> str:
        return attempt(self.fleet.store, self.fleet.files, write)


def read_until_done(fleet: Fleet, busy: Busy, right: dict[str, set[bytes]], seed: int) -> tuple[int, int]:
    """Open and read the series over and over; return how many reads there were, and how many came too late."""
    reads = stale = 0
    while not busy.done.is_set():
        with fleet.open() as cod:
            expected = {uid: instance.record.crc32c for uid, instance in cod.get_instances().items() if instance.record}
            for turn, (uid, instance) in enumerate(cod.get_instances().items()):
                if (turn + seed) % 3 == 0:
                    time.sleep(0.002)  # let the writer get ahead
                try:
                    with instance.open() as stream:
                        data = stream.read()
                    frame = cod.read_frames(uid, [0])[0]
                except StaleReadError:
                    stale += 1
                    continue
                reads += 1
                assert data in right[uid]
                assert crc_of(data) == expected[uid]  # the very version that was seen when the series was opened
                assert data.endswith(frame)
    return reads, stale


def crc_of(data: bytes) -> int:
    """Return a file's CRC32C."""
    from cloud_optimized_dicom.checksum import crc32c  # noqa: PLC0415 - beside its only use

    return crc32c(data)


def check_readers_beside_a_writer(fleet: Fleet, appends: int, overwrites: int) -> None:
    """Let readers loop beside a writer that appends and overwrites."""
    every = appends // overwrites
    right = {fleet.files.uid(0): {fleet.files.data(0, version) for version in range(7)}}
    right |= {fleet.files.uid(1 + n): {fleet.files.data(1 + n, version) for version in range(5)} for n in range(every)}
    assert attempt(fleet.store, fleet.files, Write("overwrite", 0)) == "ok"
    busy = Busy(fleet, appends, overwrites)
    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read_until_done, fleet, busy, right, seed) for seed in range(2)]
        pool.submit(busy.run).result()
        counts = [reader.result() for reader in readers]
    assert all(reads > 0 for reads, _ in counts)
    (report,) = Datastore(fleet.store).verify()
    assert report.findings == ()


def test_reader_beside_a_busy_writer(memory_fleet: NewFleet) -> None:
    """Readers in a loop beside 40 appends and 10 overwrites see right bytes, or that the instance has gone."""
    check_readers_beside_a_writer(memory_fleet(), 40, 10)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_reader_beside_a_very_busy_writer(new_fleet: NewFleet) -> None:
    """Readers in a loop beside 200 appends and 50 overwrites see right bytes, or that the instance has gone."""
    check_readers_beside_a_writer(new_fleet(), 200, 50)
