"""Objects of S3 are sources: listed, matched, read at the state that was listed, and stored where datastores are.

The slow tests talk to a server of its own process.  It comes from a virtual environment of its own, too: it pins a
botocore that is not the one of s3fs.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.ingest.fsspec_source import FsspecSource, version_of
from cloud_optimized_dicom.ingest.measure import fetched
from cloud_optimized_dicom.ingest.sources import SourceFailure, iter_sources, source_of
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.ingest.sources import Source

SERVER = "ministack>=1.5"
START_SECONDS = 60


def test_a_listing_and_a_look_at_one_object_tell_the_same_version() -> None:
    """Lists of S3 give dates in milliseconds, single answers in seconds: the ETag decides, and decides alone."""
    listed = {
        "Key": "inbox/1.dcm",
        "LastModified": datetime(2026, 1, 2, 3, 4, 5, 355_000, tzinfo=UTC),
        "ETag": '"f97c5d29941bfb1b2fdab0874906ab82"',
        "size": 3,
    }
    seen = {
        "ETag": '"f97c5d29941bfb1b2fdab0874906ab82"',
        "LastModified": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "VersionId": None,
        "size": 3,
    }
    assert version_of(listed) == version_of(seen) != ""
    assert version_of({**seen, "ETag": '"01ad153ce5a3c700c2da4cfa3e42495c"'}) != version_of(listed)


# -- the server


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time pass."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def server_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has the server; the processes of one test run share it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    python = shared / "s3-server" / "bin" / "python"
    with alone(shared / "s3-server.lock"):
        if not (shared / "s3-server.done").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", shared / "s3-server"], check=True)
            pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", SERVER]
            subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
            (shared / "s3-server.done").touch()
    return python


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def endpoint(server_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a running S3 server."""
    folder, port = tmp_path_factory.mktemp("s3-server"), free_port()
    settings = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "SERVICES": "s3", "LOG_LEVEL": "WARNING"}
    places = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ["PATH"]}
    with (folder / "log").open("wb") as log:
        command = [server_python, "-m", "ministack"]
        server = subprocess.Popen(command, cwd=folder, env=settings | places, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, server, folder / "log")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server answers; fail with what it printed if it does not."""
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as answer:  # it lives
            answer.close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"no S3 server:\n{log.read_text(errors='replace')}", pytrace=False)


@pytest.fixture
def s3_environment(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point whoever looks for S3 to the server, as people do it, and hide the settings of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


class Bucket:
    """A bucket, written to by a client that shares nothing with the one that reads."""

    def __init__(self, filesystem: Any, name: str) -> None:
        self._filesystem, self.name = filesystem, name

    @property
    def url(self) -> str:
        """Return its URL, which names no prefix."""
        return f"s3://{self.name}"

    def put(self, name: str, data: bytes) -> None:
        """Create an object, or overwrite it."""
        self._filesystem.pipe_file(f"{self.name}/{name}", data)


@pytest.fixture
def bucket(s3_environment: None) -> Bucket:
    """Return an empty bucket."""
    name = f"inbox-{uuid.uuid4().hex}"
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    filesystem.mkdir(name)
    return Bucket(filesystem, name)


# -- what is listed, and read


def read(source: Source | SourceFailure) -> bytes:
    """Return all bytes of a source."""
    assert not isinstance(source, SourceFailure), source
    with source.open() as stream:
        return stream.read()


def names_of(bucket: Bucket, argument: str) -> list[str]:
    """Return the names of the objects that an argument yields, in order."""
    return [item.uri.removeprefix(f"{bucket.url}/") for item in iter_sources([argument])]


@pytest.mark.slow
def test_prefixes_and_patterns(bucket: Bucket) -> None:
    """A prefix yields what lies below it without hidden names, sorted; a pattern what matches; a bucket everything."""
    for name in ("a/1.dcm", "a/2.dcm", "a/b/3.dcm", "a/b/notes.txt", "a/.hidden/4.dcm", "ab/5.dcm", "c d/é+%20?.dcm"):
        bucket.put(name, name.encode())
    below = ["a/1.dcm", "a/2.dcm", "a/b/3.dcm", "a/b/notes.txt"]
    assert names_of(bucket, f"{bucket.url}/a/") == names_of(bucket, f"{bucket.url}/a") == below
    assert names_of(bucket, bucket.url) == [*below, "ab/5.dcm", "c d/é+%20?.dcm"]
    assert names_of(bucket, f"{bucket.url}/a/*.dcm") == ["a/1.dcm", "a/2.dcm"]
    assert names_of(bucket, f"{bucket.url}/**/[3-9].dcm") == ["a/b/3.dcm", "ab/5.dcm"]
    for item in iter_sources([bucket.url]):
        name = item.uri.removeprefix(f"{bucket.url}/")
        assert read(item) == name.encode()
        if "?" not in name:  # a pattern, where a person writes it
            assert read(source_of(item.uri)) == name.encode()


@pytest.mark.slow
def test_one_object(bucket: Bucket, tmp_path: Path) -> None:
    """An object is read by ranges, or copied; the source is a value that another reader may open again."""
    data = os.urandom(3_000_000)
    bucket.put("large.dcm", data)
    (source,) = iter_sources([f"{bucket.url}/large.dcm"])
    assert isinstance(source, FsspecSource)
    assert source.size == len(data)
    with source.open() as stream:
        stream.seek(-7, os.SEEK_END)
        assert stream.read() == data[-7:]
        stream.seek(1_500_000)
        assert stream.read(10) == data[1_500_000:1_500_010]
    assert read(source) == data
    assert read(fetched(source, tmp_path)) == data


@pytest.mark.slow
def test_what_is_not_there(bucket: Bucket) -> None:
    """A missing object, prefix, match or bucket is a failure that names what was asked for."""
    bucket.put("a/1.dcm", b"one")
    absent = [f"{bucket.url}/{name}" for name in ("none.dcm", "none/", "a/*.txt")] + [f"s3://{uuid.uuid4().hex}/x/"]
    for argument in absent:
        (failure,) = iter_sources([argument])
        assert isinstance(failure, SourceFailure), argument
        assert failure.uri == argument
        assert failure.reason in {"not found", "no file has this name or lies below it"}
    with pytest.raises(InstanceValidationError, match="not found"):
        source_of(f"{bucket.url}/none.dcm").open()


@pytest.mark.slow
def test_a_listing_is_never_an_old_one(bucket: Bucket) -> None:
    """What others have put into a prefix since it was listed is found by the next listing in the same process."""
    bucket.put("a/1.dcm", b"one")
    assert names_of(bucket, f"{bucket.url}/a/") == ["a/1.dcm"]
    bucket.put("a/2.dcm", b"two")
    bucket.put("a/b/3.dcm", b"three")
    assert names_of(bucket, f"{bucket.url}/a/") == ["a/1.dcm", "a/2.dcm", "a/b/3.dcm"]


@pytest.mark.slow
def test_an_object_that_was_overwritten_since_it_was_listed_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    """Other bytes of the same length, written within the same second, are told by their ETag: opened, copied, read."""
    bucket.put("1.dcm", b"a" * 3_000_000)
    (listed,) = iter_sources([f"{bucket.url}/1.dcm"])
    assert not isinstance(listed, SourceFailure)
    with listed.open() as begun:
        assert begun.read(3) == b"aaa"
        bucket.put("1.dcm", b"b" * 3_000_000)
        with pytest.raises(InstanceValidationError, match="changed while it was read"):
            begun.read()
    with pytest.raises(InstanceValidationError, match="changed while it was read"):
        listed.open()
    with pytest.raises(InstanceValidationError, match="changed while it was read"):
        fetched(listed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == []


# -- ingested


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["local", "gcs"], indirect=True)
def test_objects_are_ingested(bucket: Bucket, datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """A prefix becomes series, byte for byte; one bad object is one error; a second run writes nothing."""
    given = {}
    for seed in (1, 2):
        series = CtSeries(5, rows=64, columns=64, seed=seed)
        for number, data in enumerate(series):
            bucket.put(f"day/{seed}/{number}.dcm", data)
            given[data] = f"{bucket.url}/day/{seed}/{number}.dcm"
    bucket.put("day/readme.txt", b"not DICOM")
    store = Datastore(datastore_url, gcs_client)
    report = store.ingest([f"{bucket.url}/day/"], temp_dir=tmp_path)
    assert (report.count("new"), [error.uri for error in report.errors]) == (10, [f"{bucket.url}/day/readme.txt"])
    stored = {}
    for key in report.series:
        with store.open(key.study_uid, key.series_uid) as opened:
            paths = {uid: instance.original_path for uid, instance in opened.get_instances().items()}
            stored |= {data: paths[uid] for uid, data in opened.iter_instances()}
    assert stored == given
    assert all(checked.ok for checked in store.verify())
    before = {info.name: info.version for info in store.store.list("")}
    again = store.ingest([f"{bucket.url}/day/*/*.dcm"], temp_dir=tmp_path)
    assert again.count("same") == len(again.files) == 10
    assert {info.name: info.version for info in store.store.list("")} == before
    assert not list(tmp_path.glob("cod-*"))


@pytest.mark.slow
def test_an_object_that_changes_before_it_is_read_is_an_error_of_its_own(bucket: Bucket, tmp_path: Path) -> None:
    """The others of its series are stored, and the next run stores what is there then."""
    first, second = CtSeries(2, rows=64, columns=64)
    bucket.put("1.dcm", first)
    bucket.put("2.dcm", first)
    listed = [Instance.from_source(item) for item in iter_sources([bucket.url]) if not isinstance(item, SourceFailure)]
    bucket.put("2.dcm", second)
    store = Datastore(tmp_path / "store")
    report = store.ingest(listed)
    assert [result.outcome for result in report.files] == ["new", "error"]
    assert report.files[1].reason == "changed while it was read"
    again = store.ingest([bucket.url])
    assert [result.outcome for result in again.files] == ["same", "new"]


@pytest.mark.slow
def test_the_command_ingests_from_s3(bucket: Bucket, tmp_path: Path) -> None:
    """`cod ingest` finds the server and its keys in the environment; an inventory names buckets and keys."""
    rows = ["bucket,key,size"]
    for number, data in enumerate(CtSeries(3, rows=64, columns=64)):
        bucket.put(f"in/{number}.dcm", data)
        rows.append(f"{bucket.name},in/{number}.dcm,{len(data)}")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    cod = [sys.executable, "-m", "cloud_optimized_dicom.cli", "ingest"]
    for arguments, said in (
        ([f"{bucket.url}/in/", "archive"], "3 new, 0 same"),
        (["--inventory", "rows.csv", "archive"], "0 new, 3 same"),
    ):
        done = subprocess.run([*cod, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert said in done.stdout, done.stderr
        assert done.returncode == 0
