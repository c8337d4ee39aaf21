"""The life of the server's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import requests

from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from pathlib import Path

_COMMAND = [sys.executable, "-m", "cloud_optimized_dicom.testing.gcs_server", "--port", "0"]
_PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline().strip(), flush=True)
sys.stdin.readline()
"""


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/storage/v1/b?project=p", timeout=30).ok
    except requests.exceptions.ConnectionError:
        return False


def _upload_url(process: subprocess.Popen[str]) -> str:
    """Return where to upload object "x" of a new bucket of a server that has just been started."""
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    requests.post(f"{url}/storage/v1/b?project=p", json={"name": "bucket"}, timeout=30)
    return f"{url}/upload/storage/v1/b/bucket/o?uploadType=media&name=x"


def test_it_prints_its_url_and_ends_on_sigterm(tmp_path: Path) -> None:
    """The server's first line is its URL; after SIGTERM it exits with 0 and leaves no file."""
    command = [*_COMMAND, "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        upload = _upload_url(process)
        assert requests.post(upload, data=bytes(1 << 20), timeout=30).ok
        assert [path for path in tmp_path.rglob("*") if path.is_file()]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_its_parent() -> None:
    """A server whose parent ends does not stay."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, *_COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert _answers(url)
        parent.communicate("end\n")
    deadline = time.monotonic() + 60
    while _answers(url):
        assert time.monotonic() < deadline, "the server outlives its parent"
        time.sleep(0.05)


def test_the_handle_ends_the_process() -> None:
    """Leaving the block ends the server; asking for its process then is an error."""
    with GcsServer(latency_seconds=0.001) as server:
        pid, url = server.pid, server.url
        assert _answers(url)
    assert not _answers(url)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ValueError, match="not running"):
        _ = server.pid


def test_a_server_that_cannot_start_says_so() -> None:
    """A port that is taken raises instead of giving a handle."""
    with GcsServer() as server:
        taken = int(server.url.rpartition(":")[2])
        with pytest.raises(RuntimeError, match="did not start"):
            GcsServer(port=taken).start()


def test_overwritten_objects_leave_the_disk(tmp_path: Path) -> None:
    """Ten overwrites of a large object keep one file."""
    command = [*_COMMAND, "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        upload = _upload_url(process)
        with requests.Session() as session:
            for _ in range(10):
                session.post(upload, data=bytes(1 << 20), timeout=30)
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) <= 2  # the request before may linger
        process.terminate()
