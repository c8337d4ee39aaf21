"""An export is the files that were stored, whole and verified, whatever happens meanwhile."""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.errors import CODObjectNotFoundError, HashMismatchError, MetadataError, StorageError
from cloud_optimized_dicom.events import BytesExported, Event, ExportPlanned, FileExported, SeriesExported
from cloud_optimized_dicom.export import Selection, export_dicom
from cloud_optimized_dicom.export.pieces import PIECE_BYTES
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.counting_store import CountingStore
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.tiny import Flip, FlippingStore
from tests.export.conftest import Archive, tree, uid_in

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.base import ReadResult


@pytest.fixture
def memory(tmp_path: Path) -> Archive:
    """Return an archive in memory of one series of five instances."""
    archive = Archive(MemoryStore(f"memory://{uuid.uuid4().hex}"), tmp_path / "files")
    archive.add(5, seed=1)
    return archive


def test_every_store_gives_back_what_went_in(archive: Archive, tmp_path: Path) -> None:
    """The tree holds exactly the files that were stored, and the report counts them."""
    report = export_dicom(archive.datastore, tmp_path / "out")
    assert tree(tmp_path / "out") == archive.files
    assert (report.series, report.written, report.present, report.ok) == (2, 8, 0, True)
    assert report.written_bytes == sum(map(len, archive.files.values()))


def test_a_large_instance_comes_in_parts(tmp_path: Path) -> None:
    """An instance larger than a piece is fetched by several requests of at most a piece each, and is whole."""
    archive = Archive(MemoryStore(f"memory://{uuid.uuid4().hex}"), tmp_path / "files")
    archive.add(2, seed=1, rows=3000, columns=3000)
    counted = CountingStore(archive.store)
    assert export_dicom(Datastore(counted), tmp_path / "out", workers=3).ok
    assert tree(tmp_path / "out") == archive.files
    reads = [record.bytes_down for record in counted.records if record.operation == "read"]
    assert len(reads) == 6
    assert max(reads) <= PIECE_BYTES
    assert sum(reads) == sum(map(len, archive.files.values()))


def test_a_rerun_reads_metadata_only(archive: Archive, tmp_path: Path) -> None:
    """What is there stays, unread in the store and untouched on disk."""
    export_dicom(archive.datastore, tmp_path / "out")
    before = {path: path.stat() for path in (tmp_path / "out").rglob("*.dcm")}
    counted = CountingStore(archive.store)
    report = export_dicom(Datastore(counted), tmp_path / "out")
    assert (report.written, report.present, report.present_bytes) == (0, 8, sum(map(len, archive.files.values())))
    assert sorted(set(counted.operations)) == ["list_folders", "read_object"]
    assert counted.operations.count("read_object") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == {p: s.st_mtime_ns for p, s in before.items()}


@pytest.mark.parametrize("recheck", [False, True])
def test_files_that_changed_are_replaced(memory: Archive, tmp_path: Path, *, recheck: bool) -> None:
    """A file of the right size and time but with other bytes, a shorter one and a missing one are written anew."""
    out = tmp_path / "out"
    export_dicom(memory.datastore, out)
    same_size, shorter, missing, *_ = sorted(out.rglob("*.dcm"))
    stamp = same_size.stat().st_mtime_ns
    same_size.write_bytes(bytes(same_size.stat().st_size))
    os.utime(same_size, ns=(stamp, stamp))
    shorter.write_bytes(b"cut off")
    missing.unlink()
    report = export_dicom(memory.datastore, out, recheck=recheck)
    assert (report.written, report.present) == (3, 2)
    assert tree(out) == memory.files


@pytest.mark.parametrize("damage", [b"", b"not a database", bytes(5000)])
def test_what_is_remembered_may_be_lost(memory: Archive, tmp_path: Path, damage: bytes) -> None:
    """Without what earlier exports remembered, or with it damaged, files are read and found to be there."""
    out = tmp_path / "out"
    export_dicom(memory.datastore, out)
    (out / ".cod-export/verified.sqlite").write_bytes(damage)
    assert export_dicom(memory.datastore, out).present == 5
    assert tree(out) == memory.files


def test_a_tree_that_was_copied_is_present(memory: Archive, tmp_path: Path) -> None:
    """What is remembered of other files than these is not trusted; they are read, and are right."""
    out, copy = tmp_path / "out", tmp_path / "copy"
    export_dicom(memory.datastore, out)
    for path in out.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    wrong = next(copy.rglob("*.dcm"))
    wrong.write_bytes(bytes(wrong.stat().st_size))
    report = export_dicom(memory.datastore, copy)
    assert (report.written, report.present) == (1, 4)
    assert tree(copy) == memory.files


def test_a_series_uid_of_two_studies_is_two_folders(memory: Archive, tmp_path: Path) -> None:
    """Equal series and instance UIDs under two studies do not meet, in the tree or in what is remembered of it."""
    (key,) = memory.datastore.series()
    raw = memory.store.read_object(key.metadata)
    other = SeriesKey("1.2.3", key.series_uid)
    from cloud_optimized_dicom.format.metadata.document import parse_document  # noqa: PLC0415
    from cloud_optimized_dicom.storage.payload import BytesPayload  # noqa: PLC0415

    document = parse_document("", raw.data)
    cod = {name: value for name, value in document.raw["cod"].items() if name != "tar"}
    changed = type(document)("", {**document.raw, "study_uid": "1.2.3", "cod": cod})
    memory.store.create(other.metadata, BytesPayload(changed.dump()), write_id="a")
    memory.store.create(other.tar, BytesPayload(memory.store.read_object(key.tar).data), write_id="b")
    for written in (10, 0):
        assert export_dicom(memory.datastore, tmp_path / "out").written == written
    assert len(tree(tmp_path / "out")) == 10


def test_a_damaged_instance_does_not_stop_the_others(memory: Archive, tmp_path: Path) -> None:
    """One wrong byte in the tar costs one file, names it, and leaves what was there of it before."""
    (key,) = memory.datastore.series()
    with memory.datastore.open(key.study_uid, key.series_uid) as cod:
        record = next(iter(cod.get_instances().values())).record
        assert record is not None
    path = tmp_path / "out" / key.study_uid / key.series_uid / f"{record.name_uid}.dcm"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"an older file")
    rotten = FlippingStore(memory.store, Flip(key.tar, record.start + 700, 1))
    report = export_dicom(Datastore(rotten), tmp_path / "out")
    ((uri, error),) = report.failures
    assert uri.endswith(f".tar://instances/{record.name_uid}.dcm")
    assert isinstance(error, HashMismatchError)
    assert report.written == 4
    assert tree(tmp_path / "out") == memory.files | {str(path.relative_to(tmp_path / "out")): b"an older file"}


def test_a_damaged_part_of_a_large_instance_leaves_no_file(tmp_path: Path) -> None:
    """A wrong byte in one part of a large instance is found when all parts are there, and nothing is kept of it."""
    archive = Archive(MemoryStore(f"memory://{uuid.uuid4().hex}"), tmp_path / "files")
    key = archive.add(1, seed=1, rows=3000, columns=3000)
    rotten = FlippingStore(archive.store, Flip(key.tar, 9_000_000, 4))
    report = export_dicom(Datastore(rotten), tmp_path / "out")
    assert [type(error) for _, error in report.failures] == [HashMismatchError]
    assert tree(tmp_path / "out") == {}


class ShortStore(InterceptingStore):
    """A store whose tars of older writers end too early."""

    def __init__(self, inner: MemoryStore, end: int) -> None:
        super().__init__(inner)
        self.end = end

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Refuse what lies behind the end."""
        if span.stop > self.end:
            raise StorageError(name, "ends too early")
        return super().read(name, span, version=version)


def test_what_is_left_of_a_cut_tar_is_exported(memory: Archive, tmp_path: Path) -> None:
    """Instances before the cut are written, those behind it are failures one by one."""
    assert isinstance(memory.store, MemoryStore)
    end = memory.store.read_object(next(memory.datastore.series()).tar).info.size
    report = export_dicom(Datastore(ShortStore(memory.store, end - 1500)), tmp_path / "out")
    assert (report.written, len(report.failures)) == (4, 1)


def test_a_damaged_series_does_not_stop_the_others(archive: Archive, tmp_path: Path) -> None:
    """A metadata.json that cannot be read is one failure; the other series is exported."""
    first, second = archive.datastore.series()
    rotten = FlippingStore(archive.store, Flip(first.metadata, 200, 255))
    report = export_dicom(Datastore(rotten), tmp_path / "out")
    ((uri, error),) = report.failures
    assert uri == archive.store.url_of(first.folder)
    assert isinstance(error, MetadataError)
    assert tree(tmp_path / "out") == archive.of(second)


def test_a_missing_series_is_a_failure(memory: Archive, tmp_path: Path) -> None:
    """A series that is asked for by its key and is not there is a failure, and the others are exported."""
    (key,) = memory.datastore.series()
    report = export_dicom(memory.datastore, tmp_path / "out", selection=Selection((SeriesKey("1.2", "3.4"), key)))
    assert [type(error) for _, error in report.failures] == [CODObjectNotFoundError]
    assert tree(tmp_path / "out") == memory.files


class ChangingStore(InterceptingStore):
    """A store where something happens right before the first read of a tar."""

    def __init__(self, inner: MemoryStore, change: object) -> None:
        super().__init__(inner)
        self.change = change
        self.mutex = threading.Lock()

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Let it happen, once."""
        with self.mutex:
            change, self.change = self.change, None
            if callable(change):
                change()
        return super().read(name, span, version=version)


def rewritten(memory: Archive, tmp_path: Path, change: object) -> tuple[dict[str, bytes], tuple[int, int]]:
    """Return the files of an export during which the series changed, and how many were written and removed."""
    assert isinstance(memory.store, MemoryStore)
    report = export_dicom(Datastore(ChangingStore(memory.store, change)), tmp_path / "out")
    assert report.ok, report.failures
    return tree(tmp_path / "out"), (report.written, report.removed)


def test_an_instance_removed_meanwhile_is_left_out(memory: Archive, tmp_path: Path) -> None:
    """Another writer removes an instance and the tar is packed anew: the others are read at their new places."""
    (key,) = memory.datastore.series()
    first, *others = memory.files

    def change() -> None:
        with memory.datastore.open(key.study_uid, key.series_uid, "a") as cod:
            cod.remove(uid_in(first))

    found, counts = rewritten(memory, tmp_path, change)
    assert found == {name: memory.files[name] for name in others}
    assert counts == (4, 1)


def test_a_series_replaced_meanwhile_is_exported_as_it_is_then(memory: Archive, tmp_path: Path) -> None:
    """Another writer stores other files under the same UIDs: the export holds those, with their checksums."""
    (key,) = memory.datastore.series()
    other = Archive(memory.store, tmp_path / "other")

    def change() -> None:
        with memory.datastore.open(key.study_uid, key.series_uid, "a") as cod:
            cod.remove([uid_in(name) for name in memory.files])
        other.add(5, seed=1, rows=20)

    found, counts = rewritten(memory, tmp_path, change)
    assert list(other.files) == list(memory.files)
    assert other.files != memory.files
    assert found == other.files
    assert counts == (5, 0)


def test_a_series_appended_to_meanwhile_is_whole(memory: Archive, tmp_path: Path) -> None:
    """Another writer appends: what was there when the series was opened is exported."""
    before = dict(memory.files)
    found, counts = rewritten(memory, tmp_path, lambda: memory.add(7, seed=1))
    assert len(memory.files) == 7
    assert found == before
    assert counts == (5, 0)


class SlowStore(InterceptingStore):
    """A store that tells how many reads ran at a time."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.mutex = threading.Lock()
        self.running = self.most = self.most_threads = 0

    def _entered(self, by: int) -> None:
        with self.mutex:
            self.running += by
            self.most = max(self.most, self.running)
            self.most_threads = max(self.most_threads, threading.active_count())

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read slowly."""
        self._entered(1)
        time.sleep(0.02)
        self._entered(-1)
        return super().read(name, span, version=version)

    def read_object(self, name: str) -> ReadResult:
        """Read slowly."""
        self._entered(1)
        time.sleep(0.02)
        self._entered(-1)
        return super().read_object(name)


def test_many_series_run_in_parallel_within_bounds(tmp_path: Path) -> None:
    """With four workers several requests run at a time, and never more than four."""
    archive = Archive(MemoryStore(f"memory://{uuid.uuid4().hex}"), tmp_path / "files")
    for seed in range(12):
        archive.add(1, seed=seed)
    assert isinstance(archive.store, MemoryStore)
    slow = SlowStore(archive.store)
    threads = threading.active_count()
    assert export_dicom(Datastore(slow), tmp_path / "out", workers=4).written == 12
    assert 2 <= slow.most <= 4
    assert slow.most_threads <= threads + 4


def test_parts_of_one_series_run_in_parallel_within_bounds(tmp_path: Path) -> None:
    """One series of one large instance keeps several workers busy, each with one request."""
    archive = Archive(MemoryStore(f"memory://{uuid.uuid4().hex}"), tmp_path / "files")
    archive.add(1, seed=1, rows=5000, columns=5000)
    assert isinstance(archive.store, MemoryStore)
    slow = SlowStore(archive.store)
    assert export_dicom(Datastore(slow), tmp_path / "out", workers=3).ok
    assert 2 <= slow.most <= 3


def test_hooks_are_told_in_the_calling_thread(archive: Archive, tmp_path: Path) -> None:
    """Plan, bytes, files and series add up, and no hook has to be safe to call from several threads."""
    events: list[Event] = []
    threads: set[int] = set()

    def hook(event: Event) -> None:
        events.append(event)
        threads.add(threading.get_ident())

    export_dicom(archive.datastore, tmp_path / "out", hooks=[hook])
    size = sum(map(len, archive.files.values()))
    assert threads == {threading.get_ident()}
    assert sum(event.size_bytes for event in events if isinstance(event, ExportPlanned)) == size
    assert sum(event.size_bytes for event in events if isinstance(event, BytesExported)) == size
    paths = {event.path for event in events if isinstance(event, FileExported) and event.error is None}
    assert paths == {str(tmp_path / "out" / name) for name in archive.files}
    assert sorted(event.written for event in events if isinstance(event, SeriesExported)) == [3, 5]


def test_an_error_of_a_hook_ends_the_export(memory: Archive, tmp_path: Path) -> None:
    """What a hook raises comes out of the export, with whole files only left behind."""

    def hook(event: Event) -> None:
        if isinstance(event, FileExported):
            raise RuntimeError("enough")  # noqa: TRY004 - it stands for a fault

    with pytest.raises(RuntimeError, match="enough"):
        export_dicom(memory.datastore, tmp_path / "out", hooks=[hook])
    assert tree(tmp_path / "out").items() <= memory.files.items()
    assert [path.name for path in (tmp_path / "out/.cod-export").iterdir()] == ["verified.sqlite"]


def test_a_file_that_cannot_be_written_does_not_stop_the_others(memory: Archive, tmp_path: Path) -> None:
    """Where a folder lies at the place of a file, that file is a failure and the others are written."""
    first, *others = memory.files
    (tmp_path / "out" / first).mkdir(parents=True)
    report = export_dicom(memory.datastore, tmp_path / "out")
    assert [type(error) for _, error in report.failures] == [IsADirectoryError]
    assert tree(tmp_path / "out") == {name: memory.files[name] for name in others}


def test_a_bucket_is_no_destination(memory: Archive) -> None:
    """A URL as destination is refused, and no folder of that name is made."""
    with pytest.raises(StorageError, match="local folder"):
        export_dicom(memory.datastore, "gs://bucket/out")
