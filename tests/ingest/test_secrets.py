"""Passwords and signatures of URLs are used, and neither recorded nor printed."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore, Hints, Instance
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.ingest.inventory import InventoryRow, iter_row_sources
from cloud_optimized_dicom.ingest.public_uri import names_one_file, public_uri
from cloud_optimized_dicom.ingest.sources import iter_sources, source_of
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingest.web import Web

SLICE = CtSeries(1, 8, 8)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://me:secret@h/x.dcm", "https://h/x.dcm"),
        ("https://me:secret@h:8443/x.zip://a/b.dcm", "https://h:8443/x.zip://a/b.dcm"),
        ("https://h/x.dcm?X-Goog-Signature=secret&object=1.2", "https://h/x.dcm?object=1.2"),
        ("https://secret@h/[x", "https://h/[x"),
        ("https://[me:secret@bad/x", "https://bad/x"),
        ("sftp://me:secret@h/x.dcm", "sftp://h/x.dcm"),
        ("sftp://me:p@secret@h/x.dcm", "sftp://h/x.dcm"),
        ("sftp://me:secret@h/x.tar://a.dcm", "sftp://h/x.tar://a.dcm"),
        ("zip://a.dcm::sftp://me:secret@h/x.zip", "zip://a.dcm::sftp://h/x.zip"),
        ("zip://a.dcm::https://me:secret@h/x.zip?sig=secret", "zip://a.dcm::https://h/x.zip"),
    ],
)
def test_what_is_secret_is_left_out(uri: str, public: str) -> None:
    """User, password and signature go, wherever in the URI they stand, and doing it twice is doing it once."""
    assert public_uri(uri) == public_uri(public) == public


@pytest.mark.parametrize(
    "uri",
    ["/data/a@b:c/x.dcm", "gs://bucket/a:b@c/x.dcm", "s3://b/x.zip://a.dcm", "HTTPS://H/x.dcm?b=1&a=", "x.zip://a@b"],
)
def test_what_holds_no_secret_stays_as_it_is(uri: str) -> None:
    """Paths, names of objects and other URLs are not written otherwise."""
    assert public_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "is_one"),
    [
        ("/data/a@b:c/x.dcm", True),
        ("gs://bucket/x?token=1", True),
        ("https://h/x.dcm?object=1.2#part", True),
        ("https://h/x.dcm?X-Goog-Signature=secret&object=1.2&X-Goog-Date=1", True),
        ("https://h/x.zip?sv=1&sig=secret", True),
        ("zip://a.dcm::https://h/x.zip?X-Amz-Signature=secret", True),
        ("https://h/x?token=1", False),
        ("https://h/x?id=1&Access_Token=2&sig=secret", False),
        ("https://h/x?sig=secret&%74oken=2", False),
        ("https://me:secret@h/x.dcm", False),
        ("sftp://me:secret@h/x.tar://a.dcm", False),
        ("zip://a.dcm::sftp://me:secret@h/x.zip", False),
    ],
)
def test_what_a_public_uri_still_names(uri: str, is_one: bool) -> None:
    """Without its signature a URI names the same file; without a token or a user it may be any of several."""
    assert names_one_file(uri) is is_one


@pytest.mark.parametrize(
    "uri",
    [
        "nope://me:secret@h/x.dcm",
        "nope://me:secret@h/x.zip://a.dcm",
        "file://me:secret@h/x.dcm",
        "http://me:secret@127.0.0.1:9/x.zip://a.dcm",
        "http://me:secret@127.0.0.1:9/folder/",
        "http://[me:secret@bad/x",
        "zip://a.dcm::nope://me:secret@h/x.zip",
        "memory2://me:secret@h/*",
    ],
)
def test_no_error_tells_a_secret(uri: str) -> None:
    """Whatever is wrong with a source, its URI is told without them, and so is what the error was made of."""
    (failure,) = iter_sources([uri])
    (of_row,) = iter_row_sources(InventoryRow(uri, Hints()), None, {})
    assert "secret" not in repr(failure) + repr(of_row)
    with pytest.raises(InstanceValidationError) as caught:
        source_of(uri).open()
    assert "secret" not in str(caught.value)


def test_a_member_of_an_archive_behind_a_password(web: Web) -> None:
    """The member is found, and known by the URI that the listing of its archive gives it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        target.writestr("a.dcm", SLICE.instance(0))
    web.files["x.zip"] = packed.getvalue()
    url = f"{web.url}/plain/x.zip".replace("http://", "http://me:secret@")
    member = source_of(f"{url}://a.dcm")
    (listed,) = iter_sources([url])
    assert member.uri == listed.uri == f"{web.url}/plain/x.zip://a.dcm"
    with member.open() as stream:
        assert stream.read() == SLICE.instance(0)
    (failure,) = iter_sources([f"{url}://b.dcm"])
    assert failure.uri == f"{web.url}/plain/x.zip://b.dcm"


def test_a_stored_instance_does_not_tell_how_it_was_fetched(web: Web, tmp_path: Path) -> None:
    """The record of an instance that was given by a signed URL holds the URL alone."""
    web.files["1.dcm"] = SLICE.instance(0)
    url = f"{web.url}/plain/1.dcm?sig=secret"
    (result,) = Datastore(tmp_path / "store").ingest([Instance(url)]).files
    assert (result.outcome, result.uri) == ("new", f"{web.url}/plain/1.dcm")
    with Datastore(tmp_path / "store").open(SLICE.uids.study, SLICE.uids.series) as cod:
        assert cod.get_instance(SLICE.instance_uid(0)).original_path == f"{web.url}/plain/1.dcm"
    assert not [path for path in (tmp_path / "store").rglob("*.json") if b"secret" in path.read_bytes()]
