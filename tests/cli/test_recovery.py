"""The operator's verbs: locks, recover, unlock, and what verify mends."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.cli.locks import age_text
from cloud_optimized_dicom.format.json_stream import dump_gzip
from cloud_optimized_dicom.format.metadata.document import parse_json_object
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.uids import SeriesKey
from tests.cli.test_verbs import GOLDEN, golden_series
from tests.core.test_verify import DyingStore, PowerCut, write_over
from tests.core.tiny import KEY, append_tiny, open_tiny, uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.cli.conftest import Cod, Done


@dataclass
class Place:
    """A datastore with the tiny series in it, and ways to have its writer die."""

    url: str
    store: ObjectStore
    folder: Path

    @property
    def series(self) -> str:
        """Where the series is."""
        return self.store.url_of(KEY.folder)

    def die(self, reached: Callable[[], bool]) -> None:
        """Append instance 1 by a writer that dies as soon as something is so, or before the last step."""
        for lives in range(30):
            try:
                append_tiny(DyingStore(self.store, lives), self.folder, 1)
            except PowerCut:
                if reached():
                    return
                self.expire()
                assert next(Datastore(self.store).recover([KEY])).outcome != "busy"
        raise AssertionError("it never came to that")

    def expire(self) -> None:
        """Let the lease run out."""
        if self.store.find(KEY.lock):
            lock = parse_json_object("x", self.store.read_object(KEY.lock).data)
            lock["lock"]["lease_seconds"] = -60  # clocks of servers tell whole seconds
            write_over(self.store, KEY.lock, dump_gzip(lock, level=1))

    def leave(self, state: str) -> None:
        """Leave the series as a writer does that dies having staged, or having decided."""
        reached = {
            "staged": lambda: any(self.store.list(KEY.pending)),
            "decided": lambda: any(state.decided for state in Datastore(self.store).locks([KEY])),
        }
        self.die(reached[state])

    def uids(self) -> list[str]:
        """Return the UIDs of the instances."""
        with open_tiny(self.store) as cod:
            return list(cod.get_instances())


@pytest.fixture
def place(store_url: str, store: ObjectStore, tmp_path: Path) -> Place:
    """Return a store of each kind that holds instance 0."""
    append_tiny(store, tmp_path, 0)
    return Place(store_url, store, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Place:
    """Return a local store that holds instance 0."""
    datastore = Datastore(tmp_path / "datastore")
    append_tiny(datastore.store, tmp_path, 0)
    return Place(datastore.url, datastore.store, tmp_path)


def lines(done: Done) -> list[str]:
    """Return what was printed on stdout."""
    return done.out.splitlines()


# -- locks


def test_locks_tells_who_holds_what(place: Place, cod: Cod) -> None:
    """A lock is listed with owner, age, lease and what it decided, on every store; a series without one is not."""
    assert lines(cod("locks", place.url)) == ["no locks"]
    with open_tiny(place.store, "a"):
        titles, row = lines(cod("locks", place.url))
        assert titles.split() == ["OWNER", "AGE", "LEASE", "ENDS", "EXPIRED", "DECIDED", "COMMIT", "SERIES"]
        assert row.split()[-3:] == ["no", "-", place.series]
        (lock,) = cod("locks", place.series, "--json").document["locks"]
    assert lock["owner"] in row
    assert (lock["series"], lock["lock"]) == (place.series, f"{place.series}/.gradient.lock")
    assert (lock["expired"], lock["decided_commit"], lock["holds_instances"]) == (False, None, False)
    place.leave("decided")
    place.expire()
    (lock,) = cod("locks", f"{place.url}/studies/{KEY.study_uid}", "--json").document["locks"]
    assert (lock["expired"], bool(lock["decided_commit"])) == (True, True)
    assert lines(cod("locks", place.url))[1].split()[-3:] == ["yes", lock["decided_commit"], place.series]


def test_locks_tells_older_writers_and_damage(local: Place, cod: Cod) -> None:
    """A lock without a lease is an older writer's; one that cannot be read is damage and hides no other."""
    done = cod("locks", GOLDEN / "v2-hanging-lock")
    assert done.code == 0
    assert lines(done)[1].startswith("an older writer  ")
    assert "  -           no lease  -  " in lines(done)[1]
    other = SeriesKey(KEY.study_uid, "9.9")
    write_over(local.store, other.lock, dump_gzip({"lock": {}}, level=1))
    with open_tiny(local.store, "a"):
        done = cod("locks", local.url)
        assert done.code == 5
        assert local.series in lines(done)[1]
        assert lines(done)[2].startswith(f"error  {local.store.url_of(other.folder)}: ")
        document = cod("locks", local.url, "--json").document
    assert [failure["error"] for failure in document["failed"]] == ["MetadataError"]
    assert len(document["locks"]) == 1


def test_ages_are_told_in_two_units() -> None:
    """An age has its largest unit and the next; a clock that went back gives none below zero."""
    ages = (-3, 0.9, 59, 60, 3599, 3600, 86399, 86400, 200000)
    told = "0 s|0 s|59 s|1 min 0 s|59 min 59 s|1 h 0 min|23 h 59 min|1 d 0 h|2 d 7 h"
    assert "|".join(map(age_text, ages)) == told


# -- recover


def test_recover_finishes_sweeps_and_leaves_the_living_alone(place: Place, cod: Cod) -> None:
    """What was decided is finished, what was only staged is swept, a live lock is busy and exits with 4."""
    nothing = "1 series: 0 finished, 0 swept, 0 busy, 0 failed"
    assert lines(cod("recover", place.url)) == [nothing]
    place.leave("staged")
    done = cod("recover", place.url)
    assert done.code == 4
    assert lines(done)[0].startswith(f"busy     {place.series}: {place.series}/.gradient.lock is held by ")
    place.expire()
    done = cod("recover", place.series)
    assert (done.code, lines(done)) == (0, [f"swept    {place.series}", nothing.replace("0 swept", "1 swept")])
    assert place.uids() == [uid(0)]
    place.leave("decided")
    place.expire()
    document = cod("recover", place.url, "--json").document
    assert document == {"series": [{"series": place.series, "outcome": "finished", "reason": None}], "looked_at": 1}
    assert place.uids() == [uid(0), uid(1)]
    assert lines(cod("recover", place.url)) == [nothing]
    assert verify_series(place.store, KEY).ok


def test_recover_waits_if_told(local: Place, cod: Cod) -> None:
    """With --wait a series whose lease is about to run out is recovered rather than called busy."""
    local.leave("decided")
    lock = parse_json_object("x", local.store.read_object(KEY.lock).data)
    lock["lock"]["lease_seconds"] = 1.0
    write_over(local.store, KEY.lock, dump_gzip(lock, level=1))
    done = cod("recover", local.url, "--wait", "60")
    assert (done.code, lines(done)[0]) == (0, f"finished {local.series}")


def test_recover_goes_on_past_what_fails(local: Place, cod: Cod) -> None:
    """A series that cannot be recovered is listed with the reason and exits with 1; the others are recovered."""
    local.leave("staged")
    local.expire()
    other = SeriesKey(KEY.study_uid, "9.9")
    write_over(local.store, other.lock, dump_gzip({"lock": {}}, level=1))
    done = cod("recover", local.url)
    assert done.code == 1
    assert f"swept    {local.series}" in lines(done)
    assert any(line.startswith(f"failed   {local.store.url_of(other.folder)}: ") for line in lines(done))
    assert lines(done)[-1] == "2 series: 0 finished, 1 swept, 0 busy, 1 failed"


# -- a commit whose segments have vanished


def test_a_commit_that_lost_its_segments_is_given_up_by_hand(place: Place, cod: Cod) -> None:
    """It fails to recover and says what to do; after --discard-intent the series is what it was, and can be written."""
    place.leave("decided")
    for info in list(place.store.list(KEY.pending)):
        place.store.delete(info.name)
    place.expire()
    failed = cod("recover", place.url)
    assert failed.code == 1
    assert "has vanished; `cod recover --discard-intent` gives that commit up" in failed.out
    assert cod("recover", place.series, "--discard-intent", "--yes").code == 4, "the one who just failed holds it"
    place.expire()
    refused = cod("recover", place.series, "--discard-intent")
    assert refused.code == 2
    assert "is decided but not finished" in refused.out
    done = cod("recover", place.series, "--discard-intent", "--yes")
    assert done.code == 0
    assert any(line.startswith(f"swept    {place.series}: commit ") for line in lines(done))
    assert place.uids() == [uid(0)]
    assert [finding.kind for finding in verify_series(place.store, KEY).findings] == ["error-log"]
    place.store.delete(KEY.error_log)
    append_tiny(place.store, place.folder, 1)
    assert verify_series(place.store, KEY).ok


def test_a_first_commit_that_is_given_up_leaves_nothing_damaged(tmp_path: Path, cod: Cod) -> None:
    """Where there was no series before, an empty tar remains, which is no damage, and the next writer goes on."""
    datastore = Datastore(tmp_path / "datastore")
    place = Place(datastore.url, datastore.store, tmp_path)
    place.leave("decided")
    for info in list(place.store.list(KEY.pending)):
        place.store.delete(info.name)
    place.expire()
    assert cod("recover", place.series, "--discard-intent", "--yes").code == 0
    assert cod("verify", place.url).code == 0
    assert cod("locks", place.series).out == "no locks\n"
    append_tiny(place.store, tmp_path, 1)
    assert verify_series(place.store, KEY).ok


def test_a_commit_that_can_be_finished_is_not_given_up(local: Place, cod: Cod) -> None:
    """With all its segments there, --discard-intent finishes; with no lock it has nothing to do."""
    local.leave("decided")
    local.expire()
    done = cod("recover", local.series, "--discard-intent", "--yes")
    assert (done.code, lines(done)[-2]) == (0, f"finished {local.series}")
    assert local.uids() == [uid(0), uid(1)]
    done = cod("recover", local.series, "--discard-intent")
    assert (done.code, lines(done)) == (0, ["1 series: 0 finished, 0 swept, 0 busy, 0 failed"])


# -- unlock


def test_unlock_says_what_it_will_do_and_does_it(place: Place, cod: Cod) -> None:
    """A dead writer's lock goes, after the commit that it had decided was finished; a live one is refused."""
    assert lines(cod("unlock", place.series)) == [f"{place.series} has no lock"]
    place.leave("staged")
    live = cod("unlock", place.series, "--yes")
    assert (live.code, live.out) == (4, "")
    assert "is held by" in live.err
    place.expire()
    assert cod("unlock", place.series).code == 2, "there is nobody to ask"
    done = cod("unlock", place.series, "--yes")
    assert done.code == 0
    assert "no commit was decided" in done.out
    assert lines(done)[-1] == f"{place.series}: unlocked"
    assert not list(place.store.list(KEY.pending))
    place.leave("decided")
    place.expire()
    done = cod("unlock", place.series, "--yes", "--json")
    assert done.document["outcome"] == "finished"
    assert done.document["lock"]["decided_commit"]
    assert place.uids() == [uid(0), uid(1)]
    assert verify_series(place.store, KEY).ok


def test_unlock_lets_go_of_an_older_writers_lock(tmp_path: Path, cod: Cod) -> None:
    """A lock without a lease, which nobody takes over by itself, goes when an operator says so; the series stays."""
    shutil.copytree(GOLDEN / "v2-hanging-lock", tmp_path / "store")
    series = tmp_path / "store" / golden_series("v2-hanging-lock").relative_to(GOLDEN / "v2-hanging-lock")
    before = series.read_bytes()
    assert cod("recover", tmp_path / "store").code == 4
    done = cod("unlock", series, "--yes")
    assert done.code == 0
    assert "is an older writer's lock" in done.out
    assert "make sure that it is not" in done.out
    assert "verify afterwards" in done.out
    assert cod("locks", tmp_path / "store").out == "no locks\n"
    assert series.read_bytes() == before
    assert cod("verify", tmp_path / "store").out.startswith("ok ")


# -- verify


def test_verify_repairs_and_verifies_again(tmp_path: Path, cod: Cod) -> None:
    """Each mending is a line, the verdict behind them is that of the mended series, and a second run mends nothing."""
    shutil.copytree(GOLDEN / "v2-rtdose", tmp_path / "store")
    assert cod("verify", tmp_path / "store").out.startswith("odd ")
    done = cod("verify", tmp_path / "store", "--repair", "--deep")
    assert done.code == 0
    assert [line.split()[0] for line in lines(done)] == ["repaired", "repaired", "ok", "1"]
    assert "frame table rebuilt, 15 frames" in done.out
    document = cod("verify", tmp_path / "store", "--repair", "--json").document
    (repair,) = document["repairs"]
    assert (repair["actions"], repair["reason"]) == ([], None)
    assert cod("verify", tmp_path / "store", "--json").document["repairs"] == []


def test_verify_cannot_repair_what_somebody_writes(local: Place, cod: Cod) -> None:
    """A series that is held is verified but not repaired, and the command exits with 4."""
    with open_tiny(local.store, "a"):
        done = cod("verify", local.url, "--repair")
    assert done.code == 4
    assert lines(done)[0].startswith(f"not repaired {local.series}: ")
    assert lines(done)[1].startswith(f"odd      {local.series}")


def test_verify_looks_as_deep_and_as_far_as_told(local: Place, cod: Cod) -> None:
    """--deep finds a record that is not its file's; --sample N compares N instances of a series."""
    append_tiny(local.store, local.folder, 1, 2, 3)
    sampled = cod("verify", local.url, "--sample", "1", "--json").document["series"][0]
    whole = cod("verify", local.url, "--json").document["series"][0]
    assert sampled["instances"] == whole["instances"] == 4
    assert 0 < sampled["bytes_checked"] < whole["bytes_checked"]
    raw: Any = parse_json_object("x", local.store.read_object(KEY.metadata).data)
    raw["cod"]["instances"][uid(0)]["series_uid"] = "1.2.3"
    write_over(local.store, KEY.metadata, dump_gzip(raw, level=1))
    assert cod("verify", local.url).code == 0
    deep = cod("verify", local.url, "--deep", "--json")
    assert deep.code == 5
    assert [found["kind"] for found in deep.document["series"][0]["findings"]] == ["content-mismatch"]
    assert json.loads(deep.out)["failed"] == []


def test_a_series_of_which_only_a_lock_exists_is_no_failure(tmp_path: Path, cod: Cod) -> None:
    """Before its first commit a series has nothing but a lock: every operator's verb copes with that."""
    store = Datastore(tmp_path / "store").store
    with open_tiny(store, "a"):
        assert cod("verify", tmp_path / "store").code == 0
        assert cod("verify", store.url_of(KEY.folder)).code == 0
        assert cod("recover", store.url_of(KEY.folder)).code == 4
        assert len(lines(cod("locks", store.url_of(KEY.folder)))) == 2
    assert cod("locks", store.url_of(KEY.folder)).code == 3
