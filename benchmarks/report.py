"""Rows for people and for programs: a table, Markdown, JSON."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.registry import BENCHMARKS, ORDER
from benchmarks.workbench import processors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.figures import Row, Spent

_COLUMNS = ("what", "wall", "CPU", "floor", "ratio", "requests", "up", "down", "peak", "reference", "to reach")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
"""Between them a page has the sections that `update_page` replaces."""
_TEXT_COLUMNS = {"what", "reference", "to reach"}
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def machine() -> str:
    """Return what the times depend on."""
    return (
        f"{platform.system()} {platform.machine()}, {processors()} processors with a load of {os.getloadavg()[1]:.0f},"
        f" Python {platform.python_version()}, pydicom {version('pydicom')}"
    )


def dump_json(rows: Sequence[Row], scale: Mapping[str, Any]) -> str:
    """Return everything as a JSON document."""
    document = {"machine": machine(), "scale": dict(scale), "rows": [row.as_json() for row in rows]}
    return json.dumps(document, indent=2) + "\n"


def format_text(rows: Sequence[Row]) -> str:
    """Return an aligned table of the rows of one benchmark, its title above and its notes below."""
    title = BENCHMARKS[rows[0].benchmark].title
    table = _table(rows)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [f"{rows[0].benchmark}: {title}"]
    for line in table:
        cells = [
            cell.ljust(width) if name in _TEXT_COLUMNS else cell.rjust(width)
            for name, cell, width in zip(table[0], line, widths, strict=True)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join([*lines, *(f"  {each}" for each in _remarks(rows))]) + "\n"


def format_markdown(rows: Sequence[Row]) -> str:
    """Return a section for each benchmark, as `docs/benchmarks.md` has them."""
    return "\n".join(_sections(rows).values())


def update_page(page: str, rows: Sequence[Row]) -> str:
    """Return a page with the sections of these rows; those of other benchmarks, and all around them, stay as they are.

    Raises
    ------
    ValueError
        If the page has no place for them.
    """
    head, begin, rest = page.partition(BEGIN)
    inner, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    sections = {part.split("\n", 1)[0].strip(): f"###{part.rstrip()}\n" for part in inner.split("\n###")[1:]}
    sections |= _sections(rows)
    ordered = [sections[name] for name in ORDER if name in sections]
    return "".join([head, BEGIN, "\n\n", "\n".join(ordered), "\n", END, tail])


def _sections(rows: Sequence[Row]) -> dict[str, str]:
    return {
        name: _section(name, [row for row in rows if row.benchmark == name])
        for name in dict.fromkeys(row.benchmark for row in rows)
    }


def _section(name: str, rows: Sequence[Row]) -> str:
    title = BENCHMARKS[name].title
    head, *body = _table(rows)
    rule = ["---" if column in _TEXT_COLUMNS else "---:" for column in head]
    lines = [f"### {name}", "", f"{title[0].upper()}{title[1:]}.", ""]
    lines += ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    remarks = [*_remarks(rows), f"measured on {machine()}"]
    return "\n".join([*lines, "", *(f"- {each}" for each in remarks)]) + "\n"


def _table(rows: Sequence[Row]) -> list[list[str]]:
    """Return the header and the rows as texts, columns that are empty throughout left out."""
    table = [list(_COLUMNS), *(_cells(row) for row in rows)]
    used = [column for column in range(len(_COLUMNS)) if any(line[column] for line in table[1:])]
    return [[line[column] for column in used] for line in table]


def _cells(row: Row) -> list[str]:
    ours, traffic = row.ours, row.ours.traffic
    return [
        row.what,
        _seconds(ours.wall_seconds),
        _seconds(ours.cpu_seconds),
        _seconds(row.floor.wall_seconds) if row.floor else "",
        f"{row.ratio:.2f}" if row.ratio is not None else "",
        str(traffic.requests) if traffic else "",
        size_text(traffic.bytes_up) if traffic else "",
        size_text(traffic.bytes_down) if traffic else "",
        _peak(ours),
        _reference(row),
        "; ".join(map(str, row.goals)),
    ]


def _peak(spent: Spent) -> str:
    if spent.peak_mib is None:
        return ""
    workers = spent.peak_with_workers_mib or 0
    return f"{spent.peak_mib:.0f} MiB" + (f" ({workers:.0f} with workers)" if workers > 1.2 * spent.peak_mib else "")


def _reference(row: Row) -> str:
    reference = row.reference
    if reference is None:
        return ""
    parts = [f"{_seconds(reference.wall_seconds)} ({row.reference_ratio:.1f}x)"]
    if reference.traffic is not None:
        traffic = reference.traffic
        parts.append(f"{traffic.requests} requests, {size_text(traffic.bytes_up + traffic.bytes_down)}")
    if reference.peak_mib is not None:
        parts.append(f"{reference.peak_mib:.0f} MiB")
    return ", ".join(parts)


def _remarks(rows: Iterable[Row]) -> list[str]:
    floors: dict[str, list[str]] = {}
    for row in rows:
        if row.floor_is:
            floors.setdefault(row.floor_is, []).append(row.what)
    remarks = [f"floor: {floor}" for floor in floors]
    remarks += dict.fromkeys(f"reference: {row.reference_is}" for row in rows if row.reference)
    return remarks + [f"{row.what}: {row.note}" for row in rows if row.note]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def size_text(size_bytes: int) -> str:
    """Return a size as people read it, in powers of ten."""
    for unit, name in _UNITS:
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} B"
