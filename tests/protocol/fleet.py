"""Writers of one series, what they do, and what must be there afterwards."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import CODError, StaleReadError
from cloud_optimized_dicom.lock.record import parse_lock
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, make_uid, to_bytes
from cloud_optimized_dicom.testing.scheduled_store import ScheduledStore
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloud_optimized_dicom.storage.base import Attributes, ObjectInfo, ObjectStore
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.testing.intercepting_store import Operation

    Stall = Callable[["Participant", Sequence[Operation]], bool]

LEASE_SECONDS = 120.0
AHEAD_SECONDS = 3600.0
"""How far the clock moves on for those that take over: every lease has run out."""

State = dict[str, Any]
"""A series as a dict: instance UID -> bytes of its file, and ``field:name`` -> value."""


LARGE = 9
"""The version of an instance that has 9 MiB, more than one request of an upload."""


class Files:
    """DICOM files of one series: instance `index` in several versions, which differ in their pixels only."""

    def __init__(self, folder: Path, name: str = "fleet") -> None:
        self._folder = folder
        self._uids = Uids.of(name)
        self.key = SeriesKey(self._uids.study, self._uids.series)

    def uid(self, index: int) -> str:
        """Return the SOP Instance UID of an instance."""
        return make_uid("fleet instance", self.key.series_uid, index)

    def path(self, index: int, version: int = 0) -> Path:
        """Return an instance as a local file, made when it is first asked for."""
        path = self._folder / f"{index}-{version}.dcm"
        if not path.exists():
            partial = path.with_suffix(f".{threading.get_ident()}")
            partial.write_bytes(self._make(index, version))
            partial.replace(path)
        return path

    def data(self, index: int, version: int = 0) -> bytes:
        """Return an instance's bytes."""
        return self.path(index, version).read_bytes()

    def _make(self, index: int, version: int) -> bytes:
        dataset = make_dataset(Uids(self.key.study_uid, self.key.series_uid, self.uid(index)))
        dataset.InstanceNumber = index + 1
        rows, columns = (3072, 3072) if version == LARGE else (4, 4 + index % 3)
        describe_pixels(dataset, (rows, columns), bits=8)
        pattern = bytes((index * 7 + version * 31 + at) % 256 for at in range(256))
        dataset.add_new("PixelData", "OB", (pattern * (rows * columns // 256 + 1))[: rows * columns])
        return to_bytes(dataset)


@dataclass(frozen=True)
class Write:
    """One change, as a writer makes it and as it changes a dict.

    Parameters
    ----------
    kind
        ``append``; ``overwrite`` (mode w); ``clear`` (mode w, nothing appended); ``remove``; ``swap`` (remove the
        instance `other`, append `index`); ``edit`` (mode e, rewrite `index` as `version`); ``field`` (set the custom
        field named `index` to `version`); ``fill`` (mode w, append the instances 0, 1 and 2 and set the field named 0).
    """

    kind: str
    index: int = 0
    version: int = 0
    other: int = 0

    def __str__(self) -> str:
        return f"{self.kind}-{self.index}"

    @property
    def mode(self) -> Any:
        """The mode that the series is opened in."""
        return "e" if self.kind == "edit" else "w" if self.kind in {"overwrite", "clear", "fill"} else "a"

    def stage(self, cod: CODObject, files: Files) -> None:
        """Stage the change in an open series."""
        if self.kind in {"remove", "swap"}:
            cod.remove(files.uid(self.other if self.kind == "swap" else self.index))
        if self.kind == "edit":
            Path(cod.get_instance(files.uid(self.index)).dicom_uri).write_bytes(files.data(self.index, self.version))
        if self.kind in {"field", "fill"}:
            cod.add_metadata_field(f"field{self.index}", self.version)
        if self.kind in {"append", "overwrite", "swap", "fill"}:
            indexes = range(3) if self.kind == "fill" else [self.index]
            result = cod.append([Instance(files.path(index, self.version)) for index in indexes])
            assert not result.errors

    def applied(self, state: State, files: Files) -> State:
        """Return the state after the change, which must be possible."""
        uid = files.uid(self.index)
        if self.kind == "field":
            return state | {f"field:field{self.index}": self.version}
        if self.kind == "fill":
            filled = {files.uid(index): files.data(index, self.version) for index in range(3)}
            return filled | {"field:field0": self.version}
        if self.mode == "w":
            return {} if self.kind == "clear" else {uid: files.data(self.index, self.version)}
        if self.kind == "edit":
            assert uid in state, f"{self} is in the log of a series that did not hold it"
            return state | {uid: files.data(self.index, self.version)}
        gone = {"remove": uid, "swap": files.uid(self.other)}.get(self.kind)
        assert gone is None or gone in state, f"{self} is in the log of a series that did not hold {gone}"
        after = {name: value for name, value in state.items() if name != gone}
        if self.kind == "append":
            assert uid not in after, f"{self} is in the log of a series that held it already"
        if self.kind in {"append", "swap"}:
            after.setdefault(uid, files.data(self.index, self.version))  # a swap for what is there only removes
        return after


def attempt(store: ObjectStore, files: Files, write: Write, **options: Any) -> str:
    """Make a change through a store; return ``"ok"`` or the name of the error."""
    options = {"lease_seconds": LEASE_SECONDS} | options
    key = files.key
    try:
        with CODObject(store, None, key.study_uid, key.series_uid, write.mode, **options) as cod:
            write.stage(cod, files)
    except CODError as error:
        return type(error).__name__
    return "ok"


class Ledger:
    """Who decided what: the commit ids of all intents, each with the change that it stands for."""

    def __init__(self) -> None:
        self.writes: dict[str, Write] = {}
        self.owners: dict[str, Participant] = {}

    def note(self, write_id: str, participant: Participant) -> None:
        """Note an intent; a successor that carries it along is not its owner."""
        if write_id not in self.writes and participant.write is not None:
            self.writes[write_id] = participant.write
            self.owners[write_id] = participant


class Participant(ScheduledStore):
    """A writer of the fleet: its way to the store, its change, what came of it."""

    def __init__(self, fleet: Fleet, write: Write | None, stall: Stall | None = None, **options: Any) -> None:
        when = None if stall is None else lambda asked: stall(self, asked)
        super().__init__(fleet.store, stall_when=when, **options)
        self.fleet, self.write = fleet, write
        self.holding = self.decided = False
        self.outcome: str | None = None
        self.tried: list[str] = []
        self.failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()

    def create(self, name: str, payload: Payload, *, write_id: str, attributes: Attributes) -> ObjectInfo:
        """As the inner store; having the lock is noted."""
        info = super().create(name, payload, write_id=write_id, attributes=attributes)
        self.holding |= name == self.fleet.files.key.lock
        return info

    def replace(
        self, name: str, payload: Payload, *, version: str, write_id: str, attributes: Attributes
    ) -> ObjectInfo:
        """As the inner store; an intent on its way into the lock is noted."""
        if name != self.fleet.files.key.lock:
            return super().replace(name, payload, version=version, write_id=write_id, attributes=attributes)
        intent = parse_lock(name, payload.open().read()).intent
        if intent is not None:
            self.fleet.ledger.note(intent.write_id, self)
            self.tried.append(intent.write_id)
        info = super().replace(name, payload, version=version, write_id=write_id, attributes=attributes)
        self.holding = True
        self.decided = bool(self.own_commits)
        return info

    @property
    def own_commits(self) -> list[str]:
        """The ids of the intents that were this writer's own."""
        return [write_id for write_id in self.tried if self.fleet.ledger.owners[write_id] is self]

    def run(self, **options: Any) -> str:
        """Make the change, here and now."""
        assert self.write is not None
        self.outcome = attempt(self, self.fleet.files, self.write, **options)
        return self.outcome

    def start(self, **options: Any) -> bool:
        """Make the change in a thread, up to its stall; return whether it stalled (else it is done)."""

        def work() -> None:
            try:
                self.run(**options)
            except BaseException as error:  # noqa: BLE001 - handed to whoever joins
                self.failure = error
            finally:
                self._idle.set()

        watch = threading.Thread(target=lambda: (self.stalled.wait(), self._idle.set()), daemon=True)
        self._thread = threading.Thread(target=work, daemon=True)
        watch.start()
        self._thread.start()
        assert self._idle.wait(100)
        if not self.stalled.is_set():
            self.finish()
            self.stalled.set()  # ends the watch
            return False
        return True

    def finish(self) -> str:
        """Let a stalled writer go on, and wait for what comes of it."""
        self.go_on()
        assert self._thread is not None
        self._thread.join(100)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure
        assert self.outcome is not None
        return self.outcome


FLEETS: list[Any] = []
"""Of the present test; its dead are buried behind it."""


@dataclass
class Fleet:
    """One series, its store, its base state, everybody who writes it."""

    store: ObjectStore
    files: Files
    ledger: Ledger = field(default_factory=Ledger)
    participants: list[Participant] = field(default_factory=list)

    def __post_init__(self) -> None:
        FLEETS.append(self)

    def bury_the_dead(self) -> None:
        """End the threads of those that are still stalled; nothing that they do takes effect any more."""
        for participant in self.participants:
            participant.hang_up()

    def join(self, write: Write | None, stall: Stall | None = None, **options: Any) -> Participant:
        """Add a writer; further options as of `ScheduledStore`."""
        participant = Participant(self, write, stall, **options)
        self.participants.append(participant)
        return participant

    def do(self, *writes: Write) -> None:
        """Make changes one after the other, undisturbed."""
        for write in writes:
            assert self.join(write).run() == "ok"

    def take_over(self, write: Write, stall: Stall | None = None) -> Participant:
        """Add a writer to whom every lease has run out."""
        return self.join(write, stall, ahead_seconds=AHEAD_SECONDS)

    def open(self, store: ObjectStore | None = None, mode: Any = "r", **options: Any) -> CODObject:
        """Open the series."""
        key = self.files.key
        return CODObject(store or self.store, None, key.study_uid, key.series_uid, mode, **options)

    def committed(self) -> list[str]:
        """Return the ids of the commits, oldest first."""
        if self.store.find(self.files.key.metadata) is None:
            return []
        return list(read_document(self.store, self.files.key)[0].commits)

    def expected(self, commits: Iterable[str]) -> State:
        """Return the state that a history leads to."""
        state: State = {}
        for write_id in commits:
            state = self.ledger.writes[write_id].applied(state, self.files)
        return state

    def expected_now(self) -> State:
        """Return the state that the committed history leads to."""
        return self.expected(self.committed())

    def names(self) -> list[str]:
        """Return the names of the objects in the series' folder."""
        folder = f"{self.files.key.folder}/"
        return [info.name.removeprefix(folder) for info in self.store.list(folder)]

    def check_settled(self) -> None:
        """Let a fresh writer come by, then compare everything with the history."""
        final = self.take_over(Write("field", 99, len(self.participants)))
        assert final.run() == "ok"
        commits = self.committed()
        assert len(commits) == len(set(commits))
        assert self.contents() == self.expected(commits)
        self.check_truth(commits)
        assert self.names() == ["metadata.json"]
        findings = [finding.kind for finding in verify_series(self.store, self.files.key).findings]
        assert set(findings) <= {"no-instances"}

    def check_truth(self, commits: Sequence[str]) -> None:
        """Compare what every writer was told with the history."""
        for participant in self.participants:
            own = [write_id for write_id in participant.own_commits if write_id in commits]
            if participant.outcome == "ok":
                assert own == participant.own_commits, f"{participant.write} was told a success that is none"
            elif participant.outcome in CERTAINLY_NOT:
                assert own == [], f"{participant.write} was told {participant.outcome}, but its change is there"
            assert participant.outcome not in NEVER, f"{participant.write}: {participant.outcome}"

    def contents(self) -> State:
        """Return what a reader finds."""
        with self.open() as cod:
            return contents(cod)


CERTAINLY_NOT = {"LockVerificationError", "LockAcquisitionError", "InstanceNotFoundError"}
"""Errors which say that nothing was changed and nothing will be."""

NEVER = {"ConflictError", "TarValidationError", "HashMismatchError", "TarMissingInstanceError", "ErrorLogExistsError"}
"""What no fleet of our own writers ever causes, whatever happens to them."""


def contents(cod: CODObject) -> State:
    """Return all instances and custom fields of a series that is open for reading."""
    state: State = {}
    for uid, instance in cod.get_instances(strict_sorting=False).items():
        with instance.open() as stream:
            state[uid] = stream.read()
    state |= {f"field:{name}": value for name, value in cod.get_metadata().items() if name.startswith("field")}
    return state


class Reader:
    """A reader that opened the series at one moment, and reads it at others."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.commits = fleet.committed()
        self._cod = fleet.open()
        self._cod.__enter__()
        self.seen = fleet.expected(read_commits(self._cod))

    def check(self) -> None:
        """Read everything that was there when the series was opened: the same bytes, or that it is gone or replaced."""
        for uid, data in self.seen.items():
            if uid.startswith("field:"):
                continue
            try:
                with self._cod.open_instance(uid) as stream:
                    assert stream.read() == data
            except StaleReadError as error:
                if all(state.get(uid) == data for state in self._states_since()):
                    raise AssertionError(f"nobody has changed {uid}") from error

    def _states_since(self) -> Iterable[Mapping[str, Any]]:
        """Yield the states that the series has been in since it was opened."""
        commits = self._fleet.committed()
        decided = self.decided(self._fleet)
        if decided is not None and decided not in commits:
            commits.append(decided)
        for end in range(len(self.commits), len(commits)):
            yield self._fleet.expected(commits[: end + 1])

    @staticmethod
    def decided(fleet: Fleet) -> str | None:
        """Return the commit whose intent is in the lock."""
        name = fleet.files.key.lock
        if fleet.store.find(name) is None:
            return None
        intent = parse_lock(name, fleet.store.read_object(name).data).intent
        return intent.write_id if intent is not None else None

    def close(self) -> None:
        """Close the series."""
        self._cod.__exit__(None, None, None)


def read_commits(cod: CODObject) -> list[str]:
    """Return the history that an open series names."""
    return list(cod.get_metadata()["cod"]["commits"])


def before(number: int) -> Stall:
    """Stall before the operation of a 0-based number."""
    return lambda _, asked: len(asked) == number + 1


def holds_the_lock(participant: Participant, _: Sequence[Operation]) -> bool:
    """Stall before the first operation after the one that took the lock."""
    return participant.holding


def has_decided(participant: Participant, _: Sequence[Operation]) -> bool:
    """Stall before the first operation after the decision."""
    return participant.decided


def writes_metadata(participant: Participant, asked: Sequence[Operation]) -> bool:
    """Stall before the write of metadata.json."""
    return asked[-1].name == participant.fleet.files.key.metadata and asked[-1].is_write


def writes_tar(participant: Participant, asked: Sequence[Operation]) -> bool:
    """Stall before the tar is made."""
    return asked[-1].name == participant.fleet.files.key.tar and asked[-1].is_write


def tidies(participant: Participant, asked: Sequence[Operation]) -> bool:
    """Stall before the first thing that is deleted."""
    return asked[-1].kind == "delete"
