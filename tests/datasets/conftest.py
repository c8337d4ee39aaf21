"""Two small CT series and a slide, in every kind of store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance

if TYPE_CHECKING:
    from pathlib import Path

HEAD, CHEST = CtSeries(4, rows=16, columns=12, seed=1), CtSeries(3, rows=16, columns=12, seed=2)
SLIDE = Uids.of("a slide to train on")
TILES = 40


def fill(datastore: Datastore, folder: Path) -> Datastore:
    """Store both series and the slide."""
    folder.mkdir(parents=True)
    for series in (HEAD, CHEST):
        for index, data in enumerate(series):
            (folder / f"{series.seed}-{index}.dcm").write_bytes(data)
    (folder / "slide.dcm").write_bytes(slide_instance(TILES, "empty", tile_size=64, uids=SLIDE))
    assert datastore.ingest([folder]).errors == ()
    return datastore


@pytest.fixture
def datastore(datastore_url: str, gcs_client: Any, tmp_path: Path) -> Datastore:
    """Return a filled datastore of each kind."""
    return fill(Datastore(datastore_url, gcs_client), tmp_path / "files")
