"""Conditions, on every operation that takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from google.api_core import exceptions
from google.cloud.storage.exceptions import InvalidResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.testing.gcs_server import GcsServer

_T = {"retry": None, "timeout": 30}
_MATCHES = ["ifGenerationMatch", "ifMetagenerationMatch"]
_NOT_MATCHES = ["ifGenerationNotMatch", "ifMetagenerationNotMatch"]


class _Api:
    """The JSON API without the SDK, so that every parameter goes with every operation."""

    def __init__(self, server: GcsServer, bucket: str) -> None:
        self._url = server.url
        self._path = f"/storage/v1/b/{bucket}/o"

    def call(self, operation: str, **params: Any) -> int:
        """Send an operation on object "x" (source "s") and return the status."""
        path, name = self._path, quote("x", safe="")
        requested: dict[str, tuple[str, str, Any]] = {
            "get": ("GET", f"{path}/{name}", None),
            "download": ("GET", f"/download{path}/{name}?alt=media", None),
            "patch": ("PATCH", f"{path}/{name}", {"metadata": {"k": "v"}}),
            "update": ("PUT", f"{path}/{name}", {"metadata": {"k": "v"}}),
            "delete": ("DELETE", f"{path}/{name}", None),
            "compose": ("POST", f"{path}/{name}/compose", {"sourceObjects": [{"name": "s"}]}),
            "rewrite": ("POST", f"{path}/s/rewriteTo{path.removeprefix('/storage/v1')}/{name}", {}),
            "copy": ("POST", f"{path}/s/copyTo{path.removeprefix('/storage/v1')}/{name}", {}),
            "move": ("POST", f"{path}/s/moveTo/o/{name}", {}),
            "insert": ("POST", f"/upload{path}?uploadType=media&name={name}", None),
            "start": ("POST", f"/upload{path}?uploadType=resumable&name={name}", {}),
        }
        method, target, body = requested[operation]
        return requests.request(method, self._url + target, params=params, json=body, timeout=30).status_code


_READS = ["get", "download"]
_WRITES = ["patch", "update", "delete", "compose", "rewrite", "copy", "move", "insert", "start"]


@pytest.fixture
def api(server: GcsServer, bucket: Any) -> _Api:
    """Give the API of a bucket that holds "x" (metageneration 2) and "s"."""
    for name in "sx":
        bucket.blob(name).upload_from_string(name.encode())
    blob = bucket.blob("x")
    blob.metadata = {"first": "1"}
    blob.patch()
    return _Api(server, bucket.name)


def _state(bucket: Any) -> tuple[Any, ...] | None:
    blob = bucket.get_blob("x")
    return blob and (blob.generation, blob.metageneration, blob.metadata)


@pytest.mark.parametrize("operation", _READS + _WRITES)
@pytest.mark.parametrize("condition", _MATCHES)
def test_a_match_that_does_not_hold_is_412(api: _Api, bucket: Any, operation: str, condition: str) -> None:
    """Every operation refuses a wrong generation or metageneration and leaves the object as it was."""
    before = _state(bucket)
    assert api.call(operation, **{condition: 12345}) == 412
    assert _state(bucket) == before


@pytest.mark.parametrize("operation", _READS + _WRITES)
@pytest.mark.parametrize("condition", _NOT_MATCHES)
def test_a_not_match_that_does_not_hold_is_304(api: _Api, bucket: Any, operation: str, condition: str) -> None:
    """Every operation refuses the generation or metageneration that it must not find."""
    before = _state(bucket)
    assert before is not None
    assert api.call(operation, **{condition: before[0 if "Gen" in condition else 1]}) == 304
    assert _state(bucket) == before


@pytest.mark.parametrize("operation", _READS + _WRITES)
def test_conditions_that_hold_let_the_operation_through(api: _Api, bucket: Any, operation: str) -> None:
    """Every operation is carried out when all four conditions hold."""
    generation, metageneration, _ = _state(bucket) or (0, 0, None)
    values = (generation, metageneration, generation + 1, metageneration + 1)
    conditions = dict(zip(_MATCHES + _NOT_MATCHES, values, strict=True))
    assert api.call(operation, **conditions) in {200, 204}


@pytest.mark.parametrize("operation", ["rewrite", "copy", "move"])
@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("ifSourceGenerationMatch", 412),
        ("ifSourceMetagenerationMatch", 412),
        ("ifSourceMetagenerationNotMatch", 304),
    ],
)
def test_conditions_on_the_source_of_a_copy(
    api: _Api, bucket: Any, operation: str, condition: str, status: int
) -> None:
    """A copy is refused for the state of its source."""
    before = _state(bucket)
    value = 1 if status == 304 else 999
    assert api.call(operation, **{condition: value}) == status
    assert _state(bucket) == before
    assert bucket.blob("s").exists()


@pytest.mark.parametrize("operation", ["get", "download", "patch", "update", "delete"])
def test_an_absent_object_is_404_whatever_the_condition(server: GcsServer, bucket: Any, operation: str) -> None:
    """What needs an object says 404 where there is none, even under a condition."""
    assert _Api(server, bucket.name).call(operation, ifGenerationMatch=5) == 404


@pytest.mark.parametrize("operation", ["insert", "start", "compose", "rewrite", "copy", "move"])
def test_a_write_over_nothing_is_412(api: _Api, bucket: Any, operation: str) -> None:
    """What writes a new object says 412 where it was to replace one that is gone."""
    bucket.blob("x").delete()
    assert api.call(operation, ifGenerationMatch=5) == 412
    assert _state(bucket) is None


def test_a_condition_that_is_no_number_is_400(api: _Api) -> None:
    """A malformed condition is never ignored."""
    assert api.call("get", ifGenerationMatch="soon") == 400


def test_etags_are_conditions_too(server: GcsServer, bucket: Any) -> None:
    """If-Match and If-None-Match are judged by the object's ETag."""
    bucket.blob("x").upload_from_string(b"x")
    blob = bucket.get_blob("x")
    assert bucket.blob("x").download_as_bytes(if_etag_match=blob.etag, **_T) == b"x"
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").download_as_bytes(if_etag_match="other", **_T)
    url = f"{server.url}/storage/v1/b/{bucket.name}/o/x"
    assert requests.get(url, headers={"If-None-Match": blob.etag}, timeout=30).status_code == 304


def test_a_session_is_refused_at_its_start(bucket: Any) -> None:
    """A resumable upload under a condition that does not hold does not even begin."""
    bucket.blob("x").upload_from_string(b"x")
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").create_resumable_upload_session(if_generation_match=0, **_T)


@pytest.mark.parametrize("change", ["overwrite", "patch", "delete"])
def test_a_session_is_refused_at_its_end(bucket: Any, change: str) -> None:
    """A session that began under a condition is refused when the condition is gone at the last byte."""
    blob = bucket.blob("x")
    blob.upload_from_string(b"x")
    url = blob.create_resumable_upload_session(
        if_generation_match=blob.generation, if_metageneration_match=blob.metageneration, **_T
    )
    changes: dict[str, Callable[[], object]] = {
        "overwrite": lambda: bucket.blob("x").upload_from_string(b"winner"),
        "patch": lambda: (setattr(blob, "metadata", {"k": "v"}), blob.patch()),
        "delete": bucket.blob("x").delete,
    }
    changes[change]()
    before = _state(bucket)
    assert requests.put(url, data=b"loser", timeout=30).status_code == 412
    assert requests.put(url, data=b"loser", timeout=30).status_code == 412
    assert _state(bucket) == before


def test_a_writer_stream_is_refused(bucket: Any) -> None:
    """The SDK's writer is refused with 412, which it reports as an InvalidResponse of its own."""
    bucket.blob("x").upload_from_string(b"x")
    stream = bucket.blob("x").open("wb", if_generation_match=0, ignore_flush=True)
    stream.write(b"loser")
    with pytest.raises(InvalidResponse) as caught:
        stream.close()
    stream.terminate()  # or its finalizer uploads again
    assert caught.value.response.status_code == 412


def test_composition_checks_every_source(bucket: Any) -> None:
    """A composition is refused if its second source is not at its generation, and writes nothing."""
    one, two = bucket.blob("1"), bucket.blob("2")
    for blob in (one, two):
        blob.upload_from_string(b"x")
    stale = [one.generation, two.generation - 1]
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").compose([one, two], if_source_generation_match=stale, **_T)
    assert _state(bucket) is None


def test_xml_takes_conditions(server: GcsServer, bucket: Any) -> None:
    """The XML API's GET, PUT and DELETE are refused by header, and its multipart upload takes no condition at all."""
    bucket.blob("x").upload_from_string(b"x")
    url, wrong = f"{server.url}/{bucket.name}/x", {"x-goog-if-generation-match": "7"}
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        assert requests.request(method, url, headers=wrong, timeout=30).status_code == 412
    assert requests.post(url + "?uploads", headers=wrong, timeout=30).status_code == 400
    assert bucket.blob("x").download_as_bytes() == b"x"


def test_bucket_conditions(bucket: Any) -> None:
    """A bucket is patched and deleted under its own metageneration only."""
    bucket.reload()
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.patch(if_metageneration_match=99, **_T)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.delete(if_metageneration_match=99, **_T)
    bucket.delete(if_metageneration_match=bucket.metageneration, **_T)
    assert not bucket.exists()
