"""Exports as pipelines: trees of files, and rows with frames."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow.parquet
import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.beam import ExportSeries
from cloud_optimized_dicom.catalogue import update_catalogue
from cloud_optimized_dicom.storage.urls import open_store
from pipelines.export import main
from tests.beam.test_verify import older, run
from tests.catalogue.conftest import overwrite
from tests.export.conftest import Archive, tree
from tests.hashed.functions import PSEUDONYM, pseudonym

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of two series, of three and of two instances."""
    archive = Archive(open_store(tmp_path / "archive"), tmp_path / "files")
    archive.add(3, seed=1)
    archive.add(2, seed=2)
    return archive


def exported(store: ObjectStore) -> dict[str, bytes]:
    """Return what an export wrote."""
    return {info.name: store.read_object(info.name).data for info in store.list()}


def frames_in(data: bytes) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file."""
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    return rows


def test_a_tree_in_any_store(
    archive: Archive, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, gcs_endpoint: str
) -> None:
    """Every instance arrives byte for byte, once: a second run writes nothing, and mends what differs."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_endpoint)
    found, counters = run(ExportSeries(archive.store.url, store.url), archive.store.url)
    assert exported(store) == archive.files
    assert (counters["files_exported"], found["dead_letters"]) == (5, [])
    spoilt = next(iter(archive.files))
    overwrite(store, spoilt, b"something else")
    _, counters = run(ExportSeries(archive.store.url, store.url), archive.store.url)
    assert (counters["files_exported"], counters["files_present"]) == (1, 4)
    assert exported(store) == archive.files


def test_a_query_selects_and_uids_are_hashed(archive: Archive, tmp_path: Path) -> None:
    """SQL over the catalogue picks single instances; their names are what the function gives, their bytes their own."""
    update_catalogue(Datastore(archive.store), tmp_path / "tables")
    flags = ["--catalogue", str(tmp_path / "tables"), "--sql", "SELECT * FROM instances WHERE InstanceNumber = 2"]
    flags += ["--hash_uid", PSEUDONYM, "--report", str(tmp_path / "report")]
    target = str(tmp_path / "out")
    assert main(["--store", archive.store.url, "--destination", target, *flags]) == 0
    hashed = {
        "/".join(map(pseudonym, name.removesuffix(".dcm").split("/"))) + ".dcm": data
        for name, data in archive.files.items()
    }
    found = {name: data for name, data in tree(tmp_path / "out").items() if not name.startswith(".cod/")}
    assert len(found) == 2
    assert found.items() <= hashed.items()
    assert list(tmp_path.glob("report-results*"))


def test_a_damaged_instance_is_a_dead_letter(archive: Archive, tmp_path: Path) -> None:
    """The others of its series arrive, and so does every other series."""
    key = next(iter(archive.datastore.series()))
    tar = tmp_path / "archive" / key.tar
    data = bytearray(tar.read_bytes())
    data[-100] ^= 1
    tar.write_bytes(data)
    found, counters = run(ExportSeries(archive.store.url, str(tmp_path / "out")), archive.store.url)
    assert counters["dead_letters"] == len(found["dead_letters"]) > 0
    assert counters["files_exported"] + counters["dead_letters"] == 5
    assert all(letter.subject.startswith(archive.store.url_of(key.folder)) for letter in found["dead_letters"])


def test_frames_as_rows(tmp_path: Path) -> None:
    """Every frame is a row with its bytes as stored, older writers' wrong tables notwithstanding; UIDs are hashed."""
    datastore = older(tmp_path, "v2-rtdose", "v2-examples-ybr-color", "v2-rtplan", "v2-series-hashed")
    url = str(tmp_path / "out")
    stage = ExportSeries(datastore.url, url, kind="parquet", hash_uid=PSEUDONYM)
    found, counters = run(stage, datastore.url)
    assert found["dead_letters"] == []
    assert counters["frames_exported"] == 15 + 30 + 3
    store = open_store(url)
    for key in datastore.series():
        name = f"{pseudonym(key.study_uid)}/{pseudonym(key.series_uid)}.parquet"
        with datastore.open(key.study_uid, key.series_uid) as cod:
            frames = [
                (pseudonym(uid), number, data)
                for uid, one in cod.get_instances(strict_sorting=False).items()
                if one.has_pixeldata
                for number, data in enumerate(cod.read_frames(uid))
            ]
        rows = frames_in(store.read_object(name).data) if frames else []
        assert sorted((row["SOPInstanceUID"], row["frame"], row["data"]) for row in rows) == sorted(frames)
        assert all(row["StudyInstanceUID"] == pseudonym(key.study_uid) for row in rows)
    again, _ = run(stage, datastore.url)
    assert not any(result.written for result in again["results"])


def test_a_function_that_is_none_is_refused() -> None:
    """What cannot be imported is told before anything runs."""
    for name in ("no.such.module:x", "builtins:nothing", "builtins", "os:sep"):
        with pytest.raises(ValueError, match="function"):
            ExportSeries("a", "b", hash_uid=name)
