"""The promises of `ObjectStore` about writing, as tests: see `store_suite`."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from cloud_optimized_dicom.storage.base import MAX_CONCAT_SOURCES, Attributes, ConcatSource, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload, ChainPayload, FilePayload

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore

ODD_NAMES = (
    "with space and  two",
    "per%cent %2F not a slash",
    "question?mark=1&x#fragment",
    "plus+and~tilde'quote\"double",
    "unicode/é/Ω/漢字/😀",
    "dots/..a/b../...",
    "-leading/-dash",
    "back\\slash",
    "a.json/b",
    "a/" * 20 + "deep",
    "long-" + "x" * 240,
)
LARGE_BYTES = 9 * (1 << 20) + 17


def put(store: ObjectStore, name: str, data: bytes = b"data", write_id: str | None = None) -> ObjectInfo:
    """Create an object of the given bytes."""
    return store.create(name, BytesPayload(data), write_id=write_id or new_write_id())


def put_over(store: ObjectStore, name: str, data: bytes, version: str) -> ObjectInfo:
    """Replace an object's version by the given bytes."""
    return store.replace(name, BytesPayload(data), version=version, write_id=new_write_id())


def content(store: ObjectStore, name: str) -> bytes:
    """Return an object's bytes."""
    return store.read_object(name).data


@cache
def pattern(size: int) -> bytes:
    """Return bytes of which no two stretches of a few KiB are equal."""
    return b"".join(index.to_bytes(8, "big") for index in range(-(-size // 8)))[:size]


@dataclass(frozen=True)
class LyingPayload(BytesPayload):
    """Bytes that are not what they are announced to be."""

    announced_crc32c: int = 0

    @property
    def crc32c(self) -> int:
        """A CRC32C of other bytes."""
        return self.announced_crc32c


class StoreWriteTests:
    """Create, replace, delete."""

    def test_create_returns_the_state_that_stat_returns(self, store: ObjectStore) -> None:
        """Creating an object tells its size, checksum, version and write id, and `stat` tells the same."""
        info = put(store, "folder/a.bin", b"hello", "write-1")
        assert (info.name, info.size, info.crc32c, info.write_id) == ("folder/a.bin", 5, crc32c(b"hello"), "write-1")
        assert store.stat("folder/a.bin") == info
        assert info.updated.tzinfo is not None

    def test_create_refuses_an_existing_object(self, store: ObjectStore) -> None:
        """Creating over an object fails, names both versions, and changes nothing."""
        info = put(store, "a", b"first")
        with pytest.raises(PreconditionFailedError) as caught:
            put(store, "a", b"second")
        assert (caught.value.expected, caught.value.found) == (None, info.version)
        assert content(store, "a") == b"first"
        assert store.stat("a") == info

    def test_repeated_create_of_one_write_id_succeeds(self, store: ObjectStore) -> None:
        """Creating again under the same write id finds its own object and says so."""
        info = put(store, "a", b"data", "the-write")
        assert put(store, "a", b"data", "the-write") == info

    def test_replace_at_the_present_version(self, store: ObjectStore) -> None:
        """Replacing the present version changes bytes, version and write id."""
        first = put(store, "a", b"first")
        second = store.replace("a", BytesPayload(b"second!"), version=first.version, write_id="w2")
        assert second.version != first.version
        assert (second.size, second.write_id, second.crc32c) == (7, "w2", crc32c(b"second!"))
        assert store.read_object("a").data == b"second!"
        assert store.stat("a") == second

    def test_replace_refuses_a_stale_version(self, store: ObjectStore) -> None:
        """Replacing a version that was overwritten fails and changes nothing."""
        first = put(store, "a", b"first")
        second = put_over(store, "a", b"second", first.version)
        with pytest.raises(PreconditionFailedError) as caught:
            put_over(store, "a", b"third", first.version)
        assert (caught.value.expected, caught.value.found) == (first.version, second.version)
        assert content(store, "a") == b"second"

    def test_replace_refuses_a_missing_object(self, store: ObjectStore) -> None:
        """Replacing an object that was deleted fails and does not bring it back."""
        info = put(store, "a")
        store.delete("a")
        with pytest.raises(PreconditionFailedError):
            put_over(store, "a", b"again", info.version)
        assert store.find("a") is None

    def test_repeated_replace_of_one_write_id_succeeds(self, store: ObjectStore) -> None:
        """Replacing again under the same write id and version finds its own object and says so."""
        first = put(store, "a", b"first")
        second = store.replace("a", BytesPayload(b"second"), version=first.version, write_id="w2")
        again = store.replace("a", BytesPayload(b"second"), version=first.version, write_id="w2")
        assert again == second

    def test_delete_removes_the_object(self, store: ObjectStore) -> None:
        """A deleted object cannot be found, read or listed."""
        put(store, "folder/a")
        store.delete("folder/a")
        assert store.find("folder/a") is None
        assert list(store.list()) == []
        assert list(store.list_folders()) == []

    def test_delete_of_a_stale_version_is_refused(self, store: ObjectStore) -> None:
        """Deleting a version that was overwritten fails and keeps the object."""
        first = put(store, "a", b"first")
        second = put_over(store, "a", b"second", first.version)
        with pytest.raises(PreconditionFailedError):
            store.delete("a", version=first.version)
        assert content(store, "a") == b"second"
        store.delete("a", version=second.version)
        assert store.find("a") is None

    def test_delete_of_a_missing_object(self, store: ObjectStore) -> None:
        """Deleting what is not there fails, with a version or without."""
        with pytest.raises(ObjectNotFoundError):
            store.delete("a")
        info = put(store, "a")
        store.delete("a")
        with pytest.raises(ObjectNotFoundError):
            store.delete("a", version=info.version)

    def test_versions_never_repeat(self, store: ObjectStore) -> None:
        """Fast overwrites, and deleting and creating anew with equal bytes, always give new versions."""
        versions = []
        for _ in range(5):
            info = put(store, "a", b"same")
            versions.append(info.version)
            for _ in range(3):
                info = put_over(store, "a", b"same", info.version)
                versions.append(info.version)
            store.delete("a")
        assert len(set(versions)) == len(versions) == 20

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names(self, store: ObjectStore, name: str) -> None:
        """Names with characters that mean something in URLs, shells or paths are stored, listed, read and deleted."""
        info = put(store, name, b"odd")
        assert content(store, name) == b"odd"
        assert [found.name for found in store.list()] == [name]
        assert store.url_of(name) == f"{store.url}/{name}"
        replaced = put_over(store, name, b"even", info.version)
        store.delete(name, version=replaced.version)
        assert store.find(name) is None

    def test_content_encoding_is_kept_and_not_undone(self, store: ObjectStore) -> None:
        """An encoded object keeps its label and is read, whole or streamed, as the bytes that were written."""
        data = gzip.compress(b'{"series": 1}' * 100)
        attributes = Attributes(content_type="application/json", content_encoding="gzip")
        info = store.create("metadata.json", BytesPayload(data), write_id="w", attributes=attributes)
        result = store.read_object("metadata.json")
        assert (info.content_encoding, info.size, info.crc32c) == ("gzip", len(data), crc32c(data))
        assert (result.data, result.info.content_encoding, result.info.size) == (data, "gzip", len(data))
        assert b"".join(store.iter_chunks("metadata.json")) == data

    def test_empty_object(self, store: ObjectStore) -> None:
        """An object of no bytes is an object."""
        info = put(store, "empty", b"")
        assert (info.size, info.crc32c) == (0, 0)
        assert content(store, "empty") == b""
        assert b"".join(store.iter_chunks("empty")) == b""
        assert [found.size for found in store.list()] == [0]

    def test_large_payload(self, store: ObjectStore, tmp_path: Path) -> None:
        """A payload too large for one piece, of a file and bytes, arrives whole; so does what replaces it."""
        data = pattern(LARGE_BYTES)
        (tmp_path / "source").write_bytes(data)
        payload = ChainPayload((BytesPayload(b"head"), FilePayload.of(tmp_path / "source")))
        info = store.create("large", payload, write_id="w")
        assert (info.size, info.crc32c, info.write_id) == (LARGE_BYTES + 4, crc32c(b"head" + data), "w")
        assert b"".join(store.iter_chunks("large")) == b"head" + data
        second = store.replace("large", FilePayload.of(tmp_path / "source"), version=info.version, write_id="w2")
        assert store.stat("large") == second
        assert content(store, "large") == data

    def test_large_payload_is_refused_where_an_object_is(self, store: ObjectStore) -> None:
        """The preconditions of a large write hold as those of a small one, and the object stays."""
        info = put(store, "a", b"small")
        with pytest.raises(PreconditionFailedError):
            put(store, "a", pattern(LARGE_BYTES))
        assert store.stat("a") == info

    @pytest.mark.parametrize("size", [10, LARGE_BYTES])
    def test_bytes_that_are_not_as_announced_are_refused(self, store: ObjectStore, size: int) -> None:
        """A payload whose checksum is wrong is not stored, and the object it was to replace stays."""
        info = put(store, "a", b"first")
        with pytest.raises(StorageError):
            store.create("b", LyingPayload(pattern(size), 12345), write_id="w")
        with pytest.raises(StorageError):
            store.replace("a", LyingPayload(pattern(size), 12345), version=info.version, write_id="w2")
        assert [found.name for found in store.list()] == ["a"]
        assert content(store, "a") == b"first"

    @pytest.mark.parametrize("size", [10, LARGE_BYTES])
    def test_payload_that_is_shorter_than_announced(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        """A file that shrank after it was measured is refused."""
        path = tmp_path / "source"
        path.write_bytes(pattern(size))
        payload = FilePayload(path, size + 5)
        with pytest.raises(StorageError):
            store.create("a", payload, write_id="w")
        assert store.find("a") is None

    @pytest.mark.parametrize("size", [10, LARGE_BYTES])
    def test_payload_that_cannot_be_read(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        """A file that is gone is the caller's error, not one of the store, and leaves nothing behind."""
        with pytest.raises(FileNotFoundError):
            store.create("a", FilePayload(tmp_path / "gone", size, known_crc32c=1), write_id="w")
        assert store.find("a") is None


class StoreConcatTests:
    """Concatenation."""

    def test_joins_in_order(self, store: ObjectStore) -> None:
        """The result is the sources in the order given, repeated ones too, and the sources stay."""
        parts = [put(store, f"part-{index}", data) for index, data in enumerate([b"one", b"", b"three"])]
        sources = [ConcatSource(part.name, part.version) for part in (*parts, parts[0])]
        info = store.concat("all", sources, version=None, write_id="w")
        assert (info.size, info.crc32c, info.write_id) == (11, crc32c(b"onethreeone"), "w")
        assert content(store, "all") == b"onethreeone"
        assert store.stat("all") == info
        assert len(list(store.list("part-"))) == 3

    def test_onto_itself(self, store: ObjectStore) -> None:
        """An object may be a source of its own next version: that is an append."""
        first = put(store, "a", b"head")
        put(store, "tail", b"tail")
        sources = [ConcatSource("a", first.version), ConcatSource("tail")]
        second = store.concat("a", sources, version=first.version, write_id="w")
        assert second.version != first.version
        assert content(store, "a") == b"headtail"

    def test_refuses_an_existing_object(self, store: ObjectStore) -> None:
        """With no version named, the object must not exist."""
        put(store, "a", b"first")
        put(store, "part")
        with pytest.raises(PreconditionFailedError):
            store.concat("a", [ConcatSource("part")], version=None, write_id="w")
        assert content(store, "a") == b"first"

    def test_refuses_a_stale_version(self, store: ObjectStore) -> None:
        """An object that has moved on is not written."""
        first = put(store, "a", b"first")
        put_over(store, "a", b"second", first.version)
        put(store, "part")
        with pytest.raises(PreconditionFailedError):
            store.concat("a", [ConcatSource("part")], version=first.version, write_id="w")
        assert content(store, "a") == b"second"

    def test_refuses_a_stale_source(self, store: ObjectStore) -> None:
        """A source that has moved on is not read."""
        part = put(store, "part", b"first")
        put_over(store, "part", b"second", part.version)
        with pytest.raises(PreconditionFailedError):
            store.concat("all", [ConcatSource("part", part.version)], version=None, write_id="w")
        assert store.find("all") is None

    @pytest.mark.parametrize("pinned", [True, False])
    def test_refuses_a_missing_source(self, store: ObjectStore, pinned: bool) -> None:  # noqa: FBT001
        """A source that is gone fails the concatenation and leaves the object as it was."""
        first = put(store, "a", b"first")
        gone = put(store, "gone")
        store.delete("gone")
        sources = [ConcatSource("a"), ConcatSource("gone", gone.version if pinned else None)]
        with pytest.raises((ObjectNotFoundError, PreconditionFailedError)):
            store.concat("a", sources, version=first.version, write_id="w")
        assert store.stat("a") == first

    def test_repeated_concat_of_one_write_id_succeeds(self, store: ObjectStore) -> None:
        """A repeated request finds its own result, although object and source have moved on."""
        first = put(store, "a", b"head")
        part = put(store, "part", b"tail")
        sources = [ConcatSource("a", first.version), ConcatSource("part", part.version)]
        second = store.concat("a", sources, version=first.version, write_id="w")
        store.delete("part")
        assert store.concat("a", sources, version=first.version, write_id="w") == second
        assert content(store, "a") == b"headtail"

    def test_takes_32_sources_and_no_more(self, store: ObjectStore) -> None:
        """The number of sources is limited on every store as on the strictest."""
        put(store, "part", b"ab")
        full = [ConcatSource("part")] * MAX_CONCAT_SOURCES
        assert store.concat("all", full, version=None, write_id="w").size == 64
        assert content(store, "all") == b"ab" * 32
        for sources in ([*full, ConcatSource("part")], []):
            with pytest.raises(StorageError):
                store.concat("other", sources, version=None, write_id="w2")
        assert store.find("other") is None

    def test_checks_the_expected_checksum(self, store: ObjectStore) -> None:
        """A result that is not what was expected is an error that names the object."""
        put(store, "one", b"one")
        put(store, "two", b"two")
        sources = [ConcatSource("one"), ConcatSource("two")]
        expected = crc32c(b"onetwo")
        info = store.concat("all", sources, version=None, write_id="w", expected_crc32c=expected)
        assert info.crc32c == expected
        with pytest.raises(StorageError, match=r"bad"):
            store.concat("bad", sources, version=None, write_id="w2", expected_crc32c=expected ^ 1)

    def test_keeps_its_attributes(self, store: ObjectStore) -> None:
        """A concatenation is labelled as asked, not as its sources are."""
        put(store, "part", gzip.compress(b"x"))
        labels = Attributes(content_type="application/json", content_encoding="gzip")
        store.concat("all", [ConcatSource("part")] * 2, version=None, write_id="w", attributes=labels)
        assert store.stat("all").content_encoding == "gzip"
        assert gzip.decompress(content(store, "all")) == b"xx"
