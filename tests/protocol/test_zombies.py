"""Writers that wake up after others took over: at every operation, whatever the others had done by then."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.protocol.fleet import (
    AHEAD_SECONDS,
    CERTAINLY_NOT,
    Fleet,
    Reader,
    Write,
    before,
    has_decided,
    holds_the_lock,
    tidies,
    writes_metadata,
    writes_tar,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.protocol.fleet import Participant, Stall

    NewFleet = Callable[[], Fleet]

VICTIMS = (
    Write("append", 3),
    Write("overwrite", 1, version=1),
    Write("remove", 1),
    Write("field", 1, version=7),
    Write("edit", 1, version=3),
    Write("swap", 4, other=1),
    Write("clear"),
)
SUCCESSORS = (
    Write("append", 5),
    Write("overwrite", 1, version=2),
    Write("remove", 0),
    Write("field", 2, version=8),
    Write("edit", 0, version=1),
)
FIRST = (Write("append", 3), Write("overwrite", 1, version=1), Write("field", 1, version=7))
FIRST_SUCCESSORS = (Write("append", 5), Write("overwrite", 1, version=2), Write("field", 2, version=8))

MOST_OPERATIONS = 40


def stored(fleet: Fleet) -> None:
    """Make a series of three instances and a custom field."""
    fleet.do(Write("fill"))


def empty(_: Fleet) -> None:
    """Make nothing: the series is written for the first time."""


def decided(fleet: Fleet) -> None:
    """Make a series whose last writer died as soon as it had decided."""
    stored(fleet)
    assert fleet.take_over(Write("append", 6), has_decided).start()


def torn(fleet: Fleet) -> None:
    """Make a series whose last writer died between tar and metadata."""
    stored(fleet)
    assert fleet.take_over(Write("swap", 6, other=2), writes_metadata).start()


def first_torn(fleet: Fleet) -> None:
    """Make a series whose first writer died between tar and metadata."""
    assert fleet.take_over(Write("append", 6), writes_metadata).start()


def staged(fleet: Fleet) -> None:
    """Make a series whose last writer died when its bytes were up and nothing was decided."""
    stored(fleet)
    lock = fleet.files.key.lock
    dead = fleet.take_over(Write("append", 6), lambda _, asked: asked[-1].kind == "replace" and asked[-1].name == lock)
    assert dead.start()


DEAD_BASES = (decided, torn, first_torn, staged)
SCENES = (
    *((stored, victim, successor) for victim in VICTIMS[:5] for successor in SUCCESSORS),
    *((empty, victim, successor) for victim in FIRST for successor in FIRST_SUCCESSORS),
    *((scene, FIRST[0], successor) for scene in DEAD_BASES for successor in FIRST_SUCCESSORS),
)
MORE_SCENES = (
    *((stored, victim, successor) for victim in VICTIMS[5:] for successor in SUCCESSORS),
    *((scene, FIRST[1], successor) for scene in DEAD_BASES for successor in FIRST_SUCCESSORS),
)
PAIRS = SCENES[: 5 * len(SUCCESSORS)]
"""Every pair of writes to a series that is there."""
ON_REAL_STORES = (
    *(("gcs", *scene) for scene in PAIRS),
    *(("local", *scene) for scene in (*SCENES, *MORE_SCENES) if scene not in PAIRS),
    # CI has thirty minutes for everything, and has met these in memory and on the server.
    *(pytest.param("local", *scene, marks=pytest.mark.exhaustive) for scene in PAIRS),
)

STOPS: dict[str, Stall | None] = {
    "holds the lock": holds_the_lock,
    "is between its last two writes": writes_metadata,
    "has committed": None,
}


def name_of(value: object) -> str:
    """Name a parameter of a test."""
    return str(getattr(value, "__name__", value))


def wake(zombie: Participant, successor: Write, stop: Stall | None, *, lost: bool) -> bool:
    """Stall a victim at an operation until a successor is where it shall be; return whether it stalled.

    The victim then runs to its end before the successor goes on.
    """
    fleet, victim = zombie.fleet, zombie.write
    assert victim is not None
    early = Reader(fleet) if fleet.committed() else None
    if not zombie.start():
        return False
    had_lock, had_decided = zombie.holding, bool(zombie.own_commits) if lost else zombie.decided
    other = fleet.take_over(successor, stop)
    other_stalled = other.start()
    took_over = other.holding
    lost_lock = had_lock and took_over
    middle = Reader(fleet) if fleet.committed() else None
    outcome = zombie.finish()
    for reader in filter(None, (early, middle)):
        reader.check()
    if other_stalled:
        other.finish()
    check_told(outcome, victim, lost_lock=lost_lock, safe=had_decided or (had_lock and not lost_lock))
    deposed = zombie.holding and not had_lock  # it woke as a successor of its successor
    if deposed or not took_over:
        assert other.outcome == "ok" or other.outcome in CERTAINLY_NOT
    else:
        assert other.outcome in {"ok", "InstanceNotFoundError"}
    fleet.check_settled()
    for reader in filter(None, (early, middle)):
        reader.check()
        reader.close()
    return True


def has_lock(fleet: Fleet) -> bool:
    """Say whether there is a lock."""
    return ".gradient.lock" in fleet.names()


def check_told(outcome: str, victim: Write, *, lost_lock: bool, safe: bool) -> None:
    """Check that the zombie was told a success if it had decided, or nobody took its lock; else that it lost that."""
    if safe:
        assert outcome == "ok"
    elif lost_lock:
        assert outcome == "LockVerificationError"
    else:  # it slept before it took the lock: it starts like anybody
        assert outcome == "ok" or outcome in CERTAINLY_NOT
        assert outcome != "InstanceNotFoundError" or victim.kind in {"remove", "swap", "edit"}


def victim_in(
    new_fleet: NewFleet, scene: Callable[[Fleet], None], victim: Write, step: int, *, lost: bool = False
) -> Participant:
    """Set a scene; return a victim that will stall at one of its operations."""
    fleet = new_fleet()
    scene(fleet)
    ahead_seconds = AHEAD_SECONDS if has_lock(fleet) else 0.0
    return fleet.join(victim, before(step), ahead_seconds=ahead_seconds, lose_response=lost)


def wake_at_every_operation(
    new_fleet: NewFleet, scene: Callable[[Fleet], None], victim: Write, successor: Write, stop: Stall | None
) -> int:
    """Run a scene once for each operation of the victim; return how many there are."""
    for step in range(MOST_OPERATIONS):
        if not wake(victim_in(new_fleet, scene, victim, step), successor, stop, lost=False):
            return step
    raise AssertionError("a commit never ends")


def wake_with_lost_responses(
    new_fleet: NewFleet, scene: Callable[[Fleet], None], victim: Write, successor: Write, stop: Stall | None
) -> int:
    """Run a scene once for each write of the victim, whose response is lost before the stall; return how many.

    A write that is refused has no response to lose.
    """
    dry = victim_in(new_fleet, scene, victim, MOST_OPERATIONS)
    assert dry.run() == "ok"
    writes = [step for step, operation in enumerate(dry.operations) if operation.is_write]
    victims = [victim_in(new_fleet, scene, victim, step, lost=True) for step in writes]
    return sum(wake(zombie, successor, stop, lost=True) for zombie in victims)


@pytest.mark.parametrize(("scene", "victim", "successor"), SCENES, ids=name_of)
def test_zombie_in_memory(
    memory_fleet: NewFleet, scene: Callable[[Fleet], None], victim: Write, successor: Write
) -> None:
    """Wake a victim at every operation, beside a successor at three moments: nothing is lost, all hear the truth."""
    for stop in STOPS.values():
        steps = wake_at_every_operation(memory_fleet, scene, victim, successor, stop)
        assert steps >= 6


@pytest.mark.parametrize(("scene", "victim", "successor"), SCENES, ids=name_of)
def test_zombie_with_a_lost_response(
    memory_fleet: NewFleet, scene: Callable[[Fleet], None], victim: Write, successor: Write
) -> None:
    """Let a write land, lose its response, wake the victim to its retry: it learns what became of the write."""
    for stop in (holds_the_lock, None):
        assert wake_with_lost_responses(memory_fleet, scene, victim, successor, stop) >= 4


@pytest.mark.slow
@pytest.mark.parametrize(("store_kind", "scene", "victim", "successor"), ON_REAL_STORES, ids=name_of)
def test_zombie_on_real_stores(
    new_fleet: NewFleet, scene: Callable[[Fleet], None], victim: Write, successor: Write
) -> None:
    """Do the same on files and on a strict server of Google Cloud Storage."""
    for stop in STOPS.values():
        wake_at_every_operation(new_fleet, scene, victim, successor, stop)
        wake_with_lost_responses(new_fleet, scene, victim, successor, stop)


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "victim", "successor"), SCENES, ids=name_of)
def test_zombie_at_every_operation_of_both(
    memory_fleet: NewFleet, scene: Callable[[Fleet], None], victim: Write, successor: Write
) -> None:
    """Wake a victim at every operation beside a successor that is stalled at every one of its own."""
    for stop in range(MOST_OPERATIONS):
        fleet = memory_fleet()
        scene(fleet)
        if not fleet.take_over(successor, before(stop)).start():
            break
        wake_at_every_operation(memory_fleet, scene, victim, successor, before(stop))
        wake_with_lost_responses(memory_fleet, scene, victim, successor, before(stop))


@pytest.mark.parametrize("place", [writes_tar, writes_metadata, tidies], ids=name_of)
def test_three_in_a_row(memory_fleet: NewFleet, place: Stall) -> None:
    """Let a decided writer sleep while two successors commit: its change is there, and theirs on top of it."""
    for victim, second, third in itertools.product(VICTIMS[:3], SUCCESSORS[:3], SUCCESSORS[:3]):
        if second == third:
            continue
        fleet = memory_fleet()
        stored(fleet)
        zombie = fleet.join(victim, place)
        assert zombie.start()
        outcomes = [fleet.take_over(write).run() for write in (second, third)]
        assert set(outcomes) <= {"ok", "InstanceNotFoundError"}
        assert zombie.finish() == "ok"
        fleet.check_settled()
