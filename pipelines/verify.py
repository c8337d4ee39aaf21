"""Compare every byte of a datastore with its checksums: ``python -m pipelines.verify --help``.

On this machine by default; on Dataflow, with ``--runner=DataflowRunner`` and its flags.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cloud_optimized_dicom.beam import VerifySeries
from pipelines.over_series import add_selection, add_switch, make_parser, read_series, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import apache_beam as beam

    from cloud_optimized_dicom.beam import Done


def make_options() -> argparse.ArgumentParser:
    """Return the parser of our options."""
    parser = make_parser("verify", __doc__)
    add_selection(parser)
    add_switch(parser, "--deep", "also read every DICOM file as an ingest would")
    parser.add_argument("--sample", type=int, metavar="N", help="check only N instances of each series")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the counters (`series_damaged` among them), and return the exit code."""
    known, flags = make_options().parse_known_args(argv)

    def build(pipeline: beam.Pipeline) -> Done:
        series = read_series(pipeline, known)
        return series | "verify" >> VerifySeries(known.store, deep=known.deep, sample=known.sample)  # type: ignore[no-any-return]

    return run(known, flags, build)


if __name__ == "__main__":
    sys.exit(main())
