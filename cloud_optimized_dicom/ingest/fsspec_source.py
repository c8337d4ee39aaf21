"""A file on any file system that fsspec knows: s3://, az://, sftp://, hdfs:// ..., chained URLs included."""

from __future__ import annotations

import importlib
import io
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.errors import InstanceValidationError, MissingDependencyError
from cloud_optimized_dicom.ingest.source_kinds import FileSource
from cloud_optimized_dicom.series.files import RangeFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.ranges import ByteRange

IS_FOLDER = "is a directory"
"""The reason of what is a folder where a file was named."""

_BLOCK_BYTES = 1 << 20
_CHAIN = re.compile(r"(?P<outer>[A-Za-z][A-Za-z0-9+.-]*(?:://.*?)?)::(?P<inner>.+)", re.DOTALL)
_PASSWORD = re.compile(r"://[^/@:]*:[^/@]*@")
_OWN_EXTRAS = {"s3": "s3", "s3a": "s3"}
_VERSION_KEYS = (
    *("ETag", "etag", "VersionId", "version_id", "generation", "md5", "content_md5"),
    *("LastModified", "last_modified", "mtime", "modified", "time", "CRC"),
)
# What the clients of file systems raise beside OSError; looked up among the modules that are loaded.
_FOREIGN = (
    *(("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"), ("aiohttp", "ClientError")),
    *(("azure.core.exceptions", "AzureError"), ("paramiko", "SSHException"), ("gcsfs.retry", "HttpError")),
    *(("requests", "RequestException"), ("zipfile", "BadZipFile"), ("fsspec.exceptions", "FSTimeoutError")),
)


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turn what a file system raises into an error of the file; foreign texts may hold secrets and are left out."""
    loaded = [(sys.modules.get(module), name) for module, name in _FOREIGN]
    foreign = tuple(getattr(module, name) for module, name in loaded if hasattr(module, name))
    try:
        yield
    except FileNotFoundError as error:
        raise InstanceValidationError(uri, "not found") from error
    except PermissionError as error:
        raise InstanceValidationError(uri, "access denied") from error
    except OSError as error:
        changed = type(error).__name__ == "FileExpired"  # of s3fs, for a precondition on the ETag that failed
        reason = "changed while it was read" if changed else f"cannot be read: {type(error).__name__}"
        raise InstanceValidationError(uri, reason) from error
    except (*foreign, ValueError, EOFError, NotImplementedError) as error:
        raise InstanceValidationError(uri, f"cannot be read: {type(error).__name__}") from error


def without_password(url: str) -> str:
    """Return a URL without ``user:password@``: URIs are recorded and printed."""
    return _PASSWORD.sub("://", url)


def is_chained(text: str) -> bool:
    """Return whether this is a chain of file systems as fsspec writes them, ``zip://member::s3://bucket/key``."""
    match = _CHAIN.fullmatch(text)
    return match is not None and "://" in text


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path on it.

    Raises
    ------
    MissingDependencyError
        If fsspec, or what it needs for this protocol, is not installed.
    InstanceValidationError
        If fsspec knows no such protocol, or the file system cannot be reached.
    """
    protocol = re.split(r"::|://", url, maxsplit=1)[0].lower()
    try:
        fsspec = importlib.import_module("fsspec.core")
    except ImportError as error:
        raise MissingDependencyError(f"reading {protocol}://", _OWN_EXTRAS.get(protocol, "fsspec")) from error
    if protocol not in importlib.import_module("fsspec").available_protocols() and "://" in url and not is_chained(url):
        known = "file://, gs://, http://, https://, memory://, what fsspec knows (s3:// ...) and local paths"
        raise InstanceValidationError(url, f"no source for {protocol}://; there are {known}")
    try:
        with _told(without_password(url)):
            filesystem, path = fsspec.url_to_fs(url)
    except ImportError as error:
        advice = str(error).splitlines()[0] if str(error) else "a package is missing"
        raise MissingDependencyError(
            f"reading {protocol}:// ({advice})", _OWN_EXTRAS.get(protocol, "fsspec")
        ) from error
    return filesystem, str(path)


def version_of(info: Any) -> str:
    """Return the best that a file system says to tell one state of a file from another; empty if it says nothing."""
    # One key only: listings and single answers of one service write their dates differently.
    return next((str(info[key]).strip('"') for key in _VERSION_KEYS if info.get(key) is not None), "")


@dataclass(frozen=True)
class FsspecSource:
    """A file of an fsspec file system.

    Parameters
    ----------
    uri
        Its URL, by which fsspec finds it again.
    version
        What a listing told of its state; a file that has changed since is an error.  None: whatever is there.
    """

    uri: str
    filesystem: Any
    path: str
    size: int | None = None
    version: str | None = None
    crc32c: str | None = None

    @classmethod
    def of(cls, url: str) -> FsspecSource:
        """Return the source of a URL; the file itself is not looked at yet.

        Raises
        ------
        MissingDependencyError, InstanceValidationError
            As :func:`open_filesystem`.
        """
        return cls(without_password(url), *open_filesystem(url))

    @property
    def local_path(self) -> Path | None:
        """None."""
        return None

    def open(self) -> BinaryIO:
        """Return a new reader; one that finds the file at another state than it was listed at raises."""
        now = self.pinned(None)
        with _told(self.uri):
            opened = self.filesystem.open(self.path, "rb", block_size=_BLOCK_BYTES, cache_type="none")
        if now.size is None:  # a stream: its length is known when it has been read
            target = tempfile.TemporaryFile()  # noqa: SIM115 - handed out
            try:
                with _told(self.uri), opened:
                    shutil.copyfileobj(opened, target, _BLOCK_BYTES)
            except InstanceValidationError:
                target.close()
                raise
            target.seek(0)
            return target
        return io.BufferedReader(_OpenedFile(opened, now.size, self.uri), 8 << 10)

    def fetched(self, directory: Path) -> FileSource:
        """Return a copy in `directory`; the file's state before and after must be the same."""
        before = self if self.version is not None else self.pinned(None)
        with tempfile.NamedTemporaryFile(dir=directory, delete=False) as copy:
            path = Path(copy.name)
        try:
            with _told(self.uri):
                self.filesystem.get_file(self.path, str(path))
            size = path.stat().st_size
            if before.size not in (None, size):
                raise InstanceValidationError(self.uri, "changed while it was read")  # noqa: TRY301
            before.pinned(None)
        except InstanceValidationError:
            path.unlink(missing_ok=True)
            raise
        return FileSource(self.uri, path, size)

    def pinned(self, _directory: Path | None) -> FsspecSource:
        """Return this source at its present state, which must be that of the listing where there was one."""
        with _told(self.uri):
            self.filesystem.invalidate_cache(self.path)
            info = self.filesystem.info(self.path)
        if info.get("type") == "directory":
            raise InstanceValidationError(self.uri, IS_FOLDER)
        found = self.at(info)
        if self.version is not None and (found.version, found.size) != (self.version, self.size):
            raise InstanceValidationError(self.uri, "changed while it was read")
        return found

    def at(self, info: Any) -> FsspecSource:
        """Return this source at the state that a listing told."""
        size = info.get("size")
        return replace(self, size=None if size is None else int(size), version=version_of(info))


class _OpenedFile(RangeFile):
    """A file of a file system, read in blocks; its errors name the source."""

    def __init__(self, opened: Any, size: int, uri: str) -> None:
        super().__init__(self._range, size, _BLOCK_BYTES)
        self._opened, self._uri = opened, uri

    def _range(self, span: ByteRange) -> bytes:
        with _told(self._uri):
            self._opened.seek(span.start)
            data: bytes = self._opened.read(len(span))
        if len(data) != len(span):
            raise InstanceValidationError(self._uri, "changed while it was read")
        return data

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


def iter_listing(url: str, filesystem: Any, path: str) -> Iterator[FsspecSource]:
    """Yield every file below a folder, sorted within each folder; one folder is held at a time.

    Raises
    ------
    InstanceValidationError
        If the file system lists nothing.
    """
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        with _told(url):
            filesystem.invalidate_cache(folder)  # file systems are shared in a process, and remember listings for ever
            entries = sorted(filesystem.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
        below = [entry for entry in entries if str(entry["name"]).rstrip("/") != folder.rstrip("/")]
        for entry in below:
            if entry.get("type") == "file":
                yield FsspecSource(_url_of(url, filesystem, entry["name"]), filesystem, entry["name"]).at(entry)
        waiting.extend(str(entry["name"]) for entry in reversed(below) if entry.get("type") == "directory")


def _url_of(url: str, filesystem: Any, name: str) -> str:
    """Return the URL of a file that was found below `url`, which may be a chain."""
    chain = _CHAIN.fullmatch(url)
    if chain is None:
        return str(filesystem.unstrip_protocol(name))
    outer, inner = chain["outer"], chain["inner"]
    if "://" in outer:
        return f"{outer.partition('://')[0]}://{name.lstrip('/')}::{inner}"
    return f"{outer}::{inner.partition('://')[0]}://{name.lstrip('/')}"
