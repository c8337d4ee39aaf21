"""The verbs together, and the rim where errors become one line and an exit code."""

from __future__ import annotations

import io
import json
import os
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_optimized_dicom.cli.catalogue import catalogue
from cloud_optimized_dicom.cli.exit_codes import ExitCode, exit_code_of
from cloud_optimized_dicom.cli.export import export
from cloud_optimized_dicom.cli.frame import frame
from cloud_optimized_dicom.cli.get import get
from cloud_optimized_dicom.cli.header import header
from cloud_optimized_dicom.cli.info import info
from cloud_optimized_dicom.cli.ingest import ingest
from cloud_optimized_dicom.cli.locks import locks
from cloud_optimized_dicom.cli.ls import ls
from cloud_optimized_dicom.cli.migrate import migrate
from cloud_optimized_dicom.cli.output import printable
from cloud_optimized_dicom.cli.query import query
from cloud_optimized_dicom.cli.recover import recover
from cloud_optimized_dicom.cli.remove import remove
from cloud_optimized_dicom.cli.seal import seal
from cloud_optimized_dicom.cli.thumbnail import thumbnail
from cloud_optimized_dicom.cli.unlock import unlock
from cloud_optimized_dicom.cli.verify import verify
from cloud_optimized_dicom.errors import CODError

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="cod",
    no_args_is_help=True,
    # Tracebacks with local variables would print header values.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb, _summary in (
    (ingest, "Store DICOM files, each in its series."),
    (ls, "List series, or the instances of one."),
    (info, "Show what a series holds."),
    (header, "Print headers as DICOM JSON."),
    (get, "Fetch one instance as a file."),
    (frame, "Fetch one frame as bytes, array or picture."),
    (thumbnail, "Draw every frame as a small picture."),
    (export, "Write series as a tree of DICOM files."),
    (verify, "Compare stored bytes with their checksums, and repair."),
    (migrate, "Bring series of older writers to the present format."),
    (catalogue, "Build Parquet tables of series and instances."),
    (query, "Ask a catalogue in SQL."),
    (locks, "List who writes, or has died writing."),
    (recover, "Finish what dead writers decided."),
    (unlock, "Let go of a dead writer's lock."),
    (remove, "Remove instances from a series."),
    (seal, "End tars so that other tools append to them."),
):
    app.command(short_help=_summary)(_verb)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"cod {version('cloud-optimized-dicom')}\n")
        raise typer.Exit


@app.callback()
def _cod(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Cloud-Optimized DICOM: series of DICOM files as one tar each, on object storage or on disk.

    Exit codes: 0 fine, 1 some files failed (listed), 2 usage, 3 not found, 4 locked, 5 damaged.
    """


def main(arguments: Sequence[str] | None = None, verbs: typer.Typer = app) -> int:
    """Run one command line and return its exit code.

    Parameters
    ----------
    arguments
        Without the program's name; None takes the process' own.
    verbs
        What may be run.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be UTF-8, terminals need not take UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        verbs(args=given, prog_name="cod")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (CODError, OSError) as error:
        return _report(type(error).__name__, str(error), exit_code_of(error), as_json="--json" in given)
    except Exception as error:  # the rim
        if os.environ.get("COD_TRACEBACK"):
            raise
        # Only the type: the text of a foreign error may hold header values.
        text = f"unexpected error: {type(error).__name__} (COD_TRACEBACK=1 shows where)"
        return _report(type(error).__name__, text, ExitCode.UNEXPECTED, as_json="--json" in given)
    finally:
        _flush()
    return ExitCode.OK


def _flush() -> None:
    """Flush stdout while somebody can still handle that its reader has gone; the interpreter would print a warning."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(kind: str, text: str, code: ExitCode, *, as_json: bool) -> int:
    sys.stderr.write(f"cod: {printable(text)}\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": {"type": kind, "message": text}, "exit_code": int(code)}) + "\n")
    return code
