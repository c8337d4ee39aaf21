"""What a dataset costs, counted on a strict Google Cloud Storage server."""

from __future__ import annotations

import itertools
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.datasets import FrameDataset, SliceDataset, VolumeDataset, keep_encoded
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.meeting_store import MeetingStore

from .conftest import CHEST, HEAD, SLIDE, TILES, fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.testing.gcs_server.records import RequestRecord

SLICE_BYTES = 16 * 12 * 2


class Counted:
    """A filled datastore on a server that counts."""

    def __init__(self, server: GcsServer, folder: Path) -> None:
        self._server = server
        client: Any = server.client()
        self.datastore = fill(Datastore(f"gs://items/{uuid.uuid4().hex}", client), folder)
        self.requests()

    def requests(self) -> list[RequestRecord]:
        """Return what was asked since the last call."""
        records = list(self._server.counters())
        self._server.reset_counters()
        return records


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    """Return a filled datastore, the counters at zero."""
    with GcsServer() as server:
        server.create_bucket("items")
        yield Counted(server, tmp_path / "files")


def test_the_index_is_one_read_of_metadata_per_series(counted: Counted) -> None:
    """Making a dataset of named series reads each metadata.json once, and nothing else."""
    keys = list(counted.datastore.series())
    counted.requests()
    FrameDataset(counted.datastore, keys)
    read = [record.object_name or "" for record in counted.requests()]
    assert len(read) == len(keys) == 3
    assert all(name.endswith("/metadata.json") for name in read)


def test_a_frame_is_one_request_of_its_bytes(counted: Counted) -> None:
    """An item costs its frame's bytes, from the first on: no series is opened for it."""
    dataset = SliceDataset(counted.datastore)
    counted.requests()
    for number in (6, 0, 3):
        dataset[number]
        (request,) = counted.requests()
        assert request.bytes_out == SLICE_BYTES


def test_neighbours_of_a_batch_come_together(counted: Counted) -> None:
    """Tiles of a slide that lie side by side are one request, with little more than their bytes."""
    dataset = FrameDataset(counted.datastore, where=lambda header: header.get("Modality") == "SM", decode=keep_encoded)
    counted.requests()
    items = dataset.__getitems__([12, 10, 11, 13])
    (request,) = counted.requests()
    assert request.bytes_out <= 1.05 * sum(len(item["image"]) for item in items)


def test_a_batch_of_several_series_is_a_request_for_each(counted: Counted) -> None:
    """Frames of three series are three requests of exactly their bytes."""
    dataset = FrameDataset(counted.datastore, decode=keep_encoded)
    firsts = [dataset.groups.tolist().index(number) for number in range(3)]
    counted.requests()
    items = dataset.__getitems__(firsts)
    assert sorted(record.bytes_out for record in counted.requests()) == sorted(len(item["image"]) for item in items)


def test_volumes_are_few_requests(counted: Counted, tmp_path: Path) -> None:
    """A volume of 60 slices is read in at most 4 requests."""
    folder = tmp_path / "long"
    folder.mkdir()
    series = CtSeries(60, rows=64, columns=64, seed=9)
    for index, data in enumerate(series):
        (folder / f"{index}.dcm").write_bytes(data)
    counted.datastore.ingest([folder])
    where = series.uids.series
    dataset = VolumeDataset(counted.datastore, where=lambda header: header.get("SeriesInstanceUID") == where)
    counted.requests()
    assert dataset[0]["image"].shape == (60, 64, 64)
    assert len(counted.requests()) <= 4


def test_a_series_that_was_rewritten_is_looked_up_once(counted: Counted, tmp_path: Path) -> None:
    """After an append the first item of the series costs a few requests more; later ones cost their bytes again."""
    dataset = SliceDataset(counted.datastore)
    dataset[0]
    path = tmp_path / "another.dcm"
    path.write_bytes(CtSeries(5, rows=16, columns=12, seed=1).instance(4))
    with counted.datastore.open(HEAD.uids.study, HEAD.uids.series, "a") as cod:
        assert len(cod.append([Instance(path)]).new) == 1
    counted.requests()
    number = next(n for n in range(7) if dataset.series[dataset.groups[n]].series_uid == HEAD.uids.series)
    dataset[number]
    assert len(counted.requests()) <= 5
    for later in (number + 1, number + 2, number):
        dataset[later]
        (request,) = counted.requests()
        assert request.bytes_out == SLICE_BYTES


def test_an_unpickled_dataset_reads_no_metadata(counted: Counted) -> None:
    """What crosses to a worker is enough: its first item is one request."""
    dataset = SliceDataset(counted.datastore)
    data = pickle.dumps(dataset)
    counted.requests()
    copy = pickle.loads(data)
    assert counted.requests() == []
    copy[1]
    (request,) = counted.requests()
    assert request.bytes_out == SLICE_BYTES


def test_series_are_read_side_by_side(tmp_path: Path) -> None:
    """Requests of a batch for three series are under way together."""
    store = MeetingStore(f"memory://{uuid.uuid4().hex}")
    fill(Datastore(store), tmp_path / "files")
    dataset = FrameDataset(store)
    firsts = [dataset.groups.tolist().index(number) for number in range(3)]
    store.meeting = threading.Barrier(3)
    assert len(dataset.__getitems__(firsts)) == 3


def test_threads_share_a_dataset(counted: Counted) -> None:
    """Many threads read through one dataset at once, each what it asked for, in as many requests."""
    dataset = SliceDataset(counted.datastore)
    counted.requests()
    numbers = list(itertools.islice(itertools.cycle(range(7)), 42))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(dataset.__getitem__, numbers))
    assert len(counted.requests()) == len(numbers)
    pixels = {s.instance_uid(i): s.pixels(i) for s in (HEAD, CHEST) for i in range(s.instances)}
    assert all((item["image"] == pixels[item["instance_uid"]]).all() for item in found)


def test_more_series_than_are_kept_open(tmp_path: Path) -> None:
    """Series beyond those that are kept open cost nothing more, and items are right in any order."""
    folder = tmp_path / "files"
    folder.mkdir()
    many = [CtSeries(1, rows=4, columns=4, seed=seed) for seed in range(150)]
    for series in many:
        (folder / f"{series.seed}.dcm").write_bytes(series.instance(0))
    dataset = FrameDataset(Datastore(tmp_path / "store"))
    assert len(dataset) == 0
    Datastore(tmp_path / "store").ingest([folder])
    dataset = FrameDataset(tmp_path / "store")
    pixels = {series.uids.series: series.pixels(0) for series in many}
    for numbers in (range(150), range(149, -1, -1)):
        for item in dataset.__getitems__(list(numbers)):
            assert (item["image"] == pixels[item["series_uid"]]).all()


def test_a_slide_of_many_tiles_is_indexed_compactly(tmp_path: Path) -> None:
    """A tile takes under 50 bytes of the index, and is found without a table of them all being made."""
    path = tmp_path / "slide.dcm"
    path.write_bytes(slide_instance(3000, "empty", tile_size=16, uids=SLIDE))
    Datastore(tmp_path / "store").ingest([path])
    dataset = FrameDataset(tmp_path / "store")
    assert len(dataset) == 3000 > TILES
    assert dataset.nbytes < 3000 * 50
    assert dataset[2999]["frame"] == 2999
