"""``cod ingest``: files into a datastore."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode
from cloud_optimized_dicom.cli.files import staging, write_whole
from cloud_optimized_dicom.cli.options import JsonFlag, WaitOption  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Meter, Output, count_text
from cloud_optimized_dicom.cli.targets import open_datastore
from cloud_optimized_dicom.events import Event, FileDone, IngestPlanned, Outcome, SeriesCommitted

if TYPE_CHECKING:
    from cloud_optimized_dicom.ingest.report import FileResult, IngestReport

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SRC...", help="Files, folders, patterns, gs:// prefixes, zip and tar archives."),
    ],
    store: Annotated[str, typer.Argument(metavar="STORE", help="The datastore: gs://bucket/prefix or a directory.")],
    wait: WaitOption = 0,
    treat_metadata_diffs_as_same: Annotated[
        bool, typer.Option(help="Take a file with the stored pixel data but another header for the stored one.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write what became of each file, one JSON object a line.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Store DICOM files, each in its series; files that are stored already are left as they are.

    One bad file never stops the others.  Exits with 1 if some files were not stored: those that failed, and those whose
    UID is taken by another file (conflicts).
    """
    if report is not None and not report.parent.is_dir():
        raise typer.BadParameter(f"the folder of {report} does not exist")
    if Path(store).is_file():
        raise typer.BadParameter(f"{store} is a file; the last argument is the datastore")
    output = Output(json=as_json)
    with output.meter("ingesting") as meter:
        done = open_datastore(store).ingest(
            sources,
            hooks=[_MeterHook(meter)],
            treat_metadata_diffs_as_same=treat_metadata_diffs_as_same,
            wait_seconds=wait,
        )
    if report is not None:
        _write_report(report, done)
    _print(output, done)
    output.document(_document(store, done))
    if done.count("error") or done.count("conflict"):
        raise typer.Exit(ExitCode.SOME_FAILED)


class _MeterHook:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __call__(self, event: Event, /) -> None:
        match event:
            case IngestPlanned(files=files, series=series):
                self._meter.expect(files)
                self._meter.say(f"{count_text(files, 'file')} of {count_text(series, 'series')}")
            case FileDone():
                self._meter.advance()
            case SeriesCommitted(series_uri=uri, instances=instances):
                self._meter.say(f"stored {uri} ({count_text(instances, 'instance')})")


def _print(output: Output, report: IngestReport) -> None:
    for result in report.files:
        if result.outcome in {"error", "conflict"}:
            output.line(f"{result.outcome}  {result.uri}: {result.reason}")
    counts = ", ".join(f"{report.count(outcome)} {outcome}" for outcome in _OUTCOMES)
    output.line(f"{counts}; {count_text(len(report.series), 'series')}")


def _document(store: str, report: IngestReport) -> dict[str, Any]:
    return {
        "store": store,
        "counts": {outcome: report.count(outcome) for outcome in _OUTCOMES},
        "series": [str(key) for key in report.series],
        "files": [_file(result) for result in report.files],
    }


def _file(result: FileResult) -> dict[str, Any]:
    return {
        "uri": result.uri,
        "outcome": result.outcome,
        "study_uid": result.series.study_uid if result.series else None,
        "series_uid": result.series.series_uid if result.series else None,
        "instance_uid": result.instance_uid,
        "size_bytes": result.size_bytes,
        "reason": result.reason,
    }


def _write_report(path: Path, report: IngestReport) -> None:
    with staging(path.parent) as scratch:
        write_whole((f"{json.dumps(_file(result))}\n".encode() for result in report.files), path, scratch)
