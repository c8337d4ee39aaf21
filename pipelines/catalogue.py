"""Build or update Parquet tables of series and instances: ``python -m pipelines.catalogue --help``.

On this machine by default; on Dataflow, with ``--runner=DataflowRunner`` and its flags.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cloud_optimized_dicom.beam import CatalogueSeries
from pipelines.over_series import add_switch, make_parser, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import apache_beam as beam

    from cloud_optimized_dicom.beam import Done


def make_options() -> argparse.ArgumentParser:
    """Return the parser of our options."""
    parser = make_parser("catalogue", __doc__)
    parser.add_argument("--catalogue", required=True, metavar="URL", help="where the tables are, or are to be")
    parser.add_argument("--partitions", type=int, metavar="N", help="of a first build; so many workers are of use")
    add_switch(parser, "--rebuild", "read every series, whatever the catalogue knows")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the counters, and return the exit code."""
    known, flags = make_options().parse_known_args(argv)
    stage = CatalogueSeries(known.store, known.catalogue, partitions=known.partitions, rebuild=known.rebuild)

    def build(pipeline: beam.Pipeline) -> Done:
        return pipeline | "catalogue" >> stage  # type: ignore[no-any-return]

    return run(known, flags, build)


if __name__ == "__main__":
    sys.exit(main())
