"""``cod verify``: whether stored bytes are those that were stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode, exit_code_of, worst
from cloud_optimized_dicom.cli.options import JsonFlag, TargetArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import Target, series_keys
from cloud_optimized_dicom.errors import CODError, CODObjectNotFoundError

if TYPE_CHECKING:
    from cloud_optimized_dicom.datastore import Datastore
    from cloud_optimized_dicom.series.findings import VerifyReport
    from cloud_optimized_dicom.uids import SeriesKey


@dataclass
class _Verdict:
    """What was found so far."""

    reports: list[VerifyReport] = field(default_factory=list)
    failures: list[tuple[str, CODError]] = field(default_factory=list)

    @property
    def damaged(self) -> int:
        return sum(report.damaged for report in self.reports)

    @property
    def code(self) -> ExitCode:
        return worst([exit_code_of(error) for _, error in self.failures] + [ExitCode.DAMAGED] * bool(self.damaged))

    def document(self) -> dict[str, Any]:
        failed = [{"uri": uri, "error": type(error).__name__, "reason": str(error)} for uri, error in self.failures]
        return {"series": [asdict(report) | {"damaged": report.damaged} for report in self.reports], "failed": failed}


def verify(target: TargetArgument, as_json: JsonFlag = False) -> None:
    """Compare every byte of a series, or of all series of a datastore, with the checksums on record.

    Exits with 5 if anything is damaged.  What is merely odd (a lock, an older writer's frame table) is listed and is no
    failure.
    """
    output = Output(json=as_json)
    parsed = Target.parse(target)
    keys = _existing(parsed)
    verdict = _Verdict()
    datastore = parsed.datastore
    with output.meter("verifying") as meter:
        meter.expect(len(keys))
        for key in keys:
            _verify(datastore, key, verdict, output)
            meter.advance()
    failed = f"{len(verdict.failures)} not verified"
    output.line(f"{count_text(len(keys), 'series')}, {verdict.damaged} damaged, {failed}")
    output.document(verdict.document())
    if verdict.code:
        raise typer.Exit(verdict.code)


def _verify(datastore: Datastore, key: SeriesKey, verdict: _Verdict, output: Output) -> None:
    try:
        report = next(datastore.verify([key]))
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


def _existing(target: Target) -> list[SeriesKey]:
    """Return the series to verify; one that has neither metadata nor tar does not exist, rather than being damaged."""
    keys = series_keys(target)
    store = target.datastore.store
    if target.key is not None and not any(store.find(name) for name in (target.key.metadata, target.key.tar)):
        raise CODObjectNotFoundError(store.url_of(target.key.folder))
    return keys
