"""Whether a conditional write landed, when the answer may be about an earlier attempt of the same write.

A response can get lost after the request took effect; the next attempt is then refused because of our own object.  And
a request that timed out may still take effect for as long as its precondition holds.  So (design note on commits,
"Facts that bind") a refusal is answered by reading the object back.  Our write id: success.  Another version than the
one that the request named: refused.  Still the named version: nothing is known yet; the same request is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    CODError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.storage import _rules as rules
from cloud_optimized_dicom.storage.gcs_errors import nothing_was_done
from cloud_optimized_dicom.storage.retry import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.storage.base import ConcatSource, ObjectInfo, ObjectStore
    from cloud_optimized_dicom.storage.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A conditional write: the store, the object, the version that it names, its id, and the sources of a concat."""

    store: ObjectStore
    name: str
    version: str | None
    write_id: str
    sources: Sequence[ConcatSource] = ()

    @property
    def url(self) -> str:
        """The object's URL."""
        return self.store.url_of(self.name)

    def unknown(self, reason: str) -> WriteUnknownError:
        """Return the error that says that nobody can tell."""
        return WriteUnknownError(self.url, self.write_id, reason)


def settle(write: PendingWrite, attempt: Callable[[RetryBudget], ObjectInfo], policy: RetryPolicy) -> ObjectInfo:
    """Repeat one and the same request until its outcome is known.

    Raises
    ------
    PreconditionFailedError, ObjectNotFoundError
        If it was refused for good.
    WriteUnknownError
        If it cannot be known now whether it took effect, or will.
    StorageError, CODError, OSError, ValueError
        For anything else that the store says, or that keeps the payload from being read, while it is certain that no
        attempt took effect.
    """
    budget = RetryBudget(policy)
    in_doubt = False
    failure: StorageError
    while True:
        try:
            return attempt(budget)
        except (PreconditionFailedError, ObjectNotFoundError) as refusal:
            landed = _read_back(write, refusal)
            if landed is not None:
                return landed
            in_doubt, failure = True, refusal
        except TransientStorageError as error:
            in_doubt, failure = in_doubt or not nothing_was_done(error), error
        except (CODError, OSError, ValueError) as error:  # also of the payload, which every attempt reads again
            if in_doubt:
                raise write.unknown(getattr(error, "reason", None) or type(error).__name__) from error
            raise
        if not budget.pause():
            if in_doubt:
                return _last_look(write, failure)
            raise failure


def _read_back(write: PendingWrite, refusal: StorageError) -> ObjectInfo | None:
    """Return our own object, or None where the request must be repeated; raise where it is refused for good."""
    present = _find(write, refusal)
    landed = rules.judge(write.url, present, write.version, write.write_id)
    if landed is not None:
        return landed
    if isinstance(refusal, ObjectNotFoundError):
        # A source that is gone does not come back: no attempt that is still under way can take effect either.
        raise refusal
    for source in write.sources:
        if source.version is not None:
            rules.check_source(write.store.url_of(source.name), _version(write, source.name), source.version)
    return None


def _version(write: PendingWrite, name: str) -> str:
    try:
        return write.store.stat(name).version
    except TransientStorageError as error:
        raise write.unknown("its sources cannot be read back") from error


def _find(write: PendingWrite, cause: StorageError) -> ObjectInfo | None:
    try:
        return write.store.find(write.name)
    except StorageError as error:
        raise write.unknown(f"{cause.reason}; reading back: {error.reason}") from error


def _last_look(write: PendingWrite, failure: StorageError) -> ObjectInfo:
    present = _find(write, failure)
    if present is not None and present.write_id == write.write_id:
        return present
    raise write.unknown(failure.reason) from failure
