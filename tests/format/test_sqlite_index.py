"""index.sqlite: ours says what an older writer's says of the same tar."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.format.metadata.document import parse_document
from cloud_optimized_dicom.format.sqlite_index import SqliteIndex, dump_sqlite_index, index_of, parse_sqlite_index

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
INDEXES = [pytest.param(path, id=path.relative_to(GOLDEN).parts[0]) for path in sorted(GOLDEN.rglob("index.sqlite"))]


def opened(data: bytes) -> sqlite3.Connection:
    """Return an index as a database in memory."""
    database = sqlite3.connect(":memory:")
    database.deserialize(data)
    return database


def rows(data: bytes) -> list[tuple[Any, ...]]:
    """Return the rows of all members, but for modification times and permissions, which the metadata does not have."""
    columns = 'path, name, offsetheader, "offset", size, type, linkname, uid, gid, istar, issparse, isgenerated'
    with closing(opened(data)) as database:
        return database.execute(f"SELECT {columns}, recursiondepth FROM files ORDER BY path, offset").fetchall()


def tables(data: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """Return every table's and view's columns."""
    with closing(opened(data)) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type IN ('table','view')")]
        return {name: database.execute(f"PRAGMA table_info({name})").fetchall() for name in names}


def document_beside(path: Path) -> tuple[SeriesDocument, int]:
    """Return the document of a golden series, and the size of its tar."""
    document = parse_document("x", (path.parent / "metadata.json").read_bytes())
    return document, path.parent.with_name(f"{path.parent.name}.tar").stat().st_size


@pytest.mark.parametrize("path", INDEXES)
def test_an_index_is_as_an_older_writer_makes_it(path: Path) -> None:
    """The same tables, versions and arguments, and row by row the same places, pax headers included."""
    document, size = document_beside(path)
    theirs, ours = path.read_bytes(), dump_sqlite_index(document.iter_records(), size)
    assert rows(ours) == rows(theirs)
    assert tables(ours) == tables(theirs)
    for query in ("SELECT * FROM versions", "SELECT value FROM metadata WHERE key = 'arguments'"):
        with closing(opened(ours)) as mine, closing(opened(theirs)) as other:
            assert mine.execute(query).fetchall() == other.execute(query).fetchall()


@pytest.mark.parametrize("path", INDEXES)
def test_an_index_is_read_back(path: Path) -> None:
    """What an index says is what the metadata say, in theirs and in ours; the same records give the same bytes."""
    document, size = document_beside(path)
    expected = index_of(document.iter_records(), size)
    data = dump_sqlite_index(document.iter_records(), size)
    assert parse_sqlite_index(path.read_bytes()) == parse_sqlite_index(data) == expected
    assert data == dump_sqlite_index(reversed(list(document.iter_records())), size)


def test_a_tar_without_members_has_an_index() -> None:
    """A series that was emptied has an index of nothing."""
    assert parse_sqlite_index(dump_sqlite_index([], 0)) == SqliteIndex(0, frozenset())


@pytest.mark.parametrize("data", [b"", b"not a database", b"SQLite format 3\0" + bytes(84), bytes(4096)])
def test_what_says_nothing_is_no_index(data: bytes) -> None:
    """An empty, damaged or foreign file is no index, and no error."""
    assert parse_sqlite_index(data) is None


def test_a_foreign_database_is_no_index() -> None:
    """A database without the tables, or with nonsense in them, says nothing."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE metadata (key, value)")
        assert parse_sqlite_index(database.serialize()) is None
        database.execute("CREATE TABLE files (path, name, offset, size)")
        database.execute("INSERT INTO metadata VALUES ('tarstats', '{\"st_size\": \"large\"}')")
        database.commit()
        assert parse_sqlite_index(database.serialize()) is None
        database.execute("UPDATE metadata SET value = '{\"st_size\": 7}'")
        database.execute("INSERT INTO files VALUES ('/instances', 'x', 'nowhere', 1)")
        database.commit()
        assert parse_sqlite_index(database.serialize()) is None
