"""A small series, which is stored under hashed UIDs, and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject
from tests.cli.conftest import cod, store_url
from tests.core.conftest import files
from tests.core.test_bulk_requests import scene, server
from tests.hashed.functions import pseudonym

if TYPE_CHECKING:
    from tests.core.conftest import Files, Open

__all__ = ["cod", "files", "scene", "server", "store_url"]


@pytest.fixture
def open_hashed(datastore_url: str, gcs_client: Any, files: Files) -> Open:
    """Return a function that opens the hashed series of `files` in the datastore at hand."""

    def opened(mode: Any = "r", **options: Any) -> CODObject:
        uids = files.series.uids
        return CODObject(datastore_url, gcs_client, pseudonym(uids.study), pseudonym(uids.series), mode, **options)

    return opened
