"""``cod query``: SQL over a catalogue."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cloud_optimized_dicom.catalogue import Catalogue, Rows
from cloud_optimized_dicom.cli.options import JsonFlag  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import count_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

SqlArgument = Annotated[
    str, typer.Argument(metavar="SQL", help="What to ask the views series, instances and studies; -: from stdin.")
]
CatalogueArgument = Annotated[str, typer.Argument(metavar="CATALOGUE", help="What cod catalogue made; URL or path.")]

_SHOWN_ROWS = 1000


def query(sql: SqlArgument, catalogue: CatalogueArgument, as_json: JsonFlag = False) -> None:
    """Ask a catalogue in SQL (DuckDB): a table on a terminal, CSV otherwise, or one JSON document.

    The views `series` and `instances` have a row each, `studies` one per study.  DESCRIBE series tells their columns.
    """
    with Catalogue(catalogue) as opened:
        try:
            rows = opened.query(sys.stdin.read() if sql == "-" else sql)
            if as_json:
                _write_json(rows)
            elif sys.stdout.isatty():
                _write_table(rows)
            else:
                _write_csv(rows)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


def _write_json(rows: Rows) -> None:
    columns = [{"name": column.name, "type": column.type} for column in rows.columns]
    sys.stdout.write(f'{{"columns": {json.dumps(columns)}, "rows": [')
    for number, row in enumerate(rows):
        named = dict(zip((column.name for column in rows.columns), map(_json_value, row), strict=True))
        sys.stdout.write(f"{', ' if number else ''}{json.dumps(named)}")
    sys.stdout.write("]}\n")


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # JSON has no infinity
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_text, value))
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return "" if value is None else str(value)


def _write_csv(rows: Rows) -> None:
    if rows.columns:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(column.name for column in rows.columns)
        writer.writerows(map(_text, row) for row in rows)


def _write_table(rows: Rows) -> None:
    if not rows.columns:
        return
    table = Table(*(printable(column.name) for column in rows.columns), highlight=False)
    count = 0
    for row in _first(rows):
        table.add_row(*(printable(_text(value)).replace("[", r"\[") for value in row))
        count += 1
    Console().print(table)
    more = " or more; CSV (| cat) has them all" if count == _SHOWN_ROWS else ""
    sys.stdout.write(f"{count_text(count, 'row')}{more}\n")


def _first(rows: Rows) -> Iterator[tuple[Any, ...]]:
    """Yield as many rows as a terminal is good for: a table is laid out as a whole."""
    for count, row in enumerate(rows, 1):
        yield row
        if count == _SHOWN_ROWS:
            return
