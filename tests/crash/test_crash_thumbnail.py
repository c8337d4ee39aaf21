"""A real process is killed while it changes a thumbnail: nobody is shown what is not there, nor what was removed."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.testing.gcs_server import FaultKind
from tests.crash import bucket as buckets
from tests.crash.drawings import REDRAWINGS, Aftermath, Album, change, on_server, on_store, prepare, present
from tests.crash.kills import KillingStore, effects
from tests.crash.test_crash_local import decision, linked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.storage.gcs import GcsStore
    from tests.crash.bucket import Bucket
    from tests.crash.forks import Forks

ALL = [name if name == "shrinks" else pytest.param(name, marks=pytest.mark.slow) for name in REDRAWINGS]


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    """Return the DICOM files."""
    return Album.write(tmp_path_factory.mktemp("crash") / "album")


@pytest.mark.parametrize("name", ALL)
def test_killed_at_every_store_operation(
    quick_path: Path, forks: Forks, album: Album, name: str, record_property: Callable[[str, object], None]
) -> None:
    """Before or after any operation: readers get the pictures of what they see, the next writer draws what there is."""
    start = quick_path / "start"
    start.mkdir()
    prepare(LocalStore(start), album, name)
    rehearsal = KillingStore(LocalStore(linked(start, quick_path / "rehearsal")))
    old = present(rehearsal.inner)
    change(rehearsal, album, name)
    new = present(rehearsal.inner)
    for number in range(len(rehearsal.operations)):
        for after in (False, True):
            root = linked(start, quick_path / f"{number}-{after}")
            ended = forks.run(on_store, name, KillingStore(LocalStore(root), number, after=after), album)
            assert ended.code == -signal.SIGKILL, ended.result
            decisive = decision(rehearsal.operations)
            decided = number > decisive or (number == decisive and after)
            aftermath = Aftermath(LocalStore(root), album, old, new, decided)
            aftermath.check_now()
            aftermath.check_next_writer()
            aftermath.check_settled()
            shutil.rmtree(root)
    record_property("points", 2 * len(rehearsal.operations))
    assert len(rehearsal.operations) >= 8


class Gallery:
    """A change of a thumbnail in a bucket: each attempt plays in a store of its own."""

    def __init__(self, bucket: Bucket, forks: Forks, album: Album, name: str) -> None:
        self.bucket, self.forks, self.album, self.name = bucket, forks, album, name
        store = self._prepared()
        self.old = present(store)
        bucket.server.reset_counters()
        change(store, album, name)
        self.requests = bucket.server.counters()
        self.new = present(store)

    def _prepared(self) -> GcsStore:
        store = self.bucket.store()
        prepare(store, self.album, self.name)
        return store

    def killed(self, kinds: Sequence[FaultKind], number: int) -> Aftermath:
        """Kill a writer at a request; return what is left."""
        store, control = self._prepared(), self.bucket.server.control()
        hurried = self.bucket.hurried(store)
        ended = self.forks.run(on_server, self.name, hurried, self.album, control, effects(kinds, number))
        control.clear_faults()
        assert ended.code == -signal.SIGKILL, ended.result
        arrived = kinds[-1] is FaultKind.KILL_AFTER
        decisive = buckets.decision(self.requests)
        decided = number > decisive or (number == decisive and arrived)
        return Aftermath(store, self.album, self.old, self.new, decided)


@pytest.mark.slow
@pytest.mark.parametrize("name", REDRAWINGS)
def test_killed_around_every_request(
    bucket: Bucket, forks: Forks, album: Album, name: str, record_property: Callable[[str, object], None]
) -> None:
    """Before or after any request to a bucket, the same holds."""
    gallery = Gallery(bucket, forks, album, name)
    for number in range(len(gallery.requests)):
        for kind in (FaultKind.KILL_BEFORE, FaultKind.KILL_AFTER):
            aftermath = gallery.killed([kind], number)
            aftermath.check_now()
            aftermath.check_next_writer()
            aftermath.check_settled()
    record_property("points", 2 * len(gallery.requests))
    assert len(gallery.requests) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grows", "shrinks"])
def test_killed_with_a_request_under_way(
    bucket: Bucket, forks: Forks, album: Album, name: str, record_property: Callable[[str, object], None]
) -> None:
    """A dead writer's picture, or deletion, that arrives with the next writer or after it misleads no reader."""
    gallery = Gallery(bucket, forks, album, name)
    numbers = [number for number, request in enumerate(gallery.requests) if buckets.changes(request)]
    for number in numbers:
        for behind in (False, True):
            aftermath = gallery.killed([FaultKind.LATE, FaultKind.KILL_BEFORE], number)
            aftermath.check_now()
            aftermath.check_next_writer(bucket.server.release_late, behind=behind)
            bucket.server.discard_late()
            aftermath.check_settled(anew=True)
    record_property("points", 2 * len(numbers))
    assert len(numbers) >= 6
