"""What is asked of Google Cloud Storage: requests and bytes, counted by the server."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer, RequestRecord
from tests.core.conftest import Files, read, write_series

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "counted"


class Counted:
    """A series on a server that counts."""

    def __init__(self, server: GcsServer, files: Files) -> None:
        self.server, self.files = server, files
        self.url = f"gs://{BUCKET}/{uuid.uuid4().hex}"
        self.client: Any = server.client()

    def open(self, mode: str = "r", **options: Any) -> CODObject:
        """Open the series."""
        uids = self.files.series.uids
        return CODObject(self.url, self.client, uids.study, uids.series, mode, **options)

    def requests(self) -> tuple[RequestRecord, ...]:
        """Return the requests since the last call."""
        records = self.server.counters()
        self.server.reset_counters()
        return records

    def operations(self) -> list[str]:
        """Return the names of the operations since the last call."""
        return [record.operation for record in self.requests()]


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server of this module's own."""
    with GcsServer() as running:
        running.create_bucket(BUCKET)
        yield running


@pytest.fixture
def counted(server: GcsServer, tmp_path: Path) -> Counted:
    """Return a stored series of twelve instances of 128 KiB, the counters at zero."""
    counted = Counted(server, write_series(tmp_path / "files", CtSeries(14, rows=256, columns=256)))
    with counted.open("w") as cod:
        cod.append(counted.files.instances(*range(12)))
    counted.requests()
    return counted


def test_opening_costs_one_request(counted: Counted) -> None:
    """A series opens with one GET of its document, and tells all headers without another."""
    with counted.open() as cod:
        assert len(cod.get_instances()) == 12
        assert all(instance.metadata for instance in cod.get_instances().values())
    assert counted.operations() == ["objects.download"]


def test_one_instance_costs_its_bytes(counted: Counted) -> None:
    """An instance is one range request of exactly its bytes; the tar is never fetched."""
    with counted.open() as cod:
        counted.requests()
        assert read(cod, counted.files.uids[7]) == counted.files.bytes(7)
    (request,) = counted.requests()
    assert request.bytes_out == len(counted.files.bytes(7))


def test_a_part_of_a_large_instance_costs_its_blocks(server: GcsServer, tmp_path: Path) -> None:
    """Of an instance of 8 MiB, looking at its header costs a small part of it."""
    counted = Counted(server, write_series(tmp_path / "large", CtSeries(1, rows=2048, columns=2048)))
    with counted.open("w") as cod:
        cod.append(counted.files.instances())
    with counted.open() as cod:
        counted.requests()
        with cod.open_instance(counted.files.uids[0]) as stream:
            assert stream.read(1000) == counted.files.bytes(0)[:1000]
            stream.seek(4_000_000)
            assert stream.read(5) == counted.files.bytes(0)[4_000_000:4_000_005]
    requests = counted.requests()
    assert len(requests) == 2
    assert sum(request.bytes_out for request in requests) < 600_000


def test_one_frame_costs_its_bytes(counted: Counted) -> None:
    """A frame is one range request of exactly its bytes."""
    with counted.open() as cod:
        counted.requests()
        (frame,) = cod.read_frames(counted.files.uids[11])
    (request,) = counted.requests()
    assert request.bytes_out == len(frame) == 256 * 256 * 2


def test_an_append_costs_nine_requests_and_its_bytes(counted: Counted) -> None:
    """Appending one instance moves its bytes up once and the tar not at all."""
    with counted.open("a") as cod:
        assert len(cod.append(counted.files.instances(12)).new) == 1
    requests = counted.requests()
    assert len(requests) <= 9, [request.operation for request in requests]
    size = len(counted.files.bytes(12))
    up, down = sum(r.bytes_in for r in requests), sum(r.bytes_out for r in requests)
    with counted.open() as cod:
        assert cod.get_metadata()["cod"]["tar"]["size"] > 13 * size
        assert cod.verify().ok
    # Beside the file: the document, twice the new record (intent and lock), and the envelopes of the uploads.
    assert up < size + 60_000
    assert down < 60_000


def test_a_first_write_costs_nine_requests(counted: Counted) -> None:
    """Making a series of twelve instances takes no more requests than appending one."""
    other = Counted(counted.server, counted.files)
    with other.open("w") as cod:
        cod.append(counted.files.instances(*range(12)))
    operations = counted.operations()
    assert len(operations) <= 9, operations


def test_nothing_new_costs_four_requests(counted: Counted) -> None:
    """Appending what is stored already takes the lock, reads the document and lets go of the lock; no byte goes up."""
    with counted.open("a") as cod:
        assert len(cod.append(counted.files.instances(*range(12))).same) == 12
    operations = counted.operations()
    assert len(operations) == 4, operations


def test_removing_costs_one_download_and_one_upload(counted: Counted) -> None:
    """Removing one of twelve reads the tar once, in blocks, and writes the rest once."""
    with counted.open("a") as cod:
        cod.remove(counted.files.uids[3])
    requests = counted.requests()
    size = len(counted.files.bytes(0))
    assert sum(r.bytes_out for r in requests) < 12 * (size + 1024) + 60_000
    assert sum(r.bytes_in for r in requests) < 11 * (size + 1024) + 120_000
    assert len(requests) <= 12, [request.operation for request in requests]


def test_ingest_from_a_bucket_reads_each_file_once(counted: Counted) -> None:
    """Files in a bucket are listed, looked into, and then fetched once each."""
    bucket = counted.client.bucket(BUCKET)
    inbox = uuid.uuid4().hex
    for index in range(3):
        bucket.blob(f"{inbox}/{index}.dcm").upload_from_string(counted.files.bytes(index))
    counted.requests()
    target = Datastore(f"gs://{BUCKET}/{uuid.uuid4().hex}", counted.client)
    report = target.ingest([f"gs://{BUCKET}/{inbox}/"])
    assert report.count("new") == 3
    gets = [r for r in counted.requests() if r.operation == "objects.download" and r.object_name.startswith(inbox)]
    assert len(gets) <= 6
    with target.open(report.series[0].study_uid, report.series[0].series_uid) as cod:
        assert read(cod, counted.files.uids[1]) == counted.files.bytes(1)
