"""``cod ingest``: files into a datastore."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode
from cloud_optimized_dicom.cli.inventories import InventoryInstances
from cloud_optimized_dicom.cli.options import JsonFlag, UidHashOption, WaitOption, parse_uid_hash, verb_of
from cloud_optimized_dicom.cli.output import Meter, Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import open_datastore
from cloud_optimized_dicom.dicom.transcode.model import Target  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.events import Event, FileDone, IngestPlanned, Outcome, SeriesCommitted
from cloud_optimized_dicom.ingest.inventory import parse_columns
from cloud_optimized_dicom.ingest.report import FileResult, IngestReport
from cloud_optimized_dicom.ingest.report_file import FinishedFiles, ReportLine, ReportWriter
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.datastore import Datastore
    from cloud_optimized_dicom.ingest.archives import SourceFailure

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class IngestOptions:
    """What ``cod ingest`` is told."""

    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SRC...",
            help="Files, folders, patterns, gs:// prefixes, http(s):// files, s3:// and other fsspec URLs, zip and tar"
            " archives.",
            show_default=False,
        ),
    ] = None
    store: Annotated[str, typer.Argument(metavar="STORE", help="The datastore: gs://bucket/prefix or a directory.")] = (
        ""
    )
    inventory: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help="Store the files that a CSV, JSON Lines or Parquet table names (or a folder or pattern of tables).",
        ),
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="MEANING=COLUMN,...", help="Which column of the table means what, where its name does not tell."
        ),
    ] = None
    wait: WaitOption = 0
    treat_metadata_diffs_as_same: Annotated[
        bool, typer.Option(help="Take a file with the stored pixel data but another header for the stored one.")
    ] = False
    compress: Annotated[
        Target | None,
        typer.Option(help="Recompress new instances without loss; every frame is decoded back and compared."),
    ] = None
    storage_class: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Of new tars: NEARLINE, ARCHIVE ... (default: the bucket's).")
    ] = None
    uid_hash: UidHashOption = None
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes that measure and recompress (default: one per processor)."),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.(jsonl|csv)", help="Write what became of each file, one line a file, as it happens."
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the report: skip what it has as stored, add the rest to it.")
    ] = False
    as_json: JsonFlag = False


def _ingest(options: IngestOptions) -> None:
    """Store DICOM files, each in its series; files that are stored already are left as they are.

    One bad file never stops the others.  Exits with 1 if some files were not stored: those that failed, and those whose
    UID is taken by another file (conflicts).
    """
    columns, uid_hash_func = _checked(options), parse_uid_hash(options.uid_hash)
    datastore, output = open_datastore(options.store), Output(json=options.as_json)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cod-")))
        report = stack.enter_context(_open_report(options, datastore)) if options.report else None
        record = _Record(datastore.url, report, options.uid_hash)
        finished = report.finished if report else FinishedFiles()
        rows = InventoryInstances(options.inventory or [], columns, finished, scratch, record.failed)
        record.rows = rows
        meter = stack.enter_context(output.meter("ingesting"))
        try:
            done = datastore.ingest(
                chain(options.sources or [], rows),
                hooks=[_MeterHook(meter), record],
                treat_metadata_diffs_as_same=options.treat_metadata_diffs_as_same,
                wait_seconds=options.wait,
                compress=options.compress or False,
                tar_storage_class=options.storage_class,
                workers=options.workers,
                uid_hash_func=uid_hash_func,
            )
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or a service manager
            output.note(f"interrupted; until then {record.text}")
            raise
    _tell(output, record, replace(done, files=(*record.failures, *done.files)), rows.skipped)


ingest = verb_of(_ingest, IngestOptions, "ingest")


def _checked(options: IngestOptions) -> dict[str, str]:
    """Return the columns that were given; what does not go together is a usage error."""
    if not options.store:
        raise typer.BadParameter("which datastore? It is the last argument")
    if not options.sources and not options.inventory:
        raise typer.BadParameter("what to store? Name files before the datastore, or an --inventory")
    if options.report is not None and not options.report.parent.is_dir():
        raise typer.BadParameter(f"the folder of {options.report} does not exist")
    if options.resume and (options.report is None or not options.inventory):
        raise typer.BadParameter("--resume goes on with the --report of an --inventory")
    if options.columns is not None and not options.inventory:
        raise typer.BadParameter("--columns are those of an --inventory")
    if Path(options.store).is_file():
        raise typer.BadParameter(f"{options.store} is a file; the last argument is the datastore")
    try:
        return parse_columns(options.columns) if options.columns is not None else {}
    except ValueError as error:
        raise typer.BadParameter(f"--columns: {error}") from error


def _open_report(options: IngestOptions, datastore: Datastore) -> ReportWriter:
    path = Path(options.report or "")
    try:
        return ReportWriter(path, datastore.url, uid_hash=options.uid_hash, resume=options.resume)
    except ValueError as error:
        raise typer.BadParameter(f"--resume: {path} {error}") from error


class _MeterHook:
    """Tells a meter what an ingest does: files, their bytes, and how many series they are of."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._series: set[tuple[str | None, str]] = set()

    def __call__(self, event: Event, /) -> None:
        match event:
            case IngestPlanned(files=files, size_bytes=size_bytes):
                self._meter.expect(files, size_bytes)
            case FileDone(size_bytes=size_bytes, study_uid=study, series_uid=series):
                known = len(self._series)
                if series is not None:
                    self._series.add((study, series))
                self._meter.advance(1, size_bytes, series=len(self._series) - known)
            case SeriesCommitted(series_uri=uri, instances=instances):
                self._meter.say(f"stored {uri} ({count_text(instances, 'instance')})")


class _Record:
    """What has become of files so far: counted, and written into the report."""

    def __init__(self, store_url: str, report: ReportWriter | None, uid_hash: str | None) -> None:
        self.store_url, self._report, self._uid_hash = store_url, report, uid_hash
        self._counts: Counter[str] = Counter()
        self.rows: InventoryInstances | None = None
        self.failures: list[FileResult] = []

    @property
    def text(self) -> str:
        """The counts."""
        return _counts_text(self._counts)

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, FileDone):
            self._counts[event.outcome] += 1
            crc32c = self.rows.claimed_crc32c(event.uri) if self.rows else None
            if self._report:
                self._report.write(self.line(event, crc32c))

    def failed(self, failure: SourceFailure) -> None:
        """Take note of a row that names no file that could be stored."""
        self.failures.append(FileResult(failure.uri, "error", reason=failure.reason))
        self(FileDone(failure.uri, "error", 0, reason=failure.reason))

    def line(self, done: FileDone | FileResult, crc32c: str | None = None) -> ReportLine:
        """Return what became of a file as the report has it."""
        if isinstance(done, FileResult):
            study, series = (done.series.study_uid, done.series.series_uid) if done.series else (None, None)
        else:
            study, series = done.study_uid, done.series_uid
        folder = f"{self.store_url}/{SeriesKey(study, series).folder}" if study and series else None
        uids = study, series, done.instance_uid, folder
        return ReportLine(done.uri, *uids, done.size_bytes, crc32c, done.reason, done.outcome, self._uid_hash)


def _tell(output: Output, record: _Record, report: IngestReport, skipped: int) -> None:
    for result in report.files:
        if result.outcome in {"error", "conflict"}:
            output.line(f"{result.outcome}  {result.uri}: {result.reason}")
    counts: dict[str, int] = {outcome: report.count(outcome) for outcome in _OUTCOMES}
    before = f"; {count_text(skipped, 'file')} done before" if skipped else ""
    output.line(f"{_counts_text(counts)}; {count_text(len(report.series), 'series')}{before}")
    if report.recompressions:
        output.line(_recompression_text(report))
    output.document(
        {
            "store": record.store_url,
            "counts": counts,
            "recompressions": report.recompressions,
            "saved_bytes": report.saved_bytes,
            "skipped": skipped,
            "series": [str(key) for key in report.series],
            "files": [asdict(record.line(result)) for result in report.files],
        }
    )
    if counts["error"] or counts["conflict"]:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES)


def _recompression_text(report: IngestReport) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(report.recompressions.items()))
    return f"recompression: {counts}; {size_text(report.saved_bytes)} saved"
