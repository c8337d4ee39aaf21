"""Pipelines as the tests run them: in this process, what comes out kept in memory."""

from __future__ import annotations

import csv
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.beam import (
    GroupBySeries,
    IngestOptions,
    IngestSeries,
    ReadInventory,
    make_pipeline,
    read_counters,
)
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.beam import DeadLetter
    from cloud_optimized_dicom.ingest.report import FileResult


class Kept:
    """What pipelines of this process gave out; a pipeline that runs in this process pickles only the name of it."""

    values: ClassVar[dict[str, list[Any]]] = {}

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.values[self.name] = []

    def keep(self, value: Any) -> None:
        """Keep a value."""
        Kept.values[self.name].append(value)

    @property
    def all(self) -> list[Any]:
        """What was kept."""
        return self.values[self.name]


@dataclass
class Outcome:
    """How a pipeline went."""

    counters: dict[str, int] = field(default_factory=dict)
    results: list[FileResult] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    retryable: list[DeadLetter] = field(default_factory=list)

    @property
    def outcomes(self) -> dict[str, list[str]]:
        """The URIs by outcome, sorted."""
        found: dict[str, list[str]] = {}
        for result in self.results:
            found.setdefault(result.outcome, []).append(result.uri)
        return {outcome: sorted(uris) for outcome, uris in found.items()}

    @property
    def dead(self) -> dict[str, str]:
        """The reasons, by what is dead."""
        return {letter.subject: letter.reason for letter in self.dead_letters}


def run_pipeline(build: Any, flags: Sequence[str] = ()) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Run what `build` adds to a pipeline; return what each of its named collections holds, and our counters."""
    kept, result = finish_pipeline(build, flags)
    return kept, read_counters(result)


def finish_pipeline(build: Any, flags: Sequence[str] = ()) -> tuple[dict[str, list[Any]], Any]:
    """Run what `build` adds to a pipeline; return what each of its named collections holds, and Beam's result."""
    pipeline = make_pipeline(PipelineOptions(list(flags)))
    kept = {}
    for name, values in build(pipeline).items():
        kept[name] = Kept()
        values | f"keep {name}" >> beam.Map(kept[name].keep)
    result = pipeline.run()
    result.wait_until_finish()
    return {name: values.all for name, values in kept.items()}, result


def run_ingest(
    store: str,
    tables: Sequence[str] = (),
    sources: Sequence[str] = (),
    copies: int = 1,
    flags: Sequence[str] = (),
    **options: Any,
) -> Outcome:
    """Run an ingest, every row of it `copies` times."""

    def build(pipeline: beam.Pipeline) -> dict[str, Any]:
        inventory = pipeline | ReadInventory(tables, sources=sources)
        rows = inventory.rows | "copies" >> beam.FlatMap(lambda row: [row] * copies)
        grouped = rows | GroupBySeries()
        done = grouped.series | IngestSeries(store, IngestOptions(**{"wait_seconds": 0} | options))
        dead = (inventory.dead_letters, grouped.dead_letters, done.dead_letters) | "dead" >> beam.Flatten()
        return {"results": done.results, "dead_letters": dead, "retryable": done.retryable}

    found, counters = run_pipeline(build, flags)
    return Outcome(counters, **found)


@dataclass(frozen=True)
class Bucket:
    """A bucket on a server that counts: an empty datastore, and sources that are CT slices."""

    server: GcsServer
    name: str
    folder: str = "store"

    @property
    def store(self) -> str:
        """The URL of the datastore."""
        return f"gs://{self.name}/{self.folder}"

    def put(self, name: str, data: bytes) -> str:
        """Upload an object, and return its URL."""
        client = self.server.client()
        client.bucket(self.name).blob(name).upload_from_string(data)
        client.close()
        return f"gs://{self.name}/{name}"

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the objects."""
        client = self.server.client()
        names = [blob.name for blob in client.list_blobs(self.name, prefix=prefix)]
        client.close()
        return names

    def fetched(self, prefix: str) -> list[int]:
        """Return of every download of a source how many bytes it had."""
        return [
            record.bytes_out
            for record in self.server.counters()
            if record.object_name.startswith(prefix) and record.operation == "objects.download"
        ]


@pytest.fixture(scope="session")
def counting_server() -> Iterator[GcsServer]:
    """Return a server of our own, whose counters nobody else resets."""
    with GcsServer() as server:
        yield server


@pytest.fixture
def bucket(counting_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Return a new bucket, on the server that clients find by themselves."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", counting_server.url)
    name = f"cod-beam-{uuid.uuid4().hex}"
    counting_server.create_bucket(name)
    return Bucket(counting_server, name)


@dataclass(frozen=True)
class Row:
    """A file in a bucket, and all that an inventory may claim of it."""

    uri: str
    data: bytes
    study_uid: str
    series_uid: str
    instance_uid: str

    @property
    def cells(self) -> list[str]:
        """The cells of its line, as `write_inventory` names them."""
        crc = checksum.encode(checksum.crc32c(self.data))
        return [self.uri, str(len(self.data)), crc, self.study_uid, self.series_uid, self.instance_uid]


def upload_series(bucket: Bucket, series: int, instances: int) -> list[Row]:
    """Upload CT series, and return their rows."""
    rows = []
    for number in range(series):
        ct = CtSeries(instances, rows=16, columns=16, seed=number)
        for index, data in enumerate(ct):
            uri = bucket.put(f"in/{number}/{index}.dcm", data)
            rows.append(Row(uri, data, ct.uids.study, ct.uids.series, ct.instance_uid(index)))
    return rows


def write_inventory(path: Path, lines: Iterable[Sequence[str]]) -> str:
    """Write a table, and return where."""
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["uri", "size", "crc32c", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
        writer.writerows(lines)
    return str(path)
