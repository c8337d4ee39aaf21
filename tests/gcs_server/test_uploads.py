"""Resumable sessions off the beaten track, and checksums of uploads."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import requests

from cloud_optimized_dicom.checksum import crc32c, encode

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server import GcsServer

_GRANULE = 256 << 10


def _start(bucket: Any, name: str = "x", **options: Any) -> str:
    return str(bucket.blob(name).create_resumable_upload_session(retry=None, timeout=30, **options))


def _put(url: str, data: bytes, content_range: str | None = None) -> requests.Response:
    headers = {"Content-Range": content_range} if content_range else {}
    return requests.put(url, data=data, headers=headers, timeout=30)


def test_bytes_sent_twice_are_taken_once(bucket: Any) -> None:
    """A chunk that overlaps what the session has adds its new bytes only."""
    data = bytes(range(256)) * 2048  # two granules
    url = _start(bucket)
    assert _put(url, data[:_GRANULE], f"bytes 0-{_GRANULE - 1}/*").status_code == 308
    assert _put(url, data, f"bytes 0-{2 * _GRANULE - 1}/{2 * _GRANULE}").status_code == 200
    assert bucket.blob("x").download_as_bytes() == data


def test_a_gap_is_refused(bucket: Any) -> None:
    """A chunk past the end of what the session has is refused, and the session goes on."""
    url = _start(bucket)
    refused = _put(url, bytes(_GRANULE), f"bytes {_GRANULE}-{2 * _GRANULE - 1}/{2 * _GRANULE}")
    assert refused.status_code == 400
    assert _put(url, b"", "bytes */*").status_code == 308
    assert _put(url, b"all").status_code == 200


@pytest.mark.parametrize(
    ("size", "content_range"),
    [(1000, "bytes 0-999/*"), (10, "bytes 0-10/11"), (5, "bytes 0-4/3"), (5, "octets 0-4/5")],
)
def test_malformed_chunks_are_refused(bucket: Any, size: int, content_range: str) -> None:
    """A chunk that is no multiple of 256 KiB and not the last, or whose range does not fit, is refused."""
    assert _put(_start(bucket), bytes(size), content_range).status_code == 400
    assert not bucket.blob("x").exists()


def test_a_finished_session_repeats_its_answer(bucket: Any) -> None:
    """Asking a finished session gives the object again and writes nothing."""
    url = _start(bucket)
    first = _put(url, b"data").json()
    assert _put(url, b"", "bytes */4").json() == first
    assert _put(url, b"data").json() == first


def test_an_empty_object_by_session(bucket: Any) -> None:
    """A session of no bytes makes an empty object."""
    assert _put(_start(bucket, size=0), b"", "bytes */0").status_code == 200
    assert bucket.get_blob("x").size == 0


def test_a_cancelled_session_is_gone(bucket: Any) -> None:
    """Cancelling answers 499, and the session is unknown afterwards."""
    url = _start(bucket)
    assert requests.delete(url, timeout=30).status_code == 499
    assert _put(url, b"data").status_code == 404


def test_an_announced_size_is_kept_to(bucket: Any) -> None:
    """A session that announced its size takes no other."""
    url = _start(bucket, size=10)
    assert _put(url, b"data").status_code == 400
    assert not bucket.blob("x").exists()


@pytest.mark.parametrize("kind", ["crc32c", "md5"])
@pytest.mark.parametrize("right", [True, False])
def test_the_hash_header_of_a_media_upload_counts(server: GcsServer, bucket: Any, kind: str, *, right: bool) -> None:
    """A media upload whose x-goog-hash is wrong is refused."""
    data = b"data" if right else b"other"
    value = encode(crc32c(data)) if kind == "crc32c" else base64.b64encode(hashlib.md5(data).digest()).decode()
    url = f"{server.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x"
    answer = requests.post(url, data=b"data", headers={"x-goog-hash": f"{kind}={value}"}, timeout=30)
    assert answer.status_code == (200 if right else 400)
    assert bucket.blob("x").exists() is right


def test_a_multipart_body_without_end_is_refused(server: GcsServer, bucket: Any) -> None:
    """A multipart upload that lacks its last boundary is malformed, not a shorter object."""
    url = f"{server.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart"
    body = b'--b\r\nContent-Type: application/json\r\n\r\n{"name": "x"}\r\n--b\r\n\r\ndata'
    headers = {"Content-Type": "multipart/related; boundary=b"}
    assert requests.post(url, data=body, headers=headers, timeout=30).status_code == 400
    assert requests.post(url, data=body + b"\r\n--b--", headers=headers, timeout=30).status_code == 200
    assert bucket.blob("x").download_as_bytes() == b"data"


def test_a_body_in_chunks_of_unknown_length(server: GcsServer, bucket: Any) -> None:
    """A request with Transfer-Encoding: chunked is read to its end."""
    url = f"{server.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x"
    parts = [b"a" * 100_000, b"b", b"c" * 7]
    assert requests.post(url, data=iter(parts), timeout=30).status_code == 200
    assert bucket.blob("x").download_as_bytes() == b"".join(parts)


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "x" * 1025])
def test_names_that_the_service_does_not_take(server: GcsServer, bucket: Any, name: str) -> None:
    """Empty, dotted, multi-line and overlong names are refused."""
    url = f"{server.url}/upload/storage/v1/b/{bucket.name}/o"
    params = {"uploadType": "media", "name": name}
    assert requests.post(url, params=params, data=b"x", timeout=30).status_code == 400


def test_oversized_metadata_are_refused(bucket: Any) -> None:
    """More than 8 KiB of custom metadata is refused and nothing stored."""
    blob = bucket.blob("x")
    blob.metadata = {"k": "v" * 8192}
    with pytest.raises(Exception, match="metadata"):
        blob.upload_from_string(b"x", retry=None)
    assert not bucket.blob("x").exists()
