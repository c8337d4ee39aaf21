"""What an object store says no with."""

from __future__ import annotations

from cloud_optimized_dicom.errors.base import CODError


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
