"""From a URL or a path to a store."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cloud_optimized_dicom.errors import StorageError
from cloud_optimized_dicom.storage.base import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


# The adapters are imported where they are opened: a local datastore must not pay for a cloud SDK.


def _open_local(path: str, _client: Any) -> ObjectStore:
    from cloud_optimized_dicom.storage.local import LocalStore  # noqa: PLC0415

    return LocalStore(path)


def _open_file(url: str, _client: Any) -> ObjectStore:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise StorageError(url, "a file URL is file:///absolute/path")
    return _open_local(unquote(url.partition("://")[2].removeprefix(parts.netloc)), None)


def _open_memory(url: str, _client: Any) -> ObjectStore:
    from cloud_optimized_dicom.storage.memory import MemoryStore  # noqa: PLC0415

    return MemoryStore(url)


def _open_gcs(url: str, client: Any) -> ObjectStore:
    from cloud_optimized_dicom.storage.gcs import GcsStore  # noqa: PLC0415

    bucket, _, prefix = url.partition("://")[2].partition("/")
    return GcsStore(bucket, prefix, client)


_OPENERS: dict[str, Callable[[str, Any], ObjectStore]] = {
    "file": _open_file,
    "gs": _open_gcs,
    "memory": _open_memory,
}


def open_store(url_or_path: str | os.PathLike[str] | ObjectStore, client: Any = None) -> ObjectStore:
    """Return the store that a URL or a local path names; nothing is read or made yet.

    Parameters
    ----------
    url_or_path
        ``gs://bucket/prefix``, ``file:///path``, a path, or ``memory://name``; trailing slashes do not matter.  A store
        is returned as it is.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None); other stores have no use for one.

    Raises
    ------
    StorageError
        If no store has this scheme, or the URL names nothing.
    """
    if isinstance(url_or_path, ObjectStore):
        return url_or_path
    text = os.fspath(url_or_path)
    scheme = _SCHEME.match(text)
    if scheme is None:
        if not text:
            raise StorageError(text, "an empty path names no store")
        return _open_local(text, client)
    opener = _OPENERS.get(scheme[1].lower())
    if opener is None:
        known = ", ".join(f"{name}://" for name in sorted(_OPENERS))
        raise StorageError(text, f"no store for {scheme[1]}://; known are {known} and local paths")
    return opener(text.rstrip("/"), client)
