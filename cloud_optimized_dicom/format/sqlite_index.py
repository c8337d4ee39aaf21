"""index.sqlite: the index that the ratarmount project keeps for a tar, which older readers of this format ask for.

The layout is that of ratarmount's index version 0.7.0, learnt from the golden stores.  Nobody here reads a byte of a
DICOM file by it; it is made from the metadata and can be made again at any time.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.format.tar import BLOCK_BYTES, padded
from cloud_optimized_dicom.uids import member_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloud_optimized_dicom.model import InstanceRecord

_SCHEMA = """
CREATE TABLE "files" (
    "path"           VARCHAR(65535) NOT NULL,
    "name"           VARCHAR(65535) NOT NULL,
    "offsetheader"   INTEGER,
    "offset"         INTEGER,
    "size"           INTEGER,
    "mtime"          REAL,
    "mode"           INTEGER,
    "type"           INTEGER,
    "linkname"       VARCHAR(65535),
    "uid"            INTEGER,
    "gid"            INTEGER,
    "istar"          BOOL,
    "issparse"       BOOL,
    "isgenerated"    BOOL,
    "recursiondepth" INTEGER,
    PRIMARY KEY ("path","name","offsetheader")
);
CREATE TABLE "xattrkeys" ("id" INTEGER PRIMARY KEY, "name" VARCHAR(65535) UNIQUE);
CREATE TABLE "xattrsdata" (
    "offsetheader" INTEGER,
    "keyid" INTEGER,
    "value" VARCHAR(65535),
    PRIMARY KEY ("offsetheader","keyid"),
    FOREIGN KEY ("keyid") REFERENCES xattrkeys("id")
);
CREATE TABLE "metadata" ("key" VARCHAR(65535) NOT NULL, "value" VARCHAR(65535) NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE "versions" (
    "name" VARCHAR(65535) NOT NULL,
    "version" VARCHAR(65535) NOT NULL,
    "major" INTEGER,
    "minor" INTEGER,
    "patch" INTEGER,
    PRIMARY KEY ("name")
);
CREATE VIEW "xattrs" ("offsetheader", "key", "value") AS
    SELECT offsetheader, xattrkeys.name, value FROM "xattrsdata"
    INNER JOIN xattrkeys ON xattrkeys.id = xattrsdata.keyid;
CREATE TRIGGER "xattrs_insert" INSTEAD OF INSERT ON "xattrs"
BEGIN
    INSERT OR IGNORE INTO xattrkeys(name) VALUES (NEW.key);
    INSERT OR REPLACE INTO xattrsdata(offsetheader, keyid, value) VALUES (
        NEW.offsetheader,
        (SELECT xattrkeys.id FROM xattrkeys WHERE name = NEW.key),
        NEW.value
    );
END;
"""
_VERSIONS = (("ratarmount", "0.11.1", 0, 11, 1), ("index", "0.7.0", 0, 7, 0))
_ARGUMENTS = {  # those that older writers indexed with: a reader that asks for others makes an index of its own
    "mountRecursively": False,
    "encoding": "utf-8",
    "stripRecursiveTarExtension": False,
    "transformRecursiveMountPoint": None,
    "transformPattern": None,
    "ignoreZeros": False,
    "hashes": [],
    "gzipSeekPointSpacing": 16777216,
}
_FOLDER = "instances"
_FILE_MODE, _FOLDER_MODE = 0o100644, 0o40555
_REGULAR, _DIRECTORY = b"0", 5
_INSERT = f"INSERT INTO files VALUES ({','.join('?' * 15)})"  # noqa: S608 - question marks


class SqliteIndex(NamedTuple):
    """What an index says: the size in bytes of the tar it is of, and where each member's data lies in it."""

    tar_bytes: int
    members: frozenset[tuple[str, int, int]]
    """Name, first byte and size."""


def index_of(records: Iterable[InstanceRecord], tar_bytes: int) -> SqliteIndex:
    """Return what an index of these records has to say."""
    members = ((member_name(record.name_uid), record.start, record.size) for record in records)
    return SqliteIndex(tar_bytes, frozenset(members))


def dump_sqlite_index(records: Iterable[InstanceRecord], tar_bytes: int) -> bytes:
    """Return an index of a tar as the bytes of an SQLite file.

    Parameters
    ----------
    records
        Of all instances of the series, in any order.
    tar_bytes
        Size of the tar: a reader that finds another one makes an index of its own.
    """
    # A modification time would have to be one that nobody can know before the tar exists; readers do not compare it.
    stats = {"st_size": tar_bytes, "st_mtime": 0, "st_mode": _FILE_MODE}
    about = {
        "tarstats": json.dumps(stats),
        "arguments": json.dumps(_ARGUMENTS),
        "backendName": "SQLiteIndexedTar",
        "isGnuIncremental": "0",
    }
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_SCHEMA)
        with database:
            database.executemany(_INSERT, _rows(records))
            database.executemany("INSERT INTO metadata VALUES (?,?)", about.items())
            database.executemany("INSERT INTO versions VALUES (?,?,?,?,?)", _VERSIONS)
        return database.serialize()


def _rows(records: Iterable[InstanceRecord]) -> Iterator[tuple[object, ...]]:
    end = 0
    rest = ("", 0, 0, 0, 0, 0, 0)
    first = None
    for record in sorted(records, key=lambda record: record.start):
        # A member begins where the one before ends: with its pax headers, if an older writer gave it some.
        header = end if end < record.start else record.start - BLOCK_BYTES
        first = (header, record.start) if first is None else first
        name = member_name(record.name_uid).removeprefix(f"{_FOLDER}/")
        yield (f"/{_FOLDER}", name, header, record.start, record.size, 0.0, _FILE_MODE, _REGULAR, *rest)
        end = padded(record.span.stop)
    if first is not None:
        yield ("", _FOLDER, *first, 0, 0.0, _FOLDER_MODE, _DIRECTORY, *rest)


def parse_sqlite_index(data: bytes) -> SqliteIndex | None:
    """Return what an index says, or None for one that says nothing: empty, damaged, or of another layout."""
    if not data:
        return None
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(data)
            found = database.execute("SELECT value FROM metadata WHERE key = 'tarstats'").fetchone()
            rows = database.execute("SELECT path, name, offset, size FROM files WHERE path != ''").fetchall()
        size = json.loads(found[0])["st_size"] if found else None
        members = frozenset((f"{path}/{name}".removeprefix("/"), int(at), int(of)) for path, name, at, of in rows)
    except (sqlite3.Error, ValueError, TypeError, KeyError):
        return None
    return SqliteIndex(size, members) if isinstance(size, int) else None
