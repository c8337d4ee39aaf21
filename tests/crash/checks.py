"""What must hold around an interrupted write, whatever interrupted it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import CODObjectNotFoundError, StaleReadError
from cloud_optimized_dicom.format.sqlite_index import parse_sqlite_index
from cloud_optimized_dicom.format.tar import BLOCK_BYTES, parse_member_header
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from tests.crash.scenes import KEY, MARKER, Folder, open_series, uid
from tests.crash.traces import check_traces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_optimized_dicom import CODObject
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore, ReadResult

PASSED = timedelta(hours=1)
"""How long the next writer comes after the one before: much longer than a lease."""

_OWN = {"cod", "study_uid", "series_uid"}


class Seen(NamedTuple):
    """One instance as a reader sees it: its bytes (None: a `StaleReadError`) and its duplicates' URIs."""

    data: bytes | None
    duplicates: tuple[str, ...]


class View(NamedTuple):
    """A series as a reader sees it: its instances by UID, and the custom fields."""

    instances: Mapping[str, Seen]
    fields: Mapping[str, Any]

    def plus(self, folder: Folder, index: int) -> View:
        """Return the view with one more instance."""
        return View({**self.instances, uid(index): Seen(folder.bytes(index), ())}, self.fields)

    def __repr__(self) -> str:
        """Show what tells views apart."""
        sums = {key[-6:]: seen.data and crc32c(seen.data) for key, seen in self.instances.items()}
        return f"View({sums}, {self.fields})"

    def passes_for(self, older: View, newer: View) -> bool:
        """Return whether this is `older`, but for instances that are not the same in `newer`: those may be stale."""
        if self == older:
            return True
        if (self.fields, self.instances.keys()) != (older.fields, older.instances.keys()):
            return False
        return all(
            seen == older.instances[key]
            or (seen.data is None and newer.instances.get(key, _GONE).data != older.instances[key].data)
            for key, seen in self.instances.items()
        )


NO_SERIES = View({}, {})
_GONE = Seen(None, ())


def look(store: ObjectStore) -> View:
    """Open the series and read all of it."""
    try:
        with open_series(store) as cod:
            metadata = cod.get_metadata()
            records = metadata["cod"]["instances"]
            fields = {name: value for name, value in metadata.items() if name not in _OWN}
            fields.get("thumbnail", {}).pop("uri", None)  # each attempt plays in a store of another name
            for redaction in fields.get("redactions", ()):
                del redaction["when"]  # and at another time
            duplicates = {key: tuple(record.get("diff_hash_dupe_paths") or ()) for key, record in records.items()}
            return View({key: Seen(_bytes_of(cod, key), duplicates[key]) for key in records}, fields)
    except CODObjectNotFoundError:
        return NO_SERIES


def _bytes_of(cod: CODObject, key: str) -> bytes | None:
    try:
        with cod.open_instance(key) as stream:
            return stream.read()
    except StaleReadError:
        return None


class Midway:
    """A reader that was opened before, and has read the first half of every instance."""

    def __init__(self, store: ObjectStore) -> None:
        self._reader: SeriesReader | None = None
        self._halves: list[tuple[InstanceRecord, bytes]] = []
        try:
            self._reader = SeriesReader.open(store, KEY)
        except CODObjectNotFoundError:
            return
        for record in self._reader.document.iter_records():
            with suppress(StaleReadError):  # of a series that is found in the middle of a commit
                self._halves.append((record, self._reader.read_span(record, ByteRange(0, record.size // 2))))

    def check(self, kept: Callable[[str], bool]) -> None:
        """Read the other halves: every instance is what it was, or, unless it is `kept`, gone by a documented error."""
        for record, first in self._halves:
            assert self._reader is not None
            try:
                second = self._reader.read_span(record, ByteRange(record.size // 2, record.size))
            except StaleReadError:
                assert not kept(record.name_uid), "an instance that stays was taken from a reader"
                continue
            assert crc32c(first + second) == record.crc32c, "a reader got bytes of two states"


class Later(InterceptingStore):
    """Another store when some time has passed: by its own clock, every lock is older."""

    def __init__(self, inner: ObjectStore, passed: timedelta) -> None:
        super().__init__(inner)
        self._passed = passed

    def read_object(self, name: str) -> ReadResult:
        """Read a whole object, at a later time."""
        found = self.inner.read_object(name)
        return found._replace(served_at=found.served_at + self._passed)


def recover(store: ObjectStore) -> None:
    """Recover whatever there is to recover."""
    for result in Datastore(store).recover():
        assert result.outcome in {"finished", "swept", "nothing"}, result


def _nothing() -> None:
    return


def append_one(store: ObjectStore, folder: Folder, index: int, meanwhile: Callable[[], object] = _nothing) -> None:
    """Be the next writer; `meanwhile` happens while it holds the lock."""
    with open_series(store, "a") as cod:
        meanwhile()
        assert len(cod.append(folder.instances(index)).new) == 1


def check_a_live_lock_is_respected(store: ObjectStore) -> None:
    """While the dead writer's lease runs, nobody gets in."""
    if store.find(KEY.lock) is not None:
        (result,) = Datastore(store).recover([KEY])
        assert result.outcome == "busy", result


def check_clean(store: ObjectStore, view: View, odd: frozenset[str] = frozenset()) -> None:
    """Make sure of the view, and of nothing else: no lock, no segments, tar and document agree, all bytes are right."""
    assert look(store) == view
    kept = {KEY.index, f"{KEY.folder}/thumbnail.mp4"}
    names = {info.name for info in store.list(f"{KEY.folder}/")} - kept
    if view == NO_SERIES:
        assert names <= {KEY.metadata}, names
        return
    assert names == {KEY.metadata}, names
    (report,) = Datastore(store).verify([KEY])
    if not view.instances:
        odd |= {"no-instances"}
    assert {finding.kind for finding in report.findings} <= odd, report.findings
    recorded = SeriesReader.open(store, KEY).document.tar
    if recorded is not None:
        assert recorded.generation == store.stat(KEY.tar).version
    check_index(store, full=SeriesReader.open(store, KEY).document.legacy_index)


def check_index(store: ObjectStore, *, full: bool = False) -> None:
    """Make sure that older readers find no index of another tar: an empty one, or one of the tar that is there."""
    found = store.find(KEY.index)
    data = store.read_object(KEY.index).data if found else b""
    index = parse_sqlite_index(data)
    assert index is not None or not data
    assert index is not None or not full
    if index is not None and store.stat(KEY.tar).size == index.tar_bytes:
        for name, start, size in index.members:
            member = parse_member_header(store.read(KEY.tar, ByteRange(start - BLOCK_BYTES, start)))
            assert member is not None, f"the index is wrong about {name}"
            assert (member.name, member.size) == (name, size), f"the index is wrong about {name}"


def check_readers(seen: View, midway: Midway, views: Sequence[View]) -> int:
    """Make sure that a fresh reader saw one of the states and an old one its own; return which one is to stay."""
    midway.check(_kept(views))
    for number in reversed(range(len(views))):
        if seen == views[number]:
            return number
    for number in range(len(views) - 1):
        if seen.passes_for(views[number], views[number + 1]):
            return number + 1  # what is stale already is decided to go
    raise AssertionError(f"{seen} is none of {views}")


def _kept(views: Sequence[View]) -> Callable[[str], bool]:
    """Return the question whether an instance is the same in all the views."""

    def kept(key: str) -> bool:
        return all(key in view.instances for view in views) and len({view.instances[key].data for view in views}) == 1

    return kept


@dataclass
class Aftermath:
    """What is asserted behind an interrupted write.

    Parameters
    ----------
    views
        The states that the series may be in: before the write, and after it (of several writes, after each).
    decided
        Which of them it must be in the end; None: any.
    midway
        A reader that was opened before; None where readers are not pinned.
    seen
        The latest state that a reader has seen; what was seen is never undone.
    hides
        Whether the write is a redaction: where it is there in the end, nothing of the old pixels is.
    """

    store: ObjectStore
    folder: Folder
    midway: Midway | None
    views: Sequence[View]
    decided: int | None = None
    seen: int = 0
    hides: bool = False

    @classmethod
    def expected(
        cls, store: ObjectStore, folder: Folder, views: Sequence[View], *, pinned: bool = True, hides: bool = False
    ) -> Aftermath:
        """Return what is asserted behind a write that is about to be interrupted; readers that can be are pinned."""
        return cls(store, folder, Midway(store) if pinned else None, views, hides=hides)

    def check_now(self) -> None:
        """Look at the series while nobody has done anything about it."""
        if self.midway is not None:
            self.seen = max(self.seen, check_readers(look(self.store), self.midway, self.views))
        check_index(self.store)
        check_a_live_lock_is_respected(self.store)

    def check_recovery(self, store: ObjectStore) -> None:
        """Let `store`, a copy perhaps, be recovered and nothing else."""
        recover(Later(store, PASSED))
        self._settle(look(store), self.views)
        check_clean(store, self.views[self.seen])
        self._check_traces(store)

    def check_next_writer(self, arrive: Callable[[], object] | None = None, *, behind: bool = False) -> None:
        """Let the next writer append.

        What is under way from the dead writer arrives while the next one holds the lock, or `behind` its commit.
        """
        meanwhile = _nothing if behind or arrive is None else arrive
        append_one(Later(self.store, PASSED), self.folder, MARKER, meanwhile)
        views = [view.plus(self.folder, MARKER) for view in self.views]
        self._settle(look(self.store), views)
        if arrive is not None:
            if behind:
                arrive()
                assert look(self.store) == views[self.seen]
            recover(Later(self.store, PASSED))  # what arrives when all was listed is swept by the writer after that
        if self.midway is not None:
            self.midway.check(_kept(views))
        check_clean(self.store, views[self.seen])
        self._check_traces(self.store)

    def _check_traces(self, store: ObjectStore) -> None:
        if self.hides:
            check_traces(store, self.folder, redacted=self.seen == 1)

    def _settle(self, view: View, views: Sequence[View]) -> None:
        allowed = [number for number, allowed in enumerate(views) if allowed == view]
        assert allowed, f"{view} is none of {views}"
        assert allowed[-1] >= self.seen, "what a reader has seen was undone"
        assert self.decided is None or self.decided in allowed, f"decided: {self.decided}, but {view}"
        self.seen = allowed[-1]
