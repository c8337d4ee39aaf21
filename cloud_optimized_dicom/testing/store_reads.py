"""The promises of `ObjectStore` about reading and listing, as tests: see `store_suite`."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, ClassVar

import pytest

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError, StorageError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.testing.store_writes import LARGE_BYTES, content, pattern, put, put_over
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore

_LARGEST_CHUNK_BYTES = 32 << 20


READS: dict[str, Callable[[ObjectStore, str | None], object]] = {
    "read": lambda store, version: store.read("a", ByteRange(0, 2), version=version),
    "read nothing": lambda store, version: store.read("a", ByteRange(0, 0), version=version),
    "read_ranges": lambda store, version: store.read_ranges("a", [ByteRange(0, 1), ByteRange(1, 2)], version=version),
    "iter_chunks": lambda store, version: list(store.iter_chunks("a", version=version)),
    "iter_chunks of a span": lambda store, version: list(store.iter_chunks("a", ByteRange(0, 2), version=version)),
}


class StoreReadTests:
    """Whole objects, spans, pinned versions, streams."""

    def test_missing_object(self, store: ObjectStore) -> None:
        """Whatever is asked of an object that is not there, the answer is that it is not there."""
        put(store, "ab")
        assert store.find("a") is None
        with pytest.raises(ObjectNotFoundError):
            store.stat("a")
        with pytest.raises(ObjectNotFoundError):
            store.read_object("a")
        for read in READS.values():
            with pytest.raises(ObjectNotFoundError):
                read(store, None)

    def test_read_object_tells_state_and_clock(self, store: ObjectStore) -> None:
        """A whole read gives the bytes, the state they belong to, and the store's clock."""
        info = put(store, "a", b"hello")
        result = store.read_object("a")
        assert result.data == b"hello"
        assert (result.info.version, result.info.size, result.info.crc32c) == (info.version, 5, crc32c(b"hello"))
        assert abs((result.info.updated - info.updated).total_seconds()) < 1  # HTTP headers tell whole seconds
        assert result.served_at.tzinfo is not None

    @pytest.mark.parametrize(("start", "stop"), [(0, 10), (0, 1), (9, 10), (3, 7), (0, 0), (10, 10)])
    def test_read_returns_exactly_the_span(self, store: ObjectStore, start: int, stop: int) -> None:
        """The bytes of a span are those, first, last and none included."""
        put(store, "a", b"0123456789")
        assert store.read("a", ByteRange(start, stop)) == b"0123456789"[start:stop]
        assert b"".join(store.iter_chunks("a", ByteRange(start, stop))) == b"0123456789"[start:stop]

    @pytest.mark.parametrize(("start", "stop"), [(0, 11), (9, 11), (10, 11), (20, 30), (11, 11)])
    def test_short_data_is_never_returned(self, store: ObjectStore, start: int, stop: int) -> None:
        """A span that reaches beyond the object is an error, and not the one of a missing object."""
        put(store, "a", b"0123456789")
        span = ByteRange(start, stop)
        for read in (
            lambda: store.read("a", span),
            lambda: store.read_ranges("a", [ByteRange(0, 1), span]),
            lambda: list(store.iter_chunks("a", span)),
        ):
            with pytest.raises(StorageError) as caught:
                read()
            assert not isinstance(caught.value, ObjectNotFoundError)

    def test_read_ranges_keeps_the_order(self, store: ObjectStore) -> None:
        """Several spans come back in the order given, overlapping and repeated ones too."""
        data = pattern(1000)
        put(store, "a", data)
        spans = [ByteRange.of(start, 7) for start in (900, 0, 500, 500, 3)] + [ByteRange.of(at, 1) for at in range(30)]
        assert store.read_ranges("a", spans) == [data[span.start : span.stop] for span in spans]
        assert store.read_ranges("a", []) == []

    @pytest.mark.parametrize("how", READS)
    def test_pinned_read(self, store: ObjectStore, how: str) -> None:
        """A read that names a version is served while that version is there, and refused afterwards."""
        first = put(store, "a", b"first")
        unpinned = READS[how](store, None)
        assert READS[how](store, first.version) == unpinned
        second = put_over(store, "a", b"other", first.version)
        with pytest.raises(ObjectNotFoundError):
            READS[how](store, first.version)
        store.delete("a", version=second.version)
        with pytest.raises(ObjectNotFoundError):
            READS[how](store, second.version)

    def test_stream_in_bounded_chunks(self, store: ObjectStore) -> None:
        """A large object is streamed in chunks that fit into memory; a part of it as well."""
        data = pattern(LARGE_BYTES)
        info = put(store, "a", data)
        chunks = list(store.iter_chunks("a", version=info.version))
        assert b"".join(chunks) == data
        assert max(map(len, chunks)) <= _LARGEST_CHUNK_BYTES
        assert b"".join(store.iter_chunks("a", ByteRange(5, LARGE_BYTES - 5))) == data[5:-5]

    def test_stream_left_early(self, store: ObjectStore) -> None:
        """A stream that is not read to its end can be closed, and the object is still readable and deletable."""
        put(store, "a", pattern(LARGE_BYTES))
        stream = store.iter_chunks("a")
        assert next(iter(stream))
        del stream
        store.delete("a")
        assert store.find("a") is None

    def test_pickled_store_is_the_same_store(self, store: ObjectStore) -> None:
        """A store that went through pickle reads and writes the same objects."""
        put(store, "a", b"before")
        twin: ObjectStore = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
        assert twin.url == store.url
        assert content(twin, "a") == b"before"
        put(twin, "b", b"after")
        assert content(store, "b") == b"after"
        assert pickle.loads(pickle.dumps(twin)).stat("a") == store.stat("a")  # noqa: S301 - as above


class StoreListTests:
    """Lists and folders."""

    objects_may_be_folders: ClassVar[bool] = True
    """Whether ``a`` and ``a/b`` can both be objects; a file system cannot have that."""

    NAMES = (
        "a",
        "a-b",
        "a.b",
        "ab/c",
        "b/1",
        "b/10",
        "b/2/x",
        "b/2/y",
        "b/z",
        "c\u00e9",
        "c\U0001f600",
        "c\uffee",
        "z",
    )

    def fill(self, store: ObjectStore) -> None:
        """Create objects of all the names, in an order that is not theirs."""
        for name in reversed(self.NAMES):
            put(store, name, name.encode())

    def test_order_is_that_of_the_names_bytes(self, store: ObjectStore) -> None:
        """Everything is listed once, sorted by the UTF-8 bytes of the names, folders' contents in between."""
        self.fill(store)
        expected = sorted(self.NAMES, key=lambda name: name.encode())
        assert [info.name for info in store.list()] == expected

    @pytest.mark.parametrize("prefix", ["a", "a-", "b/", "b/1", "b/2", "b/2/", "b/2/x", "nothing", "nothing/", "c"])
    def test_prefix(self, store: ObjectStore, prefix: str) -> None:
        """Exactly the names that start with the prefix are listed, whether or not it ends at a slash."""
        self.fill(store)
        expected = [name for name in self.NAMES if name.startswith(prefix)]
        assert sorted(info.name for info in store.list(prefix)) == sorted(expected)

    def test_listed_state_is_that_of_stat(self, store: ObjectStore) -> None:
        """A list tells of each object what `stat` tells."""
        self.fill(store)
        assert [store.stat(info.name) for info in store.list("b/")] == list(store.list("b/"))

    @pytest.mark.parametrize(
        ("prefix", "folders"), [("", ["ab/", "b/"]), ("b/", ["b/2/"]), ("b/2/", []), ("none/", [])]
    )
    def test_folders(self, store: ObjectStore, prefix: str, folders: list[str]) -> None:
        """Folders are what lies directly below a prefix and has objects in it, by their full names."""
        self.fill(store)
        assert list(store.list_folders(prefix)) == folders

    @pytest.mark.parametrize(
        ("start", "stop"),
        [
            ("a", "b"),
            ("b/1", "b/3"),
            ("b/2", "b/2"),
            ("", "zzz"),
            ("ab/", "ab0"),
            ("a/x", "b"),
            ("b/2/", "c"),
            ("c", "a"),
        ],
    )
    def test_list_between_two_names(self, store: ObjectStore, start: str, stop: str) -> None:
        """A list from one name to another holds exactly the objects in between, as a list of all has them."""
        self.fill(store)
        assert list(store.list_between(start, stop)) == [info for info in store.list() if start <= info.name < stop]

    def test_objects_of_a_series_lie_between_two_names(self, store: ObjectStore) -> None:
        """The names of a series take in its tar and its folder, and nothing of series whose UIDs begin alike."""
        keys = [SeriesKey("1.2", uid) for uid in ("1.3", "1.30", "1.3.1", "1.3.10", "1", "1.4")]
        for key in keys:
            for name in (key.tar, key.metadata, key.segment("w", 0)):
                put(store, name)
        found = [info.name for info in store.list_between(*keys[0].names)]
        assert found == [keys[0].tar, keys[0].segment("w", 0), keys[0].metadata]

    def test_empty_store(self, store: ObjectStore) -> None:
        """A store without objects lists nothing."""
        assert list(store.list()) == []
        assert list(store.list_folders()) == []

    def test_lists_see_every_write_at_once(self, store: ObjectStore) -> None:
        """A list after a write shows it: a created, a replaced, a concatenated, a deleted object."""
        info = put(store, "f/a", b"1")
        assert [found.version for found in store.list("f/")] == [info.version]
        info = put_over(store, "f/a", b"22", info.version)
        joined = store.concat("f/b", [ConcatSource("f/a")], version=None, write_id="w")
        assert [found.version for found in store.list("f/")] == [info.version, joined.version]
        store.delete("f/a")
        assert [found.name for found in store.list("f/")] == ["f/b"]

    def test_name_that_is_both_object_and_folder(self, store: ObjectStore) -> None:
        """An object and a folder of one name live together where the store can do that; else the second is refused."""
        put(store, "series", b"object")
        put(store, "other/object", b"in a folder")
        if self.objects_may_be_folders:
            put(store, "series/inside", b"inside")
            put(store, "other", b"beside")
            expected = ["other", "other/object", "series", "series/inside"]
        else:
            for name in ("series/inside", "other"):
                with pytest.raises(StorageError):
                    put(store, name)
                assert store.find(name) is None
            expected = ["other/object", "series"]
        assert [info.name for info in store.list()] == expected
        assert content(store, "series") == b"object"
