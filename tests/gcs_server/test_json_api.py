"""Behaviour of the service beyond the acceptance tool."""

from __future__ import annotations

import gzip
import http.client
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core import exceptions

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server import GcsServer

_T = {"retry": None, "timeout": 30}


def _upload(bucket: Any, *names: str) -> list[Any]:
    blobs = [bucket.blob(name) for name in names]
    for blob in blobs:
        blob.upload_from_string(blob.name.encode())
    return blobs


def _raw_get(server: GcsServer, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_composition_deletes_its_sources_but_not_its_target(bucket: Any) -> None:
    """Asking for it removes the segments and leaves the object that they were appended to."""
    target, one, two = _upload(bucket, "t", "1", "2")
    target.compose([target, one, two], if_generation_match=target.generation, delete_source_objects=True)
    assert [blob.name for blob in bucket.list_blobs()] == ["t"]
    assert target.download_as_bytes() == b"t12"


def test_a_refused_composition_deletes_nothing(bucket: Any) -> None:
    """A composition that is refused leaves its sources."""
    one, two = _upload(bucket, "1", "2")
    with pytest.raises(exceptions.PreconditionFailed):
        one.compose([one, two], if_generation_match=1, delete_source_objects=True, **_T)
    assert [blob.name for blob in bucket.list_blobs()] == ["1", "2"]


def test_sources_of_different_classes_do_not_compose(bucket: Any) -> None:
    """All sources must be of one storage class, which the result has too."""
    _upload(bucket, "1")
    for name in "23":
        cold = bucket.blob(name)
        cold.storage_class = "COLDLINE"
        cold.upload_from_string(b"2")
    with pytest.raises(exceptions.BadRequest):
        bucket.blob("x").compose([bucket.blob("1"), bucket.blob("2")], **_T)
    bucket.blob("x").compose([bucket.blob("2"), bucket.blob("3")], **_T)
    assert bucket.get_blob("x").storage_class == "COLDLINE"


def test_a_held_object_is_not_overwritten(bucket: Any) -> None:
    """A temporary hold keeps uploads, compositions and moves off."""
    held, other = _upload(bucket, "held", "other")
    held.temporary_hold = True
    held.patch()
    for attempt in (
        lambda: bucket.blob("held").upload_from_string(b"x", **_T),
        lambda: bucket.blob("held").compose([other], **_T),
        lambda: bucket.move_blob(held, "away", **_T),
        lambda: other.compose([held, other], delete_source_objects=True, **_T),
    ):
        with pytest.raises(exceptions.Forbidden):
            attempt()
    assert {blob.name: blob.download_as_bytes() for blob in bucket.list_blobs()} == {
        "held": b"held",
        "other": b"other",
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("items/name,nextPageToken", {"items": [{"name": "a"}]}),
        ("items(name,bucket)", {"items": [{"name": "a", "bucket": "B"}]}),
        ("kind,prefixes", {"kind": "storage#objects"}),
        ("items(metadata/k)", {"items": [{"metadata": {"k": "v"}}]}),
    ],
)
def test_fields_select_parts_of_a_list(server: GcsServer, bucket: Any, fields: str, expected: dict[str, Any]) -> None:
    """Partial responses hold what is selected and nothing else."""
    blob = bucket.blob("a")
    blob.metadata = {"k": "v", "other": "w"}
    blob.upload_from_string(b"x")
    url = f"{server.url}/storage/v1/b/{bucket.name}/o"
    text = requests.get(url, params={"fields": fields}, timeout=30).text.replace(bucket.name, "B")
    assert requests.models.complexjson.loads(text) == expected


@pytest.mark.parametrize("fields", ["items(", "items)", ",", "a//b"])
def test_malformed_fields_are_refused(server: GcsServer, bucket: Any, fields: str) -> None:
    """A selection that cannot be parsed is 400."""
    url = f"{server.url}/storage/v1/b/{bucket.name}/o"
    assert requests.get(url, params={"fields": fields}, timeout=30).status_code == 400


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*", ["a.dcm", "b.tar"]),
        ("**", ["a.dcm", "b.tar", "s/c.dcm", "s/t/d.dcm"]),
        ("**.dcm", ["a.dcm", "s/c.dcm", "s/t/d.dcm"]),
        ("s/*.dcm", ["s/c.dcm"]),
        ("?.{dcm,tar}", ["a.dcm", "b.tar"]),
        ("[!a].*", ["b.tar"]),
        ("[a-b].*", ["a.dcm", "b.tar"]),
        ("a,dcm", []),
    ],
)
def test_globs(bucket: Any, glob: str, expected: list[str]) -> None:
    """Stars stop at slashes, double stars do not."""
    _upload(bucket, "a.dcm", "b.tar", "s/c.dcm", "s/t/d.dcm")
    assert [blob.name for blob in bucket.list_blobs(match_glob=glob)] == expected


@pytest.mark.parametrize("page_size", [1, 2, 3, 5])
def test_pages_of_names_and_prefixes_are_complete(bucket: Any, page_size: int) -> None:
    """However small the pages, each name and each prefix comes once and in order."""
    _upload(bucket, "a", "a/", "a/1", "a/2", "a0", "b/1", "b/2", "c")
    pages = list(bucket.list_blobs(delimiter="/", page_size=page_size).pages)
    assert [blob.name for page in pages for blob in page] == ["a", "a0", "c"]
    assert [prefix for page in pages for prefix in page.prefixes] == ["a/", "b/"]
    assert all(page.num_items + len(page.prefixes) <= page_size for page in pages)


def test_versions_are_listed_over_pages(server: GcsServer, client: Any) -> None:
    """Noncurrent versions come by generation, also where a page ends between them."""
    name = "versions-" + server.url.rpartition(":")[2]
    server.create_bucket(name, versioning={"enabled": True})
    bucket = client.bucket(name)
    written = []
    for key in "aab":
        blob = bucket.blob(key)
        blob.upload_from_string(b"x")
        written.append((key, blob.generation))
    bucket.blob("a").delete()
    assert [blob.name for blob in bucket.list_blobs()] == ["b"]
    found = [(blob.name, blob.generation) for blob in bucket.list_blobs(versions=True, page_size=1)]
    assert found == written
    bucket.blob("a", generation=written[0][1]).delete()
    assert [blob.generation for blob in bucket.list_blobs(versions=True)] == [one[1] for one in written[1:]]


def test_a_gzip_object_is_transcoded_whole(server: GcsServer, bucket: Any) -> None:
    """Without Accept-Encoding the data come decompressed, in chunks, and a Range is ignored."""
    plain = b"0123456789" * 100_000
    blob = bucket.blob("z")
    blob.content_encoding = "gzip"
    half = len(plain) // 2
    blob.upload_from_string(gzip.compress(plain[:half]) + gzip.compress(plain[half:]))
    path = f"/storage/v1/b/{bucket.name}/o/z?alt=media"
    response, body = _raw_get(server, path, Range="bytes=5-9")
    assert (response.status, body) == (200, plain)
    assert response.getheader("Transfer-Encoding") == "chunked"
    assert response.getheader("Content-Encoding") is None
    assert response.getheader("x-goog-stored-content-encoding") == "gzip"
    response, body = _raw_get(server, path, Range="bytes=0-1", **{"Accept-Encoding": "gzip"})
    assert (response.status, body) == (206, b"\x1f\x8b")


def test_what_claims_gzip_and_is_not_cannot_be_transcoded(server: GcsServer, bucket: Any) -> None:
    """An object whose content encoding is a lie is 503 for a client that wants it decompressed."""
    blob = bucket.blob("z")
    blob.content_encoding = "gzip"
    blob.upload_from_string(b"no gzip")
    assert _raw_get(server, f"/storage/v1/b/{bucket.name}/o/z?alt=media")[0].status == 503


def test_headers_of_a_download(server: GcsServer, bucket: Any) -> None:
    """A download carries the server's clock, the state and the hash of the whole object, but no custom metadata."""
    blob = bucket.blob("x")
    blob.metadata = {"k": "v"}
    blob.upload_from_string(b"data")
    path = f"/download/storage/v1/b/{bucket.name}/o/x?alt=media"
    response, _ = _raw_get(server, path, Range="bytes=1-2")
    assert response.getheader("x-goog-generation") == str(blob.generation)
    assert response.getheader("x-goog-hash") == f"crc32c={blob.crc32c},md5={blob.md5_hash}"
    for name in ("Date", "Last-Modified", "ETag", "x-goog-metageneration", "x-goog-storage-class"):
        assert response.getheader(name), name
    assert response.getheader("x-goog-meta-k") is None
    assert _raw_get(server, f"/{bucket.name}/x")[0].getheader("x-goog-meta-k") == "v"


def test_a_refused_download_is_text(server: GcsServer, bucket: Any) -> None:
    """A download of what is not there is refused in plain text, as the service does."""
    response, body = _raw_get(server, f"/download/storage/v1/b/{bucket.name}/o/absent?alt=media")
    assert (response.status, body) == (404, f"No such object: {bucket.name}/absent".encode())


def test_a_bucket_is_patched_and_deleted_when_empty(bucket: Any) -> None:
    """A bucket takes a patch, and is deleted only when it holds nothing."""
    bucket.storage_class = "NEARLINE"
    bucket.versioning_enabled = True
    bucket.labels = {"team": "imaging"}
    bucket.patch()
    bucket.reload()
    assert (bucket.storage_class, bucket.versioning_enabled, bucket.labels) == ("NEARLINE", True, {"team": "imaging"})
    (blob,) = _upload(bucket, "x")
    with pytest.raises(exceptions.Conflict):
        bucket.delete(**_T)
    bucket.blob("x", generation=blob.generation).delete()
    bucket.delete(**_T)
    assert not bucket.exists()


def test_an_update_replaces_and_a_patch_merges(bucket: Any) -> None:
    """PUT drops what it does not name, PATCH keeps it."""
    blob = bucket.blob("x")
    blob.metadata = {"a": "1", "b": "2"}
    blob.cache_control = "no-store"
    blob.upload_from_string(b"x", content_type="text/plain")
    blob.metadata = {"a": "3", "b": None}
    blob.patch()
    assert bucket.get_blob("x").metadata == {"a": "3"}
    fresh = bucket.blob("x")
    fresh.content_type = "application/dicom"
    fresh.update()
    updated = bucket.get_blob("x")
    assert (updated.metadata, updated.cache_control, updated.content_type) == (None, None, "application/dicom")
    assert updated.metageneration == 3


def test_what_the_server_does_not_know_is_501(server: GcsServer, bucket: Any) -> None:
    """Unknown operations and parameters are refused, never ignored."""
    assert requests.get(f"{server.url}/storage/v1/b/{bucket.name}/acl", timeout=30).status_code == 501
    url = f"{server.url}/storage/v1/b/{bucket.name}/o?softDeleted=true"
    assert requests.get(url, timeout=30).status_code == 501
