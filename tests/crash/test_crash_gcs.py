"""A real process is killed around every request of every kind of write to a bucket; nobody has to repair anything."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.testing.gcs_server import FaultKind
from tests.crash.bucket import Bucket, changes, decision
from tests.crash.checks import Aftermath
from tests.crash.kills import effects, on_server
from tests.crash.scenes import SCENES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.crash.forks import Forks


def killed(bucket: Bucket, forks: Forks, scene: str, kinds: Sequence[FaultKind], number: int) -> Aftermath:
    """Play a scene in a child that is killed at a request, and return what is left."""
    store = bucket.prepared(scene)
    how = SCENES[scene]
    aftermath = Aftermath.expected(store, bucket.folder, (), pinned=how.pinned, hides=how.hides)
    control = bucket.server.control()
    ended = forks.run(on_server, scene, bucket.hurried(store), bucket.folder, control, effects(kinds, number))
    control.clear_faults()
    assert ended.code == -signal.SIGKILL, ended.result
    return aftermath


def check_kills(bucket: Bucket, forks: Forks, scene: str, numbers: Sequence[int] | None = None) -> int:
    """Kill a writer before and after its requests, all or some; return how many points that were."""
    requests, views = bucket.rehearse(scene)
    numbers = range(len(requests)) if numbers is None else numbers
    for number in numbers:
        before = killed(bucket, forks, scene, [FaultKind.KILL_BEFORE], number)
        before.views, before.decided = views, int(number > decision(requests))
        before.check_now()
        before.check_next_writer()
        after = killed(bucket, forks, scene, [FaultKind.KILL_AFTER], number)
        after.views, after.decided = views, int(number >= decision(requests))
        after.check_now()
        after.check_recovery(after.store)
        after.check_next_writer()
    return 2 * len(numbers)


def check_in_flight(bucket: Bucket, forks: Forks, scene: str) -> int:
    """Kill a writer while a request of its is under way, to arrive with the next writer or after it."""
    requests, views = bucket.rehearse(scene)
    points = 0
    for number in (number for number, request in enumerate(requests) if changes(request)):
        for behind in (False, True):
            points += 1
            left = killed(bucket, forks, scene, [FaultKind.LATE, FaultKind.KILL_BEFORE], number)
            left.views, left.decided = views, int(number > decision(requests))
            left.check_now()
            left.check_next_writer(bucket.server.release_late, behind=behind)
    return points


@pytest.mark.parametrize(("scene", "number"), [("append", 1), ("append", 5), ("remove", 7), ("edit", 7)])
def test_killed_around_a_request(bucket: Bucket, forks: Forks, scene: str, number: int) -> None:
    """Before and after the lock was taken, the intent written and the tar made: old or new, and the next goes on."""
    assert check_kills(bucket, forks, scene, [number]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_killed_around_every_request(
    bucket: Bucket, forks: Forks, scene: str, record_property: Callable[[str, object], None]
) -> None:
    """Whichever request a writer dies before or after: old or new series for readers, and the next writer goes on."""
    points = check_kills(bucket, forks, scene)
    record_property("points", points)
    assert points >= 8


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["create", "append", "remove", "edit", "redact", "field"])
def test_killed_with_a_request_under_way(
    bucket: Bucket, forks: Forks, scene: str, record_property: Callable[[str, object], None]
) -> None:
    """A dead writer's request that arrives when others have taken over changes nothing that they did."""
    points = check_in_flight(bucket, forks, scene)
    record_property("points", points)
    assert points >= 8
