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
    │   ├── SourceUnavailableError                the file cannot be read now; try later
    │   ├── SeriesMismatchError                   the file belongs to another series
    │   └── InventoryError                        a table of files that cannot be used
    ├── DependencyError                           a source that is not deleted, and why
    ├── InvalidUidError (ValueError)              a UID that must not reach a path
    ├── HashedUidsError (ValueError)              hashed UIDs on one side only, or a UID without a hash
    ├── VolumeError                               the series does not stack into one volume, and why
    ├── SeriesMissingPixelDataError               there is nothing to make a thumbnail of
    ├── ThumbnailNotFoundError (LookupError)      there is no thumbnail of the series as it is
    ├── EditSetChangedError                       an edit that would change which instances there are
    ├── EditModeError                             only mode "e" edits, and it neither adds nor removes
    ├── RedactionError                            what was to be redacted cannot be, and why
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

from cloud_optimized_dicom.errors.base import (
    CODError,
    MissingDependencyError,
)
from cloud_optimized_dicom.errors.format import (
    FormatError,
    FrameDecodeError,
    FrameTableError,
    MetadataError,
    UnsupportedFrameError,
    UnsupportedVersionError,
)
from cloud_optimized_dicom.errors.ingest import (
    DependencyError,
    HashedUidsError,
    HintMismatchError,
    InstanceValidationError,
    InvalidUidError,
    InventoryError,
    SeriesMismatchError,
    SourceUnavailableError,
)
from cloud_optimized_dicom.errors.redaction import (
    RedactionBoxOutOfBoundsError,
    RedactionError,
    RedactionFillValueError,
    RedactionFrameOutOfRangeError,
    RedactionTargetMissingError,
)
from cloud_optimized_dicom.errors.series import (
    CleanOpOnUnlockedCODObjectError,
    CODObjectNotFoundError,
    CommitUnknownError,
    ConflictError,
    EditModeError,
    EditSetChangedError,
    ErrorLogExistsError,
    FrameNotFoundError,
    HashMismatchError,
    InstanceNotFoundError,
    LockAcquisitionError,
    LockVerificationError,
    SeriesMissingPixelDataError,
    StaleReadError,
    TarMissingInstanceError,
    TarValidationError,
    ThumbnailNotFoundError,
    VolumeError,
    WriteOperationInReadModeError,
)
from cloud_optimized_dicom.errors.storage import (
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)

__all__ = [
    "CODError",
    "CODObjectNotFoundError",
    "CleanOpOnUnlockedCODObjectError",
    "CommitUnknownError",
    "ConflictError",
    "DependencyError",
    "EditModeError",
    "EditSetChangedError",
    "ErrorLogExistsError",
    "FormatError",
    "FrameDecodeError",
    "FrameNotFoundError",
    "FrameTableError",
    "HashMismatchError",
    "HashedUidsError",
    "HintMismatchError",
    "InstanceNotFoundError",
    "InstanceValidationError",
    "InvalidUidError",
    "InventoryError",
    "LockAcquisitionError",
    "LockVerificationError",
    "MetadataError",
    "MissingDependencyError",
    "ObjectNotFoundError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "RedactionBoxOutOfBoundsError",
    "RedactionError",
    "RedactionFillValueError",
    "RedactionFrameOutOfRangeError",
    "RedactionTargetMissingError",
    "SeriesMismatchError",
    "SeriesMissingPixelDataError",
    "SourceUnavailableError",
    "StaleReadError",
    "StorageError",
    "TarMissingInstanceError",
    "TarValidationError",
    "ThumbnailNotFoundError",
    "TransientStorageError",
    "UnsupportedFrameError",
    "UnsupportedVersionError",
    "VolumeError",
    "WriteOperationInReadModeError",
    "WriteUnknownError",
]
