"""What only the local store promises: plain files, foreign files, processes that die, names that stay inside."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.storage.base import Attributes, ConcatSource
from cloud_optimized_dicom.storage.clock import utc_now
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.local_objects import LocalObjects, WriteRequest
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.store_writes import content, put, put_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRITER = """
import itertools, sys
from cloud_optimized_dicom.storage.clock import utc_now
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.local_objects import LocalObjects, WriteRequest
from cloud_optimized_dicom.storage.payload import BytesPayload
store = LocalStore(sys.argv[1])
info = store.find("a")
for number in itertools.count():
    data = BytesPayload(b"%09d" % number * 1000)
    if info is None:
        info = store.create("a", data, write_id=f"w{number}")
    else:
        info = store.replace("a", data, version=info.version, write_id=f"w{number}")
    if number == 5:
        print("started", flush=True)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the place of a store."""
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    """Return an empty store there."""
    return LocalStore(root)


def tree(root: Path) -> dict[str, bytes | None]:
    """Return everything below a directory."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def sidecar(root: Path) -> Path:
    """Return the one sidecar of a store with one object."""
    (path,) = (root / ".cod" / "objects").rglob("*.json")
    return path


class TestFiles:
    """Objects are files."""

    def test_an_object_is_a_plain_file(self, store: LocalStore, root: Path) -> None:
        """An object's bytes lie in a file of its name."""
        put(store, "studies/1/series/2.tar", b"tar bytes")
        assert (root / "studies/1/series/2.tar").read_bytes() == b"tar bytes"

    def test_private_files_are_not_objects(self, store: LocalStore, root: Path) -> None:
        """What the store keeps for itself is never listed, read or written as an object, nor that of a store inside."""
        put(store, "a")
        put(LocalStore(root / "inner"), "b")
        assert [info.name for info in store.list()] == ["a", "inner/b"]
        assert list(store.list_folders()) == ["inner/"]
        for name in (".cod", ".cod/x", ".COD/x", "inner/.cod/locks/00", f".cod/objects/{sidecar(root).parent.name}"):
            with pytest.raises(StorageError, match="store's own"):
                put(store, name)
            with pytest.raises(StorageError, match="store's own"):
                store.stat(name)

    @pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "/a", "a//b", "a/", "", ".", "./a", "a\0b", "\ud800"])
    def test_names_that_would_leave_the_root(self, store: LocalStore, tmp_path: Path, name: str) -> None:
        """Names that are no path below the root are refused, for reading and for writing."""
        (tmp_path / "a").write_bytes(b"outside")
        acts: list[Callable[[str], object]] = [
            store.stat,
            store.read_object,
            store.delete,
            lambda name: put(store, name),
        ]
        for act in acts:
            with pytest.raises(StorageError) as caught:
                act(name)
            assert not isinstance(caught.value, ObjectNotFoundError)
        assert (tmp_path / "a").read_bytes() == b"outside"

    def test_folders_disappear_with_their_last_object(self, store: LocalStore, root: Path) -> None:
        """No empty directories stay, and the root does."""
        put(store, "a/b/c/d")
        put(store, "a/e")
        store.delete("a/b/c/d")
        assert not (root / "a" / "b").exists()
        store.delete("a/e")
        assert [path.name for path in root.iterdir()] == [".cod"]

    def test_linked_root(self, tmp_path: Path) -> None:
        """A root that is a link keeps its name and works; both names are one store."""
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        store = LocalStore(tmp_path / "link")
        info = put(store, "a", b"data")
        assert store.url == str(tmp_path / "link")
        assert LocalStore(tmp_path / "real").stat("a") == info

    def test_named_pipe_is_no_object(self, store: LocalStore, root: Path) -> None:
        """A special file does not block a reader and is not an object."""
        put(store, "a")
        os.mkfifo(root / "pipe")
        assert store.find("pipe") is None
        assert [info.name for info in store.list()] == ["a"]

    def test_failed_write_leaves_nothing(self, store: LocalStore, root: Path) -> None:
        """After refused writes there is no temporary file."""
        info = put(store, "a")
        with pytest.raises(PreconditionFailedError):
            put(store, "a")
        with pytest.raises(PreconditionFailedError):
            put_over(store, "a", b"x", "stale")
        with pytest.raises(StorageError):
            put(store, "a/b")
        assert list((root / ".cod" / "tmp").iterdir()) == []
        assert store.stat("a") == info


class TestForeignFiles:
    """Folders that somebody else wrote, copied or edited."""

    def test_reading_writes_nothing(self, root: Path) -> None:
        """Every kind of read of a foreign folder leaves it exactly as it was."""
        (root / "studies/1").mkdir(parents=True)
        (root / "studies/1/a.tar").write_bytes(b"0123456789")
        before = tree(root)
        store = LocalStore(root)
        info = store.stat("studies/1/a.tar")
        assert (info.size, info.crc32c, info.write_id) == (10, None, None)
        assert store.read("studies/1/a.tar", ByteRange(2, 4), version=info.version) == b"23"
        assert store.read_object("studies/1/a.tar").data == b"".join(store.iter_chunks("studies/1/a.tar"))
        assert list(store.list()) == [info]
        assert list(store.list_folders()) == ["studies/"]
        with pytest.raises(ObjectNotFoundError):
            store.delete("missing")
        with pytest.raises(PreconditionFailedError):
            put(store, "studies/1/a.tar")
        assert tree(root) == before

    @pytest.mark.parametrize(
        ("name", "data", "encoding"),
        [
            ("1/metadata.json", gzip.compress(b"{}", mtime=0), "gzip"),
            ("1/metadata.json", b"{}", None),
            ("1/.gradient.lock", gzip.compress(b"{}", mtime=0), "gzip"),
            ("1/.gradient.lock", b"", None),
            ("1.nii.gz", gzip.compress(b"x", mtime=0), None),
        ],
    )
    def test_encoding_of_older_writers_documents(
        self, root: Path, name: str, data: bytes, encoding: str | None
    ) -> None:
        """Gzip bytes under the names that older writers label as gzip are labelled so, and nothing else is."""
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        result = LocalStore(root).read_object(name)
        assert (result.data, result.info.content_encoding) == (data, encoding)

    def test_foreign_file_is_replaced_appended_to_and_deleted(self, store: LocalStore, root: Path) -> None:
        """A foreign file's version serves conditional writes like any other."""
        root.mkdir()
        (root / "a").write_bytes(b"foreign")
        first = store.stat("a")
        second = store.concat("a", [ConcatSource("a", first.version)] * 2, version=first.version, write_id="w")
        assert (content(store, "a"), second.crc32c) == (b"foreignforeign", crc32c(b"foreignforeign"))
        (root / "b").write_bytes(b"foreign")
        store.delete("b", version=store.stat("b").version)
        assert store.find("b") is None

    @pytest.mark.parametrize("how", ["in place", "replaced", "same size and time"])
    def test_edited_object_has_another_version(self, store: LocalStore, root: Path, how: str) -> None:
        """An object that was changed past the store is at another version, has no checksum, and is not overwritten."""
        info = put(store, "a", b"before")
        path = root / "a"
        if how == "in place":
            with path.open("r+b") as stream:
                stream.write(b"AFTER!")
            os.utime(path, ns=(0, time.time_ns() + 10**9))
        else:
            times = path.stat()
            (root / "other").write_bytes(b"AFTER!")
            if how != "replaced":
                os.utime(root / "other", ns=(times.st_atime_ns, times.st_mtime_ns))
            (root / "other").rename(path)
        found = store.stat("a")
        assert (found.version != info.version, found.crc32c, found.write_id) == (True, None, None)
        with pytest.raises(PreconditionFailedError):
            put_over(store, "a", b"over", info.version)
        assert content(store, "a") == b"AFTER!"

    def test_copied_store(self, store: LocalStore, root: Path, tmp_path: Path) -> None:
        """A copy of a store, private files and times included, is read as foreign files and can be written to."""
        put(store, "f/a", b"data")
        shutil.copytree(root, tmp_path / "copy")
        copy = LocalStore(tmp_path / "copy")
        info = copy.stat("f/a")
        assert info.crc32c is None
        put_over(copy, "f/a", b"new", info.version)
        assert (content(copy, "f/a"), content(store, "f/a")) == (b"new", b"data")

    def test_moved_store(self, store: LocalStore, root: Path, tmp_path: Path) -> None:
        """A store that was renamed on its disk is as it was."""
        info = put(store, "f/a", b"data")
        root.rename(tmp_path / "moved")
        assert LocalStore(tmp_path / "moved").stat("f/a") == info

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"name": "a"}', b'{"name": "a", "entries": [{"x": 1}]}'])
    def test_damaged_sidecar(self, store: LocalStore, root: Path, damage: bytes) -> None:
        """An object whose sidecar is damaged is read as a foreign file, and the next write mends it."""
        put(store, "a", b"data")
        sidecar(root).write_bytes(damage)
        info = store.stat("a")
        assert (content(store, "a"), info.crc32c) == (b"data", None)
        assert put_over(store, "a", b"new", info.version) == store.stat("a")

    def test_sidecar_of_a_later_release(self, store: LocalStore, root: Path) -> None:
        """Fields that this release does not know are passed over."""
        info = put(store, "a", b"data")
        document = json.loads(sidecar(root).read_bytes())
        document["entries"][0]["invented_later"] = 1
        sidecar(root).write_bytes(json.dumps(document).encode())
        assert store.stat("a") == info


class TestDeath:
    """Processes that die in the middle."""

    def test_writer_killed_at_any_moment(self, store: LocalStore, root: Path) -> None:
        """After a kill the object is whole, its state is known, and the next writer goes on."""
        for _ in range(4):
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
            with process:
                assert process.stdout is not None
                assert process.stdout.readline() == "started\n"
                process.kill()
            result = store.read_object("a")
            number = int(result.data[:9])
            assert result.data == b"%09d" % number * 1000
            assert (result.info.write_id, result.info.crc32c) == (f"w{number}", crc32c(result.data))
        assert put_over(store, "a", b"next", store.stat("a").version) == store.stat("a")

    def test_death_between_sidecar_and_rename(self, store: LocalStore, root: Path) -> None:
        """A write that had noted its entry but not yet renamed its file has not happened."""
        before = put(store, "a", b"before")
        old = (root / "a").read_bytes()
        keep = root / "keep"
        os.link(root / "a", keep)
        put_over(store, "a", b"after", before.version)  # its sidecar now holds both entries ...
        keep.replace(root / "a")  # ... and the old file is back, as if it had never been renamed over
        assert (root / "a").read_bytes() == old
        assert store.stat("a") == before
        assert content(store, "a") == b"before"
        second = put_over(store, "a", b"second", before.version)
        assert store.stat("a") == second

    def test_source_that_moves_on_while_it_is_copied(self, store: LocalStore, root: Path) -> None:
        """A concatenation is refused if a source was replaced after it was copied and before the result is in place."""
        part = put(store, "part", b"first")
        request = WriteRequest("all", None, "w", Attributes(), (ConcatSource("part", part.version),))
        objects = LocalObjects(root, utc_now)
        with objects.incoming("all") as incoming:
            os.write(incoming.descriptor, b"first")
            put_over(store, "part", b"second", part.version)
            with pytest.raises(PreconditionFailedError):
                objects.publish(request, incoming, crc32c(b"first"))
        assert store.find("all") is None

    def test_leftovers_are_swept_after_a_day(self, root: Path) -> None:
        """Temporary files of dead processes go with the first write of a later day; fresh ones stay."""
        put(LocalStore(root), "a")
        temporary = root / ".cod" / "tmp"
        (temporary / "old").write_bytes(b"x")
        (temporary / "fresh").write_bytes(b"x")
        two_days_ago = time.time() - 48 * 3600
        os.utime(temporary / "old", (two_days_ago, two_days_ago))
        put(LocalStore(root), "b")
        assert [path.name for path in temporary.iterdir()] == ["fresh"]

    def test_one_source_is_not_copied(self, root: Path) -> None:
        """An object made of one other shares its file, which stays when that one is deleted."""
        store = LocalStore(root)
        first = put(store, "a", b"bytes")
        made = store.concat("b", [ConcatSource("a", first.version)], version=None, write_id="w")
        assert (root / "a").samefile(root / "b")
        assert (made.size, made.crc32c) == (first.size, first.crc32c)
        assert made.version != first.version
        store.delete("a", version=first.version)
        assert store.stat("b") == made
        put_over(store, "b", b"other", made.version)
        assert content(store, "b") == b"other"

    def test_foreign_source_is_copied(self, root: Path) -> None:
        """An object made of a file that somebody else wrote does not change when they write to it again."""
        store = LocalStore(root)
        root.mkdir(exist_ok=True)
        (root / "theirs").write_bytes(b"before")
        store.concat("b", [ConcatSource("theirs")], version=None, write_id="w")
        with (root / "theirs").open("r+b") as file:
            file.write(b"AFTER!")
        assert content(store, "b") == b"before"

    def test_object_made_of_itself_gets_a_new_version(self, root: Path) -> None:
        """A concatenation of an object alone onto itself is a new version, and the old one is gone."""
        store = LocalStore(root)
        first = put(store, "a", b"bytes")
        made = store.concat("a", [ConcatSource("a", first.version)], version=first.version, write_id="w")
        assert made.version != first.version
        assert store.stat("a") == made
        with pytest.raises(ObjectNotFoundError):
            store.read("a", ByteRange(0, 1), version=first.version)

    def test_full_disk(self, root: Path) -> None:
        """A write that the file system refuses in the middle is an error of the store, and leaves nothing."""
        code = (
            "import resource, signal, sys\n"
            "from cloud_optimized_dicom.errors import StorageError\n"
            "from cloud_optimized_dicom.storage.local import LocalStore\n"
            "from cloud_optimized_dicom.storage.payload import BytesPayload\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try:\n"
            "    LocalStore(sys.argv[1]).create('a', BytesPayload(bytes(3_000_000)), write_id='w')\n"
            "except StorageError as error:\n"
            "    print(error.reason)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
        assert done.stdout == "File too large\n"
        assert LocalStore(root).find("a") is None
        assert list((root / ".cod" / "tmp").iterdir()) == []


def test_content_type_is_kept_in_the_sidecar(store: LocalStore, root: Path) -> None:
    """Labels lie beside the object, so that a copy to a bucket can take them along."""
    labels = Attributes(content_type="application/json", content_encoding="gzip", storage_class="NEARLINE")
    info = store.create("a", BytesPayload(b"x"), write_id="w", attributes=labels)
    entry = json.loads(sidecar(root).read_bytes())["entries"][-1]
    assert (entry["content_type"], entry["content_encoding"]) == ("application/json", "gzip")
    assert (info.content_encoding, info.storage_class) == ("gzip", "NEARLINE")
