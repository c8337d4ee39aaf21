"""Measure every row of the performance goals against its floor, and against the published library if asked to."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.data import QUICK, Scale
from benchmarks.fetch import PACKAGES, fetch_real_files
from benchmarks.reference import Reference
from benchmarks.registry import BENCHMARKS, ORDER
from benchmarks.report import dump_json, format_markdown, format_text, update_page
from benchmarks.suite import run
from cloud_optimized_dicom.testing.published import REQUIREMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Row

_CACHE_HELP = (
    f"also measure {REQUIREMENT}, installed into FOLDER, which is kept (default: a temporary folder); takes minutes"
)


_FETCH_HELP = f"the same with those that {' and '.join(PACKAGES)} carry, downloaded into FOLDER by pip, once"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line asks for; 0 even where a goal is missed, for that the report says."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(ORDER)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ORDER)}")
    if options.list:
        print("\n".join(f"{name:<12} {BENCHMARKS[name].title}" for name in ORDER))
        return 0
    scale = QUICK if options.quick else Scale()
    if options.rounds is not None:
        if options.rounds < 1:
            parser.error("--rounds is at least 1")
        scale = replace(scale, rounds=options.rounds)
    if options.fetch is not None:
        options.real = fetch_real_files(options.fetch)
    options.is_fresh = options.markdown is not None and not options.markdown.exists()
    rows = _run(options, scale)
    missed = [f"{row.benchmark}: {row.what}: {goal}" for row in rows for goal in row.goals if not goal.is_reached]
    goals = sum(len(row.goals) for row in rows)
    print("\n".join([f"{goals - len(missed)} of {goals} goals are reached", *(f"  {each}" for each in missed)]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all): {', '.join(ORDER)}")
    parser.add_argument("--list", action="store_true", help="say what each does, and do nothing")
    parser.add_argument("--quick", action="store_true", help="tiny data, to see that everything works")
    parser.add_argument("--rounds", type=int, metavar="N", help="medians are taken over (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables, or replace those of a page")
    parser.add_argument("--directory", type=Path, help="where data is made (default: the system's temporary folder)")
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--real", type=Path, metavar="FOLDER", help="also ingest the real files in a folder")
    more.add_argument("--fetch", type=Path, metavar="FOLDER", help=_FETCH_HELP)
    parser.add_argument("--reference", nargs="?", type=Path, const=Path(), metavar="FOLDER", help=_CACHE_HELP)
    return parser


def _run(options: argparse.Namespace, scale: Scale) -> list[Row]:
    asked, is_kept = options.reference is not None, options.reference not in {None, Path()}
    with nullcontext("") if not asked or is_kept else tempfile.TemporaryDirectory(prefix="cod-reference-") as folder:
        reference = Reference(options.reference if is_kept else Path(folder)) if asked else None
        rows: list[Row] = []
        for some in run(options.names or ORDER, scale, reference, directory=options.directory, real=options.real):
            print(format_text(some), flush=True)
            rows += some
            _write(options, scale, rows)  # what is measured is kept, whatever comes next
        return rows


def _write(options: argparse.Namespace, scale: Scale, rows: Sequence[Row]) -> None:
    if options.json is not None:
        options.json.write_text(dump_json(rows, asdict(scale)), encoding="utf-8")
    page = options.markdown
    if page is not None:
        text = format_markdown(rows) if options.is_fresh else update_page(page.read_text("utf-8"), rows)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
