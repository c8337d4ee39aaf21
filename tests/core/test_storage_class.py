"""Which storage class a tar has, in a bucket."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from tests.core.conftest import Files


@pytest.fixture
def place(gcs_session_client: Any, gcs_bucket: str) -> tuple[str, Any]:
    """Return an empty place in a bucket whose default class is STANDARD, and its client."""
    return f"gs://{gcs_bucket}/{uuid.uuid4().hex}", gcs_session_client


def class_of_tar(datastore: Datastore, files: Files) -> str | None:
    """Return the storage class of the series' tar."""
    return datastore.store.stat(SeriesKey(files.series.uids.study, files.series.uids.series).tar).storage_class


def test_a_new_tar_gets_the_class_that_was_asked_for(place: tuple[str, Any], files: Files) -> None:
    """An ingest makes tars of the class that it is told, and metadata of the bucket's own."""
    datastore = Datastore(*place)
    assert datastore.ingest(files.paths, tar_storage_class="NEARLINE").count("new") == 5
    assert class_of_tar(datastore, files) == "NEARLINE"
    (key,) = datastore.series()
    assert datastore.store.stat(key.metadata).storage_class == "STANDARD"


def test_a_tar_keeps_its_class(place: tuple[str, Any], files: Files) -> None:
    """Appends and rewrites leave the class as it is; only a rewrite that is told another one changes it."""
    uids = files.series.uids

    def opened(mode: str, **options: Any) -> CODObject:
        return CODObject(*place, uids.study, uids.series, mode, **options)

    datastore = Datastore(*place)
    datastore.ingest(files.paths[:3], tar_storage_class="COLDLINE")
    datastore.ingest(files.paths[3:4], tar_storage_class="NEARLINE")
    assert class_of_tar(datastore, files) == "COLDLINE"
    with opened("a") as cod:
        cod.remove(files.uids[0])
    assert class_of_tar(datastore, files) == "COLDLINE"
    with opened("a", tar_storage_class="NEARLINE") as cod:
        cod.remove(files.uids[1])
    assert class_of_tar(datastore, files) == "NEARLINE"
    assert [report.ok for report in datastore.verify()] == [True]
