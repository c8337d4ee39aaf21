"""What people type becomes the sources that are ingested, and what cannot be read becomes a value among them."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import pickle
import shutil
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import InstanceValidationError, ObjectNotFoundError
from cloud_optimized_dicom.ingest.archives import iter_members
from cloud_optimized_dicom.ingest.source_kinds import TarMemberSource
from cloud_optimized_dicom.ingest.sources import FileSource, Source, SourceFailure, iter_sources, source_of
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.storage.base import ObjectStore

CONTENT = {"b/2.dcm": b"two" * 70_000, "a.dcm": b"one", "b/10.dcm": b"", "c d/3": bytes(range(256)) * 5000}
_MANY = 3000


def read(source: Source) -> bytes:
    with source.open() as stream:
        return stream.read()


def read_all(items: list[Source | SourceFailure]) -> dict[str, bytes]:
    return {item.uri: read(item) for item in items if not isinstance(item, SourceFailure)}


def failures(items: list[Source | SourceFailure]) -> dict[str, str]:
    return {item.uri: item.reason for item in items if isinstance(item, SourceFailure)}


def write_tree(root: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def tar_of(content: dict[str, bytes], mode: str = "w") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def zip_of(content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return target.getvalue()


def put(store: ObjectStore, name: str, data: bytes, **attributes: str) -> None:
    store.create(name, BytesPayload(data), write_id=new_write_id(), attributes=Attributes(**attributes))


ARCHIVES = {
    "x.tar": tar_of(CONTENT),
    "x.tar.gz": tar_of(CONTENT, "w:gz"),
    "x.TGZ": tar_of(CONTENT, "w:gz"),
    "x.zip": zip_of(CONTENT),
    "stored.zip": zip_of(CONTENT, zipfile.ZIP_STORED),
    "lzma.zip": zip_of(CONTENT, zipfile.ZIP_LZMA),
}


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as a user whom file permissions bind, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user may enter; pytest's own are private."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_yields_every_file_below_it_in_sorted_order(tmp_path: Path) -> None:
    """A folder is read recursively, sorted by name within each folder, whatever the disk's order is."""
    write_tree(tmp_path, CONTENT)
    items = list(iter_sources([tmp_path]))
    assert [item.uri for item in items] == [f"{tmp_path}/{name}" for name in ("a.dcm", "b/10.dcm", "b/2.dcm", "c d/3")]
    assert read_all(items) == {f"{tmp_path}/{name}": data for name, data in CONTENT.items()}
    for item in items:
        assert isinstance(item, FileSource)
        assert item.size == item.path.stat().st_size
        assert item.local_path == item.path


def test_hidden_files_and_folders_are_left_out_unless_named(tmp_path: Path) -> None:
    """Files and folders whose names start with a dot are skipped in a folder, and taken when named themselves."""
    write_tree(tmp_path, {".hidden": b"h", ".git/x.dcm": b"g", "seen.dcm": b"s"})
    assert list(read_all(list(iter_sources([tmp_path]))).values()) == [b"s"]
    assert list(read_all(list(iter_sources([tmp_path / ".hidden"]))).values()) == [b"h"]


def test_a_dicomdir_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A DICOMDIR, in any case and in any container, becomes a failure that says what it is."""
    write_tree(tmp_path, {"DICOMDIR": b"index", "sub/dicomdir": b"index", "z.dcm": b"z"})
    (tmp_path / "y.zip").write_bytes(zip_of({"DICOMDIR": b"index"}))
    items = list(iter_sources([tmp_path]))
    assert list(read_all(items).values()) == [b"z"]
    found = failures(items)
    assert len(found) == 3
    assert all("is a DICOMDIR" in reason for reason in found.values())


def test_a_missing_file_is_a_failure_among_the_others(tmp_path: Path) -> None:
    """A path that does not exist, a broken link and an empty argument do not stop the arguments behind them."""
    (tmp_path / "good.dcm").write_bytes(b"good")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    items = list(
        iter_sources([tmp_path / "missing", "", "nul\0", "x" * 300, tmp_path / "dangling", tmp_path / "good.dcm"])
    )
    assert list(read_all(items).values()) == [b"good"]
    assert failures(items) == {
        f"{tmp_path}/missing": "no such file or directory",
        "": "an empty path names no file",
        "nul\0": "embedded null byte",
        "x" * 300: "file name too long",
        f"{tmp_path}/dangling": "no such file or directory",
    }


def test_what_may_not_be_read_is_a_failure(open_folder: Path) -> None:
    """An unreadable folder is reported while listing, an unreadable file when it is opened."""
    write_tree(open_folder, {"locked/1.dcm": b"1", "secret.dcm": b"2", "open.dcm": b"3"})
    (open_folder / "locked").chmod(0)
    (open_folder / "secret.dcm").chmod(0)
    with unprivileged():
        items = {item.uri.rpartition("/")[2]: item for item in iter_sources([open_folder])}
        assert items["locked"] == SourceFailure(f"{open_folder}/locked", "permission denied")
        assert isinstance(items["open.dcm"], FileSource)
        assert read(items["open.dcm"]) == b"3"
        secret = items["secret.dcm"]
        assert isinstance(secret, FileSource)
        with pytest.raises(InstanceValidationError, match=r"secret\.dcm: permission denied"):
            secret.open()


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    """A single source that turns out to be a directory says so."""
    with pytest.raises(InstanceValidationError, match="is a directory"):
        source_of(tmp_path).open()


def test_pipes_are_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    """A pipe in a folder or as a source is a failure; opening it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert failures(list(iter_sources([tmp_path]))) == {f"{tmp_path}/pipe": "not a regular file"}
    with pytest.raises(InstanceValidationError, match="not a regular file"):
        source_of(tmp_path / "pipe").open()


def test_links_are_followed_but_loops_end(tmp_path: Path) -> None:
    """Links to files and folders are followed; a link to a folder that was read already adds nothing."""
    write_tree(tmp_path / "data", {"1.dcm": b"1", "deep/2.dcm": b"2"})
    write_tree(tmp_path / "other", {"3.dcm": b"3"})
    (tmp_path / "data/deep/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/other").symlink_to(tmp_path / "other")
    (tmp_path / "data/self").symlink_to("self")
    items = list(iter_sources([tmp_path / "data"]))
    assert list(read_all(items).values()) == [b"1", b"2", b"3"]
    assert list(failures(items)) == [f"{tmp_path}/data/self"]


def test_names_that_are_not_utf8_are_read_and_named_by_escapes(tmp_path: Path) -> None:
    """A file name of other bytes than UTF-8 opens, and its URI can be encoded."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe4ntgen.dcm"))
    path.write_bytes(b"x")
    (item,) = iter_sources([tmp_path])
    assert item.uri.encode("utf-8").endswith(b"r\\xe4ntgen.dcm")
    assert list(read_all([item]).values()) == [b"x"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.dcm", ["a.dcm"]),
        ("*/*.dcm", ["b/10.dcm", "b/2.dcm"]),
        ("**/*.dcm", ["a.dcm", "b/10.dcm", "b/2.dcm"]),
        ("b*", ["b/10.dcm", "b/2.dcm"]),
        ("?/[!1]*", ["b/2.dcm"]),
        ("**", ["a.dcm", "b/10.dcm", "b/2.dcm", "c d/3"]),
        ("c d/[1-3]", ["c d/3"]),
    ],
)
def test_patterns_mean_the_same_on_every_store(
    pattern: str, expected: list[str], store: ObjectStore, datastore_url: str, gcs_client: Any
) -> None:
    """A pattern selects the same names on disk and in a bucket: * within a name, ** across folders, folders whole."""
    for name, data in CONTENT.items():
        put(store, f"in/{name}", data)
    items = list(iter_sources([f"{datastore_url}/in/{pattern}"], gcs_client))
    assert read_all(items) == {f"{datastore_url}/in/{name}": CONTENT[name] for name in expected}
    assert not failures(items)


def test_a_pattern_that_matches_nothing_is_a_failure(store: ObjectStore, datastore_url: str, gcs_client: Any) -> None:
    """A pattern without a match is reported, not passed over."""
    put(store, "in/a.dcm", b"a")
    items = list(iter_sources([f"{datastore_url}/in/*.dicom", f"{datastore_url}/none/*"], gcs_client))
    assert list(failures(items)) == [f"{datastore_url}/in/*.dicom", f"{datastore_url}/none/*"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    """A path that exists is taken literally."""
    write_tree(tmp_path, {"scan[1].dcm": b"literal", "scan1.dcm": b"other"})
    assert list(read_all(list(iter_sources([tmp_path / "scan[1].dcm"]))).values()) == [b"literal"]


def test_a_prefix_yields_the_objects_below_it_and_no_neighbours(
    store: ObjectStore, datastore_url: str, gcs_client: Any
) -> None:
    """A prefix means a folder, with or without a slash; hidden objects and names that merely start alike stay out."""
    for name in ("in/1.dcm", "in/sub/2.dcm", "in/.lock", "in/.pending/3", "inner/4.dcm"):
        put(store, name, name.encode())
    for argument in (f"{datastore_url}/in", f"{datastore_url}/in/"):
        items = list(iter_sources([argument], gcs_client))
        assert list(read_all(items).values()) == [b"in/1.dcm", b"in/sub/2.dcm"]
        assert not failures(items)


def test_objects_are_listed_with_their_checksum_and_read_by_range() -> None:
    """A listed object knows its size and CRC32C; its reader seeks."""
    store = open_store_in_memory("prefix")
    put(store, "1.dcm", CONTENT["c d/3"])
    (item,) = iter_sources([store.url])
    assert not isinstance(item, SourceFailure)
    assert (item.size, item.crc32c) == (len(CONTENT["c d/3"]), encode(crc32c(CONTENT["c d/3"])))
    assert item.local_path is None
    with item.open() as stream:
        stream.seek(-4, io.SEEK_END)
        assert stream.read() == b"\xfc\xfd\xfe\xff"
        stream.seek(256)
        assert stream.read(3) == b"\x00\x01\x02"


def test_an_object_that_changed_after_it_was_listed_is_an_error() -> None:
    """A source reads the version that was listed or none."""
    store = open_store_in_memory()
    put(store, "1.dcm", b"old")
    (item,) = iter_sources([store.url_of("1.dcm")])
    assert not isinstance(item, SourceFailure)
    store.replace("1.dcm", BytesPayload(b"new"), version=store.stat("1.dcm").version, write_id=new_write_id())
    with pytest.raises(ObjectNotFoundError):
        read(item)
    assert read(source_of(store.url_of("1.dcm"))) == b"new"


def test_a_gzip_content_encoding_is_undone() -> None:
    """An object that is stored gzip-encoded is read as what it encodes, of which neither size nor CRC32C is known."""
    store = open_store_in_memory()
    put(store, "1.dcm", gzip.compress(CONTENT["c d/3"]), content_encoding="gzip")
    for item in (next(iter(iter_sources([store.url]))), source_of(store.url_of("1.dcm"))):
        assert not isinstance(item, SourceFailure)
        assert (item.size, item.crc32c) == (None, None)
        assert read(item) == CONTENT["c d/3"]
        with item.open() as stream:
            assert stream.seek(-2, io.SEEK_END) == len(CONTENT["c d/3"]) - 2
            assert stream.read() == b"\xfe\xff"


_names = itertools.count()


def open_store_in_memory(prefix: str = "") -> ObjectStore:
    from cloud_optimized_dicom.storage.memory import MemoryStore  # noqa: PLC0415

    return MemoryStore(f"memory://sources{next(_names)}/{prefix}")


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("unpack", [True, False])
def test_archives_yield_their_members(
    name: str, unpack: bool, store: ObjectStore, datastore_url: str, gcs_client: Any, tmp_path: Path
) -> None:
    """Every kind of archive, local or remote, yields its members byte for byte, seekable, under nested URIs."""
    put(store, name, ARCHIVES[name])
    uri = f"{datastore_url}/{name}"
    items = list(iter_sources([uri], gcs_client, temp_dir=tmp_path if unpack else None))
    assert read_all(items) == {f"{uri}://{member}": data for member, data in CONTENT.items()}
    for item in items:
        assert not isinstance(item, SourceFailure)
        assert item.size == len(CONTENT[item.uri.rpartition(":/")[2].removeprefix("/")])
        with item.open() as stream:
            first = stream.read(3)
            stream.seek(0)
            assert stream.read(3) == first
        one = source_of(item.uri, gcs_client)
        assert (one.uri, read(one)) == (item.uri, read(item))


def test_a_folder_of_archives_is_expanded(tmp_path: Path) -> None:
    """Archives in a folder are opened like those that are named; archives inside archives are not."""
    (tmp_path / "1.tar").write_bytes(tar_of({"a": b"a", "inner.zip": b"z", "._a": b"resource fork"}))
    (tmp_path / "2.zip").write_bytes(zip_of({"b": b"b", "__MACOSX/b": b"junk", "inner.tar.gz": b"z"}))
    items = list(iter_sources([tmp_path]))
    assert list(read_all(items)) == [f"{tmp_path}/1.tar://a", f"{tmp_path}/2.zip://b"]
    assert list(failures(items)) == [f"{tmp_path}/1.tar://inner.zip", f"{tmp_path}/2.zip://inner.tar.gz"]


def test_members_of_a_remote_tar_are_read_without_their_neighbours() -> None:
    """A member of a tar in a bucket costs its own bytes, not the tar's."""
    store = open_store_in_memory()
    put(store, "x.tar", tar_of({"small": b"s" * 1000, "large": bytes(8 << 20)}))
    first = next(iter(iter_sources([store.url_of("x.tar")])))
    assert not isinstance(first, SourceFailure)
    assert first.size == 1000
    # The store is asked for this stretch only, so a reader cannot leave it.
    with first.open() as stream:
        stream.seek(990)
        assert stream.read() == b"s" * 10
        assert stream.read() == b""


def test_the_names_of_many_members_are_not_held(tmp_path: Path) -> None:
    """An archive is gone through in a few bytes a member, however long its own URI and the names in it are."""
    with tarfile.open(tmp_path / "many.tar", "w") as tar:
        for index in range(_MANY):
            tar.addfile(tarfile.TarInfo(f"{index:090}"))
        tar.addfile(tarfile.TarInfo(f"{0:090}"))
    archive = FileSource(f"gs://b/{'x' * 1000}.tar", tmp_path / "many.tar")
    tracemalloc.start()
    kinds = Counter(type(member) for member in iter_members(archive))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kinds == {TarMemberSource: _MANY, SourceFailure: 1}
    assert peak < 300 * _MANY, peak


def test_links_and_devices_in_a_tar_are_failures(tmp_path: Path) -> None:
    """Members that are no regular files are reported; folders are not."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    found = failures(list(iter_sources([tmp_path / "x.tar"])))
    assert found == {f"{tmp_path}/x.tar://{name}": "not a regular file" for name in ("link", "pipe")}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_none_is_a_failure(name: str, tmp_path: Path) -> None:
    """Junk and emptiness under an archive's name are reported, and what comes after is read."""
    for at, data in enumerate((b"", b"junk" * 500)):
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / name).write_bytes(data)
        (folder / "z.dcm").write_bytes(b"z")
        items = list(iter_sources([folder], temp_dir=tmp_path))
        assert list(failures(items)) == [f"{folder}/{name}"]
        assert list(read_all(items).values()) == [b"z"]


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_truncated_tar_yields_what_is_whole(name: str, tmp_path: Path) -> None:
    """Of a tar that ends too early the whole members are read; the cut one and the archive are errors."""
    whole, cut = os.urandom(200_000), os.urandom(200_000)
    data = tar_of({"whole": whole, "cut": cut}, "w:gz" if name.endswith("gz") else "w")
    (tmp_path / name).write_bytes(data[:300_000])
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    items = list(iter_sources([tmp_path / name], temp_dir=unpacked))
    good, bad = (item for item in items if not isinstance(item, SourceFailure))
    assert read(good) == whole
    with pytest.raises(InstanceValidationError, match=r"://cut: .*ends"):
        read(bad)
    assert f"{tmp_path}/{name}" in failures(items)


def test_a_damaged_header_inside_a_tar_is_reported(tmp_path: Path) -> None:
    """A tar whose later headers are damaged does not silently end there."""
    data = bytearray(tar_of({"1": b"1", "2": b"2", "3": b"3"}))
    data[1024] ^= 0xFF
    (tmp_path / "x.tar").write_bytes(data)
    items = list(iter_sources([tmp_path / "x.tar"]))
    assert list(read_all(items).values()) == [b"1"]
    assert failures(items) == {f"{tmp_path}/x.tar": "what follows byte 1024 is not a tar member and was not read"}


def test_a_damaged_zip_member_is_an_error_of_that_member(tmp_path: Path) -> None:
    """Flipped bytes in one member of a zip are found by its CRC-32; the other members read well."""
    data = bytearray(zip_of({"1": b"one" * 10, "2": b"two" * 10}, zipfile.ZIP_STORED))
    data[data.index(b"oneone")] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(data)
    bad, good = iter_sources([tmp_path / "x.zip"])
    assert not isinstance(good, SourceFailure)
    assert not isinstance(bad, SourceFailure)
    assert read(good) == b"two" * 10
    with pytest.raises(InstanceValidationError, match=r"x\.zip://1: damaged"):
        read(bad)


def test_an_encrypted_zip_member_is_a_failure(tmp_path: Path) -> None:
    """A member that needs a password says so."""
    data = bytearray(zip_of({"1": b"one"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert failures(list(iter_sources([tmp_path / "x.zip"]))) == {f"{tmp_path}/x.zip://1": "encrypted"}


def test_a_member_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A nested URI that names no member, and one into a missing archive, say so."""
    (tmp_path / "x.tar").write_bytes(ARCHIVES["x.tar"])
    with pytest.raises(InstanceValidationError, match="holds no such member"):
        source_of(f"{tmp_path}/x.tar://nothing")
    with pytest.raises(InstanceValidationError, match="no such file"):
        source_of(f"{tmp_path}/y.tar://nothing")
    uri = f"{tmp_path}/x.tar://nothing"
    assert list(iter_sources([uri])) == [SourceFailure(uri, "the archive holds no such member")]


def test_schemes_that_nothing_serves_are_refused_with_those_that_work() -> None:
    """An unknown scheme is an error of the source that lists what works; so is a URL that names nothing."""
    with pytest.raises(InstanceValidationError, match=r"gopher://.*gs://.*local paths"):
        source_of("gopher://host/1.dcm")
    with pytest.raises(InstanceValidationError, match="names no object"):
        source_of("memory://bucket")
    assert list(failures(list(iter_sources(["gopher://host/x", "file://elsewhere/x"])))) == [
        "gopher://host/x",
        "file://elsewhere/x",
    ]


def test_file_urls_name_local_files(tmp_path: Path) -> None:
    """A file:// URL with escapes opens the file; the URI stays as it was given."""
    (tmp_path / "a b.dcm").write_bytes(b"x")
    url = (tmp_path / "a b.dcm").as_uri()
    assert "%20" in url
    source = source_of(url)
    assert (source.uri, source.local_path, read(source)) == (url, tmp_path / "a b.dcm", b"x")
    assert list(read_all(list(iter_sources([url]))).values()) == [b"x"]


def test_sources_pickle(tmp_path: Path) -> None:
    """Sources of every kind cross to another process as values: equal, and they open there."""
    for name in ("x.tar", "x.tar.gz", "x.zip"):
        (tmp_path / name).write_bytes(ARCHIVES[name])
    (tmp_path / "a.dcm").write_bytes(b"a")
    items = list(iter_sources([tmp_path]))
    copies = pickle.loads(pickle.dumps(items))
    assert copies == items
    assert read_all(copies) == read_all(items)
    store = open_store_in_memory()
    put(store, "1.dcm", b"object")
    (item,) = pickle.loads(pickle.dumps(list(iter_sources([store.url]))))
    assert read(item) == b"object"


def test_sources_are_found_lazily(tmp_path: Path) -> None:
    """Nothing of a later argument is touched before the earlier ones were handed out."""
    write_tree(tmp_path, {"1/a": b"a"})
    found = iter_sources([tmp_path / "1", tmp_path / "2"])
    assert next(found).uri == f"{tmp_path}/1/a"
    write_tree(tmp_path, {"2/b": b"b"})
    assert next(found).uri == f"{tmp_path}/2/b"
