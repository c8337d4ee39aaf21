"""Peak memory of a process that edits a series which is far larger than it may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from tests.core.test_memory import PEAK_BYTES, QuickSeries, peak_of, place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.core.test_memory import Place

__all__ = ["place"]

EDIT = """
import sys
from pathlib import Path
from cloud_optimized_dicom import Datastore
datastore = Datastore(sys.argv[1])
(key,) = datastore.series()
with datastore.open(key.study_uid, key.series_uid, "e") as cod:
    with Path(cod.get_instance_by_index(0).dicom_uri).open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"xy")
with datastore.open(key.study_uid, key.series_uid) as cod:
    assert len(cod.get_metadata()["cod"]["commits"]) == 2
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_series_of_800_megabytes(
    place: Place, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Editing one of 400 instances of 2 MB takes no more memory than an ingest may."""
    url, environment = place
    for index, data in enumerate(QuickSeries(400, 1024, 1024)):
        (tmp_path / f"files/{index:05d}.dcm").write_bytes(data)
    endpoint = environment.get("STORAGE_EMULATOR_HOST")
    client = ClientRecipe("test", endpoint, anonymous=True).make() if url.startswith("gs://") else None
    Datastore(url, client).ingest([Instance(path) for path in sorted((tmp_path / "files").iterdir())])
    peak = peak_of(EDIT, url, environment=environment)
    record_property("peak_bytes", tuple(peak))
    assert peak.together <= PEAK_BYTES, peak
