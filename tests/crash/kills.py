"""What a child does to be killed: one scene, on a store (or a server, or a file system) that kills it at a point."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.testing.gcs_server import Fault
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from tests.crash.checks import PASSED, Later, append_one
from tests.crash.scenes import SCENES, SECOND, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.gcs_server import FaultKind, GcsControl
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")

NEXT = "next-writer"
"""Not a scene of its own: the writer that follows on an interrupted one, and is interrupted itself."""


def act(scene: str, store: ObjectStore, folder: Folder) -> None:
    """Do what a scene does."""
    if scene == NEXT:
        append_one(Later(store, PASSED), folder, SECOND)
    else:
        SCENES[scene].act(store, folder)


def die(*_: object) -> NoReturn:
    """End this process as a machine that loses its power does: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives this")


class KillingStore(InterceptingStore):
    """Another store, one of whose operations kills this process before it begins or after it has ended, however.

    Parameters
    ----------
    fatal
        The number of that operation; None: nobody is killed, the operations are only taken down.
    after
        Whether the process dies after it.
    backwards
        Whether batches of deletions run from the last to the first: their order is nobody's promise.
    """

    def __init__(
        self, inner: ObjectStore, fatal: int | None = None, *, after: bool = False, backwards: bool = False
    ) -> None:
        super().__init__(inner)
        self.operations: list[Operation] = []
        self._fatal, self._after, self._backwards = fatal, after, backwards

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Carry out an operation, or die."""
        fatal = len(self.operations) == self._fatal
        self.operations.append(operation)
        if fatal and not self._after:
            die()
        try:
            return act()
        finally:
            if fatal:
                die()

    def around_iterator(self, operation: Operation, act: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """Carry out a list or a stream, or die."""
        yield from self.around(operation, lambda: list(act()))

    def delete_all(self, objects: Sequence[tuple[str, str | None]]) -> None:
        """Delete several objects, one by one."""
        super().delete_all(list(reversed(objects)) if self._backwards else objects)


def on_store(scene: str, store: KillingStore, folder: Folder) -> None:
    """Die before or after a store operation."""
    act(scene, store, folder)


def on_server(scene: str, store: ObjectStore, folder: Folder, control: GcsControl, faults: Sequence[Fault]) -> None:
    """Have the server kill this process as it receives a request."""
    # The client library's look-up for traces is one request more, at a moment that no test can foresee.
    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"
    control.inject(*(Fault(**(fault.as_json() | {"pid": os.getpid()})) for fault in faults))
    act(scene, store, folder)


_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock"}


class _FileSystemSteps:
    """Counts what is about to change a directory tree, and dies at one of those steps."""

    def __init__(self, root: Path, fatal: int | None) -> None:
        self.count, self._root, self._fatal = 0, str(root), fatal

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._changes(event, arguments):
            return
        if self.count == self._fatal:
            die()
        self.count += 1

    def _changes(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "fcntl.flock":
            return True
        if event == "open":
            path, _, flags = arguments
            return isinstance(flags, int) and bool(flags & os.O_CREAT) and str(path).startswith(self._root)
        return event in _CHANGES and str(arguments[0]).startswith(self._root)


def on_file_system(scene: str, root: Path, folder: Folder, fatal: int | None) -> int:
    """Die before a step of the local store that changes its directory, inside an operation; or count those steps."""
    steps = _FileSystemSteps(root, fatal)
    sys.addaudithook(steps)
    act(scene, LocalStore(root), folder)
    return steps.count


def effects(kinds: Iterable[FaultKind], skip: int) -> list[Fault]:
    """Return the faults of one request and those that follow on it, one each; whom they kill is filled in later."""
    nobody = 2**22 + 1  # beyond the largest process id
    return [Fault(kind, skip=skip + number, pid=nobody) for number, kind in enumerate(kinds)]
