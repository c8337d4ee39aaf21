"""Arguments and options that several verbs share."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from cloud_optimized_dicom.uid_hashing import find_uid_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

    from cloud_optimized_dicom.uid_hashing import UidHash

Options = TypeVar("Options", bound="DataclassInstance")

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

UidHashOption = Annotated[
    str | None,
    typer.Option(
        "--uid-hash",
        metavar="MODULE:FUNCTION",
        help="Names show what this function makes of each UID; the files keep their own.  The module is one that Python"
        " finds, or a file in the working directory.",
    ),
]


def parse_uid_hash(name: str | None) -> UidHash | None:
    """Return the function that ``--uid-hash`` names; it may lie in the working directory.  Anything else is usage."""
    here = str(Path.cwd())
    if name is not None and here not in sys.path:
        sys.path.append(here)  # the last one, so that no file lying there takes the place of a module that is installed
    try:
        return find_uid_hash(name)
    except ValueError as error:
        raise typer.BadParameter(f"--uid-hash: {error}") from error


def verb_of(run: Callable[[Options], None], options: type[Options], name: str) -> Callable[..., None]:
    """Return the function that typer wants for a verb whose arguments and options are the fields of a dataclass.

    Parameters
    ----------
    run
        Takes them as one value; its docstring is the verb's.
    options
        A dataclass whose fields are annotated as typer's parameters are.
    """

    def verb(**values: Any) -> None:
        run(options(**values))

    types = get_type_hints(options, include_extras=True)
    parameters = [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=types[field.name],
        )
        for field in fields(options)
    ]
    verb.__name__, verb.__doc__ = name, run.__doc__
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    verb.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return verb
