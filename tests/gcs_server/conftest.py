"""A server per module and a fresh bucket per test."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def running_server() -> Iterator[GcsServer]:
    """Give a server that the tests of a module share."""
    with GcsServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(running_server: GcsServer) -> Any:
    """Give a client that the tests of a module share."""
    return running_server.client()


@pytest.fixture
def server(running_server: GcsServer) -> Iterator[GcsServer]:
    """Give the server without faults, late operations and records."""
    running_server.reset_counters()
    yield running_server
    running_server.clear_faults()
    running_server.discard_late()


@pytest.fixture
def bucket(server: GcsServer, client: Any) -> Any:
    """Give an empty bucket; making it is not recorded."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    server.create_bucket(name)
    server.reset_counters()
    return client.bucket(name)
