"""How many requests reading takes, how many of them wait for one another, and how many bytes come."""

from __future__ import annotations

import io
import logging
import random
import threading
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import TransientStorageError
from cloud_optimized_dicom.ranges import PARALLEL_READS
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.base import Uids, make_uid
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")

INSTANCES = 300
SERIES = CtSeries(INSTANCES, rows=16, columns=16)
PIXELS = kinds.make_frames(5, 64, 64)
JPEG2000_LOSSLESS = "1.2.840.10008.1.2.4.90"


def with_table(table: str) -> bytes:
    """Return a file of encapsulated frames with an offset table of a kind."""
    return slide_instance(5, table, tile_size=64)  # type: ignore[arg-type]


KINDS: dict[str, Callable[[], bytes]] = {
    "native": lambda: kinds.native(PIXELS),
    "big-endian": lambda: kinds.big_endian(PIXELS),
    "float": lambda: kinds.float_pixels(np.arange(3 * 64, dtype=np.float32).reshape(3, 8, 8)),
    "basic": lambda: with_table("basic"),
    "empty": lambda: with_table("empty"),
    "extended": lambda: with_table("extended"),
    "fragmented": lambda: kinds.jpeg2000(PIXELS, fragments=3),
    "fragmented-empty": lambda: kinds.jpeg2000(PIXELS, fragments=3, offset_table="empty"),
    "single-native": lambda: kinds.native(PIXELS[:1]),
    "single-encapsulated": lambda: kinds.jpeg2000(PIXELS[:1]),
    "single-fragmented": lambda: kinds.jpeg2000(PIXELS[:1], fragments=3, offset_table="empty"),
}


def as_instance(data: bytes, uid: str) -> bytes:
    """Return a file as an instance of the series, under another UID; its pixel data stays as it is."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = SERIES.uids.study, SERIES.uids.series
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def uid_of(kind: str, end: str) -> str:
    """Return the UID of a kind of instance at an end of the series."""
    return make_uid("counts", kind, end)


def store_files(store: ObjectStore | str, client: Any, folder: Path, files: list[bytes]) -> CODObject:
    """Store files, in this order, as one series."""
    folder.mkdir()
    instances = []
    for number, data in enumerate(files):
        path = folder / f"{number}.dcm"
        path.write_bytes(data)
        instances.append(Instance(path))
    dataset = pydicom.dcmread(io.BytesIO(files[0]), stop_before_pixels=True)
    uids = Uids(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), "")
    with CODObject(store, client, uids.study, uids.series, "w") as cod:
        assert len(cod.append(instances).new) == len(files)
    return CODObject(store, client, uids.study, uids.series)


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server that counts, of this module's own."""
    with GcsServer() as running:
        running.create_bucket("counts")
        yield running


@pytest.fixture(scope="module")
def many(server: GcsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CODObject]:
    """Return a series of 300 instances, open, that has every kind at its beginning and at its end."""
    ends = {end: [as_instance(make(), uid_of(kind, end)) for kind, make in KINDS.items()] for end in ("first", "last")}
    fillers = [SERIES.instance(number) for number in range(INSTANCES - 2 * len(KINDS))]
    files = ends["first"] + fillers + ends["last"]
    folder = tmp_path_factory.mktemp("counts") / "files"
    with store_files("gs://counts/many", server.client(), folder, files) as cod:
        assert len(cod.get_instances(strict_sorting=False)) == INSTANCES
        yield cod


@pytest.mark.parametrize("end", ["first", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_one_request_of_its_bytes(kind: str, end: str, many: CODObject, server: GcsServer) -> None:
    """Whatever its encoding, and wherever in the series, a frame is one request of its bytes, and 8 if in fragments."""
    uid = uid_of(kind, end)
    record = many.get_instance(uid).record
    assert record is not None
    assert record.frame_table is not None
    frame = len(record.frame_table) - 1
    server.reset_counters()
    (data,) = many.read_frames(uid, [frame])
    (request,) = server.counters()
    headers = 8 * 3 if "fragmented" in kind else 0
    assert request.bytes_out == len(data) + headers
    assert request.bytes_out == record.frame_table.lengths[frame] + (8 if headers else 0)
    server.reset_counters()
    many.read_frame_array(uid, 0)
    assert len(server.counters()) == 1


class WaveStore(InterceptingStore):
    """A far-away store that answers reads of a tar in waves: when as many are under way as there can be.

    Parameters
    ----------
    requests
        How many there will be.
    """

    def __init__(self, inner: ObjectStore, requests: int) -> None:
        super().__init__(inner)
        self.waves = 0
        self._left, self._waiting = requests, 0
        self._turn = threading.Condition()

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Wait for the others of the wave."""
        if operation.kind == "read":
            with self._turn:
                wave = self.waves
                self._waiting += 1
                if self._waiting == min(PARALLEL_READS, self._left):
                    self._left -= self._waiting
                    self._waiting, self.waves = 0, wave + 1
                    self._turn.notify_all()
                elif not self._turn.wait_for(lambda: self.waves > wave, timeout=60):
                    raise TransientStorageError(self.url, "the others were never under way")
        return act()


def waves_of(
    server: GcsServer, folder: Path, files: list[bytes], read: Callable[[CODObject], object]
) -> tuple[int, int, int]:
    """Return what a read takes of the server: requests, bytes, and how many are waited for one after another."""
    client = server.client()
    store = open_store(f"gs://counts/{uuid.uuid4().hex}", client)
    key = store_files(store.url, client, folder, files).key
    with CODObject(store, None, key.study_uid, key.series_uid) as cod:
        server.reset_counters()
        read(cod)
        records = server.counters()
    assert {record.operation for record in records} == {"objects.download"}
    waves = WaveStore(store, len(records))
    with CODObject(waves, None, key.study_uid, key.series_uid) as cod:
        server.reset_counters()
        read(cod)
        assert len(server.counters()) == len(records), "in waves, or not, the requests are the same"
    return len(records), sum(record.bytes_out for record in records), waves.waves


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_random_frames_are_four_round_trips(seed: int, server: GcsServer, tmp_path: Path) -> None:
    """Of the requests for 100 random frames of 2000, no more than four are waited for one after another."""
    wanted = random.Random(seed).sample(range(2000), 100)
    sizes: list[int] = []

    def read(cod: CODObject) -> None:
        (uid,) = cod.get_instances()
        frames = cod.read_frames(uid, wanted)
        assert len(frames) == 100
        sizes.append(sum(map(len, frames)))

    files = [slide_instance(2000, "empty", tile_size=64)]
    requests, size, waves = waves_of(server, tmp_path / "files", files, read)
    assert requests <= 100
    assert size <= 1.3 * sizes[0]
    assert waves <= 4


def test_a_volume_is_one_round_trip(server: GcsServer, tmp_path: Path) -> None:
    """The requests of a volume of 300 slices, at most 16, are all under way at once, and bring each byte once."""
    files = list(CtSeries(300, rows=128, columns=128))
    requests, size, waves = waves_of(server, tmp_path / "files", files, CODObject.read_volume)
    assert requests <= 16
    assert size <= 1.05 * sum(map(len, files))
    assert waves == 1


def test_every_request_of_a_read_has_a_connection(
    server: GcsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections are kept for as many requests as run at a time: none is made anew for every request."""
    client = server.client()
    files = [slide_instance(1000, "empty", tile_size=64)]
    with store_files("gs://counts/pool", client, tmp_path / "files", files) as cod:
        (uid,) = cod.get_instances()
        with caplog.at_level(logging.WARNING, "urllib3.connectionpool"):
            cod.read_frames(uid, list(range(0, 1000, 10)))
    assert caplog.messages == [], "urllib3 warns of each connection that it throws away"
