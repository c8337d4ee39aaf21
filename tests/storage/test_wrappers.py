"""The shipped stores that wrap another one."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.errors import (
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.counting_store import CountingStore, StoreRecord
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, SimulatedCrash, StoreFault, StoreFaultKind
from cloud_optimized_dicom.testing.latency_store import LatencyStore
from cloud_optimized_dicom.testing.store_suite import StoreSuite
from cloud_optimized_dicom.testing.store_writes import LARGE_BYTES, content, pattern, put, put_over

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore


@pytest.fixture
def inner() -> ObjectStore:
    """Return an empty store."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


class TestAllWrappers(StoreSuite):
    """Wrappers that have nothing to do are as good as what they wrap."""

    @pytest.fixture
    def store(self, inner: ObjectStore) -> ObjectStore:
        """Return a store in three wrappers."""
        return FaultyStore(CountingStore(LatencyStore(inner, 0)))


class TestCountingStore:
    """Counts."""

    def test_counts_operations_and_bytes(self, inner: ObjectStore) -> None:
        """Every verb is recorded with the object bytes it moved."""
        store = CountingStore(inner)
        info = put(store, "a", b"12345")
        put_over(store, "a", b"123", info.version)
        store.concat("b", [ConcatSource("a")], version=None, write_id="w")
        store.stat("a")
        store.find("b")
        store.read_object("a")
        store.read("a", ByteRange(0, 2))
        store.read_ranges("a", [ByteRange(0, 1), ByteRange(0, 3)])
        list(store.list())
        store.delete("b")
        assert list(store.records) == [
            StoreRecord("create", "a", 5, 0),
            StoreRecord("replace", "a", 3, 0),
            StoreRecord("concat", "b", 0, 0),
            StoreRecord("stat", "a", 0, 0),
            StoreRecord("stat", "b", 0, 0),
            StoreRecord("read_object", "a", 0, 3),
            StoreRecord("read", "a", 0, 2),
            StoreRecord("read", "a", 0, 1),
            StoreRecord("read", "a", 0, 3),
            StoreRecord("list", "", 0, 0),
            StoreRecord("delete", "b", 0, 0),
        ]
        assert (store.bytes_up, store.bytes_down) == (8, 9)
        store.reset()
        assert list(store.records) == []

    def test_counts_what_is_consumed_of_a_stream(self, inner: ObjectStore) -> None:
        """A stream that is left early counts what was taken; a failed operation counts as asked for."""
        put(inner, "a", pattern(LARGE_BYTES))
        store = CountingStore(inner)
        first = next(iter(store.iter_chunks("a")))
        assert store.find("missing") is None
        assert store.bytes_down == len(first) < LARGE_BYTES
        assert store.operations == ("iter_chunks", "stat")


class TestFaultyStore:
    """Faults."""

    def test_failure_without_effect(self, inner: ObjectStore) -> None:
        """A failed write has not happened, and the next one does."""
        store = FaultyStore(inner, [StoreFault(StoreFaultKind.FAIL, "create")])
        with pytest.raises(TransientStorageError):
            put(store, "a")
        assert inner.find("a") is None
        put(store, "a")

    @pytest.mark.parametrize(
        ("kind", "done"),
        [(StoreFaultKind.LOST_BEFORE, False), (StoreFaultKind.LOST_AFTER, True), (StoreFaultKind.LATE, False)],
    )
    def test_loss(self, inner: ObjectStore, kind: StoreFaultKind, done: bool) -> None:
        """A conditional write of which nobody can tell raises its id, a delete a transient failure."""
        store = FaultyStore(inner, [StoreFault(kind, "create"), StoreFault(kind, "delete")])
        with pytest.raises(WriteUnknownError) as caught:
            put(store, "a", b"x", "mine")
        assert caught.value.write_id == "mine"
        assert (inner.find("a") is not None) is done
        if not done:
            put(inner, "a")
        with pytest.raises(TransientStorageError):
            store.delete("a")
        assert (inner.find("a") is None) is done

    def test_late_effects_meet_their_preconditions(self, inner: ObjectStore) -> None:
        """A late write happens when it is released, or is refused then."""
        store = FaultyStore(inner, [StoreFault(StoreFaultKind.LATE, "create", times=2)])
        for name in ("a", "b"):
            with pytest.raises(WriteUnknownError):
                put(store, name, b"late")
        put(inner, "b", b"sooner")
        outcomes = store.release_late()
        assert [type(outcome) for outcome in outcomes] == [type(None), PreconditionFailedError]
        assert (content(inner, "a"), content(inner, "b")) == (b"late", b"sooner")

    @pytest.mark.parametrize(
        ("kind", "done"), [(StoreFaultKind.CRASH_BEFORE, False), (StoreFaultKind.CRASH_AFTER, True)]
    )
    def test_crash(self, inner: ObjectStore, kind: StoreFaultKind, done: bool) -> None:
        """A dead process does nothing more, not even to clean up."""
        store = FaultyStore(inner, [StoreFault(kind, skip=1)])
        put(store, "a")
        with pytest.raises(SimulatedCrash):
            put(store, "b")
        with pytest.raises(SimulatedCrash):
            store.delete("a")
        assert [info.name for info in inner.list()] == (["a", "b"] if done else ["a"])

    def test_stream_that_breaks(self, inner: ObjectStore) -> None:
        """A stream gives its first piece and breaks."""
        put(inner, "a", pattern(LARGE_BYTES))
        store = FaultyStore(inner, [StoreFault(StoreFaultKind.TRUNCATED, "iter_chunks")])
        stream = store.iter_chunks("a")
        assert next(stream)
        with pytest.raises(StorageError):
            next(stream)

    @pytest.mark.parametrize("kind", [StoreFaultKind.CALL_BEFORE, StoreFaultKind.CALL_AFTER])
    def test_somebody_else_comes_in_between(self, inner: ObjectStore, kind: StoreFaultKind) -> None:
        """Something can be done at the moment of an operation, before or after its effect."""
        seen = []
        call = StoreFault(kind, "create", call=lambda operation: seen.append((operation.name, inner.find("a"))))
        info = put(FaultyStore(inner, [call]), "a")
        assert seen == [("a", None if kind is StoreFaultKind.CALL_BEFORE else info)]

    def test_plan_picks_operations(self, inner: ObjectStore) -> None:
        """Faults are picked by verb, name and number, and all operations are recorded."""
        store = FaultyStore(inner, [StoreFault(StoreFaultKind.FAIL, "create", r"\.tar$", skip=1, times=1)])
        put(store, "1.tar")
        put(store, "metadata.json")
        with pytest.raises(TransientStorageError):
            put(store, "2.tar")
        put(store, "2.tar")
        assert [(operation.kind, operation.name) for operation in store.operations] == [
            ("create", "1.tar"),
            ("create", "metadata.json"),
            ("create", "2.tar"),
            ("create", "2.tar"),
        ]
        assert all(operation.is_write for operation in store.operations)
