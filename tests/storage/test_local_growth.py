"""Appending to an object of a local store in place: what it costs, who may read meanwhile, and what a crash leaves."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.storage.clock import utc_now
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.local_objects import LocalObjects
from cloud_optimized_dicom.testing.store_writes import content, put, put_over

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectInfo

BASE = bytes(range(256)) * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the place of a store."""
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    """Return a store with the object "a"."""
    store = LocalStore(root)
    put(store, "a", BASE)
    return store


def append(store: LocalStore, data: bytes, version: str | None = None, write_id: str = "append") -> ObjectInfo:
    """Append bytes to "a", at a version or at the present one."""
    part = put(store, f"parts/{uuid.uuid4().hex}", data)
    version = store.stat("a").version if version is None else version
    sources = [ConcatSource("a", version), ConcatSource(part.name, part.version)]
    return store.concat("a", sources, version=version, write_id=write_id)


def test_an_append_leaves_the_file_where_it_is(store: LocalStore, root: Path) -> None:
    """The longer object is the same file, with a new version and the CRC32C of all its bytes."""
    before, inode = store.stat("a"), (root / "a").stat().st_ino
    made = append(store, b"tail")
    assert (root / "a").stat().st_ino == inode
    assert (root / "a").read_bytes() == BASE + b"tail" == content(store, "a")
    assert made == store.stat("a") == LocalStore(root).stat("a")
    assert made.version != before.version
    assert (made.size, made.crc32c) == (len(BASE) + 4, crc32c(BASE + b"tail"))
    with pytest.raises(ObjectNotFoundError):
        store.read("a", ByteRange(0, 1), version=before.version)


def test_an_append_at_another_version_is_refused(store: LocalStore) -> None:
    """Only the version that the write names is appended to; a write that landed says so again."""
    first = store.stat("a")
    made = append(store, b"1", write_id="mine")
    with pytest.raises(PreconditionFailedError):
        append(store, b"2", version=first.version, write_id="theirs")
    assert append(store, b"1", version=first.version, write_id="mine") == made
    assert content(store, "a") == BASE + b"1"


def test_a_file_with_two_names_is_not_written_to(store: LocalStore, root: Path, tmp_path: Path) -> None:
    """A snapshot made of links keeps the bytes that it was made of."""
    snapshot = tmp_path / "snapshot"
    os.link(root / "a", snapshot)
    append(store, b"tail")
    assert snapshot.read_bytes() == BASE
    assert content(store, "a") == BASE + b"tail"


def test_a_link_made_meanwhile_is_a_copy(store: LocalStore) -> None:
    """An object made of one that is appended to afterwards keeps its own bytes."""
    store.concat("b", [ConcatSource("a")], version=None, write_id="link")
    append(store, b"tail")
    assert (content(store, "a"), content(store, "b")) == (BASE + b"tail", BASE)


def test_a_file_of_somebody_else_is_copied(root: Path) -> None:
    """A file that no store wrote is replaced as a whole, not added to."""
    root.mkdir()
    (root / "a").write_bytes(BASE)
    store = LocalStore(root)
    inode = (root / "a").stat().st_ino
    append(store, b"tail")
    assert content(store, "a") == BASE + b"tail"
    assert (root / "a").stat().st_ino != inode


def test_a_reader_keeps_its_version(store: LocalStore) -> None:
    """A stream that was begun before an append yields the object as it was."""
    stream = store.iter_chunks("a", version=store.stat("a").version)
    head = next(stream)
    append(store, b"tail")
    assert head + b"".join(stream) == BASE


def test_what_is_made_of_a_source_that_is_gone(store: LocalStore, root: Path) -> None:
    """A source that is missing, or not at its version, leaves the object and its version as they were."""
    before = store.stat("a")
    part = put(store, "part", b"tail")
    put_over(store, "part", b"other", part.version)
    for second in (ConcatSource("nothing"), ConcatSource("part", part.version)):
        sources = [ConcatSource("a", before.version), second]
        with pytest.raises((ObjectNotFoundError, PreconditionFailedError)):
            store.concat("a", sources, version=before.version, write_id="w")
    assert store.stat("a") == before
    assert (root / "a").read_bytes() == BASE


def test_a_full_disk_leaves_the_object_as_it_was(store: LocalStore, root: Path) -> None:
    """An append that the file system refuses in the middle is an error, and the next one goes through."""
    code = (
        "import resource, signal, sys\n"
        "from cloud_optimized_dicom.errors import StorageError\n"
        "from cloud_optimized_dicom.storage.base import ConcatSource\n"
        "from cloud_optimized_dicom.storage.local import LocalStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = LocalStore(sys.argv[1])\n"
        "version = store.stat('a').version\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(BASE) + 1000}, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    sources = [ConcatSource('a', version), ConcatSource('part')]\n"
        "    store.concat('a', sources, version=version, write_id='w')\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    put(store, "part", bytes(5000))
    before = store.stat("a")
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert store.stat("a") == before
    assert (root / "a").read_bytes() == BASE
    assert append(store, b"tail").size == len(BASE) + 4
    assert content(store, "a") == BASE + b"tail"


APPENDER = """
import itertools, sys
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.storage.local import LocalStore
from cloud_optimized_dicom.storage.payload import BytesPayload
store = LocalStore(sys.argv[1])
for number in itertools.count(int(sys.argv[2])):
    name = f"parts/{number}"
    if store.find(name) is None:
        store.create(name, BytesPayload(b"%09d" % number * 1000), write_id=name)
    version = store.stat("a").version
    store.concat("a", [ConcatSource("a", version), ConcatSource(name)], version=version, write_id=f"a{number}")
    print(number, flush=True)
"""


def numbers(data: bytes) -> list[int]:
    """Return the numbers of the parts behind the base, each of which must be whole."""
    assert data.startswith(BASE)
    tail = data[len(BASE) :]
    assert len(tail) % 9000 == 0
    found = []
    for start in range(0, len(tail), 9000):
        part = tail[start : start + 9000]
        assert part == part[:9] * 1000
        found.append(int(part[:9]))
    return found


def test_an_appender_killed_at_any_moment(store: LocalStore, root: Path) -> None:
    """After a kill the object holds whole parts, every one that was acknowledged, and the next writer goes on."""
    moments = random.Random(7)
    begun = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(root), str(begun)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        rest = process.communicate()[0].split()
        acknowledged = int(rest[-1]) if rest else begun
        info = store.stat("a")
        data = content(store, "a")
        assert (info.size, info.crc32c) == (len(data), crc32c(data))
        found = numbers(data)
        assert found == list(range(len(found)))
        assert len(found) > acknowledged
        begun = len(found)
    append(store, b"9" * 9000)
    assert content(store, "a").endswith(b"9" * 9000)
    assert (root / "a").read_bytes() == content(store, "a")


def test_readers_beside_an_appender(store: LocalStore, root: Path) -> None:
    """Whoever reads while another process appends gets whole states, each with the CRC32C that it says."""
    process = subprocess.Popen([sys.executable, "-c", APPENDER, str(root), "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    failures: list[BaseException] = []
    seen: set[str] = set()

    def look() -> None:
        own = LocalStore(root)
        try:
            for _ in range(150):
                found = own.read_object("a")
                assert crc32c(found.data) == found.info.crc32c
                numbers(found.data)
                seen.add(found.info.version)
                assert not found.info.version.startswith("f-")
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.kill()
    process.communicate()
    assert not failures
    assert len(seen) > 1


def test_a_large_addition_is_copied(store: LocalStore, root: Path) -> None:
    """What is larger than the object itself makes a new file: it would be in the way of others for longer."""
    inode = (root / "a").stat().st_ino
    append(store, BASE + b"more")
    assert (root / "a").stat().st_ino != inode
    assert content(store, "a") == BASE + BASE + b"more"


def test_the_mark_of_a_dead_appender_hides_what_it_left(store: LocalStore, root: Path) -> None:
    """Bytes behind the end of a marked object are nobody's: not read, not copied, and cut off by the next append."""
    before = store.stat("a")
    objects = LocalObjects(root, utc_now)
    with objects.open("a") as opened:
        assert opened.entry is not None
        objects.write_entry("a", replace(opened.entry, growing=True))
    with (root / "a").open("ab") as file:
        file.write(b"what a dead writer got done")
    assert store.stat("a") == before
    assert content(store, "a") == BASE
    with pytest.raises(StorageError):
        store.read("a", ByteRange(len(BASE), len(BASE) + 1))
    store.concat("copy", [ConcatSource("a")], version=None, write_id="copy")
    assert content(store, "copy") == BASE == (root / "copy").read_bytes()
    append(store, b"tail")
    assert (root / "a").read_bytes() == BASE + b"tail"
