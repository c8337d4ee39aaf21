"""A file on any file system that fsspec knows: s3://, az://, sftp://, hdfs:// ..., chained URLs included."""

from __future__ import annotations

import errno
import importlib
import io
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.errors import InstanceValidationError, MissingDependencyError, SourceUnavailableError
from cloud_optimized_dicom.ingest.http_source import PASSING_STATUSES
from cloud_optimized_dicom.ingest.public_uri import CHAIN, is_chained, public_uri
from cloud_optimized_dicom.ingest.source_kinds import FileSource
from cloud_optimized_dicom.series.files import RangeFile
from cloud_optimized_dicom.whole_files import new_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloud_optimized_dicom.ranges import ByteRange

IS_FOLDER = "is a directory"
"""The reason of what is a folder where a file was named."""

_BLOCK_BYTES = 1 << 20
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
# Those of them that may be gone the next time.
_OUTAGES = (
    *(("botocore.exceptions", "ConnectionError"), ("botocore.exceptions", "HTTPClientError")),
    *(("aiohttp", "ClientConnectionError"), ("aiohttp", "ClientPayloadError"), ("paramiko", "SSHException")),
    *(("azure.core.exceptions", "ServiceRequestError"), ("azure.core.exceptions", "ServiceResponseError")),
    *(("requests", "ConnectionError"), ("requests", "Timeout"), ("fsspec.exceptions", "FSTimeoutError")),
)
_LASTING = (("paramiko", "AuthenticationException"), ("paramiko", "BadHostKeyException"))
_OUTAGE_NUMBERS = frozenset(
    {
        *(errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EPIPE),
        *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN),
        *(errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
    }
)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turn what a file system raises into an error of the file; foreign texts may hold secrets and are left out."""
    try:
        yield
    except FileNotFoundError as error:
        raise InstanceValidationError(uri, "not found") from error
    except PermissionError as error:
        raise InstanceValidationError(uri, "access denied") from error
    except _expected() as error:  # asked only now: the attempt may have loaded a client
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise  # nothing is wrong with the source
        changed = type(error).__name__ == "FileExpired"  # of s3fs, for a precondition on the ETag that failed
        reason = "changed while it was read" if changed else f"cannot be read: {type(error).__name__}"
        kind = SourceUnavailableError if _is_outage(error) else InstanceValidationError
        raise kind(uri, reason) from error


def _expected() -> tuple[type[Exception], ...]:
    return (*_loaded(_FOREIGN), OSError, ValueError, EOFError, NotImplementedError)


def _loaded(names: Sequence[tuple[str, str]]) -> tuple[type[Exception], ...]:
    modules = [(sys.modules.get(module), name) for module, name in names]
    return tuple(getattr(module, name) for module, name in modules if hasattr(module, name))


def _is_outage(error: Exception) -> bool:
    """Return whether the next attempt may well succeed: the network, or the server, was out of order."""
    status = _status_of(error)
    if status is not None:
        return status in PASSING_STATUSES
    if isinstance(error, (*_loaded(_OUTAGES), ConnectionError, TimeoutError, socket.gaierror)):
        return not isinstance(error, _loaded(_LASTING))
    return isinstance(error, OSError) and error.errno in _OUTAGE_NUMBERS


def _status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error of a file system's client was made of, or None."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # of botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    given = (getattr(holder, name, None) for holder in (error, response) for name in ("status", "status_code", "code"))
    return next((status for status in given if isinstance(status, int)), None)


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
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise MissingDependencyError(f"reading {protocol}://", _OWN_EXTRAS.get(protocol, "fsspec")) from error
    known = {*fsspec.available_protocols(), *fsspec.registry}
    if protocol not in known and "://" in url and not is_chained(url):
        others = "file://, gs://, http://, https://, memory://, what fsspec knows (s3:// ...) and local paths"
        raise InstanceValidationError(public_uri(url), f"no source for {protocol}://; there are {others}")
    try:
        with _told(public_uri(url)):
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
        return cls(public_uri(url), *open_filesystem(url))

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
            except BaseException:
                target.close()
                raise
            target.seek(0)
            return target
        return io.BufferedReader(_OpenedFile(opened, now.size, self.uri), 8 << 10)

    def fetched(self, directory: Path, check: Callable[[], None] = lambda: None) -> FileSource:
        """Return a copy in `directory`; the file's state before and after must be the same.

        Parameters
        ----------
        check
            Called now and then, if the file system says how far it is; what it raises ends the copying.
        """
        before = self if self.version is not None else self.pinned(None)
        progress = importlib.import_module("fsspec.callbacks").Callback(hooks={"check": lambda *_, **__: check()})
        with new_file(directory) as copy:
            copy.close()  # the file system opens it itself
            path = Path(copy.name)
            with _told(self.uri):
                self.filesystem.get_file(self.path, str(path), callback=progress)
            size = path.stat().st_size
            if before.size not in (None, size):
                raise InstanceValidationError(self.uri, "changed while it was read")
            before.pinned(None)
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
        with _told(public_uri(url)):
            filesystem.invalidate_cache(folder)  # file systems are shared in a process, and remember listings for ever
            entries = sorted(filesystem.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
        below = [entry for entry in entries if str(entry["name"]).rstrip("/") != folder.rstrip("/")]
        for entry in below:
            if entry.get("type") == "file":
                uri = public_uri(_url_of(url, filesystem, entry["name"]))
                yield FsspecSource(uri, filesystem, entry["name"]).at(entry)
        waiting.extend(str(entry["name"]) for entry in reversed(below) if entry.get("type") == "directory")


def _url_of(url: str, filesystem: Any, name: str) -> str:
    """Return the URL of a file that was found below `url`, which may be a chain."""
    chain = CHAIN.fullmatch(url)
    if chain is None:
        return str(filesystem.unstrip_protocol(name))
    outer, inner = chain["outer"], chain["inner"]
    if "://" in outer:
        return f"{outer.partition('://')[0]}://{name.lstrip('/')}::{inner}"
    return f"{outer}::{inner.partition('://')[0]}://{name.lstrip('/')}"
