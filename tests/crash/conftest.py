"""Files, and children that may be killed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.crash.bucket import Bucket
from tests.crash.forks import Forks
from tests.crash.scenes import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Give a process that forks children."""
    with Forks() as running:
        yield running


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return the DICOM files that are stored."""
    return Folder.write(tmp_path_factory.mktemp("crash") / "files")


@pytest.fixture(scope="module")
def crash_server() -> Iterator[GcsServer]:
    """Give a server that nobody else talks to."""
    with GcsServer() as server:
        yield server


@pytest.fixture(scope="module")
def shared_bucket(crash_server: GcsServer, folder: Folder) -> Bucket:
    """Return a bucket on that server."""
    return Bucket(crash_server, folder)


@pytest.fixture
def bucket(shared_bucket: Bucket) -> Iterator[Bucket]:
    """Give the bucket while nothing is to go wrong yet, and nothing is late."""
    yield shared_bucket
    shared_bucket.server.clear_faults()
    shared_bucket.server.discard_late()


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """Give a folder in memory where the system has that: who is killed loses nothing that he wrote, flushed or not."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="cod-crash-", dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)
