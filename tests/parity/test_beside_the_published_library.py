"""The same calls to the published library and to ours: what comes out is equal, or the difference is one we meant."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.dicomweb import handle_request
from cloud_optimized_dicom.errors import ErrorLogExistsError
from cloud_optimized_dicom.query_parsing import query_result_to_codobjects
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from cloud_optimized_dicom.testing.published import PublishedError, PublishedProcess
from tests.dicom import oracle
from tests.interop.conftest import published_python
from tests.realfiles import real_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["published_python"]  # a fixture

pytestmark = pytest.mark.slow

SOURCE = "examples_ybr_color.dcm"


@dataclass
class Pair:
    """A series of theirs and one of ours, of the same files."""

    published: PublishedProcess
    client: Any
    study_uid: str
    series_uid: str
    urls: dict[str, str]
    root: str = field(default_factory=lambda: f"gs://bucket/{uuid.uuid4().hex}")

    def theirs(self, job: str, **order: Any) -> Any:
        """Let the published library do something."""
        place = {"datastore": f"{self.root}/theirs", "study_uid": self.study_uid, "series_uid": self.series_uid}
        return self.published.do(job, **place, **order)

    def ours(self, mode: Any = "r", **options: Any) -> CODObject:
        """Return our series."""
        return CODObject(f"{self.root}/ours", self.client, self.study_uid, self.series_uid, mode, **options)

    def append(self, mode: str, *names: str, **options: Any) -> list[list[int]]:
        """Append files to both; return how many were new, same, conflicting and wrong, theirs first."""
        files = [self.urls[name] for name in names]
        theirs = self.theirs("append", mode=mode, files=files, how=options)
        with self.ours(mode) as cod:
            instances = [Instance(uri, transport_params={"client": self.client}) for uri in files]
            ours = [len(part) for part in cod.append(instances, **options)]
        return [theirs, ours]

    def duplicates(self) -> list[dict[str, list[str]]]:
        """Return the recorded differing duplicates of both."""
        with self.ours() as cod:
            instances = cod.get_metadata()["cod"]["instances"]
        return [
            self.theirs("duplicates"),
            {uid: record["diff_hash_dupe_paths"] for uid, record in instances.items()},
        ]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Return the URL of a strict server with a bucket."""
    with GcsServer() as server:
        server.create_bucket("bucket")
        yield server.url


@pytest.fixture(scope="module")
def published(
    published_python: Path, endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PublishedProcess]:
    """Return a process of the published library."""
    driver = Path(__file__).with_name("published_driver.py")
    with PublishedProcess(published_python, driver, endpoint, tmp_path_factory.mktemp("theirs")) as process:
        yield process


@pytest.fixture
def pair(endpoint: str, published: PublishedProcess, tmp_path: Path) -> Iterator[Pair]:
    """Return two empty series, and files for both: one, its copy, another header, other pixels, a second instance."""
    data = real_file(SOURCE).read()
    dataset = oracle.read(data)
    header, pixels, second = (oracle.read(data) for _ in range(3))
    header.PatientID = "another"
    pixels.PixelData = pixels.PixelData[:-4] + bytes(4)
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = f"{second.SOPInstanceUID}.5"
    files: dict[str, bytes] = {"first": data, "copy": data}
    for name, changed in (("header", header), ("pixels", pixels), ("second", second)):
        changed.save_as(tmp_path / name, enforce_file_format=True)
        files[name] = (tmp_path / name).read_bytes()
    client = ClientRecipe("test", endpoint, anonymous=True).make()
    inbox = f"in-{uuid.uuid4().hex}"
    for name, content in files.items():
        client.bucket("bucket").blob(f"{inbox}/{name}.dcm").upload_from_string(content)
    urls = {name: f"gs://bucket/{inbox}/{name}.dcm" for name in files}
    yield Pair(published, client, str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), urls)
    client.close()


def test_new_same_and_conflicting_files(pair: Pair) -> None:
    """Both tell new, same and conflicting files apart, and both record where a conflicting one lies."""
    for mode, names, expected in (
        ("w", ["first", "second"], [2, 0, 0, 0]),
        ("a", ["first", "copy", "second"], [0, 3, 0, 0]),
        ("a", ["header"], [0, 0, 1, 0]),
        ("a", ["header"], [0, 0, 1, 0]),
        ("a", ["pixels"], [0, 0, 1, 0]),
    ):
        assert pair.append(mode, *names) == [expected, expected]
    theirs, ours = pair.duplicates()
    assert theirs == ours
    assert [pair.urls["header"], pair.urls["pixels"]] in ours.values()


def test_headers_that_do_not_matter(pair: Pair) -> None:
    """Asked to, both take a file with the stored pixel data for the same, and one with others for a conflict."""
    assert pair.append("w", "first") == [[1, 0, 0, 0]] * 2
    assert pair.append("a", "header", treat_metadata_diffs_as_same=True) == [[0, 1, 0, 0]] * 2
    assert pair.append("a", "pixels", treat_metadata_diffs_as_same=True) == [[0, 0, 1, 0]] * 2
    theirs, ours = pair.duplicates()
    assert theirs == ours


def test_limits(pair: Pair) -> None:
    """A file above the limit is an error of its own, a series above its limit a ValueError."""
    gib = 1 << 30
    size = len(real_file(SOURCE).read())
    assert pair.append("w", "first", max_instance_size=size / 2 / gib) == [[0, 0, 0, 1]] * 2
    with pytest.raises(PublishedError) as caught:
        pair.theirs("append", mode="w", files=[pair.urls["first"]], how={"max_series_size": size / 2 / gib})
    assert caught.value.kind == "ValueError"
    with pair.ours("w") as cod, pytest.raises(ValueError, match="max_series_size"):
        cod.append(
            [Instance(pair.urls["first"], transport_params={"client": pair.client})], max_series_size=size / 2 / gib
        )


def test_quarantine(pair: Pair) -> None:
    """An error log stops the writers of both until it is overridden, and none is written over another."""
    pair.append("w", "first")
    pair.theirs("quarantine", message="odd")
    with pair.ours("a") as cod:
        cod.upload_error_log("odd")
    for call in (
        lambda: pair.theirs("append", mode="a", files=[]),
        lambda: pair.theirs("quarantine", message="again", options={"override_errors": False}),
    ):
        with pytest.raises(PublishedError) as caught:
            call()
        assert caught.value.kind == "ErrorLogExistsError"
    with pytest.raises(ErrorLogExistsError), pair.ours("a"):
        pass
    with pytest.raises(ErrorLogExistsError):
        pair.ours("a").upload_error_log("again")
    assert pair.theirs("append", mode="a", files=[pair.urls["copy"]], options={"override_errors": True}) == [0, 1, 0, 0]
    with pair.ours("a", override_errors=True) as cod:
        assert len(cod.append([Instance(pair.urls["copy"], transport_params={"client": pair.client})]).same) == 1


def test_requests(pair: Pair) -> None:
    """Metadata of a study, a series and an instance are equal but for large values, and so is the first frame."""
    pair.append("w", "first")
    uid = str(oracle.read(real_file(SOURCE).read()).SOPInstanceUID)
    study = f"studies/{pair.study_uid}"
    series = f"{study}/series/{pair.series_uid}"
    for path in (study, series, f"{series}/instances/{uid}"):
        theirs = pair.theirs("request", request=f"{pair.root}/theirs/{path}/metadata")
        ours = handle_request(f"{pair.root}/ours/{path}/metadata", pair.client)
        assert type(theirs) is type(ours)
        assert without_bulk_data(theirs) == without_bulk_data(ours)
    path = f"{series}/instances/{uid}/frames"
    (first,) = pair.theirs("request", request=f"{pair.root}/theirs/{path}/1")
    assert [first.encode("latin-1")] == handle_request(f"{pair.root}/ours/{path}/1", pair.client)
    with pytest.raises(PublishedError):  # it serves the first frame only
        pair.theirs("request", request=f"{pair.root}/theirs/{path}/2")
    assert len(handle_request(f"{pair.root}/ours/{path}/2,30", pair.client)) == 2


def without_bulk_data(document: Any) -> Any:
    """Return headers without what names large values."""
    if isinstance(document, list):
        return [without_bulk_data(item) for item in document]
    return {tag: element for tag, element in document.items() if "BulkDataURI" not in str(element)}


def test_queries(pair: Pair) -> None:
    """A row of a query is the same series, with instances of the same hints and dependencies."""
    files = [{"file_uri": pair.urls["first"], "size": 5, "crc32c": "AAAAAA=="}, {"file_uri": pair.urls["second"]}]
    row = {"study_uid": pair.study_uid, "series_uid": pair.series_uid, "files": files}
    theirs = pair.theirs("query", row=row)
    ours = query_result_to_codobjects(pair.client, row, f"{pair.root}/theirs", mode="r")
    assert theirs == [
        [cod.datastore_series_uri, [[item.dependencies, asdict(item.hints)] for item in instances]]
        for cod, instances in ours
    ]
