"""What is concluded about a conditional write, from what its attempts and the object itself say."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from google.api_core.exceptions import TooManyRequests

from cloud_optimized_dicom.errors import (
    InstanceValidationError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.storage.gcs_errors import sdk_errors
from cloud_optimized_dicom.storage.gcs_settle import PendingWrite, settle
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.retry import RetryBudget, RetryPolicy
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, StoreFault, StoreFaultKind
from cloud_optimized_dicom.testing.store_writes import content, put, put_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore

    Step = Callable[[], ObjectInfo]

THREE = RetryPolicy(initial_seconds=0.0001, maximum_seconds=0.0001, attempts=3)
URL = "memory://x/a"


@pytest.fixture
def store() -> ObjectStore:
    """Return an empty store."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


def lost() -> ObjectInfo:
    """Lose the response."""
    raise TransientStorageError(URL, "connection failed")


def busy() -> ObjectInfo:
    """Be told to come later."""
    with sdk_errors(URL):
        raise TooManyRequests("slow down")  # type: ignore[no-untyped-call]
    raise AssertionError


def refused() -> ObjectInfo:
    """Be refused."""
    raise PreconditionFailedError(URL, None)


def source_gone() -> ObjectInfo:
    """Be told that a source is not there."""
    raise ObjectNotFoundError(URL)


def forbidden() -> ObjectInfo:
    """Be told that we must not."""
    raise PermissionDeniedError(URL, "HTTP 403")


class Script:
    """Attempts that go as written; one after the last step fails the test."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)

    def __call__(self, _budget: RetryBudget) -> ObjectInfo:
        """Take the next step."""
        return self.steps.pop(0)()


def test_success_at_once(store: ObjectStore) -> None:
    """A write that is answered is done."""
    script = Script(lambda: put(store, "a", b"x", "mine"))
    assert settle(PendingWrite(store, "a", None, "mine"), script, THREE) == store.stat("a")


def test_refusal_by_our_own_object(store: ObjectStore) -> None:
    """A write that landed unheard and is then refused because of itself has succeeded."""

    def landed_unheard() -> ObjectInfo:
        put(store, "a", b"x", "mine")
        return lost()

    script = Script(landed_unheard, refused)
    assert settle(PendingWrite(store, "a", None, "mine"), script, THREE).write_id == "mine"


def test_refusal_by_another_version(store: ObjectStore) -> None:
    """A refusal counts as soon as the object has moved past the version that was named."""
    first = put(store, "a", b"first")
    second = put_over(store, "a", b"theirs", first.version)
    with pytest.raises(PreconditionFailedError) as caught:
        settle(PendingWrite(store, "a", first.version, "mine"), Script(refused), THREE)
    assert (caught.value.expected, caught.value.found) == (first.version, second.version)


def test_refusal_while_nothing_has_moved_is_no_answer(store: ObjectStore) -> None:
    """Refused although the object still is at the named version: the same request is repeated."""
    first = put(store, "a", b"first")
    script = Script(refused, refused, lambda: put_over(store, "a", b"ours", first.version))
    settle(PendingWrite(store, "a", first.version, "mine"), script, THREE)
    assert content(store, "a") == b"ours"
    assert script.steps == []


def test_refusals_to_the_end_are_unknown(store: ObjectStore) -> None:
    """Refused to the end although nothing has moved: an attempt may still be under way."""
    first = put(store, "a", b"first")
    with pytest.raises(WriteUnknownError) as caught:
        settle(PendingWrite(store, "a", first.version, "mine"), Script(refused, refused, refused), THREE)
    assert caught.value.write_id == "mine"


def test_create_refused_by_an_object_that_is_gone_again(store: ObjectStore) -> None:
    """A create that is refused while there is no object is repeated."""
    script = Script(refused, lambda: put(store, "a", b"ours", "mine"))
    assert settle(PendingWrite(store, "a", None, "mine"), script, THREE).write_id == "mine"


def test_lost_to_the_end_but_landed(store: ObjectStore) -> None:
    """No response ever, but the object says that it is ours."""

    def landed_unheard() -> ObjectInfo:
        put(store, "a", b"x", "mine")
        return lost()

    script = Script(lost, lost, landed_unheard)
    assert settle(PendingWrite(store, "a", None, "mine"), script, THREE).write_id == "mine"


def test_lost_to_the_end(store: ObjectStore) -> None:
    """No response ever, and nothing to be seen: unknown."""
    with pytest.raises(WriteUnknownError):
        settle(PendingWrite(store, "a", None, "mine"), Script(lost, lost, lost), THREE)


def test_busy_to_the_end(store: ObjectStore) -> None:
    """Only ever told to come later: nothing happened, and that is known."""
    with pytest.raises(TransientStorageError):
        settle(PendingWrite(store, "a", None, "mine"), Script(busy, busy, busy), THREE)


@pytest.mark.parametrize(
    ("steps", "error"), [([forbidden], PermissionDeniedError), ([lost, forbidden], WriteUnknownError)]
)
def test_other_refusals(store: ObjectStore, steps: list[Step], error: type[StorageError]) -> None:
    """An error of another kind is told as it is, unless an earlier attempt may have landed."""
    with pytest.raises(error):
        settle(PendingWrite(store, "a", None, "mine"), Script(*steps), THREE)


def source_lost() -> ObjectInfo:
    """Find that the file which is to be sent is gone."""
    raise FileNotFoundError(2, "No such file or directory", "x.dcm")


def source_bad() -> ObjectInfo:
    """Find that the file which is to be sent cannot be read."""
    raise InstanceValidationError("x.zip://1.dcm", "the archive ends inside this member")


@pytest.mark.parametrize(
    ("unreadable", "error"), [(source_lost, FileNotFoundError), (source_bad, InstanceValidationError)]
)
def test_a_payload_that_cannot_be_read_again(store: ObjectStore, unreadable: Step, error: type[Exception]) -> None:
    """What keeps a repetition from being sent says nothing of the attempt before: that one may still land."""
    with pytest.raises(error):
        settle(PendingWrite(store, "a", None, "mine"), Script(unreadable), THREE)
    with pytest.raises(WriteUnknownError) as caught:
        settle(PendingWrite(store, "a", None, "mine"), Script(lost, unreadable), THREE)
    assert caught.value.write_id == "mine"


def test_reading_back_fails(store: ObjectStore) -> None:
    """Refused, and nobody can look why: unknown."""
    blind = FaultyStore(store, [StoreFault(StoreFaultKind.FAIL, "stat", times=None)])
    with pytest.raises(WriteUnknownError):
        settle(PendingWrite(blind, "a", None, "mine"), Script(refused), THREE)


def test_missing_source(store: ObjectStore) -> None:
    """A source that is gone is an answer where the object has not moved, and nothing at all where it is ours."""
    first = put(store, "a", b"first")
    write = PendingWrite(store, "a", first.version, "mine", [ConcatSource("gone", "7")])
    with pytest.raises(ObjectNotFoundError):
        settle(write, Script(source_gone), THREE)

    def landed_unheard() -> ObjectInfo:
        store.concat("a", [ConcatSource("a")], version=first.version, write_id="mine")
        return lost()

    assert settle(write, Script(landed_unheard, source_gone), THREE).write_id == "mine"


def test_missing_source_after_others_went_on(store: ObjectStore) -> None:
    """A source that is gone because somebody finished the work and went on is a refusal."""
    first = put(store, "a", b"first")
    put_over(store, "a", b"theirs", first.version)
    with pytest.raises(PreconditionFailedError):
        settle(PendingWrite(store, "a", first.version, "mine", [ConcatSource("gone")]), Script(source_gone), THREE)


def test_stale_source(store: ObjectStore) -> None:
    """A refusal because of a source is told of that source, at once."""
    part = put(store, "part", b"first")
    put_over(store, "part", b"second", part.version)
    write = PendingWrite(store, "a", None, "mine", [ConcatSource("part", part.version)])
    with pytest.raises(PreconditionFailedError) as caught:
        settle(write, Script(refused), THREE)
    assert caught.value.name == store.url_of("part")
