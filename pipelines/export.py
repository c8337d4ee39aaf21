"""Export series as DICOM files, or as Parquet rows with frames: ``python -m pipelines.export --help``.

On this machine by default; on Dataflow, with ``--runner=DataflowRunner`` and its flags.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cloud_optimized_dicom.beam import ExportSeries
from pipelines.over_series import add_selection, make_parser, read_series, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import apache_beam as beam

    from cloud_optimized_dicom.beam import Done


def make_options() -> argparse.ArgumentParser:
    """Return the parser of our options."""
    parser = make_parser("export", __doc__)
    add_selection(parser)
    add = parser.add_argument
    add("--destination", required=True, metavar="URL", help="a folder that all workers see, or the URL of a store")
    add(
        "--kind", choices=("dicom", "parquet"), default="dicom", help="files, or a row per frame (default: %(default)s)"
    )
    add(
        "--hash_uid",
        metavar="MODULE:FUNCTION",
        help="names and columns show what this function makes of each UID; the bytes of DICOM files keep their own",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the counters, and return the exit code."""
    known, flags = make_options().parse_known_args(argv)
    stage = ExportSeries(known.store, known.destination, kind=known.kind, hash_uid=known.hash_uid)

    def build(pipeline: beam.Pipeline) -> Done:
        return read_series(pipeline, known) | "export" >> stage  # type: ignore[no-any-return]

    return run(known, flags, build)


if __name__ == "__main__":
    sys.exit(main())
