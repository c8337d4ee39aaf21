"""Files of any file system that fsspec knows are sources: alone, in folders, by patterns, in chains."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

from cloud_optimized_dicom.errors import InstanceValidationError, MissingDependencyError
from cloud_optimized_dicom.ingest.fsspec_source import FsspecSource
from cloud_optimized_dicom.ingest.measure import fetched
from cloud_optimized_dicom.ingest.sources import Source, SourceFailure, iter_sources, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = {"a.dcm": b"one", "b/10.dcm": b"", "b/2.dcm": b"two" * 1_500_000, "c/d.txt": b"text", ".hidden/x": b"no"}


def read(source: Source | SourceFailure) -> bytes:
    assert not isinstance(source, SourceFailure), source
    with source.open() as stream:
        return stream.read()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a zip that fsspec mounts as a file system."""
    path = tmp_path / "box.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in CONTENT.items():
            target.writestr(name, data)
    return path


@pytest.fixture(params=["local", "zip"])
def root(request: pytest.FixtureRequest, tmp_path: Path, archive: Path) -> Iterator[tuple[str, str]]:
    """Return what comes before and behind a name in the URLs of two file systems: `local://` and a chain."""
    if request.param == "zip":
        yield "zip://", f"::{archive}"
        return
    for name, data in CONTENT.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    yield f"local://{tmp_path}/tree/", ""


def test_one_file(root: tuple[str, str], tmp_path: Path) -> None:
    """A URL of a file is that file, read by ranges or copied, and its URI finds it again."""
    before, behind = root
    url = f"{before}b/2.dcm{behind}"
    (found,) = iter_sources([url])
    assert found.uri == url
    assert read(found) == read(source_of(url)) == CONTENT["b/2.dcm"]
    source = source_of(url)
    with source.open() as stream:
        stream.seek(-5, io.SEEK_END)
        assert stream.read() == b"wotwo"
    local = fetched(source, tmp_path)
    assert (local.uri, local.size, read(local)) == (url, 4_500_000, CONTENT["b/2.dcm"])


def test_folders_and_patterns(root: tuple[str, str]) -> None:
    """A folder yields what lies below it in sorted order without hidden names; a pattern yields what matches."""
    before, behind = root
    everything = list(iter_sources([f"{before}{behind}"]))
    names = [name for name in sorted(CONTENT) if not name.startswith(".")]
    assert [Path(item.uri.partition("::")[0]).name for item in everything] == [Path(name).name for name in names]
    assert [read(item) for item in everything] == [CONTENT[name] for name in names]
    for item in everything:
        assert isinstance(item, FsspecSource)
        assert read(source_of(item.uri)) == read(item)
    matching = list(iter_sources([f"{before}**/*.dcm{behind}"]))
    assert [read(item) for item in matching] == [CONTENT[name] for name in ("a.dcm", "b/10.dcm", "b/2.dcm")]
    (failure,) = iter_sources([f"{before}none/{behind}"])
    assert isinstance(failure, SourceFailure)


def test_what_is_not_there_or_unknown_is_an_error(root: tuple[str, str]) -> None:
    """A missing file and a folder in the place of a file say so; so does a scheme that nobody knows."""
    before, behind = root
    with pytest.raises(InstanceValidationError, match="not found"):
        source_of(f"{before}none.dcm{behind}").open()
    with pytest.raises(InstanceValidationError, match="is a directory"):
        source_of(f"{before}b{behind}").open()
    with pytest.raises(InstanceValidationError, match="no source for gopher://"):
        source_of("gopher://host/x")


def test_a_file_that_has_changed_since_it_was_listed_is_an_error(tmp_path: Path) -> None:
    """What a listing told of a file pins it: another size or date is an error, opened or copied."""
    path = tmp_path / "in" / "a.dcm"
    path.parent.mkdir()
    path.write_bytes(b"old")
    (listed,) = iter_sources([f"local://{path.parent}/"])
    assert not isinstance(listed, SourceFailure)
    path.write_bytes(b"newer")
    with pytest.raises(InstanceValidationError, match="changed while it was read"):
        listed.open()
    with pytest.raises(InstanceValidationError, match="changed while it was read"):
        fetched(listed, tmp_path)
    assert sorted(tmp_path.iterdir()) == [path.parent]


def test_an_archive_on_a_file_system_is_opened(archive: Path) -> None:
    """The members of a zip on any file system are sources, as those of a local zip are."""
    items = list(iter_sources([f"local://{archive}"]))
    assert [item.uri for item in items] == [
        f"local://{archive}://{name}" for name in CONTENT if not name.startswith(".")
    ]
    assert read(items[0]) == b"one"


def test_sources_pickle_and_show_no_password(archive: Path) -> None:
    """A source crosses to another process as a value; what is recorded of a URL has no password in it."""
    source = source_of(f"zip://a.dcm::{archive}")
    assert read(pickle.loads(pickle.dumps(source))) == b"one"
    with pytest.raises(InstanceValidationError) as caught:
        source_of("ftp://user:secret@127.0.0.1:9/x.dcm")
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named() -> None:
    """A protocol whose package is not installed says what to install, and so does fsspec where it is missing."""
    missing = next(
        name
        for name in ("hdfs3x", "oss", "dropbox", "gdrive", "asynclocal", "box", "lakefs", "webhdfs+none", "adl")
        if name in fsspec.available_protocols() and name != "box"
    )
    with pytest.raises(MissingDependencyError, match=rf"{missing}://.*cloud-optimized-dicom\[fsspec\]"):
        source_of(f"{missing}://bucket/x.dcm")
    script = """
import sys
sys.modules["fsspec"] = None
from cloud_optimized_dicom.ingest.sources import source_of
source_of("s3://bucket/x.dcm")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "MissingDependencyError: reading s3:// needs" in done.stderr
    assert "cloud-optimized-dicom[s3]" in done.stderr
