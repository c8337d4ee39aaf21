"""How much room an ingest takes while it runs, what it leaves, and what becomes of it when its hooks fail."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.append import AppendOptions
from cloud_optimized_dicom.bulk import BulkIngest, BulkOptions, iter_instances
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.dicom.transcode.model import Target
from cloud_optimized_dicom.events import FileDone, IngestPlanned, InstanceRecompressed, SeriesCommitted
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.measure import relative_uri
from cloud_optimized_dicom.ingest.source_kinds import FileSource
from cloud_optimized_dicom.ingest.workshop import Job, Prepared, Workshop
from cloud_optimized_dicom.processes.pool import NoWorkerError, WorkerPool
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.core.bulk import ingest, memory_store, send, write_many
from tests.core.conftest import write_series
from tests.core.test_append import changed
from tests.limits import descriptors_left

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.events import Event


def test_archives_are_unpacked_and_dropped_as_the_ingest_goes_along(tmp_path: Path) -> None:
    """Of many gzipped tars a few are unpacked at any moment, and none at the end."""
    inbox, scratch = tmp_path / "inbox", tmp_path / "scratch"
    inbox.mkdir()
    scratch.mkdir()
    for number, files in enumerate(write_many(tmp_path / "files", 30)):
        with tarfile.open(inbox / f"{number}.tar.gz", "w:gz") as tar:
            for path in files.paths:
                tar.add(path, path.name)
    size = sum(path.stat().st_size for path in files.paths)
    most = list[int]()

    def count(event: Event) -> None:
        if isinstance(event, FileDone):
            most.append(len(list(scratch.iterdir())))

    with Workshop(scratch, 1, size) as workshop:
        instances = iter_instances([inbox], None, scratch)
        options = BulkOptions(held_bytes=4 * size)
        report = BulkIngest(memory_store(), workshop, options, [count]).run(instances)
        assert not list(scratch.iterdir())
    assert report.count("new") == 90
    assert max(most) <= 12


def test_recompressed_files_count_as_held(tmp_path: Path) -> None:
    """Local files that are recompressed are written in parts once their copies would take more room than there is."""
    files = write_series(tmp_path / "files", CtSeries(12, 64, 64))
    size = files.paths[0].stat().st_size
    commits: list[Event] = []
    options = BulkOptions(AppendOptions(compress=Target.HTJ2K), held_bytes=8 * size)
    report = ingest(memory_store(), files.paths, options, [commits.append])
    assert report.recompressions == {"recompressed": 12}
    assert sum(isinstance(event, SeriesCommitted) for event in commits) == 3


def test_a_file_that_is_refused_leaves_no_copy(tmp_path: Path) -> None:
    """A file that was fetched and then belongs nowhere, its UIDs having no hashes, is deleted."""
    (files,) = write_many(tmp_path, 1)
    inbox, scratch = memory_store(), tmp_path / "scratch"
    scratch.mkdir()
    urls = [send(inbox, path.name, path.read_bytes()) for path in files.paths]

    def no_hash(_uid: str) -> str:
        return "no UID"

    with Workshop(scratch, 1, 0) as workshop:
        instances = [Instance(url, uid_hash_func=no_hash) for url in urls]
        report = BulkIngest(memory_store(), workshop, BulkOptions()).run(iter_instances(instances, None, scratch))
        assert not list(scratch.iterdir())
    assert report.count("error") == 3


@pytest.mark.parametrize("kind", [IngestPlanned, FileDone, InstanceRecompressed, SeriesCommitted])
@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("of mine")])
def test_what_a_hook_raises_is_no_error_of_a_file(tmp_path: Path, kind: type[Event], error: Exception) -> None:
    """A hook's error ends the ingest as what it is; what was committed until then is stored, and found later."""
    write_many(tmp_path, 2)
    store = memory_store()
    told = list[str]()

    def hook(event: Event) -> None:
        if isinstance(event, FileDone):
            told.append(event.outcome)
        if isinstance(event, kind):
            raise error

    options = BulkOptions(AppendOptions(compress=Target.HTJ2K))
    with pytest.raises(type(error)) as caught:
        ingest(store, [tmp_path], options, [hook])
    assert caught.value is error
    assert "error" not in told
    stored = sum(report.instances for report in Datastore(store).verify(deep=True))
    assert stored >= (3 if kind in {FileDone, SeriesCommitted} else 0)
    again = ingest(store, [tmp_path])
    assert (again.count("same"), again.count("new")) == (stored, 6 - stored)
    assert not [info.name for info in store.list() if "lock" in info.name or ".pending" in info.name]


def test_a_refused_append_leaves_no_trace_of_its_conflicts(tmp_path: Path) -> None:
    """What an append has found that was refused as a whole is not committed with the next one."""
    (files,) = write_many(tmp_path, 1)
    inbox, store = memory_store(), memory_store()
    other = send(inbox, "other.dcm", changed(files.paths[0], tmp_path / "x.dcm", PatientID="2").read_bytes())
    ingest(store, files.paths[:1])
    uids = files.series.uids
    with Datastore(store).open(uids.study, uids.series, "a") as cod:
        with pytest.raises(ValueError, match="max_series_size"):
            cod.append([Instance(other), *files.instances(1)], max_series_size=1e-9)
        assert len(cod.append(files.instances(2)).new) == 1
    with Datastore(store).open(uids.study, uids.series) as cod:
        record = cod.get_instance(files.uids[0]).record
        assert record is not None
        assert record.diff_hash_dupe_paths == ()


# -- processes that cannot be had


def test_a_pool_says_that_it_can_start_no_process() -> None:
    """Without descriptors for pipes there is no worker: an answer of its own, and the pool goes on later."""
    with WorkerPool(1) as pool:
        with descriptors_left(2), pytest.raises(NoWorkerError):
            pool.submit(len, "four").result()
        assert pool.submit(len, "four").result() == 4


def test_files_are_measured_here_where_no_process_can_be_started(tmp_path: Path) -> None:
    """A machine that has no room for another process stores the file all the same."""
    path = tmp_path / "1.dcm"
    path.write_bytes(CtSeries(1, 8, 8).instance(0))
    source = FileSource(str(path), path, path.stat().st_size)
    with path.open("rb") as stream:
        facts = inspect_dicom(stream, "x", bulk_data_uri=relative_uri)

    def job_of(is_measured: bool) -> Job:
        return Job(source, Hints(), lambda _: "x", facts if is_measured else None)

    items = [*[True] * 2001, False]  # so many, measured before, that processes are worth their start
    with Workshop(tmp_path, 2) as workshop, descriptors_left(3):
        *_, (_, last) = workshop.prepare_all(items, job_of)
    assert isinstance(last, Prepared)
    assert last.facts.crc32c == facts.crc32c
