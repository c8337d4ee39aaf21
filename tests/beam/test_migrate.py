"""Migration as a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apache_beam as beam

from cloud_optimized_dicom.beam import MigrateSeries, ReadSeries
from pipelines.migrate import main
from tests.beam.conftest import run_pipeline
from tests.beam.test_verify import STORES, older, run
from tests.core.test_repair import files_of

if TYPE_CHECKING:
    from pathlib import Path


def test_series_are_migrated_once(tmp_path: Path) -> None:
    """Every series is brought to the present format; a locked one is retryable; a second run has nothing to do."""
    datastore = older(tmp_path, *STORES)
    keys = list(datastore.series())
    files = {key: files_of(datastore.store, key) for key in keys}
    found, counters = run(MigrateSeries(datastore.url, dry_run=True), datastore.url)
    assert counters["series_to_migrate"] == 4
    found, counters = run(MigrateSeries(datastore.url, wait_seconds=0), datastore.url)
    assert counters["series_migrated"] == 3
    assert counters["dead_letters"] == 1
    assert len(found["results"]) == 3
    assert {key: files_of(datastore.store, key) for key in keys} == files
    found, counters = run(MigrateSeries(datastore.url, wait_seconds=0), datastore.url)
    assert counters["series_as_they_should_be"] == 3
    assert main(["--store", datastore.url, "--wait_seconds", "0"]) == 1


def test_elements_that_come_twice_do_no_harm(tmp_path: Path) -> None:
    """A runner may run the same element twice: one commit is made."""
    datastore = older(tmp_path, "v1-series")
    (key,) = datastore.series()

    def build(pipeline: beam.Pipeline) -> dict[str, object]:
        twice = (pipeline | ReadSeries(datastore.url)).series | beam.FlatMap(lambda one: [one, one])
        return (twice | MigrateSeries(datastore.url))._asdict()  # type: ignore[no-any-return]

    found, _ = run_pipeline(build)
    assert sorted(bool(result.actions) for result in found["results"]) == [False, True]
    with datastore.open(key.study_uid, key.series_uid) as cod:
        assert len(cod.get_metadata()["cod"]["commits"]) == 1


def test_series_are_brought_to_the_version_that_is_asked_for(tmp_path: Path) -> None:
    """The option of the pipeline reaches every series."""
    datastore = older(tmp_path, "v2-series")
    (key,) = datastore.series()
    assert main(["--store", datastore.url, "--to", "v1"]) == 0
    with datastore.open(key.study_uid, key.series_uid) as cod:
        assert {record["version"] for record in cod.get_metadata()["cod"]["instances"].values()} == {"1.0"}
