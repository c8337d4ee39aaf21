"""One exact record per HTTP request."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import requests

from cloud_optimized_dicom.testing.gcs_server import GcsControl

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server import GcsServer

_KIB = 1 << 10


def test_each_request_has_one_record(server: GcsServer, bucket: Any) -> None:
    """Upload, metadata, download, compose, list and delete are one record each, with their names."""
    blob = bucket.blob("a")
    blob.upload_from_string(b"12345", retry=None)
    blob.reload()
    blob.download_as_bytes()
    bucket.blob("b").compose([blob, blob])
    list(bucket.list_blobs())
    blob.delete()
    seen = [(one.method, one.operation, one.object_name, one.status) for one in server.counters()]
    assert seen == [
        ("POST", "objects.insert", "a", 200),
        ("GET", "objects.get", "a", 200),
        ("GET", "objects.download", "a", 200),
        ("POST", "objects.compose", "b", 200),
        ("GET", "objects.list", "", 200),
        ("DELETE", "objects.delete", "a", 204),
    ]
    assert {one.bucket for one in server.counters()} == {bucket.name}


def test_bytes_are_those_of_the_bodies(server: GcsServer, bucket: Any) -> None:
    """A media upload counts its bytes in, a ranged download its bytes out."""
    url = f"{server.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a"
    answer = requests.post(url, data=bytes(1000), timeout=30)
    bucket.blob("a").download_as_bytes(start=10, end=19, raw_download=True)
    up, down = server.counters()
    assert (up.bytes_in, up.bytes_out) == (1000, len(answer.content))
    assert (down.bytes_in, down.bytes_out, down.status) == (0, 10, 206)


def test_bytes_of_a_large_download_are_exact(server: GcsServer, bucket: Any) -> None:
    """A download out of a file counts every byte once."""
    bucket.blob("a").upload_from_string(bytes(3_000_001))
    server.reset_counters()
    assert len(bucket.blob("a").download_as_bytes(raw_download=True)) == 3_000_001
    assert [one.bytes_out for one in server.counters()] == [3_000_001]


def test_every_chunk_of_a_resumable_upload_is_a_record(server: GcsServer, bucket: Any) -> None:
    """A resumable upload of three chunks is a start, two chunks and a finalization."""
    with bucket.blob("r").open("wb", chunk_size=256 * _KIB, ignore_flush=True) as stream:
        stream.write(bytes(600 * _KIB))
    seen = [(one.operation, one.object_name, one.status, one.bytes_in) for one in server.counters()]
    assert [item[:3] for item in seen] == [
        ("uploads.start", "r", 200),
        ("uploads.chunk", "r", 308),
        ("uploads.chunk", "r", 308),
        ("uploads.finalize", "r", 200),
    ]
    assert [item[3] for item in seen[1:]] == [256 * _KIB, 256 * _KIB, 88 * _KIB]


def test_a_batch_is_one_record(server: GcsServer, bucket: Any, client: Any) -> None:
    """A batch of deletions is one HTTP request."""
    for name in "ab":
        bucket.blob(name).upload_from_string(b"x")
    server.reset_counters()
    with client.batch():
        bucket.blob("a").delete()
        bucket.blob("b").delete()
    assert [(one.operation, one.status) for one in server.counters()] == [("batch", 200)]


def test_a_request_cut_off_in_its_body_is_a_record_without_effect(server: GcsServer, bucket: Any) -> None:
    """A client that dies in the middle of an upload leaves a record of status 0 and no object."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=cut"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nshort".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert [(one.method, one.status, one.outcome) for one in server.counters()] == [("POST", 0, 0)]
    assert not bucket.blob("cut").exists()


def test_records_of_many_threads_are_all_there(server: GcsServer, bucket: Any) -> None:
    """Twenty threads of ten requests leave two hundred records."""
    url = f"{server.url}/storage/v1/b/{bucket.name}/o/absent"

    def ask() -> None:
        with requests.Session() as session:
            for _ in range(10):
                session.get(url, timeout=60)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.status for one in server.counters()] == [404] * 200


def test_control_requests_are_not_counted(server: GcsServer) -> None:
    """Reading and resetting the counters leaves no record."""
    GcsControl(server.url).counters()
    server.clear_faults()
    assert server.counters() == ()
