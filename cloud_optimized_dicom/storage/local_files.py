"""File-system steps that the local store is made of: durable, atomic, and safe beside other processes."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageError,
    TransientStorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_FOUND = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK}
_NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.EPERM}

_DAY_SECONDS = 24 * 3600
_COPY_BYTES = 1 << 20
_KERNEL_COPY_BYTES = 1 << 30


@contextmanager
def reading_errors(url: str) -> Iterator[None]:
    """Map what the operating system says about reading an object."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_FOUND:
            raise ObjectNotFoundError(url) from error
        raise _mapped(url, error) from error


@contextmanager
def writing_errors(url: str) -> Iterator[None]:
    """Map what the operating system says about writing an object."""
    try:
        yield
    except OSError as error:
        raise _mapped(url, error) from error


def _mapped(url: str, error: OSError) -> StorageError:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    if error.errno in _DENIED:
        return PermissionDeniedError(url, reason)
    if error.errno in _TRANSIENT:
        return TransientStorageError(url, reason)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}:
        return StorageError(url, "a name cannot be both an object and a folder of objects in a local store")
    return StorageError(url, reason)


def fsync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_nearest_directory(path: Path) -> None:
    """Make the entries of a directory durable, or its own absence if somebody removed it as empty."""
    while True:
        try:
            fsync_directory(path)
        except FileNotFoundError:
            path = path.parent
        else:
            return


def make_directories(path: Path) -> None:
    """Make a directory and its parents, durably; `FileNotFoundError` if somebody removes one meanwhile."""
    missing = []
    for directory in (path, *path.parents):
        if directory.is_dir():
            break
        missing.append(directory)
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        fsync_directory(directory.parent)


def remove_empty_directories(path: Path, root: Path) -> None:
    """Remove `path` and its parents below `root`, as far as they are empty."""
    with suppress(OSError):
        while path != root:
            path.rmdir()
            path = path.parent


def publish(temporary: Path, path: Path) -> None:
    """Rename a complete file to its place; the directories are made as needed.

    Raises
    ------
    OSError
        If nothing was published.
    """
    while True:
        try:
            make_directories(path.parent)
            temporary.replace(path)
        except FileNotFoundError:
            # A deleter removed a directory as empty in between.  If it is the temporary file that is gone, give up.
            if not temporary.exists():
                raise
        else:
            return


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, against other threads and other processes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        try:
            # Said outright: a child forked meanwhile holds a copy of the descriptor; closing ours would not free it.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


@contextmanager
def temporary_file(directory: Path) -> Iterator[tuple[int, Path]]:
    """Open a new file for writing, and remove it at the end unless it was renamed."""
    path = directory / uuid.uuid4().hex
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor, path
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Remove what killed processes left in a directory of temporary files a day ago or earlier."""
    oldest = time.time() - _DAY_SECONDS
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                Path(entry.path).unlink()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` at the descriptor's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def link_over(path: Path, target: Path, descriptor: int) -> bool:
    """Make `target` another name of the file at `path`, if that is the open file; return whether it is now."""
    beside = target.with_name(f"{target.name}.link")
    try:
        if os.fstat(descriptor).st_mtime < time.time() - _DAY_SECONDS / 2:
            return False  # a sweep would take its new name for a leftover
        os.link(path, beside)
        try:
            if not os.path.samestat(beside.stat(), os.fstat(descriptor)):
                return False  # replaced since it was opened
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError:
        return False  # no links on this file system, or none to this file: the caller copies
    return True


def read_all(descriptor: int, start: int, length: int) -> bytes:
    """Read up to `length` bytes from `start`; fewer only where the file ends."""
    pieces = []
    while length > 0:
        piece = os.pread(descriptor, length, start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def copy_all(source: int, target: int, size: int) -> None:
    """Append the first `size` bytes of one file to another, inside the kernel (or as a reflink) where it can.

    Raises
    ------
    OSError
        If the source ends early, or the device fails.
    """
    at = 0
    try:
        while at < size:
            moved = os.copy_file_range(source, target, min(size - at, _KERNEL_COPY_BYTES), offset_src=at)
            if not moved:
                break
            at += moved
    except (OSError, AttributeError) as error:
        # Not on this pair of file systems, or not on this kernel or platform at all: copy through here.
        if isinstance(error, OSError) and error.errno not in _NO_KERNEL_COPY:
            raise
    while at < size:
        piece = os.pread(source, min(size - at, _COPY_BYTES), at)
        if not piece:
            raise OSError(errno.EIO, "a source of a concatenation became shorter")
        write_all(target, piece)
        at += len(piece)
