"""Files and datastores in folders whose names hold what JSON, URLs and UTF-8 reserve."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.series.tar_check import VerifyOptions
from cloud_optimized_dicom.series.verify import verify_series
from tests.realfiles import real_file

NAMES = ['with "quotes"', "back\\slash", "question?mark", "a&b=c", "percent%20", "umlaut ü", os.fsdecode(b"latin \xfc")]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_headers_name_their_bulk_data_wherever_it_lies(tmp_path: Path, name: str) -> None:
    """The header of a file, and of a stored instance, is read back, and so is the value that it names."""
    folder = tmp_path / name
    folder.mkdir()
    path = Path(shutil.copy(real_file("CT_small.dcm").path, folder / f"{name}.dcm"))
    instance = Instance(path)
    assert instance.metadata["7FE00010"]["BulkDataURI"].startswith(str(instance.dicom_uri))
    report = Datastore(folder).ingest([path], workers=1)
    assert [file.outcome for file in report.files] == ["new"]
    (key,) = report.series
    datastore = Datastore(folder)
    with datastore.open(key.study_uid, key.series_uid) as cod:
        (found,) = cod.get_instances().values()
        element = found.metadata["7FE00010"]
        assert cod.read_bulk_data(element["BulkDataURI"]) == cod.read_frames(found.instance_uid())[0]
    assert verify_series(datastore.store, key, VerifyOptions(deep=True)).ok
