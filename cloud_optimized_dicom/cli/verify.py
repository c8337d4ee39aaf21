"""``cod verify``: whether stored bytes are those that were stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode, exit_code_of, worst
from cloud_optimized_dicom.cli.options import JsonFlag, TargetArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import Target, existing_keys
from cloud_optimized_dicom.errors import CODError

if TYPE_CHECKING:
    from cloud_optimized_dicom.datastore import Datastore
    from cloud_optimized_dicom.series.findings import VerifyReport
    from cloud_optimized_dicom.series.repair import RepairResult
    from cloud_optimized_dicom.uids import SeriesKey


@dataclass
class _Verdict:
    """What was found so far, and what was done about it."""

    reports: list[VerifyReport] = field(default_factory=list)
    repairs: list[RepairResult] = field(default_factory=list)
    failures: list[tuple[str, CODError]] = field(default_factory=list)

    @property
    def damaged(self) -> int:
        return sum(report.damaged for report in self.reports)

    @property
    def code(self) -> ExitCode:
        codes = [exit_code_of(error) for _, error in self.failures]
        codes += [ExitCode.LOCKED if result.busy else ExitCode.SOME_FAILED for result in self.repairs if result.reason]
        return worst(codes + [ExitCode.DAMAGED] * bool(self.damaged))

    def document(self) -> dict[str, Any]:
        failed = [{"uri": uri, "error": type(error).__name__, "reason": str(error)} for uri, error in self.failures]
        return {
            "series": [asdict(report) | {"damaged": report.damaged} for report in self.reports],
            "repairs": [asdict(result) for result in self.repairs],
            "failed": failed,
        }


@dataclass(frozen=True)
class _Options:
    """How far to go."""

    deep: bool
    sample: int | None
    repair: bool


DeepFlag = Annotated[
    bool, typer.Option("--deep", help="Also read every DICOM file again, and compare its header and frame table.")
]
SampleOption = Annotated[
    int | None, typer.Option("--sample", metavar="N", min=1, help="Check only N instances of each series.")
]
RepairFlag = Annotated[
    bool, typer.Option("--repair", help="First mend what needs no guessing; each mending is a commit.")
]


def verify(
    target: TargetArgument,
    deep: DeepFlag = False,
    sample: SampleOption = None,
    repair: RepairFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare every byte of a series, or of all series of a datastore, with the checksums on record.

    Exits with 5 if anything is damaged.  What is merely odd (a lock, an older writer's frame table) is listed and is no
    failure.

    --repair finishes what dead writers decided, records instances that only the tar has, rebuilds older writers' frame
    tables and adds missing checksums; then it verifies.  Damaged bytes are never touched.
    """
    output = Output(json=as_json)
    parsed = Target.parse(target)
    keys = existing_keys(parsed, incomplete=True)
    verdict = _Verdict()
    datastore = parsed.datastore
    options = _Options(deep, sample, repair)
    with output.meter("verifying") as meter:
        meter.expect(len(keys))
        for key in keys:
            _work_on(datastore, key, options, verdict, output)
            meter.advance()
    failed = f"{len(verdict.failures)} not verified"
    output.line(f"{count_text(len(keys), 'series')}, {verdict.damaged} damaged, {failed}")
    output.document(verdict.document())
    if verdict.code:
        raise typer.Exit(verdict.code)


def _work_on(datastore: Datastore, key: SeriesKey, options: _Options, verdict: _Verdict, output: Output) -> None:
    try:
        if options.repair:
            _repair(datastore, key, verdict, output)
        report = next(datastore.verify([key], deep=options.deep, sample=options.sample))
    except CODError as error:
        uri = datastore.store.url_of(key.folder)
        verdict.failures.append((uri, error))
        output.line(f"error    {uri}: {error}")
        return
    verdict.reports.append(report)
    state = "damaged" if report.damaged else "ok" if report.ok else "odd"
    size = size_text(report.bytes_checked)
    output.line(f"{state:<8} {report.series_uri}  {count_text(report.instances, 'instance')}, {size} compared")
    for finding in report.findings:
        output.line(f"         {finding.kind}: {finding.subject}: {finding.detail}")


def _repair(datastore: Datastore, key: SeriesKey, verdict: _Verdict, output: Output) -> None:
    result = next(datastore.repair([key]))
    verdict.repairs.append(result)
    for action in result.actions:
        output.line(f"repaired {result.series_uri}: {action}")
    if result.reason is not None:
        output.line(f"not repaired {result.series_uri}: {result.reason}")
