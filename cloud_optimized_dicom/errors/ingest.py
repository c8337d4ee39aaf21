"""What can be wrong with a file that is to be stored, with what is claimed of it, and with its sources."""

from __future__ import annotations

from cloud_optimized_dicom.errors.base import CODError, ReasonedError


class HintMismatchError(CODError):
    """A hint that does not describe the file it was given for."""

    def __init__(self, uri: str, field: str, hinted: str | int, found: str | int) -> None:
        super().__init__(f"{uri}: hinted {field} is {hinted}, found {found}")
        self.uri, self.field, self.hinted, self.found = uri, field, hinted, found


class InstanceValidationError(CODError, ReasonedError):
    """A file that cannot be ingested; `reason` says why, without any header value."""


class SourceUnavailableError(InstanceValidationError):
    """A file that could not be read this time, and may well be another time: its server is busy or does not answer."""


class SeriesMismatchError(InstanceValidationError):
    """A file of another series."""

    def __init__(self, uri: str, found: str, expected: str) -> None:
        super().__init__(uri, f"belongs to {found}, not to {expected}")
        self.found = found
        self.expected = expected


class InventoryError(InstanceValidationError):
    """A table of files that cannot be used: it cannot be read, or no column says where the files are."""


class DependencyError(CODError, ReasonedError):
    """A source that is not deleted: it is not certain that what it holds is stored; `reason` says why not."""


class InvalidUidError(CODError, ValueError):
    """A UID that is not 1 to 64 digits and dots; it never reaches a path."""

    def __init__(self, kind: str, length: int) -> None:
        super().__init__(f"{kind} UID of {length} characters is not 1 to 64 digits and dots")
        self.kind = kind
        self.length = length


class HashedUidsError(CODError, ReasonedError, ValueError):
    """Hashed UIDs here and UIDs of their own there, or a UID that cannot be hashed; no UID is told."""
