"""Many series at a time: what is decided, in which order, and how much is held meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cloud_optimized_dicom import Datastore, Hints, Instance
from cloud_optimized_dicom.bulk import BulkOptions
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.events import FileDone, SeriesCommitted
from cloud_optimized_dicom.ingest.sources import ObjectSource
from cloud_optimized_dicom.lock.lease import LockOptions, acquire
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.bulk import Listener, SlowStore, ingest, memory_store, send, write_many
from tests.core.test_append import changed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.events import Event
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")
ALL = BulkOptions()


class MeetingStore(InterceptingStore):
    """A store in which the first stagings of a number of series wait for one another."""

    def __init__(self, inner: ObjectStore, count: int) -> None:
        super().__init__(inner)
        self._barrier = threading.Barrier(count)

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Wait before a segment is written."""
        if operation.kind == "create" and "/.pending/" in operation.name:
            self._barrier.wait(timeout=30)
        return act()


class WatchedStore(InterceptingStore):
    """A store at whose every operation the temporary files are measured."""

    def __init__(self, inner: ObjectStore, scratch: Path) -> None:
        super().__init__(inner)
        self.most_bytes = 0
        self._scratch = scratch

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Measure, then act."""
        del operation
        self.most_bytes = max(self.most_bytes, sum(map(size_of, self._scratch.rglob("*.dcm"))))
        return act()


def size_of(path: Path) -> int:
    """Return the size of a file that may just be deleted."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def stored_uids(store: ObjectStore, key: SeriesKey) -> list[str]:
    """Return the instances of a series, in the order of its document."""
    return list(SeriesReader.open(store, key).document.instances)


def test_series_are_written_side_by_side(tmp_path: Path) -> None:
    """Several series are under way at one moment: none could be written if one waited for another."""
    write_many(tmp_path, 4)
    report = ingest(MeetingStore(memory_store(), 4), [tmp_path])
    assert (report.count("new"), len(report.series)) == (12, 4)


def test_hooks_hear_each_file_once_and_one_at_a_time(tmp_path: Path) -> None:
    """Whatever thread tells it, a hook is called by one at a time, and once per file, once the file is stored."""
    store, files = memory_store(), write_many(tmp_path, 6)
    (tmp_path / "note.txt").write_text("no image")

    def check(event: Event) -> None:
        if isinstance(event, FileDone) and event.outcome == "new":
            key = SeriesKey(str(event.study_uid), str(event.series_uid))
            assert event.instance_uid in stored_uids(store, key)

    listener = Listener(check)
    ingest(store, [tmp_path], hooks=[listener])
    assert not listener.overlapped
    paths = [path for some in files for path in some.paths]
    assert sorted(event.uri for event in listener.done) == sorted(map(str, [*paths, tmp_path / "note.txt"]))
    assert sum(isinstance(event, SeriesCommitted) for event in listener.events) == 6


def test_thread_timing_decides_nothing(tmp_path: Path) -> None:
    """Of files of one UID the first in the sources' order is stored, however long each of them takes to arrive."""
    (files,) = write_many(tmp_path, 1, 6)
    inbox = memory_store()
    for index, path in enumerate(files.paths):
        for copy in range(4):
            other = changed(path, tmp_path / "other.dcm", PatientID=f"number {copy}")
            send(inbox, f"{index}-{copy}.dcm", other.read_bytes())
    infos = sorted(inbox.list(), key=lambda info: (info.name[2], info.name[0]))
    seen = set()
    for seed in range(5):
        slow, store = SlowStore(inbox, seed), memory_store()
        report = ingest(store, [Instance.from_source(ObjectSource.of(slow, info)) for info in infos])
        assert [result.uri for result in report.files] == [inbox.url_of(info.name) for info in infos]
        (key,) = report.series
        document = SeriesReader.open(store, key).document
        crcs = tuple(record.crc32c for record in document.iter_records())
        seen.add((tuple(result.outcome for result in report.files), tuple(document.instances), crcs))
    ((outcomes, _, crcs),) = seen
    assert outcomes == ("new",) * 6 + ("conflict",) * 18
    assert set(crcs) == {crc32c(inbox.read_object(info.name).data) for info in infos[:6]}


@pytest.mark.parametrize(
    "options", [BulkOptions(held_bytes=60_000), BulkOptions(held_record_bytes=60_000)], ids=["disk", "memory"]
)
def test_what_is_held_is_bounded(tmp_path: Path, options: BulkOptions) -> None:
    """Many flushes store everything once, in order, with few copies on disk at a time and none at the end."""
    inbox, store, scratch = memory_store(), memory_store(), tmp_path / "scratch"
    scratch.mkdir()
    made = write_many(tmp_path / "files", 3, 20)
    for files in made:
        for index, path in enumerate(files.paths):
            send(inbox, f"{index:02}-{files.series.seed}.dcm", path.read_bytes())
    size = len(made[0].bytes(0))
    watched = WatchedStore(store, scratch)
    listener = Listener()
    # Instances whose hints name their series, and others: the first are copied while they are written.
    instances = [Instance.from_source(ObjectSource.of(inbox, info)) for info in inbox.list()]
    for at, instance in enumerate(instances):
        uids = made[at % 3].series.uids
        instance.hints = Hints(study_uid=uids.study, series_uid=uids.series) if at % 2 else Hints()
    report = ingest(watched, instances, options, [listener], scratch, ahead_bytes=3 * size)
    assert report.count("new") == 60
    assert sum(isinstance(event, SeriesCommitted) for event in listener.events) >= 6
    for files in made:
        assert stored_uids(store, SeriesKey(files.series.uids.study, files.series.uids.series)) == files.uids
    assert all(verified.ok for verified in Datastore(store).verify(deep=True))
    assert not list(scratch.iterdir())
    if options.held_bytes < ALL.held_bytes:  # each half of it, and what is read ahead, may be a file more
        assert 0 < watched.most_bytes <= options.held_bytes + 3 * size + 3 * size


def test_hinted_files_are_not_gathered_without_end(tmp_path: Path) -> None:
    """Files of which nothing is read count too: millions of known ones are not held before the first look."""
    (files,) = write_many(tmp_path, 1)
    store = memory_store()
    ingest(store, files.paths)
    uids = files.series.uids
    hints = Hints(None, encode(crc32c(files.bytes(0))), files.uids[0], uids.series, uids.study)
    listener = Listener()
    named = 0

    def known() -> Any:
        nonlocal named
        for number in range(200):
            named += 1
            yield Instance(f"/nowhere/{number}.dcm", hints=hints)

    looks = 0

    class Watched(InterceptingStore):
        def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
            nonlocal looks
            looks += operation.kind == "read_object"
            return act()

    assert ingest(Watched(store), known(), BulkOptions(held_record_bytes=40_000), [listener]).count("same") == 200
    assert looks >= 10


# -- the same thing twice


def test_one_uri_twice_shares_one_fate(tmp_path: Path) -> None:
    """A file that is named twice is never called stored if it is not."""
    (files,) = write_many(tmp_path, 1)
    uids = files.series.uids
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(files.bytes(0)[:200])
    hints = Hints(study_uid=uids.study, series_uid=uids.series)
    twice = [Instance(path, hints=hints) for path in (bad, files.paths[1], bad, files.paths[1])]
    report = ingest(memory_store(), twice)
    assert [result.outcome for result in report.files] == ["error", "new", "error", "same"]
    assert report.files[2].reason == report.files[0].reason


@pytest.mark.parametrize("held_record_bytes", [1, 1 << 20])
def test_one_instance_object_twice(tmp_path: Path, held_record_bytes: int) -> None:
    """The same object given twice is stored once, and accounted for twice."""
    (files,) = write_many(tmp_path, 1, 1)
    inbox = memory_store()
    instance = Instance(send(inbox, "0.dcm", files.bytes(0)))
    report = ingest(memory_store(), [instance, instance], BulkOptions(held_record_bytes=held_record_bytes))
    assert [result.outcome for result in report.files] == ["new", "same"]
    assert {result.instance_uid for result in report.files} == {files.uids[0]}


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 1), ("crc32c", "AAAAAA=="), ("instance_uid", "1.2"), ("series_uid", "1.3"), ("study_uid", "1.4")],
)
@pytest.mark.parametrize("placed", [False, True])
def test_a_wrong_hint_stops_its_file_only(tmp_path: Path, field: str, value: Any, placed: bool) -> None:
    """Hints are believed where they spare work, never where they would store something."""
    (files,) = write_many(tmp_path, 1)
    uids, store = files.series.uids, memory_store()
    given = {"study_uid": uids.study, "series_uid": uids.series} if placed else {}
    hinted = Instance(files.paths[0], hints=Hints(**(given | {field: value})))
    report = ingest(store, [hinted, *files.instances(1, 2)])
    assert [result.outcome for result in report.files] == ["error", "new", "new"]
    assert field in str(report.files[0].reason)
    assert stored_uids(store, SeriesKey(uids.study, uids.series)) == files.uids[1:]


def test_hints_that_lie_about_a_twin(tmp_path: Path) -> None:
    """A hint is believed of what is stored, not of what came just before in the same ingest."""
    (files,) = write_many(tmp_path, 1)
    inbox, uids = memory_store(), files.series.uids
    urls = [send(inbox, f"{index}.dcm", files.bytes(index)) for index in range(2)]
    hints = Hints(None, encode(crc32c(files.bytes(0))), files.uids[0], uids.series, uids.study)
    for seed in range(4):
        slow = SlowStore(inbox, seed)
        sources = [ObjectSource(url, slow, url.rpartition("/")[2]) for url in urls]
        report = ingest(memory_store(), [Instance.from_source(source, hints) for source in sources])
        assert [result.outcome for result in report.files] == ["new", "error"]


def test_a_local_store_keeps_no_temporary_files(tmp_path: Path) -> None:
    """A first commit into a local store links its segment; nothing but the series stays."""
    write_many(tmp_path / "files", 3)
    store = LocalStore(tmp_path / "store")
    ingest(store, [tmp_path / "files"])
    assert sorted(Path(info.name).suffix for info in store.list()) == [".json"] * 3 + [".tar"] * 3
    assert not list((tmp_path / "store" / ".cod" / "tmp").iterdir())
    assert {path.stat().st_nlink for path in (tmp_path / "store").rglob("*.tar")} == {1}


def test_what_a_dead_writer_left_is_swept_though_nothing_is_new(tmp_path: Path) -> None:
    """A run over what is stored clears the expired lock and the segments of one that was killed while tidying."""
    (files,) = write_many(tmp_path, 1)
    store = memory_store()
    assert ingest(store, files.paths).count("new") == 3
    key = SeriesKey(files.series.uids.study, files.series.uids.series)
    lock = acquire(store, key, LockOptions(lease_seconds=0.01), hashed_uids=False).lock
    lock.abandon()
    send(store, key.segment("dead", 0), b"left")
    time.sleep(0.05)
    assert ingest(store, files.paths).count("same") == 3
    assert sorted(info.name for info in store.list()) == [key.tar, key.metadata]


def test_a_living_writer_is_let_be_where_nothing_is_new(tmp_path: Path) -> None:
    """A run over what is stored neither waits for a writer nor takes anything from it."""
    (files,) = write_many(tmp_path, 1)
    store = memory_store()
    ingest(store, files.paths)
    key = SeriesKey(files.series.uids.study, files.series.uids.series)
    lock = acquire(store, key, LockOptions(), hashed_uids=False).lock
    assert ingest(store, files.paths).count("same") == 3
    lock.renew()
    lock.release()
