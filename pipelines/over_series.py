"""What the pipelines over stored series have in common: their flags, which series, reports, how they end."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from cloud_optimized_dicom.beam import ReadSeries, make_pipeline, read_counters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.beam import Done, FoundSeries, Ingested

_EPILOG = """All other flags are Beam's.  More processes on this machine: --direct_running_mode=multi_processing
--direct_num_workers=N.  Dataflow: --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp
--sdk_container_image=IMAGE --service_account_email=SA --subnetwork=URL --no_use_public_ips --machine_type=n2-standard-4
--disk_size_gb=100 --max_num_workers=N.  Exits with 1 if there are dead letters, or what is left to be tried again."""


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags that every one of them has."""
    parser = argparse.ArgumentParser(f"python -m pipelines.{name}", description=description, epilog=_EPILOG)
    parser.add_argument("--store", required=True, help="the datastore: gs://bucket/prefix, or a directory")
    parser.add_argument("--report", metavar="PREFIX", help="write {PREFIX}-{results,dead_letters,...}-*.jsonl")
    return parser


def add_switch(parser: argparse.ArgumentParser, flag: str, explanation: str) -> None:
    """Add a flag that is on where it stands, and may say so: templates write ``--flag=true`` and ``--flag=false``."""
    parser.add_argument(flag, nargs="?", type=_parse_switch, const=True, default=False, help=explanation)


def _parse_switch(text: str) -> bool:
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from error


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which series."""
    add = parser.add_argument
    add(
        "--uids",
        metavar="FILE",
        help="only these studies, series and instances: a file, of any file system of Beam, with a UID a line",
    )
    add("--catalogue", metavar="URL", help="the catalogue that --sql asks")
    add("--sql", help="only the series, or instances, that the rows of this query name")


def read_series(pipeline: beam.Pipeline, known: argparse.Namespace) -> FoundSeries:
    """Return the series that the flags select; an empty list, or what is none, ends the program as wrong usage."""
    uids: frozenset[str] = frozenset()
    if known.uids:
        from cloud_optimized_dicom.export import parse_uids  # noqa: PLC0415 - few runs need it

        try:
            with FileSystems.open(known.uids) as file:
                uids = parse_uids(file.read().decode("utf-8"))
        except (OSError, ValueError) as error:
            refuse(f"--uids {known.uids}: {error}")
        if not uids:
            refuse(f"--uids {known.uids} holds no UID")
    try:
        stage = ReadSeries(known.store, sorted(uids), known.catalogue, known.sql)
    except ValueError as error:
        refuse(str(error))
    return pipeline | "series" >> stage  # type: ignore[no-any-return]


def refuse(reason: str) -> NoReturn:
    """End the program as after a wrong flag."""
    sys.stderr.write(f"error: {reason}\n")
    raise SystemExit(2)


def run(known: argparse.Namespace, flags: Sequence[str], build: Callable[[beam.Pipeline], Done | Ingested]) -> int:
    """Run what `build` wires, print the counters, and return the exit code."""
    options = PipelineOptions(list(flags))
    pipeline = make_pipeline(options)
    done = build(pipeline)
    for name, values in done._asdict().items():
        if known.report:
            lines = values | f"lines of {name}" >> beam.Map(dump_line)
            lines | name >> beam.io.WriteToText(f"{known.report}-{name}", ".jsonl")
    result = pipeline.run()
    if options.view_as(GoogleCloudOptions).template_location:
        return 0  # a Flex Template's launcher asked what to run; the service runs it, and nothing is counted here
    result.wait_until_finish()
    counters = read_counters(result)
    sys.stdout.write(json.dumps(counters, sort_keys=True) + "\n")
    return 1 if counters.get("dead_letters", 0) or counters.get("retryable", 0) else 0


def dump_line(value: Any) -> str:
    """Return a result as one line of JSON; an error in it as its type and text."""
    return json.dumps(_plain(value), default=_error)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value._asdict() if hasattr(value, "_asdict") else value


def _error(value: Any) -> str:
    return f"{type(value).__name__}: {value}"
