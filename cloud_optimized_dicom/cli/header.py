"""``cod header``: DICOM JSON of stored instances."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from cloud_optimized_dicom.cli.options import (  # noqa: TC001 - typer reads the annotations
    InstanceArgument,
    SeriesArgument,
)
from cloud_optimized_dicom.cli.targets import open_series, series_target


def header(
    series: SeriesArgument,
    uid: InstanceArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="On one line.")] = False,
) -> None:
    """Print the header of an instance as DICOM JSON (PS3.18 Annex F), or an array of all headers in reading order.

    Nothing is read but the series' metadata.  Long values are bulk data URIs.
    """
    target = series_target(series)
    wanted = uid or target.instance_uid
    indent = None if as_json else 2
    with open_series(target) as cod:
        if wanted is not None:
            sys.stdout.write(json.dumps(cod.get_instance(wanted).metadata, indent=indent) + "\n")
            return
        separator = "["
        for instance in cod.get_instances(strict_sorting=False).values():
            sys.stdout.write(separator + json.dumps(instance.metadata, indent=indent))
            separator = ","
        sys.stdout.write("]\n" if separator == "," else "[]\n")
