"""Fixtures that every part of the tests shares: an empty store of each kind.

With ``STORAGE_EMULATOR_HOST`` set, what needs Google Cloud Storage talks to that server; else to our own strict one.
"""

from __future__ import annotations

import os
import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore

# A shell lets its background jobs ignore Ctrl-C; tests that press it, and their processes, hear it all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# So that a failing check of the shipped suite tells its values.
pytest.register_assert_rewrite(
    *(f"cloud_optimized_dicom.testing.store_{part}" for part in ("writes", "reads", "races"))
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that may take longest first, so that no processor waits for one of them at the end."""

    def allowed_seconds(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return float(marker.args[0]) if marker is not None else 0.0

    items.sort(key=allowed_seconds, reverse=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many points each test tried that counts them.

    Here and not beside these tests: of several processes, the one that prints collects none, and loads no conftest
    below this one.
    """
    total = 0
    for report in terminalreporter.getreports("passed"):
        points = dict(report.user_properties).get("points")
        if points is not None:
            total += points
            terminalreporter.write_line(f"{points:5} points: {report.nodeid}")
    if total:
        terminalreporter.write_line(f"{total:5} points in all")


@pytest.fixture(scope="session")
def gcs_endpoint() -> Iterator[str]:
    """Return the URL of a server of the Google Cloud Storage JSON API; it lives as long as the test process."""
    given = os.environ.get("STORAGE_EMULATOR_HOST")
    if given:
        yield given
        return
    with GcsServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def gcs_session_client(gcs_endpoint: str) -> Iterator[Any]:
    """Return a client of that server."""
    client = ClientRecipe(project="test", api_endpoint=gcs_endpoint, anonymous=True).make()
    yield client
    client.close()


@pytest.fixture(scope="session")
def gcs_bucket(gcs_session_client: Any) -> str:
    """Return the name of a bucket on that server."""
    name = f"cod-test-{uuid.uuid4().hex}"
    gcs_session_client.create_bucket(name)
    return name


@pytest.fixture(params=["memory", "local", "gcs"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Name each kind of store in turn: memory, local, gcs."""
    return str(request.param)


@pytest.fixture
def gcs_client(store_kind: str, request: pytest.FixtureRequest) -> Any:
    """Return the client to open `datastore_url` with; None for the other kinds of store."""
    return request.getfixturevalue("gcs_session_client") if store_kind == "gcs" else None


@pytest.fixture
def datastore_url(store_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty place that no other test uses."""
    name = uuid.uuid4().hex
    if store_kind == "gcs":
        return f"gs://{request.getfixturevalue('gcs_bucket')}/{name}"
    return f"memory://{name}" if store_kind == "memory" else str(tmp_path / "datastore")


@pytest.fixture
def store(datastore_url: str, gcs_client: Any) -> ObjectStore:
    """Return an empty store of the kind at hand."""
    return open_store(datastore_url, gcs_client)
