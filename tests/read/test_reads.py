"""Instances in batches, bulk values, and how much is asked of the store."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.errors import HashMismatchError, InstanceNotFoundError
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.core.conftest import write_series
from tests.dicom import oracle
from tests.meeting_store import MeetingStore
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.ranges import ByteRange


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server that counts, of this module's own."""
    with GcsServer() as running:
        running.create_bucket("counted")
        yield running


def test_instances_come_in_batches(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Every instance comes once, in the order of the tar, whatever the size of a batch."""
    files = write_series(tmp_path / "files", CtSeries(7, rows=8, columns=8))
    datastore = Datastore(datastore_url, gcs_client)
    (key,) = datastore.ingest(files.paths).series
    expected = [(uid, files.bytes(index)) for index, uid in enumerate(files.uids)]
    with datastore.open(key.study_uid, key.series_uid) as cod:
        for batch_bytes in (1, 3 * len(files.bytes(0)), 1 << 30):
            assert list(cod.iter_instances(batch_bytes)) == expected


def test_bulk_values_of_real_files(tmp_path: Path) -> None:
    """Every value that a real file's header names by URI is read back as the file has it."""
    datastore, checked = Datastore(f"{tmp_path}/store"), 0
    report = datastore.ingest([Instance(file.path) for file in real_files() if file.path.suffix != ".gz"])
    for key in report.series:
        with datastore.open(key.study_uid, key.series_uid) as cod:
            for uid, instance in cod.get_instances(strict_sorting=False).items():
                with cod.open_instance(uid) as stream:
                    data = stream.read()
                inflated = oracle.inflated(data, oracle.read(data))
                for element in instance.metadata.values():
                    uri = element.get("BulkDataURI")
                    if uri is not None:
                        start, length = (int(part.partition("=")[2]) for part in uri.rpartition("?")[2].split("&"))
                        assert cod.read_bulk_data(uri) == inflated[start : start + length]
                        checked += 1
    assert checked > 100


def test_other_bulk_uris_are_refused(tmp_path: Path) -> None:
    """A URI without a place, or of an instance that is not there, says so."""
    path = tmp_path / "plain.dcm"
    path.write_bytes(kinds.native(kinds.make_frames(1, 4, 4)))
    datastore = Datastore(f"{tmp_path}/store")
    (key,) = datastore.ingest([path]).series
    with datastore.open(key.study_uid, key.series_uid) as cod:
        for uri in (
            "",
            "x.tar://instances/1.2.dcm",
            "x.tar://instances/1.2.dcm?offset=a&length=1",
            "?offset=1&length=1",
        ):
            with pytest.raises(ValueError, match="BulkDataURI"):
                cod.read_bulk_data(uri)
        with pytest.raises(InstanceNotFoundError):
            cod.read_bulk_data("x.tar://instances/1.2.dcm?offset=1&length=1")


@pytest.mark.parametrize("offset_table", ["basic", "empty", "extended"])
def test_many_frames_of_a_slide(offset_table: Any, server: GcsServer, tmp_path: Path) -> None:
    """A hundred random tiles of 2000 cost at most 1.3 times their bytes, one tile exactly its own."""
    path = tmp_path / "slide.dcm"
    path.write_bytes(slide_instance(2000, offset_table, tile_size=64))
    datastore = Datastore(f"gs://counted/slide-{offset_table}", server.client())
    (key,) = datastore.ingest([path]).series
    wanted = random.Random(1).sample(range(2000), 100)
    with datastore.open(key.study_uid, key.series_uid) as cod:
        (uid,) = cod.get_instances()
        server.reset_counters()
        frames = cod.read_frames(uid, wanted)
        requests = server.counters()
        assert sum(request.bytes_out for request in requests) <= 1.3 * sum(map(len, frames))
        assert len(requests) <= 100
        server.reset_counters()
        (tile,) = cod.read_frames(uid, [1999])
        (request,) = server.counters()
        assert request.bytes_out == len(tile)
        every = cod.read_frames(uid)
    assert frames == [every[frame] for frame in wanted]


def test_a_fragmented_frame_costs_eight_bytes_more(server: GcsServer, tmp_path: Path) -> None:
    """A frame in several fragments is one request of its bytes, its item headers and the first of them."""
    path = tmp_path / "fragmented.dcm"
    path.write_bytes(kinds.jpeg2000(kinds.make_frames(4, 64, 64), fragments=3))
    datastore = Datastore("gs://counted/fragmented", server.client())
    (key,) = datastore.ingest([path]).series
    with datastore.open(key.study_uid, key.series_uid) as cod:
        ((uid, instance),) = cod.get_instances().items()
        server.reset_counters()
        cod.read_frames(uid, [2])
        (request,) = server.counters()
        assert instance.record is not None
        assert instance.record.frame_table is not None
        assert request.bytes_out == instance.record.frame_table.lengths[2] + 8


def test_a_volume_of_three_hundred_slices(server: GcsServer, tmp_path: Path) -> None:
    """A volume of 300 slices is read in at most 16 requests."""
    files = write_series(tmp_path / "files", CtSeries(300, rows=128, columns=128))
    datastore = Datastore("gs://counted/volume", server.client())
    (key,) = datastore.ingest(files.paths).series
    with datastore.open(key.study_uid, key.series_uid) as cod:
        server.reset_counters()
        volume, _ = cod.read_volume()
    assert volume.shape == (300, 128, 128)
    assert len(server.counters()) <= 16


class RottingStore(MemoryStore):
    """A store in which one byte of every read of a tar is not what it was."""

    rotten = False

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read a span, its first byte flipped."""
        data = super().read(name, span, version=version)
        return bytes([data[0] ^ 1]) + data[1:] if self.rotten and name.endswith(".tar") else data


def test_frame_checksums_are_checked_unless_told_not_to(tmp_path: Path) -> None:
    """A frame whose bytes are not those that were stored raises; without the check it comes as it is."""
    path = tmp_path / "frames.dcm"
    path.write_bytes(kinds.native(kinds.make_frames(3, 8, 8)))
    store = RottingStore("memory://rotting")
    (key,) = Datastore(store).ingest([path]).series
    with Datastore(store).open(key.study_uid, key.series_uid) as cod:
        (uid,) = cod.get_instances()
        (frame,) = cod.read_frames(uid, [1])
        store.rotten = True
        with pytest.raises(HashMismatchError):
            cod.read_frames(uid, [1])
        (damaged,) = cod.read_frames(uid, [1], verify_checksums=False)
        with pytest.raises(HashMismatchError):
            list(cod.iter_instances())
    assert damaged == bytes([frame[0] ^ 1]) + frame[1:]


def test_requests_of_one_read_are_under_way_together(tmp_path: Path) -> None:
    """Frames that lie apart are asked for side by side: each request of eight comes only when all have been sent."""
    path = tmp_path / "slide.dcm"
    path.write_bytes(slide_instance(400, "basic", tile_size=64, seed=4))
    store = MeetingStore("memory://meeting")
    (key,) = Datastore(store).ingest([path]).series
    with Datastore(store).open(key.study_uid, key.series_uid) as cod:
        (uid,) = cod.get_instances()
        store.meeting = threading.Barrier(8)
        assert len(cod.read_frames(uid, list(range(0, 400, 50)))) == 8
