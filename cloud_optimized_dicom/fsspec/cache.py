"""Stores and series that a filesystem has open: each opened once, per process."""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.base import ObjectStore
from cloud_optimized_dicom.storage.urls import open_store

if TYPE_CHECKING:
    from cloud_optimized_dicom.uids import SeriesKey

_READERS_KEPT = 64


def portable_client(client: Any) -> Any:
    """Return what a client of Google Cloud Storage can be made from again in another process."""
    from cloud_optimized_dicom.storage.gcs_client import ClientRecipe  # noqa: PLC0415 - loads the cloud SDK

    return client if client is None or isinstance(client, ClientRecipe) else ClientRecipe.of(client)


def _made(client: Any) -> Any:
    from cloud_optimized_dicom.storage.gcs_client import ClientRecipe  # noqa: PLC0415 - loads the cloud SDK

    return client.make() if isinstance(client, ClientRecipe) else client


class OpenSeries:
    """The series of one or more datastores.

    Parameters
    ----------
    target
        The datastore that all paths are relative to: a URL, a path or a store.  None: the root of a path says it.
    protocol
        Of the datastores that roots name.
    client
        For ``gs://``: a ``google.cloud.storage.Client``, or what one can be made from.

    Notes
    -----
    Threads may share it.  A forked process opens everything anew, and never touches a connection, or waits for a lock,
    of its parent.
    """

    def __init__(self, target: str | os.PathLike[str] | ObjectStore | None, protocol: str, client: Any) -> None:
        self._target, self._protocol, self._client = target, protocol, client
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stores: dict[str, ObjectStore] = {}
        self._readers: OrderedDict[tuple[str, SeriesKey], SeriesReader] = OrderedDict()
        self._opening: dict[tuple[str, SeriesKey], threading.Lock] = {}

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._client = portable_client(self._client)
            if isinstance(self._target, ObjectStore):
                self._target = copy.copy(self._target)  # as pickling does: with connections of its own
            self._reset()

    def forget(self) -> None:
        """Open every series anew when it is next asked for."""
        self._check_process()
        with self._lock:
            self._readers.clear()

    def store(self, root: str) -> ObjectStore:
        """Return the datastore of a root.

        Raises
        ------
        FileNotFoundError
            If the root names none.
        """
        self._check_process()
        with self._lock:
            if root not in self._stores:
                self._stores[root] = self._open(root)
            return self._stores[root]

    def _open(self, root: str) -> ObjectStore:
        if self._target is not None:
            if root.strip("/"):
                raise FileNotFoundError(root)
            return open_store(self._target, _made(self._client) if self._client is not None else None)
        if not root.strip("/"):
            raise FileNotFoundError("a path begins with the datastore: cod://bucket/prefix/studies/...")
        client = _made(self._client) if self._client is not None else None
        return open_store(url_of(self._protocol, root), client)

    def reader(self, root: str, key: SeriesKey, *, fresh: bool = False) -> SeriesReader:
        """Return the reader of a series; one request if it is not open, has been overtaken, or is to be read anew.

        Raises
        ------
        CODObjectNotFoundError
            If there is no such series.
        """
        store = self.store(root)
        with self._lock:
            opening = self._opening.setdefault((root, key), threading.Lock())
            seen = self._readers.get((root, key))
        with opening:
            with self._lock:
                reader = self._readers.get((root, key))
                if reader is not None and not reader.overtaken and (not fresh or reader is not seen):
                    self._readers.move_to_end((root, key))
                    return reader
            reader = SeriesReader.open(store, key)
            with self._lock:
                self._readers[root, key] = reader
                while len(self._readers) > _READERS_KEPT:
                    self._opening.pop(self._readers.popitem(last=False)[0], None)
            return reader


def url_of(protocol: str, root: str) -> str:
    """Return the URL or path of the datastore at a root, ``bucket/prefix`` for instance."""
    if protocol in {"file", "local"}:
        return root
    return f"{protocol}://{root.lstrip('/')}"
