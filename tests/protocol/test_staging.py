"""Segments on their way up side by side: what happens when one of them fails, or the lock is lost."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import pytest

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import LockVerificationError, PermissionDeniedError, WriteUnknownError
from cloud_optimized_dicom.lock.lease import LockOptions, acquire
from cloud_optimized_dicom.series.packing import segmented
from cloud_optimized_dicom.series.staging import stage
from cloud_optimized_dicom.storage.base import DEFAULT_ATTRIBUTES, ConcatSource, new_write_id
from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload, FilePayload
from cloud_optimized_dicom.storage.retry import RetryPolicy
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsServer
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud_optimized_dicom.lock.lease import SeriesLock
    from cloud_optimized_dicom.storage.base import Attributes, ObjectInfo, ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")
KEY = SeriesKey("1.2", "1.3")
MIB = 1 << 20


class WideStore(InterceptingStore):
    """A store that takes four uploads side by side."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.uploads_at_once = 4


class MeetingStore(WideStore):
    """One in which four segments wait for one another."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._barrier = threading.Barrier(4)

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Wait before a segment is written."""
        if operation.kind == "create":
            self._barrier.wait(timeout=30)
        return act()


def new_store() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


def lock_of(store: ObjectStore) -> SeriesLock:
    """Take the lock."""
    return acquire(store, KEY, LockOptions(), hashed_uids=False).lock


def named(payloads: tuple[Payload, ...]) -> dict[str, Payload]:
    """Return payloads by the names of segments."""
    return {KEY.segment("w", number): payload for number, payload in enumerate(payloads)}


def pending(store: ObjectStore) -> list[str]:
    """Return the segments that are there."""
    return [info.name for info in store.list(KEY.pending)]


def test_segments_go_up_side_by_side() -> None:
    """Four segments are under way at a time: none would arrive if one waited for another."""
    store = new_store()
    lock = lock_of(store)
    stage(MeetingStore(store), lock, named(tuple(BytesPayload(bytes([n])) for n in range(8))), DEFAULT_ATTRIBUTES)
    assert [store.read_object(name).data for name in sorted(pending(store))] == [bytes([n]) for n in range(8)]


def test_a_large_file_goes_up_in_pieces(tmp_path: Path) -> None:
    """The pieces of a large file, concatenated at the server, are the file."""
    data = b"".join(number.to_bytes(8, "big") for number in range(5 * MIB))
    path = tmp_path / "large"
    path.write_bytes(data)
    with GcsServer() as server:
        server.create_bucket("pieces")
        store = GcsStore("pieces", "", server.client())
        segments = segmented([BytesPayload(b"head"), FilePayload(path, len(data), crc32c(data))], 9 * MIB)
        assert len(segments) == 5
        lock = lock_of(store)
        stage(store, lock, named(segments), DEFAULT_ATTRIBUTES)
        sources = [ConcatSource(name) for name in sorted(pending(store))]
        made = store.concat("whole", sources, version=None, write_id=new_write_id())
        assert made.crc32c == crc32c(b"head" + data)
        assert made.size == 4 + len(data)


@pytest.mark.parametrize("at", [0, 20 * MIB, 40 * MIB - 1])
def test_a_large_file_that_changed_is_refused(tmp_path: Path, at: int) -> None:
    """Wherever a large file changed since it was measured, one of its pieces is refused."""
    data = bytearray(40 * MIB)
    path = tmp_path / "large"
    segments = segmented([FilePayload(path, len(data), crc32c(bytes(data)))], 9 * MIB)
    data[at] = 1
    path.write_bytes(data)
    with GcsServer() as server:
        server.create_bucket("pieces")
        store = GcsStore("pieces", "", server.client())
        with pytest.raises(Exception, match=r"(?i)crc32c|checksum"):
            stage(store, lock_of(store), named(segments), DEFAULT_ATTRIBUTES)
        assert len(pending(store)) < len(segments)


class Scene(WideStore):
    """A store in which the first segment is dealt with as told, while the others go up byte by byte for ever."""

    def __init__(self, inner: ObjectStore, act: Callable[[], None]) -> None:
        super().__init__(inner)
        self._act = act
        self.begun: list[str] = []

    def create(
        self, name: str, payload: Payload, *, write_id: str, attributes: Attributes = DEFAULT_ATTRIBUTES
    ) -> ObjectInfo:
        """Act, or read the payload until somebody forbids that."""
        self.begun.append(name)
        if name == KEY.segment("w", 0):
            while len(self.begun) < self.uploads_at_once:
                time.sleep(0.001)
            self._act()
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at:
            with payload.open() as stream:
                stream.read(1)
            time.sleep(0.001)
        return super().create(name, payload, write_id=write_id, attributes=attributes)


def refused() -> None:
    """Fail for good."""
    raise PermissionDeniedError("memory://", "HTTP 403")


def unknown() -> None:
    """Fail without saying whether it may still succeed."""
    raise WriteUnknownError("memory://", "w", "lost")


@pytest.mark.parametrize(("act", "expected"), [(refused, PermissionDeniedError), (unknown, WriteUnknownError)])
def test_the_first_failure_breaks_the_others_off(act: Callable[[], None], expected: type[Exception]) -> None:
    """What failed is raised; uploads that are under way are broken off, others never begin, and none goes on."""
    store = new_store()
    scene = Scene(store, act)
    with pytest.raises(expected):
        stage(scene, lock_of(store), named(tuple(BytesPayload(bytes([n])) for n in range(20))), DEFAULT_ATTRIBUTES)
    assert pending(store) == []
    assert len(scene.begun) == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cod-upload")]


def test_ctrl_c_breaks_all_off() -> None:
    """Interrupted, what is under way is broken off and what waits never begins, however much there is."""
    store = new_store()
    main = threading.main_thread().ident or 0
    scene = Scene(store, lambda: signal.pthread_kill(main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stage(scene, lock_of(store), named(tuple(BytesPayload(bytes([n])) for n in range(20))), DEFAULT_ATTRIBUTES)
    assert pending(store) == []
    assert len(scene.begun) == 4


def test_a_lost_lock_breaks_all_off() -> None:
    """Once the lock is lost no segment goes on and none begins."""
    store = new_store()
    lock = lock_of(store)
    scene = Scene(store, lambda: lock.give_up("somebody else has it"))
    with pytest.raises(LockVerificationError, match="somebody else"):
        stage(scene, lock, named(tuple(BytesPayload(bytes([n])) for n in range(20))), DEFAULT_ATTRIBUTES)
    assert pending(store) == []
    assert len(scene.begun) == 4


class Reopened(BytesPayload):
    """Bytes during whose second reading something happens."""

    def __init__(self, data: bytes, then: Callable[[], object]) -> None:
        super().__init__(data)
        object.__setattr__(self, "_then", then)
        object.__setattr__(self, "_opened", [])

    def open(self) -> BinaryIO:
        """Return a new reader."""
        state: Any = self
        state._opened.append(1)
        if len(state._opened) == 2:
            state._then()
        return super().open()


@pytest.fixture
def gcs() -> Iterator[tuple[GcsServer, GcsStore]]:
    """Return a server, and a store on it that asks again at once."""
    with GcsServer() as server:
        server.create_bucket("doubt")
        retry = RetryPolicy(initial_seconds=0.01, maximum_seconds=0.02, attempts=4)
        yield server, GcsStore("doubt", "", server.client(), retry=retry)


def test_a_lost_lock_does_not_hide_a_doubt(gcs: tuple[GcsServer, GcsStore]) -> None:
    """A segment whose first attempt may still land is in doubt, though the second was broken off by a lost lock."""
    server, store = gcs
    lock = lock_of(store)
    server.inject(Fault(FaultKind.LATE, "objects.insert", r"\.pending/"))
    payload = Reopened(b"late", lambda: lock.give_up("somebody else has it"))
    with pytest.raises(WriteUnknownError):
        stage(store, lock, named((payload,)), DEFAULT_ATTRIBUTES)
    assert pending(store) == []
    server.release_late()
    assert len(pending(store)) == 1
