"""Writing what may be there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError
from cloud_optimized_dicom.storage.base import DEFAULT_ATTRIBUTES, Attributes, ObjectStore, new_write_id

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectInfo
    from cloud_optimized_dicom.storage.payload import Payload

_ATTEMPTS = 3


def put(store: ObjectStore, name: str, payload: Payload, attributes: Attributes = DEFAULT_ATTRIBUTES) -> bool:
    """Make an object hold a payload; return False where it did so before.

    Raises
    ------
    PreconditionFailedError
        If others keep writing other bytes to it.
    """
    for attempt in range(_ATTEMPTS):
        present = store.find(name)
        if holds(present, payload.size, payload.crc32c):
            return False
        try:
            if present is None:
                store.create(name, payload, write_id=new_write_id(), attributes=attributes)
            else:
                store.replace(name, payload, version=present.version, write_id=new_write_id(), attributes=attributes)
        except (PreconditionFailedError, ObjectNotFoundError):
            if attempt == _ATTEMPTS - 1:
                raise
            continue  # somebody else has just written it: the same, perhaps
        break
    return True


def holds(present: ObjectInfo | None, size: int, crc32c: int) -> bool:
    """Return whether an object is known to hold bytes of this size and CRC32C."""
    return present is not None and (present.size, present.crc32c) == (size, crc32c)
