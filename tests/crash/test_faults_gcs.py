"""Everything goes wrong with every request of a write to a bucket: it succeeds, or says what became of it."""

from __future__ import annotations

import gc
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.errors import (
    CODError,
    CommitUnknownError,
    LockAcquisitionError,
    LockVerificationError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind
from tests.crash.bucket import ATTEMPTS, Bucket
from tests.crash.checks import Aftermath, View
from tests.crash.kills import act
from tests.crash.scenes import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

SILENCE_SECONDS = 0.15
STALL_SECONDS = 0.3
"""Longer than a client waits that has to do with a stall."""

WRITES = ("create", "append", "overwrite", "remove", "edit", "field")
MOMENTS = ("before", "meanwhile", "behind")
"""When what is late arrives: before the next writer, while it holds the lock, behind its commit."""

KINDS: dict[str, Fault] = {
    "429": Fault(FaultKind.STATUS, status=429),
    "503": Fault(FaultKind.STATUS, status=503),
    "reset": Fault(FaultKind.RESET),
    "lost-response": Fault(FaultKind.LOST_RESPONSE),
    "truncated-body": Fault(FaultKind.TRUNCATED_BODY),
    "stall-before": Fault(FaultKind.STALL_BEFORE, seconds=STALL_SECONDS),
    "stall-after": Fault(FaultKind.STALL_AFTER, seconds=STALL_SECONDS),
    "late": Fault(FaultKind.LATE),
}
NOTHING_CHANGED = (LockAcquisitionError, LockVerificationError)
NOBODY_KNOWS = (CommitUnknownError, TransientStorageError, WriteUnknownError)
"""Said by a writer whose change is there in the end, or is not."""


@dataclass(frozen=True)
class Blow:
    """Something that goes wrong: what, from which request on, with how many of them."""

    kind: str
    number: int
    times: int = 1

    def fault(self) -> Fault:
        """Return it as the server takes it."""
        return Fault(**(KINDS[self.kind].as_json() | {"skip": self.number, "times": self.times}))


@dataclass(frozen=True)
class Trouble:
    """What goes wrong in one attempt of a write, and when what is late arrives."""

    write: str
    blows: tuple[Blow, ...]
    moment: str = "before"

    @property
    def stalls(self) -> bool:
        """Whether a stall is among it."""
        return any(blow.kind.startswith("stall") for blow in self.blows)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what the client library leaves open of broken answers."""
    yield
    gc.collect()


@dataclass
class Ordeal:
    """Writes in trouble, each on a store of its own."""

    bucket: Bucket
    rehearsals: dict[str, tuple[int, list[View]]]

    @classmethod
    def prepare(cls, bucket: Bucket, writes: Iterable[str]) -> Ordeal:
        """Find out how many requests the writes need, and what they do."""
        rehearsals = {}
        for write in writes:
            requests, views = bucket.rehearse(write)
            rehearsals[write] = len(requests), views
        return cls(bucket, rehearsals)

    def undergo(self, trouble: Trouble) -> CODError | None:
        """Do a write in trouble; check what it says, what readers see, and that the next writer goes on."""
        views = self.rehearsals[trouble.write][1]
        server = self.bucket.server
        store = self.bucket.prepared(trouble.write)
        client = self.bucket.restless(store, SILENCE_SECONDS) if trouble.stalls else self.bucket.hurried(store)
        aftermath = Aftermath.expected(store, self.bucket.folder, views)
        server.reset_counters()
        server.inject(*(blow.fault() for blow in trouble.blows))
        error: CODError | None = None
        try:
            act(trouble.write, client, self.bucket.folder)
        except (*NOTHING_CHANGED, *NOBODY_KNOWS) as raised:
            error = raised
        server.clear_faults()
        self._wait_for_stalls()
        if trouble.moment == "before":
            server.release_late()
        aftermath.decided = 1 if error is None else 0 if isinstance(error, NOTHING_CHANGED) else None
        aftermath.check_now()
        assert error is not None or aftermath.seen == 1, "a success that a reader does not see"
        aftermath.check_next_writer(server.release_late, behind=trouble.moment == "behind")
        if isinstance(error, CommitUnknownError):
            assert (error.write_id in read_document(store, KEY)[0].commits) == (aftermath.seen == 1)
        return error

    def _wait_for_stalls(self) -> None:
        """Wait until the server is through with every request that it was slow to act on."""
        deadline = time.monotonic() + 60
        while any(r.fault.startswith("stall") and not r.outcome for r in self.bucket.server.counters()):
            assert time.monotonic() < deadline, "a stall does not end"
            time.sleep(0.01)


def one_at_a_time(write: str, requests: int) -> Iterator[Trouble]:
    """Yield every kind of trouble with every single request."""
    for number in range(requests):
        for kind in KINDS:
            for moment in MOMENTS if kind == "late" else MOMENTS[:1]:
                yield Trouble(write, (Blow(kind, number),), moment)


def outages(write: str, requests: int) -> Iterator[Trouble]:
    """Yield trouble that lasts longer than a client's patience, beginning with every request."""
    for number in range(requests):
        for kind in ("429", "503", "lost-response", "late"):
            for moment in MOMENTS if kind == "late" else MOMENTS[:1]:
                yield Trouble(write, (Blow(kind, number, 3 * ATTEMPTS),), moment)


def random_pairs(count: int, seed: int, requests: dict[str, int]) -> Iterator[Trouble]:
    """Yield two troubles at a time."""
    dice = random.Random(seed)
    kinds = [kind for kind in KINDS if not kind.startswith("stall")]
    for _ in range(count):
        write = dice.choice(WRITES)
        blows = tuple(
            Blow(dice.choice(kinds), dice.randrange(requests[write] + 4), dice.choice((1, 1, 2, ATTEMPTS)))
            for _ in range(2)
        )
        yield Trouble(write, blows, dice.choice(MOMENTS))


def test_some_trouble(bucket: Bucket, record_property: Callable[[str, object], None]) -> None:
    """A seeded sample of all that can go wrong: the write tells the truth, and nobody has to repair anything."""
    ordeal = Ordeal.prepare(bucket, WRITES)
    requests = {write: count for write, (count, _) in ordeal.rehearsals.items()}
    single = [trouble for write in WRITES for trouble in one_at_a_time(write, requests[write]) if not trouble.stalls]
    long = [trouble for write in WRITES for trouble in outages(write, requests[write])]
    sample = [*random.Random(3).sample(single, 6), *random.Random(4).sample(long, 4), *random_pairs(6, 5, requests)]
    for trouble in sample:
        ordeal.undergo(trouble)
    record_property("points", len(sample))


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_one_trouble_with_every_request(
    bucket: Bucket, write: str, record_property: Callable[[str, object], None]
) -> None:
    """One trouble of any kind with any request is overcome: the write succeeds."""
    ordeal = Ordeal.prepare(bucket, [write])
    requests = ordeal.rehearsals[write][0]
    troubles = list(one_at_a_time(write, requests))
    for trouble in troubles:
        assert ordeal.undergo(trouble) is None, trouble
    record_property("points", len(troubles))
    assert len(troubles) == requests * (len(KINDS) + 2)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_an_outage_from_every_request_on(
    bucket: Bucket, write: str, record_property: Callable[[str, object], None]
) -> None:
    """A write whose patience ends says so, and what it says of its change is true whatever arrives later."""
    ordeal = Ordeal.prepare(bucket, [write])
    troubles = list(outages(write, ordeal.rehearsals[write][0]))
    said = [ordeal.undergo(trouble) for trouble in troubles]
    record_property("points", len(troubles))
    assert any(isinstance(error, CommitUnknownError) for error in said)
    assert any(isinstance(error, TransientStorageError) for error in said)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_two_troubles(bucket: Bucket, seed: int, record_property: Callable[[str, object], None]) -> None:
    """Random pairs of troubles: the write tells the truth, and nobody has to repair anything."""
    ordeal = Ordeal.prepare(bucket, WRITES)
    requests = {write: count for write, (count, _) in ordeal.rehearsals.items()}
    troubles = list(random_pairs(60, seed, requests))
    for trouble in troubles:
        ordeal.undergo(trouble)
    record_property("points", len(troubles))
