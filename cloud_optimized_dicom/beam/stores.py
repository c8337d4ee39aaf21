"""What a worker opens once and uses for all of its elements: stores, their connections, a folder for copies."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam

from cloud_optimized_dicom.ingest.sources import source_of
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.storage.urls import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.ingest.inventory import InventoryRow
    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.storage.base import ObjectStore


class WorkerStores:
    """The stores of one worker: made in the `setup` of a DoFn, closed in its `teardown`, never pickled.

    Parameters
    ----------
    temp_dir
        Where the folder for copies is made; None: where the system has such folders.

    Notes
    -----
    Clients are made by the stores when they are first used, with the default credentials of the worker, or for the
    server that ``STORAGE_EMULATOR_HOST`` names.
    """

    def __init__(self, temp_dir: str | None = None) -> None:
        self._opened: dict[str, ObjectStore] = {}
        self._sources: dict[str, ObjectStore] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="cod-beam-", dir=temp_dir)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give a folder for what one element needs; it is gone behind the block."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            yield Path(name)

    @property
    def scratch(self) -> Path:
        """A folder for copies; it is gone after :meth:`close`."""
        return Path(self._scratch.name)

    def store(self, url: str) -> ObjectStore:
        """Return the datastore of a URL."""
        if url not in self._opened:
            self._opened[url] = open_store(url)
        return self._opened[url]

    def source(self, uri: str, _client: Any = None) -> Source:
        """Return the source of a URI; sources of one bucket share its connections."""
        return source_of(uri, None, self._sources)

    def instance(self, row: InventoryRow) -> Instance:
        """Return the instance that a row names; nothing is read."""
        instance = Instance(row.uri, hints=row.hints)
        instance.open_by(self.source)
        return instance

    @property
    def sources(self) -> dict[str, ObjectStore]:
        """The stores of sources, by bucket."""
        return self._sources

    def close(self) -> None:
        """End all connections, and delete the folder."""
        for store in (*self._opened.values(), *self._sources.values()):
            store.close()
        self._scratch.cleanup()


class StoresFn(beam.DoFn):
    """A function that has stores: one set for all elements that a worker hands to it."""

    def setup(self) -> None:
        """Open what the worker keeps."""
        self.stores = WorkerStores()

    def teardown(self) -> None:
        """Close it."""
        self.stores.close()
