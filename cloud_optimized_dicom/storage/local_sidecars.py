"""What a local store remembers of each object beside its bytes: version, write id, CRC32C, labels.

A sidecar holds the entry in force and, while a write is being published, the next one.  Which of them is in force is
told by the object's file itself (inode, modification time and size), so the rename of that file is the only commit
point, and a process killed before it leaves the old entry in force.  A file that is being appended to (`local_growth`)
keeps its inode: its entry says so before the first byte is added, and describes the bytes before them until the entry
of the longer object takes its place.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.storage.base import ObjectInfo
from cloud_optimized_dicom.storage.local_files import (
    fsync_directory,
    make_directories,
    temporary_file,
    write_all,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One state of one object.

    Parameters
    ----------
    inode, mtime_ns, size
        Which file it describes.
    updated
        ISO 8601, with offset.
    growing
        Whether more bytes than `size` may be in the file: those beyond are not of the object.
    """

    version: str
    write_id: str | None
    crc32c: int | None
    size: int
    updated: str
    inode: int
    mtime_ns: int
    content_type: str | None = None
    content_encoding: str | None = None
    storage_class: str | None = None
    growing: bool = False

    def describes(self, status: os.stat_result) -> bool:
        """Say whether a file is the one that was written with this entry."""
        if self.growing:
            return self.inode == status.st_ino and self.size <= status.st_size
        return (self.inode, self.mtime_ns, self.size) == (status.st_ino, status.st_mtime_ns, status.st_size)

    def info(self, name: str) -> ObjectInfo:
        """Return the entry as the state of the named object."""
        return ObjectInfo(
            name=name,
            size=self.size,
            version=self.version,
            crc32c=self.crc32c,
            updated=datetime.fromisoformat(self.updated),
            write_id=self.write_id,
            content_encoding=self.content_encoding,
            storage_class=self.storage_class,
        )


_FIELDS = {field.name for field in fields(Entry)}


class Sidecars:
    """The sidecars of a store, below ``{root}/.cod/objects``.

    Notes
    -----
    A sidecar is named by the SHA-256 of its object's name: so no object's sidecar can collide with the folder of
    another's, and no name gets too long for the file system.  The object's name is inside.
    """

    def __init__(self, directory: Path, temporary: Path) -> None:
        self._directory = directory
        self._temporary = temporary

    def _path(self, name: str) -> Path:
        key = key_of(name)
        return self._directory / key[:2] / f"{key[2:]}.json"

    def read(self, name: str) -> tuple[Entry, ...]:
        """Return the entries of an object; none where there is no sidecar or it is damaged (then it is a foreign file).

        Raises
        ------
        OSError
            If there is one that cannot be read.
        """
        try:
            document = json.loads(self._path(name).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return ()
        return _parse(document, name)

    def write(self, name: str, entries: Sequence[Entry]) -> None:
        """Replace the entries of an object, atomically and durably."""
        path = self._path(name)
        document = {"name": name, "entries": [asdict(entry) for entry in entries]}
        with temporary_file(self._temporary) as (descriptor, temporary):
            write_all(descriptor, json.dumps(document).encode("ascii"))
            os.fsync(descriptor)
            make_directories(path.parent)
            temporary.replace(path)
        fsync_directory(path.parent)

    def remove(self, name: str) -> None:
        """Forget an object."""
        self._path(name).unlink(missing_ok=True)


def key_of(name: str) -> str:
    """Return what an object's sidecar and lock are named by."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()


def _parse(document: Any, name: str) -> tuple[Entry, ...]:
    if not isinstance(document, dict) or document.get("name") != name:
        return ()
    try:
        return tuple(
            Entry(**{key: value for key, value in entry.items() if key in _FIELDS}) for entry in document["entries"]
        )
    except (KeyError, TypeError, AttributeError):
        return ()
