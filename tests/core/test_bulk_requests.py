"""What an ingest asks of Google Cloud Storage: requests and bytes, counted by the server."""

from __future__ import annotations

import io
import tarfile
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore, Hints, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer, RequestRecord
from tests.core.conftest import Files, write_series
from tests.core.test_append import changed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BUCKET = "bulk"


class Scene:
    """A datastore and an inbox in one bucket, on a server that counts."""

    def __init__(self, server: GcsServer) -> None:
        self.server = server
        self.client: Any = server.client()
        self.datastore = Datastore(f"gs://{BUCKET}/{uuid.uuid4().hex}", self.client)
        self.inbox = uuid.uuid4().hex

    def send(self, name: str, data: bytes) -> str:
        """Put a file into the inbox."""
        self.client.bucket(BUCKET).blob(f"{self.inbox}/{name}").upload_from_string(data)
        return f"gs://{BUCKET}/{self.inbox}/{name}"

    def send_all(self, files: Files, count: int) -> list[str]:
        """Put the first files of a series into the inbox."""
        return [self.send(f"{index:03}.dcm", files.bytes(index)) for index in range(count)]

    def requests(self) -> tuple[RequestRecord, ...]:
        """Return the requests since the last call."""
        records = self.server.counters()
        self.server.reset_counters()
        return records

    def downloads(self, records: Sequence[RequestRecord]) -> list[str]:
        """Return the names of what was downloaded from the inbox."""
        return sorted(
            record.object_name.rpartition("/")[2]
            for record in records
            if record.operation == "objects.download" and record.object_name.startswith(self.inbox)
        )


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server of this module's own."""
    with GcsServer() as running:
        running.create_bucket(BUCKET)
        yield running


@pytest.fixture
def scene(server: GcsServer) -> Scene:
    """Return an empty datastore, the counters at zero."""
    scene = Scene(server)
    scene.requests()
    return scene


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return fourteen instances of 8 KiB and a header."""
    return write_series(tmp_path / "series", CtSeries(14, rows=64, columns=64))


def hints_of(files: Files, index: int) -> Hints:
    """Return everything that can be claimed of a file."""
    data, uids = files.bytes(index), files.series.uids
    return Hints(len(data), encode(crc32c(data)), files.uids[index], uids.series, uids.study)


def operations(records: Sequence[RequestRecord]) -> list[str]:
    """Return what was asked."""
    return [record.operation for record in records]


def locks(records: Sequence[RequestRecord]) -> list[str]:
    """Return what was asked about a lock."""
    return [record.operation for record in records if record.object_name.endswith(".gradient.lock")]


@pytest.mark.parametrize("count", [12, 300])
def test_a_new_series_costs_eight_requests(scene: Scene, tmp_path: Path, count: int) -> None:
    """A new series from disk takes at most eight requests, however many files it has."""
    files = write_series(tmp_path / "files", CtSeries(count, rows=8, columns=8))
    assert scene.datastore.ingest(files.paths).count("new") == count
    asked = scene.requests()
    assert len(asked) <= 8, operations(asked)


def test_many_new_series_cost_eight_requests_each(scene: Scene, tmp_path: Path) -> None:
    """Series that are written side by side cost no more than one by one."""
    for seed in range(5):
        write_series(tmp_path / "many" / str(seed), CtSeries(3, rows=8, columns=8, seed=seed))
    report = scene.datastore.ingest([tmp_path / "many"])
    assert (report.count("new"), len(report.series)) == (15, 5)
    asked = scene.requests()
    assert len(asked) <= 5 * 8, operations(asked)


def test_hinted_again_costs_two_requests(scene: Scene, files: Files) -> None:
    """What hints name as stored costs a list and the document: no lock, and no source, which may not exist."""
    scene.datastore.ingest(files.paths)
    scene.requests()
    known = [Instance(f"gs://{BUCKET}/gone/{index}.dcm", hints=hints_of(files, index)) for index in range(14)]
    report = scene.datastore.ingest(known)
    asked = scene.requests()
    assert report.count("same") == 14
    assert len(asked) <= 2, operations(asked)
    assert not locks(asked)


def test_a_partly_known_batch_fetches_the_unknown(scene: Scene, files: Files) -> None:
    """Of hinted files in a bucket only those are downloaded that are not stored yet, each once."""
    scene.datastore.ingest(files.paths[:12])
    urls = scene.send_all(files, 14)
    scene.requests()
    report = scene.datastore.ingest(Instance(url, hints=hints_of(files, at)) for at, url in enumerate(urls))
    assert [result.outcome for result in report.files] == ["same"] * 12 + ["new"] * 2
    assert scene.downloads(scene.requests()) == ["012.dcm", "013.dcm"]


def test_an_ingest_that_adds_one_moves_its_bytes(scene: Scene, files: Files) -> None:
    """One file more is at most nine requests, its bytes up, the document and its record; down goes the document."""
    scene.datastore.ingest(files.paths[:12])
    scene.requests()
    assert scene.datastore.ingest([files.paths[12]]).count("new") == 1
    asked = scene.requests()
    assert len(asked) <= 9, operations(asked)
    (document,) = (record for record in asked if record.object_name.endswith("metadata.json") and record.bytes_in)
    size = len(files.bytes(12))
    envelopes = 12_000  # the tar's padding, the locks with one record in them, and what multipart bodies need
    assert sum(record.bytes_in for record in asked) < size + document.bytes_in + envelopes
    assert sum(record.bytes_out for record in asked) < document.bytes_in + envelopes


@pytest.mark.parametrize("hinted", [False, True])
def test_each_source_is_downloaded_once(scene: Scene, files: Files, hinted: bool) -> None:
    """Files in a bucket are downloaded once each, listed or named with hints; a list is all that comes on top."""
    urls = scene.send_all(files, 8)
    scene.requests()
    if hinted:
        report = scene.datastore.ingest(Instance(url, hints=hints_of(files, at)) for at, url in enumerate(urls))
    else:
        report = scene.datastore.ingest([f"gs://{BUCKET}/{scene.inbox}/"])
    assert report.count("new") == 8
    asked = scene.requests()
    assert scene.downloads(asked) == [f"{index:03}.dcm" for index in range(8)]
    assert len(asked) <= 8 + 8 + 1, operations(asked)


def test_the_same_again_reads_sources_once_and_locks_nothing(scene: Scene, files: Files) -> None:
    """Without hints every source is read once to know it; nothing is locked and nothing is written."""
    scene.send_all(files, 6)
    inbox = f"gs://{BUCKET}/{scene.inbox}/"
    scene.datastore.ingest([inbox])
    scene.requests()
    assert scene.datastore.ingest([inbox]).count("same") == 6
    asked = scene.requests()
    assert scene.downloads(asked) == [f"{index:03}.dcm" for index in range(6)]
    assert not locks(asked)
    assert {record.method for record in asked} == {"GET"}


def test_a_conflict_is_downloaded_once(scene: Scene, files: Files, tmp_path: Path) -> None:
    """A file whose UID is taken is read once, and where it lies is written down."""
    scene.datastore.ingest([files.paths[0]])
    url = scene.send("other.dcm", changed(files.paths[0], tmp_path / "other.dcm", PatientID="other").read_bytes())
    scene.requests()
    assert scene.datastore.ingest([url]).count("conflict") == 1
    assert scene.downloads(scene.requests()) == ["other.dcm"]
    key = next(scene.datastore.series())
    with scene.datastore.open(key.study_uid, key.series_uid) as cod:
        record = cod.get_instance(files.uids[0]).record
        assert record is not None
        assert record.diff_hash_dupe_paths == (url,)


def test_members_of_a_tar_are_downloaded_once(scene: Scene, files: Files) -> None:
    """A tar in a bucket is looked through, and each member downloaded once."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for index in range(5):
            tar.add(files.paths[index], f"{index}.dcm")
    # Far behind the first block, so that what lists the members has not read them.
    url = scene.send("all.tar", packed.getvalue())
    scene.requests()
    report = scene.datastore.ingest([url])
    assert report.count("new") == 5
    whole = [record for record in scene.requests() if record.object_name.endswith("all.tar")]
    sizes = [record.bytes_out for record in whole if record.operation == "objects.download"]
    assert sorted(sizes)[:5] == [len(files.bytes(index)) for index in range(5)]
    assert len(sizes) == 6
