"""Files of web servers are sources, whatever the server can do; what goes wrong is an error of the file."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import CODObject, Hints, Instance
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.ingest.measure import fetched
from cloud_optimized_dicom.ingest.sources import HttpSource, Source, SourceFailure, iter_sources, source_of
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.core.bulk import ingest, memory_store
from tests.core.conftest import write_series

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingest.web import Web


def read(source: Source) -> bytes:
    with source.open() as stream:
        return stream.read()


@pytest.mark.parametrize("kind", ["plain", "noranges", "chunked", "packed", "moved"])
def test_a_file_is_the_same_however_the_server_sends_it(kind: str, web: Web, tmp_path: Path) -> None:
    """Ranges, whole files, chunks without a length, transfer packing and redirects all give the file's bytes."""
    for name, data in web.files.items():
        source = source_of(f"{web.url}/{kind}/{name}")
        assert read(source) == data
        with source.open() as stream:
            assert stream.seek(0, io.SEEK_END) == len(data)
            stream.seek(max(0, len(data) - 100))
            assert stream.read() == data[-100:]
        local = fetched(source, tmp_path)
        assert (local.uri, local.size, read(local)) == (source.uri, len(data), data)


def test_a_small_file_costs_one_request_and_a_range_only_its_blocks(web: Web, tmp_path: Path) -> None:
    """Opening and reading 10 kB is one request; the end of 7.5 MB costs the first 2 MiB and the last block."""
    small = read(source_of(f"{web.url}/plain/small.dcm"))
    assert (len(web.asked), web.sent_bytes) == (1, len(small))
    with source_of(f"{web.url}/plain/large.dcm").open() as stream:
        stream.seek(-10, io.SEEK_END)
        assert stream.read() == web.files["large.dcm"][-10:]
    assert len(web.asked) == 3
    assert web.sent_bytes < len(small) + (3 << 20)
    fetched(source_of(f"{web.url}/plain/large.dcm"), tmp_path)
    assert len(web.asked) == 4


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("plain/none.dcm", r"not found \(HTTP 404\)"),
        ("410/x", r"not found \(HTTP 410\)"),
        ("403/x", r"access denied \(HTTP 403\)"),
        ("401/x", r"access denied \(HTTP 401\)"),
        ("400/x", r"the server refused \(HTTP 400\)"),
        ("loop/x", "redirected in circles"),
        ("cut/large.dcm", "ended before the file did|sent .* bytes of"),
    ],
)
def test_refusals_are_errors_that_say_why(path: str, reason: str, web: Web, tmp_path: Path) -> None:
    """What the server refuses or cuts short is an error of the file, when it is opened and when it is copied."""
    source = source_of(f"{web.url}/{path}")
    with pytest.raises(InstanceValidationError, match=reason):
        read(source)
    with pytest.raises(InstanceValidationError, match=reason):
        fetched(source, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there_is_an_error() -> None:
    """A port that nobody listens on is told as such, without the library's own words."""
    with pytest.raises(InstanceValidationError, match="cannot be reached") as caught:
        source_of("http://127.0.0.1:9/x.dcm").open()
    assert "HTTPConnectionPool" not in str(caught.value)


def test_a_file_that_changes_is_an_error_and_never_a_mixture(web: Web) -> None:
    """A reader that has seen the old file raises when the server has a new one, of the same size or not."""
    for new in (bytes(len(web.files["large.dcm"])), b"shorter"):
        old = web.files["large.dcm"]
        with source_of(f"{web.url}/plain/large.dcm").open() as stream:
            assert stream.read(100) == old[:100]
            web.files["large.dcm"] = new
            stream.seek(5 << 20)
            with pytest.raises(InstanceValidationError, match="changed while it was read"):
                stream.read(100)
        web.files["large.dcm"] = old


def test_secrets_of_a_url_are_used_and_not_recorded(web: Web) -> None:
    """User, password and signature reach the server, but no URI, error or copy of the source shows them."""
    url = web.url.replace("http://", "http://user:pass@")
    source = source_of(f"{url}/plain/small.dcm?object=1.2&X-Goog-Signature=abc&sig=def")
    assert source.uri == f"{web.url}/plain/small.dcm?object=1.2"
    assert read(source) == web.files["small.dcm"]
    assert "X-Goog-Signature=abc" in web.asked[0][0]
    with pytest.raises(InstanceValidationError) as caught:
        source_of(f"{url}/403/x?sig=def").open()
    assert "pass" not in str(caught.value)
    assert "def" not in str(caught.value)


@pytest.mark.parametrize("kind", ["plain", "noranges"])
def test_members_of_archives_on_the_web_are_sources(kind: str, web: Web, tmp_path: Path) -> None:
    """A zip or tar is read in place by ranges, or copied once where the server has none."""
    members = {f"{number}.dcm": bytes([number]) * 1_000_000 for number in range(6)}
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        for name, data in members.items():
            target.writestr(name, data)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    web.files |= {"x.zip": packed.getvalue(), "x.tar": tarred.getvalue()}
    for archive in ("x.zip", "x.tar"):
        url = f"{web.url}/{kind}/{archive}"
        web.asked.clear()
        items = [item for item in iter_sources([url], temp_dir=tmp_path) if not isinstance(item, SourceFailure)]
        assert {item.uri: read(item) for item in items} == {f"{url}://{name}": data for name, data in members.items()}
        assert len(web.asked) == 2 if kind == "noranges" else len(web.asked) > 6
        assert read(source_of(f"{url}://3.dcm")) == members["3.dcm"]


def test_a_url_of_no_file_is_a_failure(web: Web) -> None:
    """Web servers do not list: a folder's URL says so, and what is no URL is told as such."""
    items = list(iter_sources([f"{web.url}/plain/", "http://", "https://[bad/x"]))
    assert all(isinstance(item, SourceFailure) for item in items)
    assert "do not list folders" in str(items[0])
    assert len(items) == 3


def test_web_sources_pickle(web: Web) -> None:
    """A source crosses to another process as a value."""
    source = source_of(f"{web.url}/plain/small.dcm")
    assert isinstance(source, HttpSource)
    assert pickle.loads(pickle.dumps(source)) == source


def test_files_that_are_shown_alike_are_all_stored(web: Web, tmp_path: Path) -> None:
    """Addresses that differ in a secret only are files of their own, though one URL stands for both."""
    files = write_series(tmp_path / "files", CtSeries(2, 8, 8))
    web.files |= {f"dl?token={number}": files.bytes(number) for number in range(2)}
    store = memory_store()
    report = ingest(store, [f"{web.url}/plain/dl?token={number}" for number in range(2)])
    assert [(result.uri, result.outcome) for result in report.files] == [(f"{web.url}/plain/dl", "new")] * 2
    with CODObject(store, None, files.series.uids.study, files.series.uids.series) as cod:
        assert [cod.open_instance(uid).read() for uid in files.uids] == [files.bytes(0), files.bytes(1)]


@pytest.mark.parametrize("is_listed", [False, True], ids=["named", "listed"])
def test_files_that_are_shown_alike_are_all_stored_by_their_hints(is_listed: bool, web: Web, tmp_path: Path) -> None:
    """Files whose series is claimed, so that none is read before it is time to store it, are told apart as well."""
    files = write_series(tmp_path / "files", CtSeries(2, 8, 8))
    uids, store = files.series.uids, memory_store()
    web.files |= {f"dl?token={number}": files.bytes(number) for number in range(2)}
    hints = Hints(study_uid=uids.study, series_uid=uids.series)
    urls = [f"{web.url}/plain/dl?token={number}" for number in range(2)]
    report = ingest(store, [given(url, hints, is_listed=is_listed) for url in urls])
    assert [(result.uri, result.outcome) for result in report.files] == [(f"{web.url}/plain/dl", "new")] * 2
    with CODObject(store, None, uids.study, uids.series) as cod:
        assert [cod.open_instance(uid).read() for uid in files.uids] == [files.bytes(0), files.bytes(1)]


@pytest.mark.parametrize("is_listed", [False, True], ids=["named", "listed"])
@pytest.mark.parametrize("is_there", [False, True], ids=["absent", "present"])
def test_a_file_that_is_given_twice_is_read_once(is_there: bool, is_listed: bool, web: Web, tmp_path: Path) -> None:
    """What becomes of the first is what becomes of the second, too: "same" where that is stored, else its error."""
    files = write_series(tmp_path / "files", CtSeries(1, 8, 8))
    if is_there:
        web.files["1.dcm"] = files.bytes(0)
    hints = Hints(study_uid=files.series.uids.study, series_uid=files.series.uids.series)
    url = f"{web.url}/plain/1.dcm?token=secret"
    report = ingest(memory_store(), [given(url, hints, is_listed=is_listed) for _ in range(2)])
    assert [result.outcome for result in report.files] == (["new", "same"] if is_there else ["error", "error"])
    assert len(web.asked) == 1


def given(url: str, hints: Hints, *, is_listed: bool) -> Instance:
    return Instance.from_source(source_of(url), hints) if is_listed else Instance(url, hints=hints)
