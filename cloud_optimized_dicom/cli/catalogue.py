"""``cod catalogue``: Parquet tables of what a datastore holds."""

from __future__ import annotations

from typing import Annotated

import typer

from cloud_optimized_dicom.catalogue import CatalogueReport, update_catalogue
from cloud_optimized_dicom.cli.exit_codes import exit_code_of, worst
from cloud_optimized_dicom.cli.options import JsonFlag  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, count_text
from cloud_optimized_dicom.cli.targets import open_datastore

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="A datastore; URL or path.")]
DestinationArgument = Annotated[
    str, typer.Argument(metavar="DEST", help="Where the catalogue is, or is to be; URL or path.")
]
PartitionsOption = Annotated[
    int | None,
    typer.Option(
        "--partitions", metavar="N", min=1, max=1024, help="How many parts a first build makes.  One per 4000 series."
    ),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, max=64, help="How many series are read at a time.")
]
RebuildFlag = Annotated[bool, typer.Option("--rebuild", help="Read every series, whatever the catalogue knows.")]


def catalogue(
    store: StoreArgument,
    destination: DestinationArgument,
    partitions: PartitionsOption = None,
    workers: WorkersOption = 8,
    rebuild: RebuildFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Build Parquet tables of the series and instances of a datastore, or bring them up to date.

    Run again, it lists the datastore and reads only the series that are new or have changed.  A series that cannot be
    read is listed, keeps the rows that it had, and does not stop the others.  Ctrl-C leaves a catalogue that is whole.

    `cod query` asks the tables.
    """
    output = Output(json=as_json)
    datastore = open_datastore(store)
    with output.meter("reading") as meter:
        told = 0

        def progress(done: int, total: int) -> None:
            nonlocal told
            meter.expect(total)
            meter.advance(done - told)
            told = done

        report = update_catalogue(
            datastore, destination, partitions=partitions, workers=workers, rebuild=rebuild, progress=progress
        )
    _print(output, report)
    if report.failures:
        raise typer.Exit(worst(exit_code_of(failure.error) for failure in report.failures))


def _print(output: Output, report: CatalogueReport) -> None:
    for uri, error in report.failures:
        output.line(f"error  {uri}: {error}")
    output.line(
        f"{report.series} series, {count_text(report.instances, 'instance')} in {report.uri}: {report.read} read, "
        f"{report.kept} unchanged, {report.removed} removed, {len(report.failures)} failed"
    )
    failed = [{"uri": uri, "error": type(error).__name__, "reason": str(error)} for uri, error in report.failures]
    output.document(
        {
            "catalogue": report.uri,
            "series": report.series,
            "instances": report.instances,
            "read": report.read,
            "kept": report.kept,
            "removed": report.removed,
            "partitions": report.partitions,
            "failed": failed,
        }
    )
