"""A bucket that the published library and we share, on two servers."""

from __future__ import annotations

import fcntl
import os
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from cloud_optimized_dicom.testing.published import PublishedProcess, install_published
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.conftest import Files, write_series
from tests.fake_gcs import fake_gcs_server
from tests.interop.storage_class_proxy import with_storage_class

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVER = Path(__file__).with_name("published_driver.py")
INSTANCES = 12


@dataclass
class Shared:
    """One series of one datastore, for them and for us.

    Parameters
    ----------
    published
        A process of theirs.
    client
        A client of ours.
    """

    endpoint: str
    published: PublishedProcess
    client: Any
    key: SeriesKey
    files: Files
    url: str = field(default_factory=lambda: f"gs://bucket/{uuid.uuid4().hex}")

    def theirs(self, job: str, by: PublishedProcess | None = None, **order: Any) -> Any:
        """Let the published library do something to the series."""
        place = {"datastore": self.url, "study_uid": self.key.study_uid, "series_uid": self.key.series_uid}
        return (by or self.published).do(job, **place, **order)

    def they_write(self, mode: str, *indexes: int, by: PublishedProcess | None = None, **order: Any) -> Any:
        """Let the published library store some of the files."""
        return self.theirs("write", by=by, mode=mode, files=[str(self.files.paths[i]) for i in indexes], **order)

    def ours(self, mode: Any = "r", **options: Any) -> CODObject:
        """Return the series as we open it."""
        return CODObject(self.url, self.client, self.key.study_uid, self.key.series_uid, mode, **options)

    def expected(self, *indexes: int) -> dict[str, int]:
        """Return the CRC-32 of some of the files by UID."""
        return {self.files.uids[index]: zlib.crc32(self.files.bytes(index)) for index in indexes}

    def we_read(self) -> dict[str, int]:
        """Return the CRC-32 of every instance as we read it, by UID."""
        with self.ours() as cod:
            assert not cod.verify().damaged
            return {uid: zlib.crc32(data) for uid, data in cod.iter_instances()}

    def check_both(self, *indexes: int) -> None:
        """Make sure that they and we read exactly these files, and find nothing wrong."""
        expected = self.expected(*indexes)
        assert self.theirs("read") == expected
        assert self.theirs("headers") == {uid: uid for uid in expected}
        assert self.theirs("check")
        assert self.we_read() == expected
        with self.ours() as cod:
            assert {finding.kind for finding in cod.verify().findings} <= {"frame-table-legacy"}


@pytest.fixture(scope="session")
def published_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with the published library, made once a session.

    ``COD_PUBLISHED_VENV`` names a folder that keeps it from one session to the next.
    """
    kept = os.environ.get("COD_PUBLISHED_VENV")
    # Beside the folders of this run's test processes, which share it.
    folder = Path(kept) if kept else tmp_path_factory.getbasetemp().parent / f"published-{_run_id()}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install_published(folder)


def _run_id() -> str:
    """Return a name of this run, the same in all its processes."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))


@pytest.fixture(scope="session", params=["strict", "fake-gcs-server"])
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a server with a bucket: ours, then the other project's."""
    if request.param == "strict":
        with GcsServer() as server:
            server.create_bucket("bucket")
            yield server.url
        return
    log = tmp_path_factory.mktemp("fake-gcs-server") / "log"
    with fake_gcs_server(log) as url, with_storage_class(url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def published(
    published_python: Path, endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PublishedProcess]:
    """Return a process of the published library."""
    with PublishedProcess(published_python, DRIVER, endpoint, tmp_path_factory.mktemp("theirs")) as process:
        yield process


@pytest.fixture
def shared(endpoint: str, published: PublishedProcess, tmp_path: Path) -> Iterator[Shared]:
    """Return a series that nobody has written yet."""
    client = ClientRecipe("test", endpoint, anonymous=True).make()
    files = write_series(tmp_path / "files", CtSeries(INSTANCES, rows=16, columns=16))
    yield Shared(endpoint, published, client, SeriesKey(files.series.uids.study, files.series.uids.series), files)
    client.close()
