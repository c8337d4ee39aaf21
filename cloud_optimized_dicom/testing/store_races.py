"""The promises of `ObjectStore` about threads and processes that race, as tests: see `store_suite`."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError
from cloud_optimized_dicom.storage.base import ConcatSource, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.store_writes import content, put, put_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore

_CREATORS = 16
_PROCESSES = 4
_INCREMENTS = 10


def race(workers: int, work: Callable[[int], object]) -> list[object]:
    """Run `work` with 0 to `workers` - 1, all starting at the same moment, and return what they return."""
    gate = threading.Barrier(workers)

    def start(index: int) -> object:
        gate.wait()
        return work(index)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(start, range(workers)))


def try_to_create(store: ObjectStore, name: str, data: bytes) -> bool:
    """Say whether it was we who created the object."""
    try:
        put(store, name, data)
    except PreconditionFailedError:
        return False
    return True


def increment(store: ObjectStore, name: str, times: int) -> None:
    """Add 1 to the number in an object, so many times, whoever else does so."""
    done = 0
    while done < times:
        found = store.read_object(name)
        try:
            put_over(store, name, b"%d" % (int(found.data) + 1), found.info.version)
        except PreconditionFailedError:
            continue
        done += 1


def append(store: ObjectStore, name: str, part: bytes) -> None:
    """Append a part to an object by concatenating it onto itself, whoever else does so."""
    segment = put(store, f"segments/{new_write_id()}", part)
    while True:
        version = store.stat(name).version
        sources = [ConcatSource(name, version), ConcatSource(segment.name, segment.version)]
        try:
            store.concat(name, sources, version=version, write_id=new_write_id())
        except PreconditionFailedError:
            continue
        store.delete(segment.name, version=segment.version)
        return


class StoreRaceTests:
    """Threads of one process."""

    def test_one_winner_of_16_creators(self, store: ObjectStore) -> None:
        """Of many that create one object at once exactly one succeeds, and the bytes are its own."""
        won = race(_CREATORS, lambda index: try_to_create(store, "a", b"writer %d" % index))
        assert won.count(True) == 1
        assert content(store, "a") == b"writer %d" % won.index(True)

    def test_conditional_replace_loses_nothing(self, store: ObjectStore) -> None:
        """A counter that threads increment by read and conditional replace ends at the sum."""
        put(store, "counter", b"0")
        race(4, lambda _: increment(store, "counter", _INCREMENTS))
        assert content(store, "counter") == b"%d" % (4 * _INCREMENTS)

    def test_concurrent_appends_lose_nothing(self, store: ObjectStore) -> None:
        """Threads that append by concatenating an object onto itself all end up in it, once each."""
        put(store, "log", b"")
        race(6, lambda index: append(store, "log", b"<%d>" % index))
        assert sorted(content(store, "log").decode()[1:-1].split("><")) == [str(index) for index in range(6)]
        assert list(store.list("segments/")) == []

    def test_one_deleter_of_a_version(self, store: ObjectStore) -> None:
        """Of many that delete one version at once exactly one succeeds; the others find it gone."""
        info = put(store, "a")

        def delete(_: int) -> bool:
            try:
                store.delete("a", version=info.version)
            except ObjectNotFoundError:
                return False
            return True

        assert race(8, delete).count(True) == 1

    def test_readers_see_whole_states(self, store: ObjectStore) -> None:
        """While an object is overwritten, every read is of one state, and its version belongs to its bytes."""
        states = {put(store, "a", bytes([0]) * 5000).version: 0}
        written = threading.Event()

        def write() -> None:
            version = next(iter(states))
            for value in range(1, 15):
                version = put_over(store, "a", bytes([value]) * (5000 + value), version).version
                states[version] = value
            written.set()

        seen = []

        def act(index: int) -> None:
            if index == 0:
                write()
                return
            while not written.is_set():
                result = store.read_object("a")
                seen.append((result.info.version, result.data))

        race(4, act)
        assert {data for version, data in seen} <= {bytes([v]) * (5000 + v) for v in states.values()}
        assert all(data[0] == states[version] and len(data) == 5000 + data[0] for version, data in seen)

    def test_creators_beside_deleters_of_one_folder(self, store: ObjectStore) -> None:
        """Deleting the last object of a folder while others create in it hurts nobody."""

        def come_and_go(index: int) -> None:
            for _ in range(10):
                info = put(store, f"deep/er/folder/{index}", b"x")
                store.delete(info.name, version=info.version)

        race(4, come_and_go)
        assert list(store.list()) == []

    def test_same_write_from_two_threads_lands_once(self, store: ObjectStore) -> None:
        """Two attempts of one write, at the same time, both succeed and leave one state."""
        infos = race(2, lambda _: store.create("a", BytesPayload(b"data"), write_id="one"))
        assert infos[0] == infos[1] == store.stat("a")


def _in_a_process(arguments: tuple[ObjectStore, int]) -> bool:
    store, index = arguments
    won = try_to_create(store, "a", b"process %d" % index)
    increment(store, "counter", _INCREMENTS)
    append(store, "log", b"<%d>" % index)
    return won


class ProcessRaceTests:
    """Real processes, for stores that processes share."""

    def test_processes_share_the_store(self, store: ObjectStore) -> None:
        """Processes that create, replace and append at once keep every promise that threads have."""
        put(store, "counter", b"0")
        put(store, "log", b"")
        with multiprocessing.get_context("spawn").Pool(_PROCESSES) as pool:
            won = pool.map(_in_a_process, [(store, index) for index in range(_PROCESSES)], chunksize=1)
            pool.close()
            pool.join()
        assert won.count(True) == 1
        assert content(store, "a") == b"process %d" % won.index(True)
        assert content(store, "counter") == b"%d" % (_PROCESSES * _INCREMENTS)
        assert sorted(content(store, "log").decode()[1:-1].split("><")) == [str(i) for i in range(_PROCESSES)]
        assert list(store.list("segments/")) == []
