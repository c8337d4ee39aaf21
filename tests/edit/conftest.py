"""Series to be edited: a small CT in every kind of store, and ways to rewrite a file as people do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from cloud_optimized_dicom import CODObject
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.core.conftest import Files, read, write_series

if TYPE_CHECKING:
    from tests.core.conftest import Open

INSTANCES = 5


def rewrite(path: str | Path, **attributes: Any) -> bytes:
    """Set attributes of a file with pydicom, in place; return the new bytes."""
    dataset = pydicom.dcmread(path)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return Path(path).read_bytes()


def contents(opened: CODObject) -> dict[str, bytes]:
    """Return every instance's bytes by the UID it is stored under, in the document's order."""
    with opened as cod:
        return {uid: read(cod, uid) for uid in cod.get_metadata()["cod"]["instances"]}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return the files of a series of five small instances."""
    return write_series(tmp_path / "files", CtSeries(INSTANCES, rows=16, columns=16))


@pytest.fixture
def stored(datastore_url: str, gcs_client: Any, files: Files) -> Open:
    """Return a function that opens the series of the files, all of which are stored in the datastore at hand."""

    def opened(mode: Any = "r", **options: Any) -> CODObject:
        uids = files.series.uids
        return CODObject(datastore_url, gcs_client, uids.study, uids.series, mode, **options)

    with opened("w") as cod:
        assert len(cod.append(files.instances()).new) == INSTANCES
        cod.add_metadata_field("site", "north")
    return opened
