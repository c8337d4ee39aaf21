"""The files that inventories name, as instances to be ingested."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cloud_optimized_dicom.ingest.archives import SourceFailure
from cloud_optimized_dicom.ingest.inventory import iter_inventory, iter_row_sources
from cloud_optimized_dicom.ingest.public_uri import names_one_file
from cloud_optimized_dicom.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.ingest.report_file import FinishedFiles
    from cloud_optimized_dicom.storage.base import ObjectStore


class InventoryInstances:
    """An iterator, made to be consumed once, over the instances of all rows that are not finished.

    Parameters
    ----------
    tables, columns
        As of :func:`~cloud_optimized_dicom.ingest.inventory.iter_inventory`; the tables are looked at at once.
    finished
        The files to leave out.
    scratch
        Takes archives that have to be unpacked.
    on_failure
        Called with every row, or member of an archive, that cannot be an instance.

    Raises
    ------
    InventoryError, MissingDependencyError
        If a table cannot be used.
    """

    def __init__(
        self,
        tables: Sequence[str],
        columns: Mapping[str, str],
        finished: FinishedFiles,
        scratch: Path,
        on_failure: Callable[[SourceFailure], None],
    ) -> None:
        self.skipped = 0
        self._rows = chain.from_iterable([iter_inventory(table, columns) for table in tables])
        self._finished, self._scratch, self._on_failure = finished, scratch, on_failure
        self._claimed: dict[str, str] = {}

    def __iter__(self) -> Iterator[Instance]:
        stores: dict[str, ObjectStore] = {}
        for row in self._rows:
            if isinstance(row, SourceFailure):
                self._on_failure(row)
                continue
            is_told = names_one_file(row.uri)  # else a line of a report may be of another file
            for found in iter_row_sources(row, None, stores, self._scratch):
                if isinstance(found, SourceFailure):
                    self._on_failure(found)
                    continue
                source, hints = found
                if is_told and self._finished.holds(source.uri, hints):
                    self.skipped += 1
                    continue
                if is_told and hints.crc32c is not None:
                    self._claimed[source.uri] = hints.crc32c
                yield Instance.from_source(source, hints)

    def claimed_crc32c(self, uri: str) -> str | None:
        """Return, once, the CRC32C that a row claimed of a file: only files under way are remembered."""
        return self._claimed.pop(uri, None)
