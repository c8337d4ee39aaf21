"""Files that are written for a caller are whole, or those that were there before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import CODObject
from cloud_optimized_dicom.errors import HashMismatchError, TarValidationError, TransientStorageError
from cloud_optimized_dicom.series.extract import extract, pull_tar
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, StoreFault, StoreFaultKind
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.bulk import ingest
from tests.core.conftest import write_series
from tests.limits import files_of_at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore

    Way = Callable[[ObjectStore, Path], None]

SERIES = CtSeries(3, 64, 64)
KEY = SeriesKey(SERIES.uids.study, SERIES.uids.series)
UID = SERIES.instance_uid(0)
GOOD = b"what was there before"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Return a store that holds a series of three."""
    store = LocalStore(tmp_path / "store")
    files = write_series(tmp_path / "files", SERIES)
    assert ingest(store, files.paths).count("new") == 3
    return store


def damage(store: LocalStore) -> None:
    """Flip the last byte of the first instance in the tar."""
    record = SeriesReader.open(store, KEY).document.get(UID)
    (tar,) = (path for path in Path(store.url).rglob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[record.start + record.size - 1] ^= 1
    tar.write_bytes(data)


def get_all(store: ObjectStore, folder: Path) -> None:
    reader = SeriesReader.open(store, KEY)
    extract(reader, reader.document.iter_records(), folder)


def get_tar(store: ObjectStore, folder: Path) -> None:
    pull_tar(SeriesReader.open(store, KEY), folder / "series.tar")


def fetch(store: ObjectStore, folder: Path) -> None:
    with CODObject(store, None, KEY.study_uid, KEY.series_uid, "r") as cod:
        cod.get_instance(UID).fetch(folder)


WAYS = pytest.mark.parametrize(
    ("way", "name"), [(get_all, f"{UID}.dcm"), (get_tar, "series.tar"), (fetch, f"{UID}.dcm")]
)


@WAYS
def test_bad_bytes_never_get_the_final_name(store: LocalStore, tmp_path: Path, way: Way, name: str) -> None:
    """Stored bytes that are not those on record replace no file, and leave none."""
    damage(store)
    for was_there in (False, True):
        target = tmp_path / f"out-{was_there}"
        target.mkdir()
        if was_there:
            (target / name).write_bytes(GOOD)
        with pytest.raises((HashMismatchError, TarValidationError)):
            way(store, target)
        left = {path.name: path.read_bytes() for path in target.iterdir()}
        assert left == ({name: GOOD} if was_there else {})


@WAYS
def test_what_is_cut_short_never_gets_the_final_name(store: LocalStore, tmp_path: Path, way: Way, name: str) -> None:
    """A store that fails half-way, and a disk that is full, leave what was there."""
    (tmp_path / name).write_bytes(GOOD)
    fault = StoreFault(StoreFaultKind.TRUNCATED, "*", r"\.tar$", times=None)
    with pytest.raises(TransientStorageError):
        way(FaultyStore(store, [fault]), tmp_path)
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        way(store, tmp_path)
    assert (tmp_path / name).read_bytes() == GOOD
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    way(store, tmp_path)
    assert (tmp_path / name).read_bytes() != GOOD
    assert (tmp_path / name).stat().st_mode == (tmp_path / "files" / "0.dcm").stat().st_mode
