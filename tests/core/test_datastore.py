"""Many series: listing, ingest with one bad series among good ones, values that travel."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import CODObject, Datastore, Hints, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.events import FileDone, IngestPlanned
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.core.conftest import Files, read, write_series

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.conftest import Open


def test_studies_and_series(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Everything that was ingested is listed by study and series."""
    study = CtSeries(1, rows=4, columns=4, seed=1).uids.study
    made = [write_series(tmp_path / str(n), CtSeries(2, rows=4, columns=4, seed=n, study_uid=study)) for n in range(3)]
    other = write_series(tmp_path / "other", CtSeries(1, rows=4, columns=4, seed=9))
    datastore = Datastore(datastore_url, gcs_client)
    assert list(datastore.studies()) == []
    report = datastore.ingest([tmp_path])
    assert report.count("new") == 7
    assert sorted(datastore.studies()) == sorted([study, other.series.uids.study])
    assert {key.series_uid for key in datastore.series(study)} == {files.series.uids.series for files in made}
    assert len(list(datastore.series())) == 4
    assert [verified.ok for verified in datastore.verify()] == [True] * 4


def test_a_series_that_cannot_be_written_stops_no_other(stored: Open, files: Files, tmp_path: Path) -> None:
    """What is new for a locked series is an error with the reason; other series of the same ingest are stored."""
    other = write_series(tmp_path / "other", CtSeries(2, rows=4, columns=4, seed=5))
    heard: list[Any] = []
    with stored("a") as cod:
        datastore = Datastore(cod.store)
        report = datastore.ingest([*files.paths, *other.paths], hooks=[heard.append])
    assert [report.count(outcome) for outcome in ("new", "same", "error")] == [2, 3, 2]
    assert all("is held by" in (result.reason or "") for result in report.errors)
    size = sum(path.stat().st_size for path in (*files.paths, *other.paths))
    assert heard[0] == IngestPlanned(7, size, complete=True)
    done = [event for event in heard if isinstance(event, FileDone)]
    assert sorted(event.outcome for event in done) == ["error"] * 2 + ["new"] * 2 + ["same"] * 3
    assert all(event.reason for event in done if event.outcome == "error")
    assert datastore.ingest(files.paths).count("new") == 2
    assert datastore.ingest([*files.paths, *other.paths]).count("same") == 7


def test_the_report_keeps_the_order_of_the_sources(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Every file has one line in the report, in the order given, whatever became of it."""
    first = write_series(tmp_path / "a", CtSeries(2, rows=4, columns=4, seed=1))
    second = write_series(tmp_path / "b", CtSeries(2, rows=4, columns=4, seed=2))
    text = tmp_path / "note.txt"
    text.write_text("not an image")
    sources = [first.paths[0], second.paths[0], text, first.paths[1], second.paths[1]]
    report = Datastore(datastore_url, gcs_client).ingest(sources)
    assert [result.uri for result in report.files] == [str(path) for path in sources]
    assert [result.outcome for result in report.files] == ["new", "new", "error", "new", "new"]


def test_hinted_instances_need_no_look_to_be_grouped(stored: Open, files: Files) -> None:
    """Instances whose hints say where they belong and what they are cost no read at all when they are stored."""
    uids = files.series.uids
    hinted = [
        Instance(
            f"/nowhere/{index}.dcm",
            hints=Hints(None, encode(crc32c(files.bytes(index))), files.uids[index], uids.series, uids.study),
        )
        for index in range(3)
    ]
    with stored() as cod:
        store = cod.store
    assert Datastore(store).ingest(hinted).count("same") == 3


def test_values_travel_between_processes(stored: Open, files: Files, store_kind: str) -> None:
    """Datastores, closed series, instances, reports and records pickle and work on the other side."""
    with stored() as cod:
        instance = pickle.loads(pickle.dumps(cod.get_instance(files.uids[1])))
        assert instance.instance_uid() == files.uids[1]
        report = pickle.loads(pickle.dumps(cod.verify()))
        assert report.ok
        datastore = Datastore(cod.store)
    if store_kind == "memory":
        return  # whose objects are this process's
    again = pickle.loads(pickle.dumps(datastore))
    (key,) = again.series()
    with again.open(key.study_uid, key.series_uid) as cod:
        assert read(cod, files.uids[1]) == files.bytes(1)
    closed: CODObject = pickle.loads(pickle.dumps(stored()))
    with closed as cod:
        assert len(cod.get_instances()) == 3
    with instance.open() as stream:
        assert stream.read() == files.bytes(1)
    local = pickle.loads(pickle.dumps(Instance(files.paths[0], hints=Hints(size=3))))
    assert local.hints == Hints(size=3)
