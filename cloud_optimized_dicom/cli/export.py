"""``cod export``: series as a tree of DICOM files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode, exit_code_of, worst
from cloud_optimized_dicom.cli.options import JsonFlag, TargetArgument, UidHashOption, parse_uid_hash, verb_of
from cloud_optimized_dicom.cli.output import Meter, Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import Target, series_keys
from cloud_optimized_dicom.errors import CODObjectNotFoundError
from cloud_optimized_dicom.events import BytesExported, Event, ExportPlanned, FileExported, SeriesExported
from cloud_optimized_dicom.export import Condition, ExportReport, Selection, export_dicom, parse_uids
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

UidsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--uids",
        metavar="UID|FILE|-",
        help="Only the study, series or instance of this UID, or those that a file lists, one a line.  Repeatable.",
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only instances whose header fits: a DICOM keyword or tag, one of = != < <= > >= ~ (a regular "
        "expression), and a value, as in Modality=CT.  Of several conditions all must hold.",
    ),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, max=64, help="How many requests run at a time.")
]
RecheckFlag = Annotated[
    bool, typer.Option("--recheck", help="Read files that are there, even if they have not changed since an export.")
]


@dataclass(frozen=True)
class _Options:
    """What the command line says."""

    target: TargetArgument
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to make the tree in.")]
    uids: UidsOption = None
    where: WhereOption = None
    workers: WorkersOption = 8
    recheck: RecheckFlag = False
    uid_hash: UidHashOption = None
    as_json: JsonFlag = False


def _export(options: _Options) -> None:
    """Write series as files DEST/STUDY_UID/SERIES_UID/SOP_UID.dcm, exactly as they are stored.

    Each file's CRC32C is checked before it appears.  Files that are there already are left alone if they are equal and
    replaced if they are not, so an export that was cut off is finished by running it again.  A damaged instance does
    not stop the others.
    """
    output = Output(json=options.as_json)
    parsed = Target.parse(options.target)
    report = _run(options, parsed, output)
    _print(output, report, str(options.destination))
    codes = [exit_code_of(error) for _, error in report.failures] + [ExitCode.NOT_FOUND] * bool(report.not_found)
    if any(codes):
        raise typer.Exit(worst(codes))


export = verb_of(_export, _Options, "export")


def _run(options: _Options, parsed: Target, output: Output) -> ExportReport:
    selection = _selection(parsed, options.uids or [], options.where or [])
    uid_hash_func = parse_uid_hash(options.uid_hash)
    with output.meter("exporting") as meter:
        hook = _MeterHook(meter)
        try:
            report = export_dicom(
                parsed.datastore,
                options.destination,
                selection=selection,
                workers=options.workers,
                hooks=[hook],
                recheck=options.recheck,
                uid_hash_func=uid_hash_func,
            )
        except BaseException:  # Ctrl-C, a full disk: what was done is done
            if hook.opened:
                output.note(f"{hook.summary} written to {options.destination} so far")
            raise
    if parsed.key is not None and report.failures and not hook.opened:
        raise report.failures[0].error
    if not report.series and not report.not_found:
        raise CODObjectNotFoundError(parsed.uri)
    return report


def _selection(parsed: Target, uids: Sequence[str], where: Sequence[str]) -> Selection:
    """Return what the arguments select; an instance's URI is its UID in its series."""
    keys = tuple(series_keys(parsed)) if parsed.study_uid is not None else None
    try:
        listed = frozenset[str]().union(*map(_uids_of, uids), *([{parsed.instance_uid}] if parsed.instance_uid else []))
        if uids and not listed:
            raise typer.BadParameter("the lists of --uids hold no UID")
        return Selection(keys, listed, tuple(map(Condition.parse, where)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _uids_of(text: str) -> frozenset[str]:
    if is_uid(text):
        return frozenset([text])
    if text == "-":
        return parse_uids(sys.stdin.read())
    try:
        return parse_uids(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{text} is neither a UID nor a file that can be read: {error.strerror}") from error


class _MeterHook:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._files = self._bytes = 0
        self._written = self._written_bytes = 0
        self.opened = False

    @property
    def summary(self) -> str:
        return f"{count_text(self._written, 'file')} ({size_text(self._written_bytes)})"

    def __call__(self, event: Event, /) -> None:
        match event:
            case ExportPlanned(files=files, size_bytes=size):
                self.opened = True
                self._files += files
                self._bytes += size
                self._meter.expect(self._files, self._bytes)
            case BytesExported(size_bytes=size):
                self._meter.advance(0, size)
            case FileExported(error=error, size_bytes=size):
                self._meter.advance(1)
                if error is None:
                    self._written += 1
                    self._written_bytes += size
            case SeriesExported(series_uri=uri, written=written, present=present, failed=failed) if self.opened:
                failures = f", {failed} failed" if failed else ""
                self._meter.say(f"{uri}: {count_text(written, 'file')} written, {present} already there{failures}")


def _print(output: Output, report: ExportReport, destination: str) -> None:
    for uri, error in report.failures:
        output.line(f"error  {uri}: {error}")
    for uid in report.not_found:
        output.line(f"error  {uid}: nothing has this UID")
    removed = f", {report.removed} removed meanwhile" if report.removed else ""
    output.line(
        f"{count_text(report.written, 'file')} ({size_text(report.written_bytes)}) written to {destination}, "
        f"{report.present} already there{removed}, {len(report.failures)} failed"
    )
    output.document(_document(report, destination))


def _document(report: ExportReport, destination: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "series": report.series,
        "written": report.written,
        "written_bytes": report.written_bytes,
        "skipped": report.present,
        "skipped_bytes": report.present_bytes,
        "removed": report.removed,
        "failed": [{"uri": uri, "error": type(error).__name__, "reason": str(error)} for uri, error in report.failures],
        "not_found": list(report.not_found),
    }
