"""What the command exits with: the one table from errors to codes."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from cloud_optimized_dicom import errors

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """How a run ended."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    LOCKED = 4
    DAMAGED = 5
    UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT, as shells count


# The first entry that fits decides; what is in no entry (storage, files that cannot be ingested) is SOME_FAILED.
_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (errors.CODObjectNotFoundError, ExitCode.NOT_FOUND),
    (errors.InstanceNotFoundError, ExitCode.NOT_FOUND),
    (errors.FrameNotFoundError, ExitCode.NOT_FOUND),
    (errors.ObjectNotFoundError, ExitCode.NOT_FOUND),
    (errors.LockAcquisitionError, ExitCode.LOCKED),
    (errors.LockVerificationError, ExitCode.LOCKED),
    (errors.TarValidationError, ExitCode.DAMAGED),
    (errors.InventoryError, ExitCode.USAGE),
    (errors.UnsupportedFrameError, ExitCode.SOME_FAILED),  # nothing is wrong with the file
    (errors.FormatError, ExitCode.DAMAGED),
    (errors.StaleReadError, ExitCode.DAMAGED),  # the command has just opened the series: tar and metadata disagree
    (errors.ConflictError, ExitCode.DAMAGED),
    (errors.ErrorLogExistsError, ExitCode.DAMAGED),
    (errors.InvalidUidError, ExitCode.USAGE),
    (errors.MissingDependencyError, ExitCode.USAGE),
)


def exit_code_of(error: Exception) -> ExitCode:
    """Return the code for an error of this package or of the operating system."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.SOME_FAILED)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the gravest of several codes; damage outweighs everything."""
    return max(codes, default=ExitCode.OK)
