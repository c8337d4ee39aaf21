"""From what people type (files, folders, patterns, prefixes, archives) to the sources that are ingested."""

from __future__ import annotations

import os
import re
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cloud_optimized_dicom.errors import InstanceValidationError, StorageError
from cloud_optimized_dicom.ingest.archives import SourceFailure, is_archive, is_hidden, iter_members, refusal_of
from cloud_optimized_dicom.ingest.fsspec_source import (
    IS_FOLDER,
    FsspecSource,
    iter_listing,
    open_filesystem,
)
from cloud_optimized_dicom.ingest.http_source import HttpSource
from cloud_optimized_dicom.ingest.parts import reason_of
from cloud_optimized_dicom.ingest.public_uri import NESTED, is_chained, public_uri
from cloud_optimized_dicom.ingest.source_kinds import (
    FileSource,
    GunzipSource,
    ObjectSource,
    Source,
    TarMemberSource,
    ZipMemberSource,
    text_of,
)
from cloud_optimized_dicom.storage.urls import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableMapping, Sequence

    from cloud_optimized_dicom.storage.base import ObjectStore

__all__ = [
    "FileSource",
    "FsspecSource",
    "GunzipSource",
    "HttpSource",
    "ObjectSource",
    "Source",
    "SourceFailure",
    "TarMemberSource",
    "ZipMemberSource",
    "expand",
    "iter_sources",
    "source_of",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MAGIC = re.compile(r"[*?\[]")
_STORES = frozenset({"gs", "memory"})
_WEB = frozenset({"http", "https"})


def source_of(
    uri: str | os.PathLike[str], client: Any = None, stores: MutableMapping[str, ObjectStore] | None = None
) -> Source:
    """Return the source that one URI names.

    Parameters
    ----------
    uri
        A path; a ``file://``, ``gs://``, ``memory://``, ``http://``, ``https://`` or any fsspec URL; or a member of an
        archive at one of these as ``{archive}://{member}``.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None).
    stores
        Takes the stores that are opened, by bucket: sources of one bucket then share its connections.

    Raises
    ------
    InstanceValidationError
        If no source has this scheme, or the archive cannot be read or holds no such member.
    MissingDependencyError
        If an fsspec URL needs a package that is not installed.

    Notes
    -----
    Reads nothing, except for a member: the archive is then searched for it.
    """
    text = os.fspath(uri)
    nested = NESTED.fullmatch(text)
    if nested:
        return _find_member(_pinned(source_of(nested["archive"], client, stores), None), nested["member"])
    path = _local_path(text)
    if path is not None:
        return FileSource(text_of(text), path)
    scheme = _scheme_of(text)
    if scheme in _WEB:
        return HttpSource.of(text)
    if scheme not in _STORES:
        return FsspecSource.of(text)
    root, name = _split_object(text)
    try:
        if not name or name.endswith("/"):
            raise InstanceValidationError(text, "names no object")
        store = open_store(root, client) if stores is None or root not in stores else stores[root]
    except StorageError as error:
        raise InstanceValidationError(text, error.reason) from error
    if stores is not None:
        stores[root] = store
    return ObjectSource(text, store, name)


def _scheme_of(text: str) -> str | None:
    """Return the scheme of a URL that no store of ours and no web server has for a chain; None for a path."""
    if is_chained(text):
        return "::"
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def _split_object(text: str) -> tuple[str, str]:
    """Return the URL of the bucket, and the name in it."""
    scheme, _, rest = text.partition("://")
    root, _, name = rest.partition("/")
    return f"{scheme}://{root}", name


def iter_sources(
    arguments: Iterable[str | os.PathLike[str]], client: Any = None, temp_dir: Path | None = None
) -> Iterator[Source | SourceFailure]:
    """Yield the files that arguments name, in a fixed order; what cannot be read is a value among them.

    Parameters
    ----------
    arguments
        Files, folders (with all that is in them), patterns (``*`` and ``?`` within a name, ``**`` across folders; a
        pattern that matches a folder takes all that is in it), prefixes of object stores, files of web servers, files
        and folders of fsspec's file systems, members of archives, and zip and tar archives (also those in folders).
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None).
    temp_dir
        A folder that outlives the sources, for unpacked ``.tar.gz`` archives; see :func:`iter_members`.

    Notes
    -----
    Lazy.  Names are sorted, archives keep their own order.  Hidden files and folders are left out unless named
    themselves.  A folder is read once per argument, however many links lead to it, so that loops end.
    """
    for argument in arguments:
        text = os.fspath(argument)
        try:
            for item in _iter_argument(text, client):
                yield from expand(item, temp_dir)
        except InstanceValidationError as error:
            yield SourceFailure(error.uri, error.reason)
        except StorageError as error:
            yield SourceFailure(text, error.reason)


def _iter_argument(text: str, client: Any) -> Iterator[Source | SourceFailure]:
    if NESTED.fullmatch(text):
        return iter([source_of(text, client)])
    path = _local_path(text)
    if path is None:
        scheme = _scheme_of(text)
        if scheme in _WEB:
            return iter([HttpSource.of(text)])
        return _iter_objects(text, client) if scheme in _STORES else _iter_filesystem(text)
    if _MAGIC.search(text) and not os.path.lexists(path):
        return _iter_pattern(path)
    return _walk(path)


def expand(item: Source | SourceFailure, temp_dir: Path | None) -> Iterator[Source | SourceFailure]:
    """Yield the members of what is an archive, a failure for what holds no instance, and the item itself otherwise."""
    if isinstance(item, SourceFailure):
        yield item
        return
    reason = refusal_of(item.uri)
    if reason:
        yield SourceFailure(item.uri, reason)
    elif is_archive(item.uri) and not NESTED.fullmatch(item.uri) and not is_chained(item.uri):
        yield from iter_members(_pinned(item, temp_dir), temp_dir)
    else:
        yield item


def _pinned(archive: Source, directory: Path | None) -> Source:
    """Return an archive whose members are all read from one state of it, each without asking again what that is."""
    return archive.pinned(directory) if isinstance(archive, HttpSource | FsspecSource) else archive


def _find_member(archive: Source, member: str) -> Source:
    uri = f"{archive.uri}://{member}"
    failure = SourceFailure(uri, "the archive holds no such member")
    for item in iter_members(archive):
        if not isinstance(item, SourceFailure):
            if item.uri == uri:
                return item
        elif item.uri in {uri, archive.uri}:
            failure = item
    raise InstanceValidationError(uri, failure.reason)


def _local_path(text: str) -> Path | None:
    if is_chained(text):
        return None
    scheme = _SCHEME.match(text)
    if scheme is None:
        if not text:
            raise InstanceValidationError(text, "an empty path names no file")
        return Path(text)
    if scheme[1].lower() != "file":
        return None
    parts = urlsplit(text)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise InstanceValidationError(public_uri(text), "a file URL is file:///absolute/path")
    return Path(unquote(text[scheme.end() :].removeprefix(parts.netloc)))


def _walk(root: Path) -> Iterator[Source | SourceFailure]:
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:  # not recursive: folders nest deeper than Python calls do
        path = waiting.pop()
        try:
            state = path.stat()
            if stat.S_ISREG(state.st_mode):
                yield FileSource(text_of(path), path, state.st_size)
            elif not stat.S_ISDIR(state.st_mode):
                yield SourceFailure(text_of(path), "not a regular file")
            elif (state.st_dev, state.st_ino) not in seen:
                seen.add((state.st_dev, state.st_ino))
                entries = (entry for entry in path.iterdir() if not entry.name.startswith("."))
                waiting.extend(sorted(entries, reverse=True))
        except (OSError, ValueError) as error:
            yield SourceFailure(text_of(path), reason_of(error))


def _iter_pattern(pattern: Path) -> Iterator[Source | SourceFailure]:
    fixed = Path(*_until_magic(pattern.parts))
    wanted = Path(text_of(pattern)).parts
    found = False
    for item in _walk(fixed):
        if _matches(wanted, Path(item.uri).parts):
            found = True
            yield item
    if not found:
        yield SourceFailure(text_of(pattern), "matches no file")


def _until_magic(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if _MAGIC.search(part):
            return
        yield part


def _iter_objects(text: str, client: Any) -> Iterator[Source | SourceFailure]:
    root, name = _split_object(text)
    store = open_store(root, client)
    magic = _MAGIC.search(name)
    if not magic and name and not name.endswith("/"):
        info = store.find(name)
        if info is not None:
            yield ObjectSource.of(store, info)
            return
    prefix = name[: magic.start()] if magic else name.rstrip("/") + "/" if name else ""
    base = prefix.rpartition("/")[0]
    wanted = name.split("/") if magic else []
    found = False
    for info in store.list(prefix):
        below = info.name[len(base) :].removeprefix("/")
        if below and not info.name.endswith("/") and not is_hidden(below) and _matches(wanted, info.name.split("/")):
            found = True
            yield ObjectSource.of(store, info)
    if not found:
        yield SourceFailure(text, "no object has this name or lies below it")


def _iter_filesystem(text: str) -> Iterator[Source | SourceFailure]:
    filesystem, path = open_filesystem(text)
    magic = _MAGIC.search(path)
    if not magic and not text.endswith("/"):
        whole = FsspecSource(public_uri(text), filesystem, path)
        try:
            yield whole.pinned(None)
        except InstanceValidationError as error:
            if error.reason != IS_FOLDER:
                raise
        else:
            return
    base = path[: magic.start()].rpartition("/")[0] if magic else path.rstrip("/")
    wanted = path.split("/") if magic else []
    found = False
    for item in iter_listing(text, filesystem, base):
        if not is_hidden(item.path[len(base) :].lstrip("/")) and _matches(wanted, item.path.split("/")):
            found = True
            yield item
    if not found:
        yield SourceFailure(public_uri(text), "no file has this name or lies below it")


def _matches(pattern: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether a path, part by part, matches a pattern or lies below what matches it."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(pattern[1:], names[skipped:]) for skipped in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(pattern[1:], names[1:])
