"""A small series of real structure, and a way to open it in every kind of store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Files:
    """Instances of one series as local files."""

    series: CtSeries
    paths: tuple[Path, ...]

    @property
    def uids(self) -> list[str]:
        """Their SOP Instance UIDs, in order."""
        return [self.series.instance_uid(index) for index in range(len(self.paths))]

    def instances(self, *indexes: int) -> list[Instance]:
        """Return new instances of the files, all or some."""
        return [Instance(self.paths[index]) for index in indexes or range(len(self.paths))]

    def bytes(self, index: int) -> bytes:
        """Return one file's bytes."""
        return self.paths[index].read_bytes()


Open = Callable[..., CODObject]


def read(cod: CODObject, instance: Instance | str | int) -> bytes:
    """Return one instance's bytes."""
    with cod.open_instance(instance) as stream:
        return stream.read()


def write_series(folder: Path, series: CtSeries) -> Files:
    """Write a series as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, data in enumerate(series):
        paths.append(folder / f"{index}.dcm")
        paths[-1].write_bytes(data)
    return Files(series, tuple(paths))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a series of five small instances."""
    return write_series(tmp_path / "files", CtSeries(5, rows=16, columns=16))


@pytest.fixture
def open_cod(datastore_url: str, gcs_client: Any, files: Files) -> Open:
    """Return a function that opens the series of `files` in the datastore at hand."""

    def opened(mode: str = "r", **options: Any) -> CODObject:
        uids = files.series.uids
        return CODObject(datastore_url, gcs_client, uids.study, uids.series, mode, **options)

    return opened


@pytest.fixture
def stored(open_cod: Open, files: Files) -> Open:
    """Return `open_cod` after the first three instances were stored."""
    with open_cod("w") as cod:
        assert len(cod.append(files.instances(0, 1, 2)).new) == 3
    return open_cod
