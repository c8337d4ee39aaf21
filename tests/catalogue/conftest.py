"""Stored series to be catalogued, and their catalogue."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.catalogue import Catalogue, CatalogueReport, update_catalogue
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.counting_store import CountingStore
from tests.export.conftest import Archive

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of two series, of five and of three instances, that counts what is asked of it."""
    archive = Archive(CountingStore(memory()), tmp_path / "files")
    archive.add(5, seed=1)
    archive.add(3, seed=2)
    return archive


def memory() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


def update(archive: Archive, place: ObjectStore, **options: Any) -> CatalogueReport:
    """Build or update the catalogue of an archive."""
    return update_catalogue(Datastore(archive.store), place, **options)


def ask(place: ObjectStore, sql: str) -> list[tuple[Any, ...]]:
    """Return what a query gives."""
    with Catalogue(place) as catalogue:
        return list(catalogue.query(sql))


def contents(place: ObjectStore) -> tuple[list[Any], list[Any]]:
    """Return all rows of both tables, in order."""
    series = ask(place, "SELECT * FROM series ORDER BY StudyInstanceUID, SeriesInstanceUID")
    return series, ask(place, "SELECT * FROM instances ORDER BY SOPInstanceUID")


def table_files(place: ObjectStore) -> set[str]:
    """Return the names of all Parquet files."""
    return {info.name for info in place.list() if info.name.endswith(".parquet")}


def overwrite(store: ObjectStore, name: str, data: bytes) -> None:
    """Write over an object as somebody outside would."""
    store.replace(name, BytesPayload(data), version=store.stat(name).version, write_id="x" * 32)
