"""Reads of a bucket when things fail, what each verb costs, and clients that are not there."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import storage
from google.oauth2.credentials import Credentials

from cloud_optimized_dicom.errors import (
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from cloud_optimized_dicom.storage.retry import RetryPolicy
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsServer
from cloud_optimized_dicom.testing.store_writes import LARGE_BYTES, pattern, put, put_over

if TYPE_CHECKING:
    from collections.abc import Callable


FEW = RetryPolicy(initial_seconds=0.001, maximum_seconds=0.002, attempts=4)
LARGE = pattern(LARGE_BYTES)
PASSING_FAULTS = [
    Fault(FaultKind.LOST_RESPONSE),
    Fault(FaultKind.TRUNCATED_BODY),
    Fault(FaultKind.RESET),
    Fault(FaultKind.STATUS, status=503),
    Fault(FaultKind.STATUS, status=429),
    Fault(FaultKind.STATUS, status=408),
]


def label(fault: Fault) -> str:
    """Name a fault in a test's id."""
    return f"{fault.status}" if fault.kind is FaultKind.STATUS else fault.kind.value


READS: dict[str, tuple[str, Callable[[GcsStore], bytes]]] = {
    "read_object": ("objects.download", lambda store: store.read_object("a").data),
    "read": ("objects.download", lambda store: store.read("a", ByteRange(0, LARGE_BYTES))),
    "iter_chunks": ("objects.download", lambda store: b"".join(store.iter_chunks("a"))),
    "stat": ("objects.get", lambda store: bytes(store.stat("a").size)),
    "list": ("objects.list", lambda store: bytes(sum(info.size for info in store.list()))),
}


class TestReads:
    """Reads."""

    @pytest.mark.parametrize("fault", PASSING_FAULTS, ids=label)
    @pytest.mark.parametrize("how", READS)
    def test_passing_failure(self, store: GcsStore, server: GcsServer, how: str, fault: Fault) -> None:
        """A read that fails at first, or breaks in the middle, gives all the bytes and only those."""
        put(store, "a", LARGE)
        operation, read = READS[how]
        server.inject(Fault.parse(fault.as_json() | {"operation": operation}))
        data = read(store)
        assert len(data) == LARGE_BYTES
        assert data == LARGE or operation != "objects.download"

    @pytest.mark.parametrize("how", READS)
    @pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.TRUNCATED_BODY, FaultKind.STATUS])
    def test_server_that_stays_down(self, store: GcsStore, server: GcsServer, how: str, kind: FaultKind) -> None:
        """A read that fails to the end raises, and gives no short data."""
        put(store, "a", LARGE)
        operation, read = READS[how]
        server.inject(Fault(kind, operation, times=None, keep_bytes=0))
        with pytest.raises(TransientStorageError):
            read(store)

    @pytest.mark.parametrize("how", READS)
    def test_no_permission(self, store: GcsStore, server: GcsServer, how: str) -> None:
        """A read that is not allowed says so at once."""
        put(store, "a", b"x")
        server.inject(Fault(FaultKind.STATUS, READS[how][0], status=403, times=None))
        server.reset_counters()
        with pytest.raises(PermissionDeniedError):
            READS[how][1](store)
        assert len(server.counters()) == 1

    def test_broken_stream_is_taken_up_where_it_broke(self, store: GcsStore, server: GcsServer) -> None:
        """A stream that breaks asks for the rest only."""
        put(store, "a", LARGE)
        server.reset_counters()
        server.inject(Fault(FaultKind.TRUNCATED_BODY, "objects.download", keep_bytes=5 << 20))
        assert b"".join(store.iter_chunks("a")) == LARGE
        first, second = server.counters()
        assert first.bytes_out == 5 << 20
        assert second.bytes_out <= LARGE_BYTES - (4 << 20)

    def test_broken_stream_never_mixes_versions(self, store: GcsStore, server: GcsServer) -> None:
        """A stream that breaks after the object was replaced ends with an error, not with the new object's bytes."""
        info = put(store, "a", LARGE)
        server.inject(Fault(FaultKind.TRUNCATED_BODY, "objects.download", keep_bytes=5 << 20))
        stream = store.iter_chunks("a")
        next(stream)
        put_over(store, "a", LARGE[::-1], info.version)
        with pytest.raises(ObjectNotFoundError):
            list(stream)


class TestRequests:
    """What each verb costs."""

    @pytest.mark.parametrize(
        ("do", "operations"),
        [
            (lambda store: put(store, "b", b"x"), ["objects.insert"]),
            (lambda store: put(store, "b", LARGE), ["objects.insert"]),
            (lambda store: list(store.list_between("a", "b")), ["objects.list"]),
            (lambda store: store.concat("b", [ConcatSource("a")], version=None, write_id="w"), ["objects.compose"]),
            (lambda store: store.delete("a"), ["objects.delete"]),
            (lambda store: store.stat("a"), ["objects.get"]),
            (lambda store: store.find("nothing"), ["objects.get"]),
            (lambda store: store.read_object("a"), ["objects.download"]),
            (lambda store: store.read("a", ByteRange(1, 2)), ["objects.download"]),
            (lambda store: store.read_ranges("a", [ByteRange(1, 2), ByteRange(5, 6)]), ["objects.download"] * 2),
            (lambda store: list(store.iter_chunks("a")), ["objects.download"]),
            (lambda store: list(store.list()), ["objects.list"]),
            (lambda store: list(store.list_folders()), ["objects.list"]),
        ],
    )
    def test_requests_of_a_verb(
        self, store: GcsStore, server: GcsServer, do: Callable[[GcsStore], object], operations: list[str]
    ) -> None:
        """Every verb is one request, and a list one a page."""
        put(store, "a", LARGE)
        server.reset_counters()
        do(store)
        assert [record.operation for record in server.counters()] == operations

    def test_large_transfers_move_each_byte_once(self, store: GcsStore, server: GcsServer) -> None:
        """Uploading and streaming an object move its bytes and no more."""
        put(store, "a", LARGE)
        list(store.iter_chunks("a"))
        assert sum(record.bytes_in for record in server.counters()) < LARGE_BYTES + 1000
        assert sum(record.bytes_out for record in server.counters()) < LARGE_BYTES + 3000

    def test_list_of_several_pages(self, store: GcsStore, server: GcsServer) -> None:
        """A list longer than a page is complete and in order, and a page that fails is asked for again."""
        names = [f"{number:04}" for number in range(1001)]
        part = put(store, "part", b"x")
        for name in names:
            store.concat(f"n/{name}/x", [ConcatSource(part.name)], version=None, write_id=name)
        server.reset_counters()
        server.inject(Fault(FaultKind.STATUS, "objects.list", skip=1))
        assert [info.name for info in store.list("n/")] == [f"n/{name}/x" for name in names]
        assert len(server.counters()) == 3
        assert list(store.list_folders("n/")) == [f"n/{name}/" for name in names]


def test_missing_bucket(client: Any) -> None:
    """A bucket that does not exist holds nothing, and a write says what is missing."""
    store = GcsStore("no-such-bucket", "x", client, retry=FEW)
    assert store.find("a") is None
    for data in (b"x", LARGE):
        with pytest.raises(StorageError, match="no such bucket"):
            put(store, "a", data)


def test_no_server() -> None:
    """A server that does not listen is a failure that may pass."""
    store = GcsStore("bucket", "x", ClientRecipe("test", "http://127.0.0.1:9", anonymous=True).make(), retry=FEW)
    with pytest.raises(TransientStorageError):
        store.stat("a")
    with pytest.raises(WriteUnknownError):
        put(store, "a")


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without credentials is not permitted; the error comes with the first request."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/credentials.json")
    store = GcsStore("bucket", "x", retry=FEW)
    with pytest.raises(PermissionDeniedError):
        store.stat("a")


def test_pickle_holds_no_credentials() -> None:
    """A store that was given a client with credentials pickles without them, and keeps project and endpoint."""
    secret = Credentials(token="a-secret-token")  # type: ignore[no-untyped-call]
    client = storage.Client(project="p", credentials=secret, client_options={"api_endpoint": "http://127.0.0.1:9"})
    pickled = pickle.dumps(GcsStore("bucket", "x", client))
    assert b"a-secret-token" not in pickled
    assert pickle.loads(pickled).url == "gs://bucket/x"
    assert ClientRecipe.of(client) == ClientRecipe("p", "http://127.0.0.1:9", anonymous=False)


@pytest.mark.parametrize("version", ["f-1-2-3", "", "-1"])
def test_version_of_another_store(store: GcsStore, version: str) -> None:
    """What is not a generation is refused before it is sent."""
    with pytest.raises(StorageError, match="generation"):
        store.read("a", ByteRange(0, 1), version=version)
