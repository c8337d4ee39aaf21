"""``cod migrate``: series of older writers in the present format."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode, worst
from cloud_optimized_dicom.cli.options import (  # noqa: TC001 - typer reads the annotations
    JsonFlag,
    TargetArgument,
    WaitOption,
)
from cloud_optimized_dicom.cli.output import Output, count_text
from cloud_optimized_dicom.cli.targets import Target, existing_keys

if TYPE_CHECKING:
    from cloud_optimized_dicom.series.migrate import MetadataVersion
    from cloud_optimized_dicom.series.repair import RepairResult


class Form(StrEnum):
    """The versions of a record that can be asked for."""

    V1 = "v1"
    V2 = "v2"


_VERSIONS: dict[Form, MetadataVersion] = {Form.V1: "v1", Form.V2: "v2"}

ToOption = Annotated[
    Form | None,
    typer.Option(
        "--to",
        help="v1: headers as JSON in the document, later ones too, for readers that cannot unpack them. v2: as usual "
        "again. Without it, what is v1 by request stays so.",
    ),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; take no lock and write nothing.")]


def migrate(
    target: TargetArgument,
    to: ToOption = None,
    dry_run: DryRunFlag = False,
    wait: WaitOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Bring series of older writers to the present format, each by one commit; the instances' bytes stay as they are.

    Records of version 1 become version 2, older frame tables are rebuilt, missing checksums added, and end-of-archive
    blocks dropped.  A series that is damaged, quarantined or being written is left as it is, and listed.  Run again, it
    does what is left.
    """
    output = Output(json=as_json)
    parsed = Target.parse(target)
    keys = existing_keys(parsed)
    results: list[RepairResult] = []
    with output.meter("migrating") as meter:
        meter.expect(len(keys))
        version = _VERSIONS[to] if to is not None else None
        for result in parsed.datastore.migrate(keys, to=version, dry_run=dry_run, wait_seconds=wait):
            results.append(result)
            _print(output, result, dry_run=dry_run)
            meter.advance()
    done = sum(bool(result.actions) for result in results)
    failed = sum(result.reason is not None for result in results)
    verb = "to migrate" if dry_run else "migrated"
    left = len(results) - done - failed
    output.line(f"{count_text(len(results), 'series')}: {done} {verb}, {left} as they should be, {failed} left alone")
    output.document({"dry_run": dry_run, "series": [asdict(result) for result in results]})
    code = worst(_code(result) for result in results)
    if code:
        raise typer.Exit(code)


def _print(output: Output, result: RepairResult, *, dry_run: bool) -> None:
    for action in result.actions:
        output.line(f"{'would be' if dry_run else 'migrated'} {result.series_uri}: {action}")
    if result.reason is not None:
        output.line(f"left     {result.series_uri}: {result.reason}")


def _code(result: RepairResult) -> ExitCode:
    if result.reason is None:
        return ExitCode.OK
    return ExitCode.LOCKED if result.busy else ExitCode.SOME_FAILED
