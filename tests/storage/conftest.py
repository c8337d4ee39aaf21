"""Fixtures of the store tests: a strict server that is made to fail."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.retry import RetryPolicy
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def module_server() -> Iterator[GcsServer]:
    """Give a server that only one module's tests make fail."""
    with GcsServer() as server:
        server.create_bucket("bucket")
        yield server


@pytest.fixture(scope="module")
def client(module_server: GcsServer) -> Any:
    """Give a client of the server."""
    return module_server.client()


@pytest.fixture
def server(module_server: GcsServer) -> Iterator[GcsServer]:
    """Give the server without faults or records."""
    yield module_server
    module_server.clear_faults()
    module_server.discard_late()
    module_server.reset_counters()


@pytest.fixture
def store(server: GcsServer, client: Any) -> GcsStore:
    """Return an empty store of little patience on that server."""
    server.reset_counters()
    return GcsStore("bucket", uuid.uuid4().hex, client, retry=RetryPolicy(0.001, 0.002, attempts=4))
