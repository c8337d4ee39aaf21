"""Each kind of fault, as a real client meets it."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core import exceptions

from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloud_optimized_dicom.testing.gcs_server import GcsServer

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

_DROPPED = requests.exceptions.ConnectionError
_ONCE = {"retry": None, "timeout": 30}
_UPLOADER = """
import sys, http.client
host, path = sys.argv[1:]
sys.stdin.readline()
connection = http.client.HTTPConnection(host)
connection.request("POST", path, b"data")
connection.getresponse().read()
"""


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what the SDK leaves open: it does not close the streamed answers that it retries."""
    yield
    gc.collect()


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what another process is about to do."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def _upload(bucket: Any, name: str = "o", **options: Any) -> None:
    bucket.blob(name).upload_from_string(b"data", **(_ONCE | options))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, exceptions.Forbidden),
        (429, exceptions.TooManyRequests),
        (500, exceptions.InternalServerError),
        (503, exceptions.ServiceUnavailable),
    ],
)
def test_a_status_is_answered_without_effect(
    server: GcsServer, bucket: Any, status: int, error: type[Exception]
) -> None:
    """A status fault answers with that status, and nothing is stored."""
    server.inject(Fault(FaultKind.STATUS, "objects.insert", status=status))
    with pytest.raises(error):
        _upload(bucket)
    assert not bucket.blob("o").exists()
    assert (server.counters()[0].status, server.counters()[0].outcome) == (status, 0)


def test_the_client_retries_a_status(server: GcsServer, bucket: Any) -> None:
    """The SDK's own retry gets over two 503 answers to a download."""
    _upload(bucket)
    server.inject(Fault(FaultKind.STATUS, "objects.download", times=2))
    assert bucket.blob("o").download_as_bytes() == b"data"
    statuses = [record.status for record in server.counters() if record.operation == "objects.download"]
    assert statuses == [503, 503, 200]


def test_a_reset_has_no_effect(server: GcsServer, bucket: Any) -> None:
    """A reset breaks the connection, and nothing is stored."""
    server.inject(Fault(FaultKind.RESET, "objects.insert"))
    with pytest.raises(_DROPPED):
        _upload(bucket)
    assert not bucket.blob("o").exists()


def test_a_lost_response_has_its_effect(server: GcsServer, bucket: Any) -> None:
    """A lost response breaks the connection after the object was stored."""
    server.inject(Fault(FaultKind.LOST_RESPONSE, "objects.insert"))
    with pytest.raises(_DROPPED):
        _upload(bucket)
    record = server.counters()[0]
    assert (record.status, record.outcome, record.fault) == (0, 200, "lost_response")
    assert bucket.blob("o").download_as_bytes() == b"data"


def test_a_retry_after_a_lost_response_fails_against_its_own_write(server: GcsServer, bucket: Any) -> None:
    """The SDK repeats a create whose answer was lost, and is refused with 412."""
    server.inject(Fault(FaultKind.LOST_RESPONSE, "objects.insert"))
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("o").upload_from_string(b"data", if_generation_match=0)
    assert [record.outcome for record in server.counters()] == [200, 412]


def test_a_lost_finalization_is_recovered_by_the_client(server: GcsServer, bucket: Any) -> None:
    """A resumable upload whose last answer is lost is complete when the client sends its last chunk again."""
    server.inject(Fault(FaultKind.LOST_RESPONSE, "uploads.finalize"))
    blob = bucket.blob("o", chunk_size=256 << 10)
    with blob.open("wb", ignore_flush=True, if_generation_match=0) as stream:
        stream.write(bytes(600 << 10))
    blob = bucket.get_blob("o")
    assert (blob.size, blob.metageneration) == (600 << 10, 1)
    finals = [record for record in server.counters() if record.operation == "uploads.finalize"]
    assert [(record.status, record.outcome) for record in finals] == [(0, 200), (200, 200)]


@pytest.mark.parametrize("keep_bytes", [None, 0, 3])
def test_a_truncated_body_is_noticed(server: GcsServer, bucket: Any, keep_bytes: int | None) -> None:
    """A body that ends before its Content-Length raises, and the record says how much was sent."""
    _upload(bucket)
    server.reset_counters()
    server.inject(Fault(FaultKind.TRUNCATED_BODY, "objects.download", keep_bytes=keep_bytes))
    with pytest.raises((_DROPPED, requests.exceptions.ChunkedEncodingError)):
        bucket.blob("o").download_as_bytes(**_ONCE)
    expected = 2 if keep_bytes is None else keep_bytes
    assert (server.counters()[0].status, server.counters()[0].bytes_out) == (200, expected)


def test_a_truncated_large_body_is_noticed(server: GcsServer, bucket: Any) -> None:
    """The same holds for a body that comes from a file."""
    bucket.blob("o").upload_from_string(bytes(2 << 20))
    server.reset_counters()
    server.inject(Fault(FaultKind.TRUNCATED_BODY, "objects.download"))
    with pytest.raises((_DROPPED, requests.exceptions.ChunkedEncodingError)):
        bucket.blob("o").download_as_bytes(**_ONCE)
    assert server.counters()[0].bytes_out == 1 << 20


def test_a_stall_before_the_effect_outlasts_the_client(server: GcsServer, bucket: Any) -> None:
    """A client that gives up during a stall finds its write done later."""
    server.inject(Fault(FaultKind.STALL_BEFORE, "objects.insert", seconds=1))
    with pytest.raises(requests.exceptions.ReadTimeout):
        _upload(bucket, timeout=0.1)
    assert server.counters()[0].outcome == 0
    _until(lambda: server.counters()[0].outcome == 200)
    assert bucket.blob("o").exists()


def test_a_stall_after_the_effect_shows_it_at_once(server: GcsServer, bucket: Any) -> None:
    """A client that gives up during a stall of the answer finds its write done while the server still stalls."""
    server.inject(Fault(FaultKind.STALL_AFTER, "objects.insert", seconds=300))
    with pytest.raises(requests.exceptions.ReadTimeout):
        _upload(bucket, timeout=1)
    _until(lambda: server.counters()[0].outcome == 200)
    assert server.counters()[0].status == 0
    assert bucket.blob("o").exists()


def test_latency_only_delays(server: GcsServer, bucket: Any) -> None:
    """A request under latency succeeds for a client that waits, and times out for one that does not."""
    server.inject(Fault(FaultKind.LATENCY, "objects.insert", times=2, seconds=0.5))
    with pytest.raises(requests.exceptions.ReadTimeout):
        _upload(bucket, "hasty", timeout=0.05)
    _upload(bucket, "patient")
    assert bucket.blob("patient").exists()


def test_a_late_write_lands_when_released(server: GcsServer, bucket: Any) -> None:
    """A late write has no effect until it is released, and then all of it."""
    server.inject(Fault(FaultKind.LATE, "objects.insert"))
    with pytest.raises(_DROPPED):
        _upload(bucket, if_generation_match=0)
    assert not bucket.blob("o").exists()
    assert server.release_late() == (200,)
    assert bucket.blob("o").download_as_bytes() == b"data"
    assert server.release_late() == ()


def test_a_late_write_is_refused_once_its_condition_is_gone(server: GcsServer, bucket: Any) -> None:
    """A late write does not land over what was written meanwhile."""
    server.inject(Fault(FaultKind.LATE, "objects.insert"))
    with pytest.raises(_DROPPED):
        _upload(bucket, if_generation_match=0)
    bucket.blob("o").upload_from_string(b"winner", if_generation_match=0, retry=None)
    assert server.release_late() == (412,)
    assert bucket.blob("o").download_as_bytes() == b"winner"


def test_a_late_write_lands_by_itself(server: GcsServer, bucket: Any) -> None:
    """A late write with a time lands without being released."""
    server.inject(Fault(FaultKind.LATE, "objects.insert", seconds=0.2))
    with pytest.raises(_DROPPED):
        _upload(bucket)
    _until(lambda: server.counters()[0].outcome == 200)
    assert bucket.blob("o").exists()


def test_a_late_write_can_be_dropped(server: GcsServer, bucket: Any) -> None:
    """A late write that is dropped never lands."""
    server.inject(Fault(FaultKind.LATE, "objects.insert"))
    with pytest.raises(_DROPPED):
        _upload(bucket)
    assert server.discard_late() == 1
    assert server.release_late() == ()
    assert not bucket.blob("o").exists()


@pytest.mark.parametrize(("kind", "stored"), [(FaultKind.KILL_BEFORE, False), (FaultKind.KILL_AFTER, True)])
def test_a_process_is_killed_around_the_effect(
    server: GcsServer, bucket: Any, kind: FaultKind, *, stored: bool
) -> None:
    """A kill ends the process that sent the request, before or after the object was stored."""
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=o"
    host = server.url.removeprefix("http://")
    with subprocess.Popen([sys.executable, "-c", _UPLOADER, host, path], stdin=subprocess.PIPE) as process:
        server.inject(Fault(kind, "objects.insert", pid=process.pid))
        process.communicate(b"go\n")
        assert process.returncode == -SIGKILL
    assert bucket.blob("o").exists() is stored


def test_skip_and_times_choose_the_requests(server: GcsServer, bucket: Any) -> None:
    """Two requests pass, two fail, and the fault is spent."""
    server.inject(Fault(FaultKind.STATUS, "objects.get", skip=2, times=2, status=500))
    url = f"{server.url}/storage/v1/b/{bucket.name}/o/absent"
    assert [requests.get(url, timeout=30).status_code for _ in range(6)] == [404, 404, 500, 500, 404, 404]


def test_a_fault_without_end_lasts_until_it_is_cleared(server: GcsServer, bucket: Any) -> None:
    """A fault without a number of times befalls every request until it is cleared."""
    server.inject(Fault(FaultKind.STATUS, "objects.get", times=None, status=500))
    url = f"{server.url}/storage/v1/b/{bucket.name}/o/absent"
    assert [requests.get(url, timeout=30).status_code for _ in range(3)] == [500] * 3
    server.clear_faults()
    assert requests.get(url, timeout=30).status_code == 404


def test_operation_and_name_choose_the_requests(server: GcsServer, bucket: Any) -> None:
    """Only requests whose operation and object match are befallen, wherever the request names its object."""
    server.inject(Fault(FaultKind.STATUS, "*.insert", object_name=r"\.tar$", times=None, status=500))
    _upload(bucket, "a.json")
    for name in ("a.tar", "b/c.tar"):
        with pytest.raises(exceptions.InternalServerError):
            _upload(bucket, name)
    assert bucket.blob("a.json").exists()


def test_of_two_due_faults_the_first_happens_first(server: GcsServer, bucket: Any) -> None:
    """A second fault that is due waits for the next request."""
    server.inject(Fault(FaultKind.STATUS, status=500), Fault(FaultKind.STATUS, status=503))
    url = f"{server.url}/storage/v1/b/{bucket.name}/o/absent"
    assert [requests.get(url, timeout=30).status_code for _ in range(3)] == [500, 503, 404]


@pytest.mark.parametrize("kind", [FaultKind.KILL_AFTER, FaultKind.STALL_BEFORE, FaultKind.LATENCY])
def test_a_fault_without_its_parameter_is_refused(kind: FaultKind) -> None:
    """A kill needs a process and a stall a duration."""
    with pytest.raises(ValueError, match=kind.value):
        Fault(kind)


def test_an_unknown_fault_is_refused_by_the_server(server: GcsServer) -> None:
    """The control endpoint answers 400 to what is no fault."""
    answer = requests.post(f"{server.url}/_control/faults", json={"kind": "gremlin"}, timeout=30)
    assert answer.status_code == 400


def test_a_fault_is_refused_as_the_service_refuses(server: GcsServer, bucket: Any) -> None:
    """An injected status has the JSON body of a real error."""
    server.inject(Fault(FaultKind.STATUS, "objects.get", status=429))
    answer = requests.get(f"{server.url}/storage/v1/b/{bucket.name}/o/absent", timeout=30)
    assert answer.json()["error"]["errors"][0]["reason"] == "rateLimitExceeded"
