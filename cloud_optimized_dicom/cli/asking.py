"""Asking before something is done that cannot be taken back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from cloud_optimized_dicom.cli.output import Output

YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def ask(output: Output, question: str, otherwise: str, *, yes: bool) -> None:
    """Return if the answer is yes; exit with 1, saying `otherwise`, if it is no.

    Raises
    ------
    typer.BadParameter
        If there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is nobody to ask: pass --yes")
    if not typer.confirm(question, err=True):
        output.note(otherwise)
        raise typer.Exit(ExitCode.SOME_FAILED)
