"""Which column of an inventory means what, whatever exported it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GIVEN = ("uri", "bucket", "name", "key", "size", "crc32c", "study_uid", "series_uid", "instance_uid")
"""The meanings that a caller may assign to a column."""

FORMS = ("base64", "hex", "integer")
"""How a CRC32C may be written."""

# Names as they are compared: lower case, letters and digits only; the first that a table has is taken.  They are those
# of gcloud and gsutil, Storage Insights, BigQuery tables of DICOM headers and of the Imaging Data Commons, and the
# inventories of S3.
_ALIASES: dict[str, tuple[str, ...]] = {
    "uri": (
        *("uri", "gcsurl", "gcsuri", "gsuri", "storageurl", "fileuri", "objecturi", "dicomuri", "url", "fileurl"),
        *("objecturl", "s3url", "s3uri", "awsurl", "path", "filepath", "filename", "file"),
    ),
    "bucket": ("bucket", "bucketname", "gcsbucket"),
    "name": ("name", "objectname", "object"),
    "key": ("key", "objectkey"),
    "size": ("size", "sizebytes", "instancesize", "filesize", "objectsize", "contentlength", "bytes"),
    "crc32c": ("crc32c", "crc32chash", "hashcrc32c", "checksumcrc32c"),
    "study_uid": ("studyinstanceuid", "studyuid", "0020000d"),
    "series_uid": ("seriesinstanceuid", "seriesuid", "0020000e"),
    "instance_uid": ("sopinstanceuid", "sopuid", "instanceuid", "00080018"),
    "generation": ("generation",),
    "encoding": ("contentencoding",),
    "deleted": ("timedeleted",),
    "latest": ("islatest",),
    "marker": ("isdeletemarker",),
}
_NESTED = "metadata."
"""Where ``gcloud storage ls --json`` keeps what it knows of an object."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each meaning; None where the table has none.

    Parameters
    ----------
    crc32c_form
        One of `FORMS`; None where the values themselves must tell.
    """

    uri: str | None = None
    bucket: str | None = None
    name: str | None = None
    key: str | None = None
    size: str | None = None
    crc32c: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    generation: str | None = None
    encoding: str | None = None
    deleted: str | None = None
    latest: str | None = None
    marker: str | None = None
    crc32c_form: str | None = None

    @property
    def used(self) -> list[str]:
        """The columns that are read, each once."""
        names = (getattr(self, meaning) for meaning in _ALIASES)
        return list(dict.fromkeys(name for name in names if name is not None))


def parse_columns(text: str) -> dict[str, str]:
    """Return what ``uri=gcs_url,crc32c:hex=checksum`` assigns: a column to each meaning.

    Raises
    ------
    ValueError
        If it is not of that form, or a meaning is unknown.
    """
    given = {}
    for part in text.split(","):
        meaning, equals, column = (piece.strip() for piece in part.partition("="))
        name, _, form = meaning.partition(":")
        if not equals or not column:
            raise ValueError(f"{part!r} is not MEANING=COLUMN")
        if name not in GIVEN or (form and (name != "crc32c" or form not in FORMS)):
            known = ", ".join([*GIVEN, *(f"crc32c:{form}" for form in FORMS)])
            raise ValueError(f"{meaning!r} is none of {known}")
        given[meaning] = column
    return given


def are_positions(given: Mapping[str, str]) -> bool:
    """Return whether all columns are given as numbers, which are positions (from 1) in a table without a header."""
    return bool(given) and all(column.isdecimal() for column in given.values())


def resolve_columns(present: Iterable[str], given: Mapping[str, str]) -> Columns:
    """Return the columns of a table, by its own names and those that were given.

    Parameters
    ----------
    present
        The names of the table.
    given
        As of :func:`parse_columns`; what is given is never guessed.

    Raises
    ------
    ValueError
        If a given column is missing, or no column says where the files are.
    """
    names = list(present)
    found: dict[str, str] = {}
    for meaning, column in given.items():
        if column not in names:
            raise ValueError(f"has no column {column!r}")
        name, _, form = meaning.partition(":")
        found[name] = column
        if form:
            found["crc32c_form"] = form
    by_alias: dict[str, str] = {}
    for name in names:
        by_alias.setdefault(re.sub(r"[^a-z0-9]", "", name.removeprefix(_NESTED).lower()), name)
    for meaning, aliases in _ALIASES.items():
        known = next((by_alias[alias] for alias in aliases if alias in by_alias), None)
        if known is not None:
            found.setdefault(meaning, known)
    if {"bucket", "name", "key"} & set(given) and "uri" not in given:
        found.pop("uri", None)
    columns = Columns(**found)
    if columns.uri is None and (columns.bucket is None or columns.name is columns.key is None):
        raise ValueError("has no column that says where a file is: uri, gcs_url, url ..., or bucket and name (or key)")
    return columns
