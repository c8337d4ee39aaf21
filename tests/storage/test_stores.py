"""The conformance suite on every store of the package."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.retry import RetryPolicy
from cloud_optimized_dicom.testing.store_suite import ProcessStoreSuite, StoreSuite

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore


class TestMemoryStore(StoreSuite):
    """The store in memory."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return an empty store."""
        return MemoryStore(f"memory://{uuid.uuid4().hex}")


class TestMemoryStoreBelowAPrefix(StoreSuite):
    """The store in memory, of which other objects are not ours to see."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return an empty prefix of a store that is not empty."""
        name = uuid.uuid4().hex
        other = MemoryStore(f"memory://{name}/ours-not")
        for number in range(3):
            other.create(f"x{number}", BytesPayload(b"x"), write_id="w")
        return MemoryStore(f"memory://{name}/ours")


class TestLocalStore(ProcessStoreSuite):
    """The store in a directory."""

    objects_may_be_folders: ClassVar[bool] = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        """Return a store in a directory that does not exist yet."""
        return LocalStore(tmp_path / "not" / "yet")


class TestGcsStore(ProcessStoreSuite):
    """A prefix of a bucket."""

    @pytest.fixture
    def store(self, gcs_session_client: Any, gcs_bucket: str) -> ObjectStore:
        """Return an empty prefix, and no patience with failures."""
        return GcsStore(gcs_bucket, uuid.uuid4().hex, gcs_session_client, retry=RetryPolicy(0.01, 0.02, 5))


class TestGcsStoreOfAWholeBucket(StoreSuite):
    """A bucket without a prefix, with a client that the store makes."""

    @pytest.fixture
    def store(self, gcs_session_client: Any, gcs_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
        """Return an empty bucket."""
        bucket = f"cod-test-{uuid.uuid4().hex}"
        gcs_session_client.create_bucket(bucket)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_endpoint)
        return GcsStore(bucket, retry=RetryPolicy(0.01, 0.02, 5))
