"""Every error that this package raises on purpose.

::

    CODError
    ├── CODObjectNotFoundError (LookupError)      no such series
    ├── InstanceNotFoundError (LookupError)       no such instance in the series
    ├── FrameNotFoundError (LookupError)          no such frame in the instance
    ├── WriteOperationInReadModeError             also named CleanOpOnUnlockedCODObjectError
    ├── LockAcquisitionError                      somebody else writes this series; try later
    ├── LockVerificationError                     the lock was lost; nothing visible has changed
    ├── ConflictError                             a writer outside the protocol broke in
    ├── CommitUnknownError                        it cannot be known whether the commit landed; look again later
    ├── StaleReadError                            the instance changed or went away while it was being read
    ├── ErrorLogExistsError                       the series is quarantined
    ├── TarValidationError                        the tar and the metadata do not agree
    │   ├── TarMissingInstanceError
    │   └── HashMismatchError
    ├── HintMismatchError                         a hint does not describe the file
    ├── InstanceValidationError                   the file cannot be ingested, and why
    │   ├── SeriesMismatchError                   the file belongs to another series
    │   └── InventoryError                        a table of files that cannot be used
    ├── InvalidUidError (ValueError)              a UID that must not reach a path
    ├── VolumeError                               the series does not stack into one volume, and why
    ├── SeriesMissingPixelDataError               there is nothing to make a thumbnail of
    ├── ThumbnailNotFoundError (LookupError)      there is no thumbnail of the series as it is
    ├── EditSetChangedError
    ├── RedactionError
    │   ├── RedactionTargetMissingError
    │   ├── RedactionFrameOutOfRangeError
    │   ├── RedactionBoxOutOfBoundsError
    │   └── RedactionFillValueError
    ├── FormatError                               stored or given bytes that do not follow their format
    │   ├── MetadataError
    │   ├── UnsupportedVersionError
    │   ├── FrameTableError
    │   └── FrameDecodeError                      a frame that does not decode, and why
    │       └── UnsupportedFrameError             a frame of a kind that nothing here decodes
    ├── StorageError                              the object store said no
    │   ├── ObjectNotFoundError (LookupError)
    │   ├── PreconditionFailedError               the object is not at the version that the request named
    │   ├── PermissionDeniedError
    │   ├── TransientStorageError                 still failing after every retry
    │   └── WriteUnknownError                     a conditional write whose outcome could not be read back
    └── MissingDependencyError (ImportError)      names the extra to install

Errors carry fields, not prose to be parsed; all of them pickle, because they cross worker processes.  No text holds a
DICOM header value other than a UID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


def _rebuild(cls: type[CODError], args: tuple[Any, ...], fields: dict[str, Any]) -> CODError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


class CODError(Exception):
    """Base of every error of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ replays args through __init__, which fits no constructor that takes fields.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class _ReasonedError(Exception):
    """What several errors are made of: where, and why."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{uri}: {reason}")
        self.uri = uri
        self.reason = reason


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
        super().__init__(f"{operation} needs a writing mode ('w' or 'a'), but {uri or 'the series'} is open with 'r'")
        self.operation = operation
        self.uri = uri


CleanOpOnUnlockedCODObjectError = WriteOperationInReadModeError


class LockAcquisitionError(CODError):
    """Another writer holds the lock of the series.

    Parameters
    ----------
    uri
        The lock's URI.
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
        self.uri = uri
        self.owner = owner
        self.age_seconds = age_seconds
        self.expires = expires

    @property
    def age(self) -> float:
        """Seconds since the lock was last renewed, by the server's clock."""
        return self.age_seconds


class LockVerificationError(CODError):
    """The lock is no longer ours; nothing visible has changed."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"lost the lock {uri}: {reason}")
        self.uri = uri
        self.reason = reason


class ConflictError(CODError):
    """A writer that does not follow the commit protocol changed the series under our lock."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{uri} was changed from outside the commit protocol: {reason}")
        self.uri = uri
        self.reason = reason


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


class TarValidationError(CODError, _ReasonedError):
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


class HintMismatchError(CODError):
    """A hint that does not describe the file it was given for."""

    def __init__(self, uri: str, field: str, hinted: str | int, found: str | int) -> None:
        super().__init__(f"{uri}: hinted {field} is {hinted}, found {found}")
        self.uri = uri
        self.field = field
        self.hinted = hinted
        self.found = found


class InstanceValidationError(CODError, _ReasonedError):
    """A file that cannot be ingested; `reason` says why, without any header value."""


class SeriesMismatchError(InstanceValidationError):
    """A file of another series."""

    def __init__(self, uri: str, found: str, expected: str) -> None:
        super().__init__(uri, f"belongs to {found}, not to {expected}")
        self.found = found
        self.expected = expected


class InventoryError(InstanceValidationError):
    """A table of files that cannot be used: it cannot be read, or no column says where the files are."""


class InvalidUidError(CODError, ValueError):
    """A UID that is not 1 to 64 digits and dots; it never reaches a path."""

    def __init__(self, kind: str, length: int) -> None:
        super().__init__(f"{kind} UID of {length} characters is not 1 to 64 digits and dots")
        self.kind = kind
        self.length = length


class VolumeError(CODError, _ReasonedError):
    """Frames that do not stack into one volume; `reason` says why."""


class SeriesMissingPixelDataError(CODError, _ReasonedError):
    """A picture was asked of a series whose instances have no pixel data."""


class ThumbnailNotFoundError(CODError, _ReasonedError, LookupError):
    """The series has no thumbnail that shows what it holds now, and none was to be made."""


class EditSetChangedError(CODError):
    """An edit that would have changed which instances the series holds."""

    def __init__(self, uri: str, added: Sequence[str], removed: Sequence[str]) -> None:
        super().__init__(f"{uri}: an edit must keep the set of instances; added {len(added)}, removed {len(removed)}")
        self.uri = uri
        self.added = tuple(added)
        self.removed = tuple(removed)


class RedactionError(CODError):
    """A redaction that cannot be applied; nothing was changed."""


class RedactionTargetMissingError(RedactionError):
    """A redaction names an instance that the series does not hold."""


class RedactionFrameOutOfRangeError(RedactionError):
    """A redaction names a frame that the instance does not hold."""


class RedactionBoxOutOfBoundsError(RedactionError):
    """A redaction box that leaves the image."""


class RedactionFillValueError(RedactionError):
    """A fill value that the pixels cannot hold."""


class FormatError(CODError):
    """Bytes that do not follow the format they claim."""


class MetadataError(FormatError):
    """A metadata.json that cannot be understood.

    Parameters
    ----------
    uri
        Where it lies.
    problems
        One line per problem: the JSON path and what is wrong there, without values.
    """

    def __init__(self, uri: str, problems: Sequence[str]) -> None:
        super().__init__(f"{uri}: " + "; ".join(problems))
        self.uri = uri
        self.problems = tuple(problems)


class UnsupportedVersionError(FormatError):
    """A format version that this release does not know."""

    def __init__(self, uri: str, version: str) -> None:
        super().__init__(f"{uri}: format version {version} is not supported by this release")
        self.uri = uri
        self.version = version


class FrameTableError(FormatError):
    """A frame table that does not describe the pixel data."""

    def __init__(self, instance: str, reason: str) -> None:
        super().__init__(f"{instance}: {reason}")
        self.instance = instance
        self.reason = reason


class FrameDecodeError(FormatError):
    """A frame (0-based) that does not decode; `reason` says why, without any header value."""

    def __init__(self, instance: str, frame: int, transfer_syntax_uid: str, reason: str) -> None:
        super().__init__(f"frame {frame} of {instance or 'an instance'} ({transfer_syntax_uid}): {reason}")
        self.instance = instance
        self.frame = frame
        self.transfer_syntax_uid = transfer_syntax_uid
        self.reason = reason


class UnsupportedFrameError(FrameDecodeError):
    """A frame that may well be sound, but of a transfer syntax or kind of pixels that nothing here decodes."""


class StorageError(CODError):
    """The object store refused or failed; `name` is the object's URL."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class ObjectNotFoundError(StorageError, LookupError):
    """No object of this name (or not at the version that was asked for)."""

    def __init__(self, name: str, reason: str = "not found") -> None:
        super().__init__(name, reason)


class PreconditionFailedError(StorageError):
    """The object is not at the version that the request named, so nothing was done."""

    def __init__(self, name: str, expected: str | None, found: str | None = None) -> None:
        super().__init__(name, f"expected version {expected or 'absent'}" + (f", found {found}" if found else ""))
        self.expected = expected
        self.found = found


class PermissionDeniedError(StorageError):
    """Credentials that do not allow the operation."""


class TransientStorageError(StorageError):
    """A failure that may pass, still there after every retry."""


class WriteUnknownError(StorageError):
    """A conditional write whose outcome could not be established; it may still land."""

    def __init__(self, name: str, write_id: str, reason: str) -> None:
        super().__init__(name, f"cannot tell whether write {write_id} landed: {reason}")
        self.write_id = write_id


class MissingDependencyError(CODError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'cloud-optimized-dicom[{extra}]'")
        self.feature = feature
        self.extra = extra
