"""Stored series to be exported, and what the files must be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.conftest import write_series

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore


@dataclass
class Archive:
    """A datastore, and the files that went into it by the path that an export gives them."""

    store: ObjectStore
    scratch: Path
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def datastore(self) -> Datastore:
        """The datastore."""
        return Datastore(self.store)

    def add(self, instances: int, seed: int, **options: Any) -> SeriesKey:
        """Store a series and return its key."""
        series = CtSeries(instances, seed=seed, **{"rows": 16, "columns": 16} | options)
        written = write_series(self.scratch / str(seed), series)
        uids = series.uids
        with self.datastore.open(uids.study, uids.series, "a") as cod:
            assert not cod.append(written.instances()).errors
        for index, uid in enumerate(written.uids):
            self.files[f"{uids.study}/{uids.series}/{uid}.dcm"] = written.bytes(index)
        return SeriesKey(uids.study, uids.series)

    def of(self, key: SeriesKey) -> dict[str, bytes]:
        """Return the files of one series."""
        return {
            name: data for name, data in self.files.items() if name.startswith(f"{key.study_uid}/{key.series_uid}/")
        }


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, but for what the export keeps for itself."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith(".cod-export/")}


def uid_in(name: str) -> str:
    """Return the SOP Instance UID in an exported file's name."""
    return Path(name).stem


@pytest.fixture
def archive(store: ObjectStore, tmp_path: Path) -> Archive:
    """Return an archive of two series, of five and of three instances, on each kind of store."""
    archive = Archive(store, tmp_path / "files")
    archive.add(5, seed=1)
    archive.add(3, seed=2)
    return archive
