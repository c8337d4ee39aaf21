"""What becomes of writes to a bucket when things fail, responses get lost, and effects come late."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.errors import (
    PermissionDeniedError,
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.gcs_media import Media
from cloud_optimized_dicom.storage.payload import BytesPayload, FilePayload
from cloud_optimized_dicom.storage.retry import RetryBudget, RetryPolicy
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsServer
from cloud_optimized_dicom.testing.store_writes import LARGE_BYTES, content, pattern, put, put_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectInfo

FEW = RetryPolicy(initial_seconds=0.001, maximum_seconds=0.002, attempts=4)


@dataclass(frozen=True)
class Write:
    """A kind of write: the operations it is made of on the server (the last one decides), and how to do it."""

    operations: tuple[str, ...]
    prepare: Callable[[GcsStore], ObjectInfo | None]
    do: Callable[[GcsStore, ObjectInfo | None], ObjectInfo]
    result: bytes


def _replace(data: bytes) -> Callable[[GcsStore, ObjectInfo | None], ObjectInfo]:
    def do(store: GcsStore, first: ObjectInfo | None) -> ObjectInfo:
        assert first is not None
        return store.replace("a", BytesPayload(data), version=first.version, write_id="mine")

    return do


def _append(store: GcsStore, first: ObjectInfo | None) -> ObjectInfo:
    assert first is not None
    sources = [ConcatSource("a", first.version), ConcatSource("a", first.version)]
    return store.concat("a", sources, version=first.version, write_id="mine")


LARGE = pattern(LARGE_BYTES)
RESUMABLE = ("uploads.start", "uploads.finalize")
WRITES = {
    "create": Write(("objects.insert",), lambda _: None, lambda store, _: put(store, "a", b"small", "mine"), b"small"),
    "create large": Write(RESUMABLE, lambda _: None, lambda store, _: put(store, "a", LARGE, "mine"), LARGE),
    "replace": Write(("objects.insert",), lambda store: put(store, "a", b"old"), _replace(b"small"), b"small"),
    "replace large": Write(RESUMABLE, lambda store: put(store, "a", b"old"), _replace(LARGE), LARGE),
    "concat": Write(("objects.compose",), lambda store: put(store, "a", b"old"), _append, b"oldold"),
}
STEPS = [(name, operation) for name, write in WRITES.items() for operation in write.operations]
PASSING_FAULTS = [
    Fault(FaultKind.LOST_RESPONSE),
    Fault(FaultKind.TRUNCATED_BODY),
    Fault(FaultKind.RESET),
    Fault(FaultKind.STATUS, status=503),
    Fault(FaultKind.STATUS, status=500),
    Fault(FaultKind.STATUS, status=429),
    Fault(FaultKind.STATUS, status=408),
    Fault(FaultKind.STATUS, status=412),
    Fault(FaultKind.LATE),
]


def on(operation: str, fault: Fault, **changes: Any) -> Fault:
    """Return a fault, of an operation."""
    return Fault.parse(fault.as_json() | {"operation": operation} | changes)


def label(value: object) -> str:
    """Name a fault in a test's id."""
    if not isinstance(value, Fault):
        return str(value)
    return f"{value.status}" if value.kind is FaultKind.STATUS else value.kind.value


@pytest.fixture
def store(server: GcsServer, client: Any) -> GcsStore:
    """Return an empty store of little patience that sends whatever is large in a session."""
    server.reset_counters()
    return GcsStore("bucket", uuid.uuid4().hex, client, retry=FEW, whole_upload_bytes=0)


class TestWholeUploads:
    """Large uploads that are tried in one request first."""

    @pytest.mark.parametrize("fault", PASSING_FAULTS, ids=label)
    @pytest.mark.parametrize("name", ["create large", "replace large"])
    def test_passing_failure(self, server: GcsServer, client: Any, name: str, fault: Fault) -> None:
        """An upload whose one request fails, before or after it took effect, succeeds and takes effect once."""
        store = GcsStore("bucket", uuid.uuid4().hex, client, retry=FEW)
        before = WRITES[name].prepare(store)
        server.inject(on("objects.insert", fault))
        info = WRITES[name].do(store, before)
        assert content(store, "a") == LARGE
        server.release_late()
        assert store.stat("a") == info
        assert info.write_id == "mine"

    def test_second_attempt_can_be_resumed(self, server: GcsServer, client: Any) -> None:
        """A large upload whose one request failed is begun anew as a session, which goes on where it breaks."""
        store = GcsStore("bucket", uuid.uuid4().hex, client, retry=FEW)
        server.inject(Fault(FaultKind.STATUS, "objects.insert", status=503))
        put(store, "a", LARGE)
        operations = [record.operation for record in server.counters()]
        assert operations == ["objects.insert", "uploads.start", "uploads.finalize"]

    def test_bytes_that_cannot_be_read(self, client: Any, tmp_path: Path) -> None:
        """A payload that turns out shorter than it was is an error about the payload, and nothing is stored."""
        path = tmp_path / "payload"
        path.write_bytes(LARGE)
        payload = FilePayload.of(path)
        assert payload.crc32c
        path.write_bytes(LARGE[: LARGE_BYTES // 2])
        store = GcsStore("bucket", uuid.uuid4().hex, client, retry=FEW)
        with pytest.raises(StorageError, match="fewer than were announced"):
            store.create("a", payload, write_id="mine")
        assert store.find("a") is None


class TestWrites:
    """Conditional writes."""

    @pytest.mark.parametrize("fault", PASSING_FAULTS, ids=label)
    @pytest.mark.parametrize(("name", "operation"), STEPS)
    def test_passing_failure(self, store: GcsStore, server: GcsServer, name: str, operation: str, fault: Fault) -> None:
        """A write during which something fails, before or after it took effect, succeeds and takes effect once."""
        write = WRITES[name]
        before = write.prepare(store)
        server.inject(on(operation, fault))
        info = write.do(store, before)
        assert content(store, "a") == write.result
        server.release_late()
        assert store.stat("a") == info
        assert info.write_id == "mine"

    @pytest.mark.parametrize("fault", PASSING_FAULTS[:1], ids=label)
    @pytest.mark.parametrize(("name", "operation"), STEPS)
    def test_outcome_that_cannot_be_read_back(
        self, store: GcsStore, server: GcsServer, name: str, operation: str, fault: Fault
    ) -> None:
        """A write whose response is lost while nothing can be read back either raises an error that carries its id."""
        write = WRITES[name]
        before = write.prepare(store)
        server.inject(
            on(operation, fault),
            on("uploads.query", fault, times=None),
            Fault(FaultKind.RESET, "objects.get", times=None),
        )
        if operation == "uploads.start":
            assert write.do(store, before).write_id == "mine"  # beginning a session has no effect to be in doubt of
            return
        with pytest.raises(WriteUnknownError) as caught:
            write.do(store, before)
        assert caught.value.write_id == "mine"
        server.clear_faults()
        assert content(store, "a") == write.result

    @pytest.mark.parametrize("name", WRITES)
    def test_server_that_stays_down(self, store: GcsStore, server: GcsServer, name: str) -> None:
        """A write that fails to the end cannot be known to have failed."""
        before = WRITES[name].prepare(store)
        server.inject(on(WRITES[name].operations[0], Fault(FaultKind.STATUS, status=503), times=None))
        with pytest.raises(WriteUnknownError):
            WRITES[name].do(store, before)
        assert store.find("a") == before

    @pytest.mark.parametrize("name", WRITES)
    def test_server_that_is_always_busy(self, store: GcsStore, server: GcsServer, name: str) -> None:
        """A write that was only ever told to come later is known not to have happened."""
        before = WRITES[name].prepare(store)
        server.inject(on(WRITES[name].operations[0], Fault(FaultKind.STATUS, status=429), times=None))
        with pytest.raises(TransientStorageError):
            WRITES[name].do(store, before)
        assert store.find("a") == before

    @pytest.mark.parametrize("status", [401, 403])
    @pytest.mark.parametrize("name", WRITES)
    def test_no_permission(self, store: GcsStore, server: GcsServer, name: str, status: int) -> None:
        """A write that is not allowed says so at once."""
        before = WRITES[name].prepare(store)
        server.inject(on(WRITES[name].operations[0], Fault(FaultKind.STATUS, status=status), times=None))
        server.reset_counters()
        with pytest.raises(PermissionDeniedError):
            WRITES[name].do(store, before)
        assert len(server.counters()) == 1

    @pytest.mark.parametrize("name", WRITES)
    def test_permission_lost_while_in_doubt(self, store: GcsStore, server: GcsServer, name: str) -> None:
        """A lost response followed by a refusal for another reason leaves the outcome unknown."""
        before = WRITES[name].prepare(store)
        operation = WRITES[name].operations[-1]
        server.inject(
            on(operation, Fault(FaultKind.LOST_RESPONSE)),
            on(operation, Fault(FaultKind.STATUS, status=403)),
            Fault(FaultKind.STATUS, "uploads.*", status=403, skip=1, times=None),
        )
        with pytest.raises(WriteUnknownError):
            WRITES[name].do(store, before)

    @pytest.mark.parametrize("name", WRITES)
    def test_busy_server_while_in_doubt(self, store: GcsStore, server: GcsServer, name: str) -> None:
        """A lost response followed by nothing but "come later" leaves the outcome unknown."""
        before = WRITES[name].prepare(store)
        server.inject(
            on(WRITES[name].operations[-1], Fault(FaultKind.LOST_RESPONSE)),
            Fault(FaultKind.STATUS, "uploads.*", status=429, skip=1, times=None),
            Fault(FaultKind.STATUS, "objects.*", status=429, times=None),
        )
        with pytest.raises(WriteUnknownError):
            WRITES[name].do(store, before)

    @pytest.mark.parametrize("name", WRITES)
    def test_timeout_of_a_request_that_lands_later(self, server: GcsServer, client: Any, name: str) -> None:
        """A request that the server takes up after we stopped waiting does no harm to what the repeated one did."""
        store = GcsStore("bucket", uuid.uuid4().hex, client, retry=FEW, timeout_seconds=0.3, whole_upload_bytes=0)
        before = WRITES[name].prepare(store)
        server.inject(on(WRITES[name].operations[-1], Fault(FaultKind.STALL_BEFORE, seconds=0.5)))
        info = WRITES[name].do(store, before)
        assert store.stat("a") == info
        assert content(store, "a") == WRITES[name].result

    def test_refusal_that_is_real(self, store: GcsStore, server: GcsServer) -> None:
        """A clean refusal is read back once, and then believed."""
        put(store, "a", b"theirs")
        server.reset_counters()
        with pytest.raises(PreconditionFailedError):
            put(store, "a", b"ours")
        assert [record.operation for record in server.counters()] == ["objects.insert", "objects.get"]

    def test_refusal_after_a_lost_response_that_was_overwritten(self, store: GcsStore, server: GcsServer) -> None:
        """A write that never landed, refused because of somebody else's, is refused, not unknown."""
        first = put(store, "a", b"first")
        put_over(store, "a", b"theirs", first.version)
        server.inject(Fault(FaultKind.RESET, "objects.insert"))
        with pytest.raises(PreconditionFailedError):
            put_over(store, "a", b"ours", first.version)
        assert content(store, "a") == b"theirs"

    def test_upload_is_resumed_where_it_broke(self, store: GcsStore, server: GcsServer, client: Any) -> None:
        """Of an upload that broke, only what the server does not have is sent again."""
        blob = client.bucket("bucket").blob(f"{store.url.rpartition('/')[2]}/a")
        blob.metadata = {"cod-write-id": "mine"}
        session_url = blob.create_resumable_upload_session(size=LARGE_BYTES, if_generation_match=0)
        first = 4 << 20
        client._http.put(
            session_url, data=LARGE[:first], headers={"Content-Range": f"bytes 0-{first - 1}/{LARGE_BYTES}"}
        )
        server.inject(Fault(FaultKind.STATUS, "uploads.start"), Fault(FaultKind.STATUS, "uploads.finalize"))
        server.reset_counters()
        Media(client, 10).upload(store.url_of("a"), session_url, BytesPayload(LARGE), RetryBudget(FEW))
        sent = [record.bytes_in for record in server.counters()]
        assert sent == [LARGE_BYTES, 0, LARGE_BYTES - first]
        assert content(store, "a") == LARGE

    def test_upload_session_that_is_gone(self, store: GcsStore, server: GcsServer) -> None:
        """An upload session that the server forgot is begun anew."""
        server.inject(Fault(FaultKind.STATUS, "uploads.finalize", status=410))
        info = put(store, "a", LARGE)
        assert [record.operation for record in server.counters()].count("uploads.start") == 2
        assert store.stat("a") == info


class TestDelete:
    """Deletes."""

    @pytest.mark.parametrize("fault", [*PASSING_FAULTS[:-2]], ids=label)
    @pytest.mark.parametrize("conditional", [True, False])
    def test_passing_failure(self, store: GcsStore, server: GcsServer, fault: Fault, conditional: bool) -> None:
        """A delete whose response is lost, or that fails at first, has deleted."""
        info = put(store, "a")
        server.inject(on("objects.delete", fault))
        store.delete("a", version=info.version if conditional else None)
        assert store.find("a") is None

    def test_spurious_refusal(self, store: GcsStore, server: GcsServer) -> None:
        """A refusal although the object is at the named version is not believed."""
        info = put(store, "a")
        server.inject(Fault(FaultKind.STATUS, "objects.delete", status=412))
        store.delete("a", version=info.version)
        assert store.find("a") is None

    def test_late_delete_spares_a_new_object(self, store: GcsStore, server: GcsServer) -> None:
        """A conditional delete that lands late does not delete what was created since."""
        info = put(store, "a")
        server.inject(Fault(FaultKind.LATE, "objects.delete"))
        store.delete("a", version=info.version)
        again = put(store, "a", b"new")
        server.release_late()
        assert store.stat("a") == again
