"""A catalogue built as a pipeline."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.beam import CatalogueSeries
from cloud_optimized_dicom.catalogue import Catalogue, update_catalogue
from cloud_optimized_dicom.storage.urls import open_store
from pipelines.catalogue import main
from tests.beam.conftest import run_pipeline
from tests.catalogue.conftest import contents, memory, overwrite, table_files, update
from tests.export.conftest import Archive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of six series in a folder."""
    archive = Archive(open_store(tmp_path / "archive"), tmp_path / "files")
    for seed in range(6):
        archive.add(2, seed=seed)
    return archive


def run(archive: Archive, url: str, **options: Any) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Build or update a catalogue."""
    return run_pipeline(lambda pipeline: (pipeline | CatalogueSeries(archive.store.url, url, **options))._asdict())


def test_the_tables_are_those_of_one_machine(archive: Archive) -> None:
    """Several partitions, each by a worker, hold what the command would have written; a second run reads nothing."""
    url = f"memory://{uuid.uuid4().hex}"
    found, counters = run(archive, url, partitions=3)
    (report,) = found["results"]
    assert (report.series, report.instances, report.partitions) == (6, 12, 3)
    alone = memory()
    update(archive, alone)
    assert contents(open_store(url)) == contents(alone)
    assert counters["series_read"] == 6
    key = archive.add(1, seed=9)
    for info in list(archive.store.list(key.folder)):
        archive.store.delete(info.name)
    found, counters = run(archive, url)
    assert (counters["series_read"], counters["series_kept"]) == (0, 6)
    with Catalogue(url) as catalogue:
        assert table_files(catalogue.store) == catalogue.manifest.names


def test_the_command_and_the_pipeline_go_on_from_each_other(archive: Archive, tmp_path: Path) -> None:
    """What a pipeline built, `update_catalogue` updates, and the other way round; a damaged series is a dead letter."""
    url = str(tmp_path / "tables")
    assert main(["--store", archive.store.url, "--catalogue", url, "--partitions", "2"]) == 0
    archive.add(1, seed=7)
    assert update_catalogue(Datastore(archive.store), url).read == 1
    key = archive.add(1, seed=8)
    overwrite(archive.store, key.metadata, b"{}")
    found, counters = run(archive, url)
    (report,) = found["results"]
    assert (report.series, report.read, counters["dead_letters"]) == (7, 1, 1)
    assert [letter.subject for letter in found["dead_letters"]] == [archive.store.url_of(key.folder)]
