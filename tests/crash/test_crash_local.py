"""A real process is killed at every step of every kind of write to a local store; nobody has to repair anything."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.storage.local import LocalStore
from tests.crash.checks import Aftermath, View, look
from tests.crash.kills import NEXT, KillingStore, act, on_file_system, on_store
from tests.crash.scenes import KEY, SCENES, SECOND, STARTS, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.testing.intercepting_store import Operation
    from tests.crash.forks import Forks


def decision(operations: Sequence[Operation]) -> int:
    """Return the number of the operation that decides: the last replacement of the lock (its intent)."""
    numbers = [number for number, op in enumerate(operations) if (op.kind, op.name) == ("replace", KEY.lock)]
    return numbers[-1] if numbers else len(operations)


def linked(source: Path, target: Path) -> Path:
    """Return a copy of a store: its files are the same ones under other names, so that they keep their versions."""
    return shutil.copytree(source, target, copy_function=os.link)


@dataclass
class Stage:
    """Local stores in `directory`: each attempt plays in a copy of the same start."""

    directory: Path
    folder: Folder
    forks: Forks
    pinned: bool = True
    hides: bool = False
    points: int = 0

    @property
    def start(self) -> Path:
        """Where the store is that attempts are copied from."""
        return self.directory / "start"

    def prepare(self, scene: str) -> None:
        """Make what there is before a scene."""
        self.pinned, self.hides = SCENES[scene].pinned, SCENES[scene].hides
        shutil.rmtree(self.start, ignore_errors=True)
        self.start.mkdir()
        STARTS[SCENES[scene].start](LocalStore(self.start), self.folder)

    def rehearse(self, scene: str) -> tuple[list[Operation], list[View]]:
        """Play a scene unharmed; return its operations, and the series before and after."""
        root = linked(self.start, self.directory / "rehearsal")
        store = KillingStore(LocalStore(root))
        before = look(store.inner)
        act(scene, store, self.folder)
        after = look(store.inner)
        shutil.rmtree(root)
        return store.operations, [before, after]

    def kill(self, scene: str, root: Path, fatal: int, **how: bool) -> None:
        """Kill a writer at a store operation."""
        ended = self.forks.run(on_store, scene, KillingStore(LocalStore(root), fatal, **how), self.folder)
        assert ended.code == -signal.SIGKILL, ended.result

    def attempt(self, kill: Callable[[Path], None], views: Sequence[View], decided: int | None) -> None:
        """Kill a writer, then look and go on in its place: by recovery alone, and as the next writer."""
        self.points += 1
        root = linked(self.start, self.directory / str(self.points))
        store = LocalStore(root)
        aftermath = Aftermath.expected(store, self.folder, views, pinned=self.pinned, hides=self.hides)
        aftermath.decided = decided
        kill(root)
        aftermath.check_now()
        twin = LocalStore(linked(root, self.directory / f"{self.points}-recovered"))
        aftermath.check_recovery(twin)
        aftermath.check_next_writer()
        shutil.rmtree(root)
        shutil.rmtree(twin.url)


@pytest.fixture
def stage(quick_path: Path, folder: Folder, forks: Forks) -> Stage:
    """Return an empty stage."""
    return Stage(quick_path, folder, forks)


FAST = ("create", "append", "remove", "edit", "overwrite-with-the-same")


@pytest.mark.parametrize(
    "scene", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in SCENES]
)
def test_killed_at_every_store_operation(
    stage: Stage, scene: str, record_property: Callable[[str, object], None]
) -> None:
    """Whichever operation a writer dies before or after: old or new series for readers, and the next writer goes on."""
    stage.prepare(scene)
    operations, views = stage.rehearse(scene)
    decisive = decision(operations)
    for number in range(len(operations)):
        for after in (False, True):
            kill = partial(stage.kill, scene, fatal=number, after=after)
            decided = number > decisive or (number == decisive and after)
            stage.attempt(kill, views, int(decided))
    record_property("points", stage.points)
    assert stage.points == 2 * len(operations) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["append", "mixed", "edit"])
def test_killed_while_finishing_what_a_dead_writer_decided(
    stage: Stage, scene: str, record_property: Callable[[str, object], None]
) -> None:
    """Of two writers that die one after the other, at any operation each, what was decided is there and no more."""
    stage.prepare(scene)
    first, (old, new) = stage.rehearse(scene)
    rounds = 0
    for dies_at in range(len(first)):
        stage.prepare(scene)
        stage.kill(scene, stage.start, dies_at, after=True)
        second, _ = stage.rehearse(NEXT)
        decided = [old, new] if dies_at >= decision(first) else [old]
        views = [*decided, decided[-1].plus(stage.folder, SECOND)]
        for number in range(len(second)):
            kill = partial(stage.kill, NEXT, fatal=number, after=True, backwards=True)
            stage.attempt(kill, views, len(views) - (1 if number >= decision(second) else 2))
        rounds += len(second)
    record_property("points", stage.points)
    assert stage.points == rounds > 100


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["create", "append", "remove", "edit", "field"])
def test_killed_inside_every_store_operation(
    stage: Stage, scene: str, record_property: Callable[[str, object], None]
) -> None:
    """Killed before any step that changes a directory (a file made, locked, renamed, removed), the same holds."""
    stage.prepare(scene)
    operations, views = stage.rehearse(scene)
    rehearsal = linked(stage.start, stage.directory / "steps")
    steps = stage.forks.run(on_file_system, scene, rehearsal, stage.folder, None)
    assert steps.code == 0, steps.result

    def kill(root: Path, fatal: int) -> None:
        ended = stage.forks.run(on_file_system, scene, root, stage.folder, fatal)
        assert ended.code == -signal.SIGKILL, ended.result

    for fatal in range(steps.result):
        stage.attempt(partial(kill, fatal=fatal), views, None)
    record_property("points", stage.points)
    assert stage.points == steps.result > 3 * sum(operation.is_write for operation in operations)
