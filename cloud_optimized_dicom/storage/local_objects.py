"""The objects of a local store as files: opened at one version, published, deleted.

Layout
------
``{root}/{name}``
    The bytes of an object.
``{root}/.cod/objects``
    Sidecars: version, write id, CRC32C and labels of the objects written here (see `local_sidecars`).
``{root}/.cod/tmp``
    Files on their way in.
``{root}/.cod/locks``
    Up to 256 lock files; all writers of one name hold the same one.

A write puts its bytes into a temporary file, takes the name's lock, looks the present version up, adds its entry to the
sidecar, and renames the file into place.  Data, sidecar and directory are flushed to the device in this order.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
    WriteUnknownError,
)
from cloud_optimized_dicom.storage import _rules as rules
from cloud_optimized_dicom.storage import local_files as files
from cloud_optimized_dicom.storage.base import Attributes, ConcatSource, ObjectInfo
from cloud_optimized_dicom.storage.local_sidecars import Entry, Sidecars, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.storage.clock import Clock

_PRIVATE = ".cod"
_READ_ATTEMPTS = 100
_GZIP_MAGIC = b"\x1f\x8b"
_MAYBE_GZIP = (".json", ".gradient.lock")


@dataclass(frozen=True, slots=True)
class Opened:
    """One version of an object, held open: it stays readable whatever becomes of the name.

    Parameters
    ----------
    entry
        None for a file that was not written by a local store.
    """

    descriptor: int
    info: ObjectInfo
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A conditional write: what it names, and what must hold when it is published."""

    name: str
    version: str | None
    write_id: str
    attributes: Attributes
    sources: tuple[ConcatSource, ...] = ()


@dataclass(frozen=True, slots=True)
class Incoming:
    """A temporary file that is being filled."""

    descriptor: int
    path: Path


class LocalObjects:
    """The files below `root`, whatever they hold."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._temporary = root / _PRIVATE / "tmp"
        self._locks = root / _PRIVATE / "locks"
        self._sidecars = Sidecars(root / _PRIVATE / "objects", self._temporary)
        self._swept = False

    def url_of(self, name: str) -> str:
        """Return the path of an object as text."""
        return f"{self._root}/{name}"

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if any(part in {"", ".", ".."} for part in parts) or "\0" in name:
            raise StorageError(self.url_of(name), "not a name that a local store can hold")
        if any(part.casefold() == _PRIVATE for part in parts):
            raise StorageError(self.url_of(name), f"{_PRIVATE} is a local store's own")
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            raise StorageError(self.url_of(name), "not a name that a local store can hold") from error
        return self._root.joinpath(*parts)

    # -- reading

    @contextmanager
    def open(self, name: str) -> Iterator[Opened]:
        """Hold the present version of an object open.

        Notes
        -----
        Takes no lock.  The file is opened first and the sidecar read second, and a sidecar is written before its
        file is renamed into place.  So a file that matches no entry was either replaced since (its name leads
        elsewhere now: look again), or came from elsewhere.
        """
        path = self._path(name)
        url = self.url_of(name)
        for _ in range(_READ_ATTEMPTS):
            with ExitStack() as stack:
                with files.reading_errors(url):
                    # Not to hang on a named pipe; regular files do not care.
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                    stack.callback(os.close, descriptor)
                    opened = self._match(name, path, descriptor)
                if opened is not None:
                    yield opened
                    return
        raise TransientStorageError(url, "is overwritten faster than it can be opened")

    def _match(self, name: str, path: Path, descriptor: int) -> Opened | None:
        status = os.fstat(descriptor)
        if not stat_module.S_ISREG(status.st_mode):
            raise ObjectNotFoundError(self.url_of(name))
        for entry in self._sidecars.read(name):
            if entry.describes(status):
                return Opened(descriptor, entry.info(name), entry)
        if not os.path.samestat(status, path.stat()) or _size_and_time(status) != _size_and_time(os.fstat(descriptor)):
            return None
        return Opened(descriptor, _foreign(name, descriptor, status), None)

    def entries(self, folder: str) -> list[tuple[str, bool]]:
        """Return the (name, is a folder) of what lies in a folder, in order; a folder's name ends in a slash."""
        path = self._path(folder.removesuffix("/")) if folder else self._root
        try:
            with files.reading_errors(self.url_of(folder)), os.scandir(path) as found:
                kinds = [(item.name, item.is_dir(follow_symlinks=False), item.is_file()) for item in found]
        except ObjectNotFoundError:
            return []
        names = [
            (f"{folder}{name}/" if is_folder else folder + name, is_folder)
            for name, is_folder, is_file in kinds
            if (is_folder or is_file) and name.casefold() != _PRIVATE
        ]
        return sorted(names, key=lambda item: os.fsencode(item[0]))

    # -- writing

    @contextmanager
    def incoming(self, name: str) -> Iterator[Incoming]:
        """Open a temporary file to be filled and then published as `name`."""
        self._path(name)
        with ExitStack() as stack:
            with files.writing_errors(self.url_of(name)):
                for directory in (self._temporary, self._locks):
                    files.make_directories(directory)
                if not self._swept:
                    files.sweep(self._temporary)
                    self._swept = True
                temporary = stack.enter_context(files.temporary_file(self._temporary))
            yield Incoming(*temporary)

    @contextmanager
    def linked(self, name: str, source: str) -> Iterator[tuple[Incoming, Opened]]:
        """Give the file of `source` a second, temporary name, to be published as `name`; no byte is copied.

        Notes
        -----
        Files of objects are never written to once they are published, so two objects may share one.  Where the file
        system has no links, or the file came from elsewhere (whoever wrote it may write to it again), it is copied.
        """
        with self.incoming(name) as incoming, self.open(source) as opened:
            if not self._link(source, incoming, opened):
                with files.writing_errors(self.url_of(source)):
                    files.copy_all(opened.descriptor, incoming.descriptor, opened.info.size)
                yield incoming, opened
            else:
                yield Incoming(opened.descriptor, incoming.path), opened

    def _link(self, source: str, incoming: Incoming, opened: Opened) -> bool:
        with self.locked(source):  # against one who is about to append to the file
            return (
                opened.entry is not None
                and opened.entry.describes(os.fstat(opened.descriptor))
                and not opened.entry.growing
                and files.link_over(self._path(source), incoming.path, opened.descriptor)
            )

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold what all writers of an object hold while they publish."""
        files.make_directories(self._locks)
        with files.exclusive_lock(self._locks / key_of(name)[:2]):
            yield

    def find(self, name: str) -> Opened | None:
        """Return the present state of an object (no longer open), or None."""
        try:
            with self.open(name) as opened:
                return opened
        except ObjectNotFoundError:
            return None

    def judge(self, write: WriteRequest, present: Opened | None) -> ObjectInfo | None:
        """Say whether a write may go on: None if so, its own result if it has landed already; else it raises."""
        info = present.info if present else None
        return rules.judge(self.url_of(write.name), info, write.version, write.write_id)

    def publish(self, write: WriteRequest, incoming: Incoming, crc: int) -> ObjectInfo:
        """Make a filled temporary file the object, if the preconditions hold.

        Raises
        ------
        PreconditionFailedError, ObjectNotFoundError
            If they do not, for the object or for a source.
        WriteUnknownError
            If the device fails after the file was renamed into place.
        """
        url = self.url_of(write.name)
        with files.writing_errors(url):
            os.fsync(incoming.descriptor)
            with self.locked(write.name):
                present = self.find(write.name)
                if ours := self.judge(write, present):
                    return ours
                self._check_sources(write)
                entry = self.new_entry(write, incoming.descriptor, crc)
                self._put_in_place(write, incoming, present.entry if present else None, entry)
        return entry.info(write.name)

    def write_entry(self, name: str, entry: Entry) -> None:
        """Make an entry the only one of an object, durably."""
        self._sidecars.write(name, [entry])

    def open_to_grow(self, name: str) -> int:
        """Return a descriptor of an object's file that bytes can be added by."""
        return os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)

    def _check_sources(self, write: WriteRequest) -> None:
        for source in write.sources:
            with self.open(source.name) as opened:
                rules.check_source(self.url_of(source.name), opened.info.version, source.version)

    def new_entry(self, write: WriteRequest, descriptor: int, crc: int) -> Entry:
        """Return the entry of a write for the file that has its bytes."""
        status = os.fstat(descriptor)
        return Entry(
            version=uuid.uuid4().hex,
            write_id=write.write_id,
            crc32c=crc,
            size=status.st_size,
            updated=self._clock().isoformat(),
            inode=status.st_ino,
            mtime_ns=status.st_mtime_ns,
            content_type=write.attributes.content_type,
            content_encoding=write.attributes.content_encoding,
            storage_class=write.attributes.storage_class,
        )

    def _put_in_place(self, write: WriteRequest, incoming: Incoming, in_force: Entry | None, entry: Entry) -> None:
        path = self._path(write.name)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._sidecars.write(write.name, [entry] if in_force is None else [in_force, entry])
        files.publish(incoming.path, path)
        try:
            files.fsync_directory(path.parent)
        except OSError as error:
            raise WriteUnknownError(self.url_of(write.name), write.write_id, "flushing failed") from error

    def delete(self, name: str, version: str | None) -> None:
        """Delete an object, if it is at `version` where one is given; folders that it leaves empty go too."""
        url = self.url_of(name)
        path = self._path(name)
        with self.open(name):  # so that deleting nothing writes nothing
            pass
        with files.writing_errors(url), self.locked(name):
            with self.open(name) as opened:
                found = opened.info.version
            if version is not None and found != version:
                raise PreconditionFailedError(url, version, found)
            path.unlink()
            files.fsync_nearest_directory(path.parent)
            self._sidecars.remove(name)
            files.remove_empty_directories(path.parent, self._root)


def _size_and_time(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _foreign(name: str, descriptor: int, status: os.stat_result) -> ObjectInfo:
    """Describe a file that no local store wrote, by what the file system knows of it.

    Notes
    -----
    Older writers' metadata and locks are gzip bytes, labelled as such in a bucket; a copied folder has lost the label.
    """
    maybe = name.endswith(_MAYBE_GZIP)
    return ObjectInfo(
        name=name,
        size=status.st_size,
        version=f"f-{status.st_ino}-{status.st_mtime_ns}-{status.st_size}",
        crc32c=None,
        updated=datetime.fromtimestamp(status.st_mtime, UTC),
        content_encoding="gzip" if maybe and files.read_all(descriptor, 0, 2) == _GZIP_MAGIC else None,
    )
