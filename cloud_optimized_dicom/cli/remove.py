"""``cod remove``: instances out of a series."""

from __future__ import annotations

from typing import Annotated

import typer

from cloud_optimized_dicom.cli.asking import YesFlag, ask
from cloud_optimized_dicom.cli.options import (  # noqa: TC001 - typer reads the annotations
    JsonFlag,
    SeriesArgument,
    WaitOption,
)
from cloud_optimized_dicom.cli.output import Output, count_text
from cloud_optimized_dicom.cli.targets import open_series, series_target


def remove(
    series: SeriesArgument,
    uids: Annotated[list[str], typer.Argument(metavar="UID...", help="SOP Instance UIDs.")],
    yes: YesFlag = False,
    wait: WaitOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Remove instances from a series: all that are named or, if one of them is not there, none.

    The series' tar is written anew without them.  Asks first; --yes does not.
    """
    output = Output(json=as_json)
    target = series_target(series)
    question = f"Remove {count_text(len(set(uids)), 'instance')} from {series}?"
    ask(output, question, "nothing was removed", yes=yes)
    with open_series(target, "a", wait) as cod:
        cod.remove(uids)
        left = len(cod.get_metadata()["cod"]["instances"])
        uri = cod.datastore_series_uri
    output.line(f"removed {count_text(len(set(uids)), 'instance')} from {uri}; {left} left")
    output.document({"series": uri, "removed": sorted(set(uids)), "instances_left": left})
