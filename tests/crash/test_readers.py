"""One reader, and records that it gave out when the series was another."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud_optimized_dicom.errors import StaleReadError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.storage.memory import MemoryStore
from tests.crash.kills import act
from tests.crash.scenes import KEY, Folder, open_series, uid


@pytest.fixture
def store(folder: Folder) -> MemoryStore:
    """Return a store with three instances."""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    with open_series(store, "w") as cod:
        cod.append(folder.instances(0, 1, 2))
    return store


def test_parts_are_read_at_their_new_places(store: MemoryStore, folder: Folder) -> None:
    """After one instance was found to have moved, a part of another one is read where that one lies now."""
    reader = SeriesReader.open(store, KEY)
    first, second = reader.document.get(uid(1)), reader.document.get(uid(2))
    act("remove", store, folder)
    assert reader.read_instance(first) == folder.bytes(1)
    for record, index in ((second, 2), (first, 1)):
        assert reader.read_span(record, ByteRange(100, 200)) == folder.bytes(index)[100:200]
        assert b"".join(reader.iter_instance(record)) == folder.bytes(index)


def test_what_was_removed_stays_stale(store: MemoryStore, folder: Folder) -> None:
    """An instance that another's read found to be removed is stale, though its old place holds other bytes now."""
    reader = SeriesReader.open(store, KEY)
    gone, kept = reader.document.get(uid(0)), reader.document.get(uid(1))
    act("remove", store, folder)
    assert reader.read_instance(kept) == folder.bytes(1)
    for _ in range(2):
        with pytest.raises(StaleReadError):
            reader.read_span(gone, ByteRange(0, 100))


def test_threads_share_a_reader(store: MemoryStore, folder: Folder) -> None:
    """Threads that find out about a removal at the same time all read right bytes."""
    reader = SeriesReader.open(store, KEY)
    records = [(index, reader.document.get(uid(index))) for index in (1, 2)] * 8
    act("remove", store, folder)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda item: reader.read_span(item[1], ByteRange(5000, 6000)), records))
    assert parts == [folder.bytes(index)[5000:6000] for index, _ in records]
