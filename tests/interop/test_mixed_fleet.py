"""Four writers of each library on one series at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Instance
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsControl
from cloud_optimized_dicom.testing.published import PublishedError, PublishedProcess
from tests.interop.conftest import DRIVER, INSTANCES, Shared

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

WRITERS = 4
TURNS = 300


def test_nothing_is_lost(shared: Shared, published_python: Path, tmp_path: Path) -> None:
    """4 + 4 writers that know nothing of each other store 12 files: both libraries read all of them, none twice."""
    shared.they_write("w", 0)
    ours, theirs = range(1, 1 + WRITERS), range(1 + WRITERS, INSTANCES)
    with ExitStack() as stack:
        fleet = [
            stack.enter_context(PublishedProcess(published_python, DRIVER, shared.endpoint, tmp_path))
            for _ in range(WRITERS)
        ]
        start = threading.Barrier(2 * WRITERS)

        def we_append(number: int) -> None:
            start.wait()
            with shared.ours("a", wait_seconds=120) as cod:
                assert len(cod.append([Instance(shared.files.paths[ours[number]])]).new) == 1
                cod.seal()  # so that the others can append

        def they_append(number: int) -> None:
            start.wait()
            for index in theirs[number::WRITERS]:
                _persist(shared, fleet[number], index)

        with ThreadPoolExecutor(2 * WRITERS) as pool:
            jobs = [pool.submit(job, number) for number in range(WRITERS) for job in (we_append, they_append)]
            for job in jobs:
                job.result()
    shared.check_both(*range(INSTANCES))


@pytest.mark.parametrize("endpoint", ["strict"], indirect=True)
def test_a_commit_that_they_did_not_see_is_not_lost(shared: Shared, endpoint: str) -> None:
    """A writer of theirs that read the metadata just before our commit, and locks after it, does not write over it."""
    shared.they_write("w", 0)
    server = GcsControl(endpoint)
    server.inject(Fault(FaultKind.STALL_BEFORE, "objects.insert", r"\.gradient\.lock$", seconds=0.5))
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(_persist, shared, shared.published, 1)
        while not any(record.fault for record in server.counters()):
            time.sleep(0.005)
        with shared.ours("a", wait_seconds=120) as cod:
            cod.append(shared.files.instances(2))
            cod.seal()
        theirs.result()
    shared.check_both(0, 1, 2)


def _persist(shared: Shared, by: PublishedProcess, index: int) -> None:
    """Try again while the lock is another writer's, as programs written to that library do."""
    for turn in range(TURNS):
        try:
            found = shared.they_write("a", index, by=by)
        except PublishedError as error:
            # It looks at a held lock twice; one that is released in between is missing by then.
            busy = error.kind == "LockAcquisitionError" or (error.kind == "NotFound" and ".gradient.lock" in str(error))
            if not busy or turn == TURNS - 1:
                raise
            time.sleep(0.05)
        else:
            assert found["new"] == 1, found
            return
