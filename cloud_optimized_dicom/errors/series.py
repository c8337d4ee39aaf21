"""What can be wrong with a series, its lock, its commit, or what is asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors.base import CODError, ReasonedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class CODObjectNotFoundError(CODError, LookupError):
    """The series does not exist."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"no series at {uri}")
        self.uri = uri


class InstanceNotFoundError(CODError, LookupError):
    """The series holds no such instance."""

    def __init__(self, instance: str, series_uri: str = "") -> None:
        super().__init__(f"no instance {instance} in {series_uri or 'the series'}")
        self.instance = instance
        self.series_uri = series_uri


class FrameNotFoundError(CODError, LookupError):
    """The instance holds no such frame (frames count from 0)."""

    def __init__(self, instance_uid: str, frame: int, frames: int) -> None:
        super().__init__(f"instance {instance_uid} has frames 0 to {frames - 1}, not {frame}" if frames
                         else f"instance {instance_uid} has no frames")  # fmt: skip
        self.instance_uid = instance_uid
        self.frame = frame
        self.frames = frames


class WriteOperationInReadModeError(CODError):
    """A write was asked of a series that is open for reading."""

    def __init__(self, operation: str, uri: str = "") -> None:
        super().__init__(f"{operation} needs a writing mode, but {uri or 'the series'} is open with 'r'")
        self.operation, self.uri = operation, uri


CleanOpOnUnlockedCODObjectError = WriteOperationInReadModeError


class LockAcquisitionError(CODError):
    """Another writer holds the lock of the series.

    Parameters
    ----------
    owner
        Who holds it, or None where an older writer left no name.
    age_seconds
        By the server's clock.
    expires
        When the lease ends, or None for a lock without a lease.
    """

    def __init__(self, uri: str, owner: str | None, age_seconds: float, expires: datetime | None) -> None:
        until = f"its lease ends {expires.isoformat()}" if expires else "it has no lease"
        super().__init__(f"{uri} is held by {owner or 'an unknown writer'} for {age_seconds:.0f} s; {until}")
        self.uri, self.owner, self.age_seconds, self.expires = uri, owner, age_seconds, expires

    @property
    def age(self) -> float:
        """Seconds since the lock was last renewed, by the server's clock."""
        return self.age_seconds


class LockVerificationError(CODError, ReasonedError):
    """The lock is no longer ours; nothing visible has changed."""

    _text = "lost the lock {uri}: {reason}"


class ConflictError(CODError, ReasonedError):
    """A writer that does not follow the commit protocol changed the series under our lock."""

    _text = "{uri} was changed from outside the commit protocol: {reason}"


class CommitUnknownError(CODError):
    """It cannot be known now whether the commit was decided; `write_id` in ``cod.commits`` tells later."""

    def __init__(self, uri: str, write_id: str) -> None:
        super().__init__(f"cannot tell whether commit {write_id} of {uri} was decided; cod.commits tells later")
        self.uri = uri
        self.write_id = write_id


class StaleReadError(CODError):
    """What was being read was removed or replaced meanwhile."""

    def __init__(self, uri: str, instance_uid: str, reason: str) -> None:
        super().__init__(f"instance {instance_uid} of {uri}: {reason}")
        self.uri = uri
        self.instance_uid = instance_uid
        self.reason = reason


class ErrorLogExistsError(CODError):
    """The series is quarantined by an error.log; writers refuse unless told to override it."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri} exists: the series is quarantined; look at it, then pass override_errors=True")
        self.uri = uri


class TarValidationError(CODError, ReasonedError):
    """The tar is not what the metadata says."""


class TarMissingInstanceError(TarValidationError):
    """An instance of the metadata is not in the tar where it should be."""

    def __init__(self, uri: str, instance_uid: str, reason: str) -> None:
        super().__init__(uri, f"instance {instance_uid}: {reason}")
        self.instance_uid = instance_uid


class HashMismatchError(TarValidationError):
    """Stored bytes whose CRC32C is not the recorded one."""

    def __init__(self, uri: str, instance_uid: str, expected: str, found: str) -> None:
        super().__init__(uri, f"instance {instance_uid}: CRC32C is {found}, recorded {expected}")
        self.instance_uid = instance_uid
        self.expected = expected
        self.found = found


class VolumeError(CODError, ReasonedError):
    """Frames that do not stack into one volume; `reason` says why."""


class SeriesMissingPixelDataError(CODError, ReasonedError):
    """A picture was asked of a series whose instances have no pixel data."""


class ThumbnailNotFoundError(CODError, ReasonedError, LookupError):
    """The series has no thumbnail that shows what it holds now, and none was to be made."""


class EditSetChangedError(CODError):
    """Mode "e" keeps which instances a series holds: SOP Instance UIDs; `moved`: those given to another series."""

    def __init__(self, uri: str, added: Sequence[str], removed: Sequence[str], moved: Sequence[str] = ()) -> None:
        counts = f"added {len(added)}, removed {len(removed)}, moved to another series {len(moved)}"
        super().__init__(f"{uri}: an edit must keep the set of instances; {counts}")
        self.uri, self.added, self.removed, self.moved = uri, tuple(added), tuple(removed), tuple(moved)


class EditModeError(CODError):
    """`operation` is not for the mode that the series is open in: only mode "e" edits, and it does nothing else."""

    def __init__(self, operation: str, uri: str, mode: str) -> None:
        needed = "'a' or 'w'" if mode == "e" else "'e'"
        super().__init__(f"{operation} needs mode {needed}, but {uri} is open with {mode!r}")
        self.operation, self.uri, self.mode = operation, uri, mode
