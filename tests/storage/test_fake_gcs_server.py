"""A second opinion on the bucket store: fake-gcs-server, for what it does as the real service does.

It ignores preconditions on everything but uploads in one request (measured), so the parts of the suite that need more
are run on the strict server only.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from cloud_optimized_dicom.storage.retry import RetryPolicy
from cloud_optimized_dicom.testing.store_suite import StoreConcatTests, StoreListTests, StoreReadTests, StoreWriteTests
from tests.fake_gcs import fake_gcs_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.storage.base import ObjectStore


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a client of a fake-gcs-server."""
    with fake_gcs_server(tmp_path_factory.mktemp("fake-gcs-server") / "log") as url:
        client = ClientRecipe("test", url, anonymous=True).make()
        yield client
        client.close()


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
