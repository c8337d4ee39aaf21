"""From an inventory to the files that it names, with what it claims of each."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from cloud_optimized_dicom.errors import (
    CODError,
    InstanceValidationError,
    InventoryError,
    MissingDependencyError,
    StorageError,
)
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.archives import SourceFailure
from cloud_optimized_dicom.ingest.inventory.columns import Columns, are_positions, resolve_columns
from cloud_optimized_dicom.ingest.inventory.tables import open_table
from cloud_optimized_dicom.ingest.inventory.values import (
    common_form,
    is_true,
    parse_crc32c,
    parse_size,
    parse_uid,
    text_of_cell,
)
from cloud_optimized_dicom.ingest.public_uri import public_uri
from cloud_optimized_dicom.ingest.sources import expand, iter_sources, source_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, MutableMapping
    from pathlib import Path

    from cloud_optimized_dicom.ingest.inventory.tables import Record
    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.storage.base import ObjectStore

SAMPLE_ROWS = 1000
"""Of a table are looked at to know its columns."""

_GENERATION = re.compile(r"#[0-9]{10,}$")


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """A file that an inventory names.

    Parameters
    ----------
    uri
        Where it is.
    hints
        What the inventory claims of it.
    """

    uri: str
    hints: Hints


@dataclass(frozen=True)
class _Inventory:
    """One file of an inventory, its columns known."""

    source: Source
    columns: Columns
    kind: str
    has_header: bool

    def rows(self) -> Iterator[InventoryRow | SourceFailure]:
        uri = self.source.uri
        try:
            with (
                closing(self.source.open()) as stream,
                closing(open_table(stream, has_header=self.has_header, wanted=self.columns.used)) as table,
            ):
                for record in table.records:
                    row = parse_row(f"{uri} {record.place}", self.columns, record, is_csv=self.kind == "csv")
                    if row is not None:
                        yield row
        except InstanceValidationError as error:
            yield SourceFailure(uri, f"the rest of the inventory was not read: {error.reason}")
        except (CODError, OSError, EOFError, ValueError) as error:
            yield SourceFailure(uri, f"the rest of the inventory was not read: {_reason(error)}")


def parse_row(
    place: str, columns: Columns, record: Record, *, is_csv: bool = False
) -> InventoryRow | SourceFailure | None:
    """Return what a row says; None for what is no file: folders, and versions that are not the live one.

    Parameters
    ----------
    place
        What a failure calls the row.
    is_csv
        Whether keys of S3 are written as in URLs.
    """
    cells = record.cells
    if record.problem:
        return SourceFailure(place, f"{place} {record.problem}")
    uri = _uri_of(columns, cells, is_csv=is_csv)
    if uri is None:
        return SourceFailure(place, f"{place} does not say where the file is")
    if uri.endswith("/") or not _is_live(columns, cells):
        return None
    try:
        uri.encode("utf-8")
        return InventoryRow(uri, _hints(columns, cells))
    except UnicodeEncodeError:
        return SourceFailure(place, f"{place} is not UTF-8")
    except ValueError as error:
        return SourceFailure(public_uri(uri), f"{place}: {error}")


def columns_of(names: Iterable[str], sample: Iterable[Mapping[str, Any]], given: Mapping[str, str]) -> Columns:
    """Return the columns of a table by its names, and by what the cells of a sample look like.

    Raises
    ------
    ValueError
        As :func:`~cloud_optimized_dicom.ingest.inventory.columns.resolve_columns`.
    """
    resolved = resolve_columns(names, given)
    if resolved.crc32c is None or resolved.crc32c_form is not None:
        return resolved
    return replace(resolved, crc32c_form=common_form(_cell(cells, resolved.crc32c) for cells in sample))


def _uri_of(columns: Columns, cells: Mapping[str, Any], *, is_csv: bool) -> str | None:
    uri = text_of_cell(_cell(cells, columns.uri))
    if uri is not None:
        generation = text_of_cell(_cell(cells, columns.generation))
        if generation is not None:
            return uri.removesuffix(f"#{generation}")
        return _GENERATION.sub("", uri) if columns.uri == "storage_url" else uri
    bucket = text_of_cell(_cell(cells, columns.bucket))
    # Blanks at the ends of an object's name are part of it.
    name, key = _cell(cells, columns.name), _cell(cells, columns.key)
    if bucket is None or not (name or key):
        return None
    if name:
        return f"{_with_scheme('gs', bucket)}/{name}"
    # S3 writes keys into CSV as it does into URLs, and nowhere else.
    return f"{_with_scheme('s3', bucket)}/{unquote_plus(key) if is_csv else key}"


def _with_scheme(scheme: str, bucket: str) -> str:
    return bucket.rstrip("/") if "://" in bucket else f"{scheme}://{bucket}"


def _cell(cells: Mapping[str, Any], column: str | None) -> Any:
    return None if column is None else cells.get(column)


def _is_live(columns: Columns, cells: Mapping[str, Any]) -> bool:
    if text_of_cell(_cell(cells, columns.deleted)) is not None or is_true(_cell(cells, columns.marker)):
        return False
    latest = text_of_cell(_cell(cells, columns.latest))
    return latest is None or is_true(latest)


def _hints(columns: Columns, cells: Mapping[str, Any]) -> Hints:
    hints = Hints(
        parse_size(_cell(cells, columns.size)),
        parse_crc32c(_cell(cells, columns.crc32c), columns.crc32c_form),
        parse_uid(_cell(cells, columns.instance_uid), "instance"),
        parse_uid(_cell(cells, columns.series_uid), "series"),
        parse_uid(_cell(cells, columns.study_uid), "study"),
    )
    if text_of_cell(_cell(cells, columns.encoding)) == "gzip":
        return replace(hints, size=None, crc32c=None)  # they describe the packed bytes, the file is what is inside
    return hints


def iter_inventory(
    location: str | os.PathLike[str], columns: Mapping[str, str] | None = None, client: Any = None
) -> Iterator[InventoryRow | SourceFailure]:
    """Return an iterator over the files that an inventory names; a bad row is a value among them.

    Parameters
    ----------
    location
        A CSV, JSON Lines, JSON or Parquet file, gzipped perhaps, wherever a source can be; or a folder, prefix or
        pattern of such files, which are read in the order of their names.
    columns
        Which column means what, where its name does not tell: see
        :func:`~cloud_optimized_dicom.ingest.inventory.columns.parse_columns`.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None).

    Raises
    ------
    InventoryError
        At once, if a file cannot be read, or no column of it says where the files are.
    MissingDependencyError
        At once, for Parquet without pyarrow.

    Notes
    -----
    Holds a few thousand rows at a time, however many there are.  Rows of folders (names that end in a slash), of
    noncurrent versions and of delete markers are passed over.
    """
    given = dict(columns or {})
    inventories = [_checked(found, given) for found in iter_sources([location], client)]
    return chain.from_iterable(inventory.rows() for inventory in inventories)


def _checked(found: Source | SourceFailure, given: Mapping[str, str]) -> _Inventory:
    """Return an inventory whose columns are known: its beginning is read for that."""
    if isinstance(found, SourceFailure):
        raise InventoryError(found.uri, found.reason)
    has_header = not are_positions(given)
    try:
        with closing(found.open()) as stream, closing(open_table(stream, has_header=has_header)) as table:
            sample = list(islice(table.records, SAMPLE_ROWS))
        names = table.names or list(dict.fromkeys(name for record in sample for name in record.cells))
        # An empty JSON array names nothing.
        resolved = columns_of(names, (record.cells for record in sample), given) if names else Columns()
    except MissingDependencyError:
        raise
    except (CODError, OSError, EOFError, ValueError) as error:
        raise InventoryError(found.uri, _reason(error)) from error
    return _Inventory(found, resolved, table.kind, has_header)


def iter_row_sources(
    row: InventoryRow, client: Any, stores: MutableMapping[str, ObjectStore], temp_dir: Path | None = None
) -> Iterator[tuple[Source, Hints] | SourceFailure]:
    """Yield the file of a row with its hints, or the members of an archive, of which nothing is claimed.

    Parameters
    ----------
    stores, temp_dir
        As of :func:`~cloud_optimized_dicom.ingest.sources.source_of` and
        :func:`~cloud_optimized_dicom.ingest.sources.iter_sources`.
    """
    try:
        whole = source_of(row.uri, client, stores)
        for found in expand(whole, temp_dir):
            yield found if isinstance(found, SourceFailure) else (found, row.hints if found is whole else Hints())
    except (InstanceValidationError, StorageError) as error:
        yield SourceFailure(public_uri(row.uri), error.reason)


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
