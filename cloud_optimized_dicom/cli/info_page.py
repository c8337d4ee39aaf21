"""The page of ``cod info --html``: one file that needs nothing else, with no header value but UIDs and numbers."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from pydicom.uid import UID

from cloud_optimized_dicom.cli.output import count_text, size_text
from cloud_optimized_dicom.errors import MissingDependencyError
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.thumbnail.sheet import Tile

MOST_ROWS = 1000
"""Instances in the table; a browser has no use for 90,000."""

NOT_RECORDED = "not recorded"
"""In place of what a header does not say, or says in words that may be anybody's name."""


def uid_name(uid: str) -> str:
    """Return the name of a UID of the Standard, another one itself; what is no UID is not recorded."""
    return UID(uid).name if is_uid(uid) else NOT_RECORDED


@dataclass(frozen=True)
class InstanceRow:
    """One instance, as the facts and the table have it.

    Parameters
    ----------
    uid
        That it is stored under.
    version
        Of its record.
    dimensions
        Columns, rows and bits, as text; empty without pixel data.
    syntax_uid
        `NOT_RECORDED` where the header has none.
    access
        How a frame is reached.
    """

    uid: str
    version: str
    kind: str
    modality: str
    dimensions: str
    frames: int
    syntax_uid: str
    size_bytes: int
    access: str

    @property
    def syntax(self) -> str:
        """Its transfer syntax for people."""
        return uid_name(self.syntax_uid)

    @property
    def size(self) -> str:
        """Its size for people."""
        return size_text(self.size_bytes)


@dataclass(frozen=True)
class Picture:
    """One picture of the sheet: what is written below it, and the file as a ``data:`` URI, or None."""

    caption: str
    source: str | None


class Page(NamedTuple):
    """A page, and how many pictures are on it."""

    html: str
    pictures: int


def make_page(reader: SeriesReader, facts: Mapping[str, str], rows: Sequence[InstanceRow]) -> Page:
    """Return the page of a series.

    Parameters
    ----------
    reader
        Of the state that `facts` and `rows` are of; the pictures are, too.
    facts
        What is said of the series, by name.
    rows
        All instances, in reading order.

    Raises
    ------
    MissingDependencyError
        If a template engine, a codec, or the extra ``thumbnail`` is not installed.
    HashMismatchError
        If stored bytes are damaged.
    """
    try:
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - of the extra, and only needed here
    except ImportError:
        raise MissingDependencyError("an HTML page", "cli") from None
    pictures = _pictures(reader, rows)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("info.html").read_text(encoding="utf-8"))
    html = template.render(
        title=f"Series {reader.key.series_uid}",
        facts={**facts, **_summary(rows)},
        pictures=pictures,
        frames=count_text(sum(row.frames for row in rows), "frame"),
        rows=rows[:MOST_ROWS],
        instances=len(rows),
    )
    return Page(html, sum(picture.source is not None for picture in pictures))


def _summary(rows: Sequence[InstanceRow]) -> dict[str, str]:
    columns = {
        "modality": Counter(row.modality for row in rows),
        "kind of instance": Counter(row.kind for row in rows),
        "columns x rows": Counter(row.dimensions for row in rows if row.dimensions),
    }
    return {
        name: "; ".join(f"{text} ({count})" for text, count in counts.most_common(20))
        for name, counts in columns.items()
    }


def _pictures(reader: SeriesReader, rows: Sequence[InstanceRow]) -> list[Picture]:
    if not any(row.frames for row in rows):
        return []
    from cloud_optimized_dicom.thumbnail.sheet import read_tiles  # noqa: PLC0415 - loads codecs

    frames = {row.uid: row.frames for row in rows}
    numbers = {row.uid: number for number, row in enumerate(rows, 1)}
    tiles = read_tiles(reader, frames)
    return [_picture(tile, numbers.get(tile.instance_uid), frames.get(tile.instance_uid, 1)) for tile in tiles]


def _picture(tile: Tile, number: int | None, frames: int) -> Picture:
    from cloud_optimized_dicom.thumbnail.encode import encode_jpeg  # noqa: PLC0415 - loads codecs

    caption = f"{number or '?'}" if frames == 1 else f"{number or '?'}, frame {tile.frame}"
    if tile.picture is None:
        return Picture(caption, None)
    data = base64.b64encode(encode_jpeg(tile.picture)).decode("ascii")
    return Picture(caption, f"data:image/jpeg;base64,{data}")
