"""A catalogue, asked in SQL by DuckDB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cloud_optimized_dicom.catalogue.columns import STUDY_ATTRIBUTES, instance_columns, schema_of, series_columns
from cloud_optimized_dicom.catalogue.extras import duckdb, pyarrow
from cloud_optimized_dicom.catalogue.manifest import MANIFEST, TABLES, parse_manifest
from cloud_optimized_dicom.series.files import open_range_file
from cloud_optimized_dicom.storage.urls import open_store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from cloud_optimized_dicom.storage.base import ObjectStore

_BATCH_ROWS = 8192
# What is wrong with the text of a query; the texts of all other errors may quote values.
_OF_THE_TEXT = ("ParserException", "BinderException", "CatalogException", "SyntaxException")


class Column(NamedTuple):
    """A column of a result: its name, and its type in DuckDB's words."""

    name: str
    type: str


class Rows:
    """The result of a query, to be iterated over once and before the next query."""

    def __init__(self, result: Any) -> None:
        described = (result.description if result is not None else None) or ()
        self._result = result
        self.columns = tuple(Column(str(column[0]), str(column[1])) for column in described)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while self.columns and (batch := _told(self._result.fetchmany, _BATCH_ROWS)):
            yield from batch


class Catalogue:
    """A catalogue as it was when it was opened, to be used in a ``with`` block.

    Parameters
    ----------
    destination
        Where it is: a local folder, the URL of any store, or a store.

    Raises
    ------
    ObjectNotFoundError
        If there is no catalogue.
    MissingDependencyError
        Without the extras ``query`` and ``export``.

    Notes
    -----
    There are three views: `series`, `instances` and `studies`.  Local files are read by DuckDB itself, others by
    ranges, of the columns that a query needs.  A catalogue that is updated meanwhile stays readable until the update
    after that.
    """

    def __init__(self, destination: str | os.PathLike[str] | ObjectStore) -> None:
        self.store = open_store(destination)
        engine = duckdb()
        pyarrow()
        self.manifest = parse_manifest(self.store.url_of(MANIFEST), self.store.read_object(MANIFEST).data)
        # Nothing is fetched from anywhere behind the caller's back.
        self._connection = engine.connect(config={"autoinstall_known_extensions": "false"})
        for table in TABLES:
            self._add(table, self.manifest.names_of(table))
        self._connection.execute(_STUDIES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the tables."""
        self._connection.close()

    def query(self, sql: str) -> Rows:
        """Run SQL and return what its last statement returns.

        Raises
        ------
        ValueError
            If it is no SQL, names what is not there, or fails over a value.
        """
        return Rows(_told(self._connection.execute, sql))

    def _add(self, table: str, names: list[str]) -> None:
        folder = Path(self.store.url)
        if names and folder.is_absolute():
            paths = ", ".join("'" + str(folder / name).replace("'", "''") + "'" for name in names)
            self._connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet([{paths}])")  # noqa: S608
            return
        self._connection.register(table, _dataset(self.store, table, names))


def _dataset(store: ObjectStore, table: str, names: list[str]) -> Any:
    """Return an Arrow dataset whose files are read by ranges."""
    schema = schema_of(series_columns() if table == TABLES[0] else instance_columns())
    if not names:
        return schema.empty_table()
    dataset = pyarrow("dataset")
    parquet = dataset.ParquetFileFormat()
    return dataset.FileSystemDataset([parquet.make_fragment(_open(store, name)) for name in names], schema, parquet)


def _open(store: ObjectStore, name: str) -> Any:
    return open_range_file(lambda span: store.read(name, span), store.stat(name).size, name=name)


def _told(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except duckdb().Error as error:
        kind = type(error).__name__
        text = str(error) if kind in _OF_THE_TEXT else re.sub(r"(?<!^)(?=[A-Z])", " ", kind).lower()
        # The text of other errors, and the chained one, may quote values.
        raise ValueError(text) from None


_STUDY_VALUES = ", ".join(f"any_value({one.keyword}) AS {one.keyword}" for one in STUDY_ATTRIBUTES)
_STUDIES = f"""
CREATE VIEW studies AS SELECT StudyInstanceUID, {_STUDY_VALUES},
    list_sort(list(DISTINCT Modality)) AS ModalitiesInStudy,
    count(*) AS NumberOfStudyRelatedSeries,
    sum(NumberOfSeriesRelatedInstances)::BIGINT AS NumberOfStudyRelatedInstances,
    sum(size_bytes)::BIGINT AS size_bytes
FROM series GROUP BY StudyInstanceUID
"""  # noqa: S608 - made of the constants above
