"""What goes wrong in an ingest of many series stops no other file, and never stores what was not measured."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tarfile
import uuid
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.bulk import BulkIngest, BulkOptions, iter_instances
from cloud_optimized_dicom.events import FileDone, IngestPlanned
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.gcs import GcsStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.retry import RetryPolicy
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsServer
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.bulk import ingest, memory_store, send, write_many
from tests.core.conftest import read, write_series

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.events import Event
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation
    from tests.core.conftest import Files

Result = TypeVar("Result")


class DisturbedStore(InterceptingStore):
    """A store during whose first staging for a series somebody does something."""

    def __init__(self, inner: ObjectStore, series_uid: str, disturb: Callable[[], object]) -> None:
        super().__init__(inner)
        self._series_uid, self._disturb = series_uid, disturb

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Disturb, then act."""
        if operation.kind == "create" and f"{self._series_uid}/.pending/" in operation.name:
            self._disturb()
        return act()


def names(store: ObjectStore) -> set[str]:
    """Return the last parts of all names: only whole series end in metadata.json and a tar."""
    return {info.name.rpartition("/")[2] for info in store.list()}


def key_of(files: Files) -> SeriesKey:
    """Return where files belong."""
    return SeriesKey(files.series.uids.study, files.series.uids.series)


def flip_last_byte(path: Path) -> None:
    """Write other bytes of the same length."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("disturb", [flip_last_byte, Path.unlink, lambda path: path.write_bytes(b"short")])
def test_a_local_file_that_changes_before_it_is_stored(
    store: ObjectStore, tmp_path: Path, disturb: Callable[[Path], object]
) -> None:
    """A file that was measured and then changed, shortened or deleted fails its series, and that series only."""
    first, second = write_many(tmp_path, 2)
    path = first.paths[1]
    disturbed = DisturbedStore(store, first.series.uids.series, lambda: disturb(path))
    report = ingest(disturbed, [*first.paths, *second.paths])
    assert [result.outcome for result in report.files] == ["error"] * 3 + ["new"] * 3
    assert all(result.reason for result in report.errors)
    assert list(Datastore(store).series()) == [key_of(second)]
    assert not [info.name for info in store.list() if first.series.uids.series in info.name]
    path.write_bytes(first.series.instance(1))
    assert ingest(store, first.paths).count("new") == 3
    assert all(verified.ok for verified in Datastore(store).verify(deep=True))


def test_a_source_that_vanishes_after_it_was_listed(tmp_path: Path) -> None:
    """A listed file that is gone when it is read is an error of its own."""
    first, second = write_many(tmp_path, 2)

    def vanish(event: Event) -> None:
        if isinstance(event, IngestPlanned):
            first.paths[0].unlink()

    report = ingest(memory_store(), [tmp_path], hooks=[vanish])
    assert [result.outcome for result in report.files] == ["error"] + ["new"] * 5
    assert report.errors[0].uri == str(first.paths[0])
    assert len(second.paths) == 3


def test_an_object_that_is_replaced_after_it_was_listed(store: ObjectStore, tmp_path: Path) -> None:
    """An object of another version than the listed one is an error, whatever it holds; nothing of it is stored."""
    (files,) = write_many(tmp_path, 1)
    for index in range(3):
        send(store, f"inbox/{index}.dcm", files.bytes(index))
    target = memory_store()

    def swap(event: Event) -> None:
        if isinstance(event, IngestPlanned):
            version = store.stat("inbox/1.dcm").version
            payload = BytesPayload(files.bytes(1) + bytes(2))
            store.replace("inbox/1.dcm", payload, version=version, write_id=new_write_id())

    client = getattr(store, "_client", None)
    url = store.url_of("inbox/")
    if store.url.startswith("/"):
        return  # files of a directory are not listed as objects
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Workshop(scratch, 1) as workshop:
        report = BulkIngest(target, workshop, BulkOptions(), [swap]).run(iter_instances([url], client, scratch))
    assert [result.outcome for result in report.files] == ["new", "error", "new"]
    assert not list(scratch.iterdir())


def test_a_copied_object_may_go(tmp_path: Path) -> None:
    """What was measured is what is stored, though the object was replaced after it was fetched."""
    (files,) = write_many(tmp_path, 1)
    inbox, store = memory_store(), memory_store()
    urls = [send(inbox, f"{index}.dcm", files.bytes(index)) for index in range(3)]
    disturbed = DisturbedStore(store, files.series.uids.series, lambda: inbox.delete("1.dcm"))
    assert ingest(disturbed, urls).count("new") == 3
    with Datastore(store).open(files.series.uids.study, files.series.uids.series) as cod:
        assert read(cod, files.uids[1]) == files.bytes(1)


def test_bad_files_among_good_ones(tmp_path: Path) -> None:
    """What is damaged, empty, a folder's name or no DICOM at all is named with its reason, and the rest is stored."""
    first, second = write_many(tmp_path, 2)
    first.paths[1].write_bytes(first.bytes(1)[:700])
    (tmp_path / "0" / "empty.dcm").write_bytes(b"")
    report = ingest(memory_store(), [tmp_path, tmp_path / "absent.dcm", *second.paths[:1]])
    assert sorted(result.outcome for result in report.files) == ["error"] * 3 + ["new"] * 5 + ["same"]
    assert {Path(result.uri).name for result in report.errors} == {"1.dcm", "empty.dcm", "absent.dcm"}
    assert all(result.reason for result in report.errors)


def test_a_quarantined_series(tmp_path: Path) -> None:
    """Nothing is added to a series with an error.log; what it holds is still recognised."""
    first, second = write_many(tmp_path, 2)
    store = memory_store()
    ingest(store, first.paths[:2])
    send(store, key_of(first).error_log, b"somebody must look")
    report = ingest(store, [*first.paths, *second.paths])
    assert [result.outcome for result in report.files] == ["same", "same", "error", "new", "new", "new"]
    assert key_of(first).error_log.rpartition("/")[2] in str(report.errors[0].reason)
    assert not [name for name in names(store) if name.endswith(".lock")]


def test_a_series_that_the_bucket_refuses(tmp_path: Path) -> None:
    """A 403 for one series is the error of its files; the others are stored, and no temporary file stays."""
    first, second = write_many(tmp_path, 2)
    with GcsServer() as server:
        server.create_bucket("refusing")
        store = GcsStore("refusing", uuid.uuid4().hex, server.client(), retry=RetryPolicy(attempts=2))
        refused = Fault(FaultKind.STATUS, "objects.insert", first.series.uids.series, times=None, status=403)
        server.inject(refused)
        report = ingest(store, [*first.paths, *second.paths])
    assert [result.outcome for result in report.files] == ["error"] * 3 + ["new"] * 3
    assert "403" in str(report.errors[0].reason)


# -- archives


def packed(files: Files, kind: str) -> bytes:
    """Return an archive of all files and a text."""
    target = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files.paths:
                archive.write(path, path.name)
            archive.writestr("note.txt", "no image")
    else:
        with tarfile.open(fileobj=target, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for path in files.paths:
                tar.add(path, path.name)
            info = tarfile.TarInfo("note.txt")
            info.size = 8
            tar.addfile(info, io.BytesIO(b"no image"))
    return target.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("remote", [False, True])
def test_members_of_archives(tmp_path: Path, gcs_session_client: Any, gcs_bucket: str, kind: str, remote: bool) -> None:
    """Members of archives, on disk and in a bucket, are stored as they are, and recognised when they come again."""
    (files,) = write_many(tmp_path, 1, 4)
    if remote:
        inbox = GcsStore(gcs_bucket, uuid.uuid4().hex, gcs_session_client)
        url = send(inbox, f"all.{kind}", packed(files, kind))
    else:
        url = str(tmp_path / f"all.{kind}")
        Path(url).write_bytes(packed(files, kind))
    store, scratch = memory_store(), tmp_path / "scratch"
    scratch.mkdir()
    datastore = Datastore(store, gcs_session_client)
    report = datastore.ingest([url], temp_dir=scratch)
    assert [result.outcome for result in report.files] == ["new"] * 4 + ["error"]
    assert [result.uri for result in report.files[:4]] == [f"{url}://{path.name}" for path in files.paths]
    with datastore.open(files.series.uids.study, files.series.uids.series) as cod:
        assert [read(cod, uid) for uid in files.uids] == [files.bytes(index) for index in range(4)]
    assert datastore.ingest([url], temp_dir=scratch).count("same") == 4
    assert not list(scratch.iterdir())


# -- processes that measure


def children() -> list[int]:
    """Return the processes that this one has started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


@pytest.mark.slow
def test_a_worker_process_that_dies(tmp_path: Path) -> None:
    """If a process that measures is killed, at most the file it was at fails; the next run stores that too."""
    folder = tmp_path / "files"
    files = write_series(folder, CtSeries(3000, rows=2, columns=2))
    before, killed, store = set(children()), list[int](), memory_store()

    def kill(event: Event) -> None:
        workers = set(children()) - before
        if isinstance(event, FileDone) and workers and not killed:
            killed.append(workers.pop())
            os.kill(killed[0], signal.SIGKILL)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = BulkOptions(held_record_bytes=4 << 20)
    with Workshop(scratch, 2) as workshop:
        report = BulkIngest(store, workshop, options, [kill]).run(iter_instances([folder], None, scratch))
    assert killed
    assert report.count("error") <= 1
    assert report.count("new") + report.count("error") == 3000
    assert ingest(store, report_errors(report)).count("new") == report.count("error")
    assert len(files.paths) == 3000
    shutil.rmtree(folder)


def report_errors(report: Any) -> list[str]:
    """Return the files that were not stored."""
    return [result.uri for result in report.errors]


@pytest.mark.parametrize("suffix", [".tar", ".zip", ".tar.gz"])
def test_of_two_members_of_one_name_none_is_lost_silently(tmp_path: Path, suffix: str) -> None:
    """The second is an error, which nobody takes for a stored file."""
    files = write_series(tmp_path / "files", CtSeries(2, 8, 8))
    path = tmp_path / f"twice{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.dcm", files.bytes(0))
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("a.dcm", files.bytes(1))
    else:
        with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as tar:
            for number in range(2):
                info = tarfile.TarInfo("a.dcm")
                info.size = len(files.bytes(number))
                tar.addfile(info, io.BytesIO(files.bytes(number)))
    report = ingest(memory_store(), [path])
    assert [(result.outcome, result.reason) for result in report.files] == [
        ("new", None),
        ("error", "an earlier member of the archive has this name"),
    ]
