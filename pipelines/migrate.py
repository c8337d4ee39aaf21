"""Bring series of older writers to the present format: ``python -m pipelines.migrate --help``.

On this machine by default; on Dataflow, with ``--runner=DataflowRunner`` and its flags.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cloud_optimized_dicom.beam import MigrateSeries
from pipelines.over_series import add_selection, add_switch, make_parser, read_series, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import apache_beam as beam

    from cloud_optimized_dicom.beam import Done


def make_options() -> argparse.ArgumentParser:
    """Return the parser of our options."""
    parser = make_parser("migrate", __doc__)
    add_selection(parser)
    add_switch(parser, "--dry_run", "say what would be done, and write nothing")
    parser.add_argument("--to", choices=["v1", "v2"], help="the version of all records, v1 for readers of no other")
    parser.add_argument("--wait_seconds", type=float, default=60, help="for a series that another one writes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the counters, and return the exit code."""
    known, flags = make_options().parse_known_args(argv)
    stage = MigrateSeries(known.store, to=known.to, dry_run=known.dry_run, wait_seconds=known.wait_seconds)

    def build(pipeline: beam.Pipeline) -> Done:
        return read_series(pipeline, known) | "migrate" >> stage  # type: ignore[no-any-return]

    return run(known, flags, build)


if __name__ == "__main__":
    sys.exit(main())
