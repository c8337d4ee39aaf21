"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
SeriesArgument = Annotated[
    str, typer.Argument(metavar="SERIES", help="A series: its folder, its tar, or one of its instances; URL or path.")
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="STORE|STUDY|SERIES", help="A datastore, a study or a series; URL or path.")
]
InstanceArgument = Annotated[
    str | None, typer.Argument(metavar="UID", help="SOP Instance UID; not needed where SERIES is an instance's URI.")
]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for a series that is locked.")
]
