"""A second opinion on the bucket store: fake-gcs-server, for what it does as the real service does.

It ignores preconditions on everything but uploads in one request (measured), so the parts of the suite that need more
are run on the strict server only.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject
from cloud_optimized_dicom.series.look import Look
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from cloud_optimized_dicom.storage.retry import RetryPolicy
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.store_suite import StoreConcatTests, StoreListTests, StoreReadTests, StoreWriteTests
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.conftest import write_series
from tests.fake_gcs import fake_gcs_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a client of a fake-gcs-server."""
    with fake_gcs_server(tmp_path_factory.mktemp("fake-gcs-server") / "log") as url:
        client = ClientRecipe("test", url, anonymous=True).make()
        yield client
        client.close()


def test_a_tar_that_keeps_its_generation_is_seen_to_have_grown(client: Any, tmp_path: Path) -> None:
    """A list from before an append does not pass for the tar of after it, though both have one generation here."""
    files = write_series(tmp_path, CtSeries(2, rows=16, columns=16))
    key = SeriesKey(files.series.uids.study, files.series.uids.series)
    url = f"gs://bucket/{uuid.uuid4().hex}"
    with CODObject(url, client, key.study_uid, key.series_uid, "w") as cod:
        cod.append(files.instances(0))
        store = cod.store
    look = Look.at(store, key)
    with CODObject(url, client, key.study_uid, key.series_uid, "a") as cod:
        cod.append(files.instances(1))
    transaction = Transaction.begin(store, key, TransactionOptions(), look)
    assert transaction.base.tar == store.stat(key.tar)
    transaction.rollback()
    assert look.listing.tar is not None
    assert transaction.base.tar is not None
    assert look.listing.tar.version == transaction.base.tar.version


class TestFakeGcsServer(StoreWriteTests, StoreConcatTests, StoreReadTests, StoreListTests):
    """The suite, without what this server is known to do otherwise."""

    # It enforces no precondition on reads, composes, deletes and resumable uploads ...
    test_pinned_read = None  # type: ignore[assignment]
    test_refuses_an_existing_object = None  # type: ignore[assignment]
    test_refuses_a_stale_version = None  # type: ignore[assignment]
    test_refuses_a_stale_source = None  # type: ignore[assignment]
    test_delete_of_a_stale_version_is_refused = None  # type: ignore[assignment]
    test_large_payload_is_refused_where_an_object_is = None  # type: ignore[assignment]
    # ... keeps the generation of an object that is composed onto itself, answers 500 for a missing source ...
    test_onto_itself = None  # type: ignore[assignment]
    test_refuses_a_missing_source = None  # type: ignore[assignment]
    # ... and does not check the checksum of a resumable upload.
    test_bytes_that_are_not_as_announced_are_refused = None  # type: ignore[assignment]

    @pytest.fixture
    def store(self, client: Any) -> ObjectStore:
        """Return an empty prefix."""
        return GcsStore("bucket", uuid.uuid4().hex, client, retry=RetryPolicy(0.01, 0.02, 1))
