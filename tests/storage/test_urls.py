"""From URLs and paths to stores."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.errors import StorageError
from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.store_writes import content, put

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("given", "kind", "url"),
    [
        ("gs://bucket/a/b", GcsStore, "gs://bucket/a/b"),
        ("gs://bucket/a/b///", GcsStore, "gs://bucket/a/b"),
        ("gs://bucket", GcsStore, "gs://bucket"),
        ("GS://bucket/", GcsStore, "gs://bucket"),
        ("memory://name", MemoryStore, "memory://name"),
        ("memory://name/a/", MemoryStore, "memory://name/a"),
        ("/data/store", LocalStore, "/data/store"),
        ("/data/store//", LocalStore, "/data/store"),
        ("/data/x/../store", LocalStore, "/data/store"),
        ("file:///data/store/", LocalStore, "/data/store"),
        ("file://localhost/data/store", LocalStore, "/data/store"),
        ("file:///data/with%20space%23", LocalStore, "/data/with space#"),
    ],
)
def test_url_names_a_store(given: str, kind: type, url: str) -> None:
    """Each scheme opens its kind of store; trailing slashes do not matter."""
    store = open_store(given)
    assert type(store) is kind
    assert store.url == url
    assert open_store(store.url).url == url


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken from the working directory at the time of opening."""
    monkeypatch.chdir(tmp_path)
    store = open_store("data/store")
    monkeypatch.chdir("/")
    assert store.url == str(tmp_path / "data" / "store")
    assert open_store(tmp_path / "data").url == str(tmp_path / "data")


@pytest.mark.parametrize("url", ["s3://bucket/x", "http://host/x", "az://x"])
def test_unknown_scheme(url: str) -> None:
    """A scheme without a store is refused, and the known ones are named."""
    with pytest.raises(StorageError, match=r"file://, gs://, memory://"):
        open_store(url)


@pytest.mark.parametrize("url", ["gs://", "gs:///x", "memory://", "file://", "file://host/x", ""])
def test_url_that_names_nothing(url: str) -> None:
    """A URL without a bucket, a name or a path is refused."""
    with pytest.raises(StorageError):
        open_store(url)


def test_memory_stores_are_shared_by_name() -> None:
    """The same name is the same store; a prefix of it sees the same objects under shorter names."""
    put(open_store("memory://shared/a"), "b/c", b"data")
    assert content(open_store("memory://shared"), "a/b/c") == b"data"
    assert [info.name for info in open_store("memory://shared/a/b").list()] == ["c"]
    assert list(open_store("memory://other").list()) == []


def test_opening_a_local_store_imports_no_cloud_sdk(tmp_path: Path) -> None:
    """A local or in-memory datastore costs no import of a vendor's SDK."""
    code = (
        "import sys\n"
        "from cloud_optimized_dicom.storage.urls import open_store\n"
        f"list(open_store({str(tmp_path)!r}).list()); list(open_store('memory://x').list())\n"
        # Not `google` itself: packages of other vendors' making declare it at every start of the interpreter.
        "print([name for name in ('google.cloud.storage', 'google.auth', 'boto3') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "[]\n"
