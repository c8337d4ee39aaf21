"""A fleet of writers on every kind of store."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.urls import open_store
from tests.protocol.fleet import FLEETS, Files, Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore

    MakeStore = Callable[[], ObjectStore]


@pytest.fixture(scope="session")
def fleet_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return small DICOM files of one series."""
    return Files(tmp_path_factory.mktemp("fleet-files"))


@pytest.fixture(autouse=True)
def _burial() -> Iterator[None]:
    """End the threads of all writers that a test left stalled."""
    yield
    for fleet in FLEETS:
        fleet.bury_the_dead()
    FLEETS.clear()


@pytest.fixture
def memory_fleet(fleet_files: Files) -> Callable[[], Fleet]:
    """Return a maker of fleets, each on an empty store in memory."""
    return lambda: Fleet(MemoryStore(f"memory://{uuid.uuid4().hex}"), fleet_files)


@pytest.fixture
def new_fleet(store_kind: str, tmp_path: Path, request: pytest.FixtureRequest, fleet_files: Files) -> Any:
    """Return a maker of fleets, each on an empty store of the kind at hand."""

    def make() -> Fleet:
        name = uuid.uuid4().hex
        if store_kind == "gcs":
            client = request.getfixturevalue("gcs_session_client")
            return Fleet(open_store(f"gs://{request.getfixturevalue('gcs_bucket')}/{name}", client), fleet_files)
        return Fleet(open_store(f"memory://{name}" if store_kind == "memory" else tmp_path / name), fleet_files)

    return make
