"""``cod export``: series as a tree of DICOM files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_optimized_dicom.cli.exit_codes import ExitCode, exit_code_of, worst
from cloud_optimized_dicom.cli.files import holds, staging, write_whole
from cloud_optimized_dicom.cli.options import JsonFlag, TargetArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Meter, Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import Target, series_keys
from cloud_optimized_dicom.errors import CODError, StaleReadError, StorageError, TarValidationError
from cloud_optimized_dicom.series.extract import iter_instances
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.uids import check_uid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.model import InstanceRecord


@dataclass
class _Tally:
    """What an export did so far."""

    written: int = 0
    written_bytes: int = 0
    skipped: int = 0
    failures: list[tuple[str, Exception]] = field(default_factory=list)

    @property
    def code(self) -> ExitCode:
        return worst(exit_code_of(error) for _, error in self.failures)


def export(
    target: TargetArgument,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to make the tree in.")],
    as_json: JsonFlag = False,
) -> None:
    """Write series as files DEST/STUDY_UID/SERIES_UID/SOP_UID.dcm, exactly as they were ingested.

    Each file's CRC32C is checked before it appears.  Files that are there already are left alone if they are equal and
    replaced if they are not.  A damaged instance does not stop the others.
    """
    output = Output(json=as_json)
    parsed = Target.parse(target)
    keys = series_keys(parsed)
    store = parsed.datastore.store
    destination.mkdir(parents=True, exist_ok=True)
    tally = _Tally()
    with output.meter("exporting") as meter, staging(destination) as scratch:
        meter.expect(len(keys))
        for key in keys:
            try:
                reader = SeriesReader.open(store, key)
            except CODError as error:
                if parsed.key is not None:
                    raise
                tally.failures.append((store.url_of(key.folder), error))
            else:
                _Export(reader, destination / key.study_uid / key.series_uid, scratch, tally).run(meter)
            meter.advance()
    _print(output, tally, str(destination))
    if tally.failures:
        raise typer.Exit(tally.code)


@dataclass
class _Export:
    """One series on its way to a folder."""

    reader: SeriesReader
    folder: Path
    scratch: Path
    tally: _Tally

    def run(self, meter: Meter) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        before = self.tally.written
        wanted = [record for record in self._records() if not self._is_there(record)]
        try:
            for record, chunks in iter_instances(self.reader, wanted):
                self._write(record, chunks)
        except StaleReadError as error:  # true of the rest as well; to find that out takes seconds each time
            self.tally.failures.append((self.reader.tar_uri, error))
        meter.say(f"{self.folder}: {count_text(self.tally.written - before, 'file')}")

    def _records(self) -> list[InstanceRecord]:
        records = []
        for uid in self.reader.document.instances:
            try:
                records.append(self.reader.document.get(check_uid(uid, "instance")))
            except CODError as error:
                self._failed(uid, error)
        return records

    def _is_there(self, record: InstanceRecord) -> bool:
        there = holds(self._path(record), record)
        self.tally.skipped += there
        return there

    def _write(self, record: InstanceRecord, chunks: Iterator[bytes]) -> None:
        try:
            try:
                write_whole(chunks, self._path(record), self.scratch)
            except StorageError:
                # Large blocks fail as a whole where the tar is cut off; by itself the instance may be fine.
                write_whole(self.reader.iter_instance(record), self._path(record), self.scratch)
        except (StorageError, TarValidationError) as error:
            self._failed(record.name_uid, error)
        else:
            self.tally.written += 1
            self.tally.written_bytes += record.size

    def _path(self, record: InstanceRecord) -> Path:
        return self.folder / f"{record.name_uid}.dcm"

    def _failed(self, uid: str, error: CODError) -> None:
        self.tally.failures.append((f"{self.reader.tar_uri}://instances/{uid}.dcm", error))


def _print(output: Output, tally: _Tally, destination: str) -> None:
    for uri, error in tally.failures:
        output.line(f"error  {uri}: {error}")
    output.line(
        f"{count_text(tally.written, 'file')} ({size_text(tally.written_bytes)}) written to {destination}, "
        f"{tally.skipped} already there, {len(tally.failures)} failed"
    )
    output.document(_document(tally, destination))


def _document(tally: _Tally, destination: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "written": tally.written,
        "written_bytes": tally.written_bytes,
        "skipped": tally.skipped,
        "failed": [{"uri": uri, "error": type(error).__name__, "reason": str(error)} for uri, error in tally.failures],
    }
