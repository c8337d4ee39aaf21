"""Verification, and recovery, as pipelines."""

from __future__ import annotations

import pickle
import shutil
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.beam import ReadSeries, RecoverSeries, VerifySeries
from pipelines.verify import main
from tests.beam.conftest import run_pipeline
from tests.core.test_golden_stores import GOLDEN

if TYPE_CHECKING:
    from pathlib import Path

STORES = ("v1-series", "v2-rtdose", "v2-series-hashed", "v2-hanging-lock")


def older(tmp_path: Path, *names: str) -> Datastore:
    """Return a datastore of several golden stores."""
    for name in names:
        shutil.copytree(GOLDEN / name, tmp_path / "archive", dirs_exist_ok=True)
    return Datastore(tmp_path / "archive")


def run(stage: Any, *series: Any) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Run a stage over the series that are found."""
    return run_pipeline(lambda pipeline: (pipeline | ReadSeries(*series) | stage)._asdict())


def test_every_series_has_a_report(tmp_path: Path) -> None:
    """The reports are those of the datastore itself, a damaged series and one without metadata included."""
    datastore = older(tmp_path, *STORES)
    first, second, *_ = datastore.series()
    tar = tmp_path / "archive" / first.tar
    data = bytearray(tar.read_bytes())
    data[3000] ^= 1
    tar.write_bytes(data)
    (tmp_path / "archive" / second.metadata).unlink()
    found, counters = run(VerifySeries(datastore.url), datastore.url)
    reports = {report.series_uri: report for report in found["results"]}
    assert found["dead_letters"] == []
    kinds = {uri: {finding.kind for finding in report.findings} for uri, report in reports.items()}
    expected = {report.series_uri: {finding.kind for finding in report.findings} for report in datastore.verify()}
    assert kinds == expected
    assert len(reports) == 4
    assert (counters["series_verified"], counters["series_damaged"]) == (4, 2)
    assert main(["--store", datastore.url, "--sample", "1"]) == 0


def test_what_dead_writers_left_is_finished_or_named(tmp_path: Path) -> None:
    """A series with an older writer's lock is a retryable dead letter; the others have nothing to recover."""
    datastore = older(tmp_path, *STORES)
    found, counters = run(RecoverSeries(datastore.url), datastore.url)
    assert [letter.retryable for letter in found["dead_letters"]] == [True]
    assert "has no lease" in found["dead_letters"][0].reason
    assert {result.outcome for result in found["results"]} == {"nothing"}
    assert counters["series_nothing"] == 3


def test_stages_pickle() -> None:
    """A stage travels to workers by pickle, before anything is opened."""
    for stage in (VerifySeries("x", deep=True), RecoverSeries("x")):
        assert type(pickle.loads(pickle.dumps(stage))) is type(stage)
