"""Copies of sources: what arrived damaged is refused, what goes wrong leaves nothing, and nothing outlives its use."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import uuid
import zipfile
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.bulk import BulkIngest, BulkOptions
from cloud_optimized_dicom.errors import InstanceValidationError, SourceUnavailableError, TransientStorageError
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.archives import SourceFailure
from cloud_optimized_dicom.ingest.measure import copied, fetched, measure
from cloud_optimized_dicom.ingest.sources import ObjectSource, iter_sources, source_of
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, StoreFault, StoreFaultKind
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from tests.limits import files_of_at_most

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.ingest.sources import Source
    from cloud_optimized_dicom.ranges import ByteRange
    from tests.ingest.web import Web

SLICE = CtSeries(1, 64, 64).instance(0)


class NoisyStore(InterceptingStore):
    """A store on the way from which a bit of every object is flipped."""

    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """Stream an object, its last byte another."""
        for chunk in super().iter_chunks(name, span, version=version):
            yield chunk[:-1] + bytes([chunk[-1] ^ 1])


@pytest.fixture
def inbox() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return an empty folder."""
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def put(store: MemoryStore, name: str, data: bytes, encoding: str | None = None) -> None:
    """Put an object."""
    attributes = Attributes(content_encoding=encoding)
    store.create(name, BytesPayload(data), write_id=new_write_id(), attributes=attributes)


def test_bytes_that_are_not_the_listed_ones_are_not_stored(inbox: MemoryStore, scratch: Path) -> None:
    """An object of another CRC32C than it was listed with is an error that may pass, whoever reads it."""
    put(inbox, "1.dcm", SLICE)
    (info,) = inbox.list()
    source = ObjectSource.of(NoisyStore(inbox), info)
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    with Workshop(scratch, 1) as workshop:
        (result,) = BulkIngest(store, workshop, BulkOptions()).run([Instance.from_source(source)]).files
    assert (result.outcome, result.retryable, list(store.list())) == ("error", True, [])
    assert "arrived damaged" in str(result.reason)
    assert not list(scratch.iterdir())
    with pytest.raises(SourceUnavailableError, match="arrived damaged"):
        measure(fetched(source, scratch), Hints())


def test_what_is_unpacked_on_the_way_is_not_compared_with_what_is_stored(inbox: MemoryStore) -> None:
    """The listing of an object that is kept gzipped tells the CRC32C of the packed bytes."""
    put(inbox, "1.dcm", gzip.compress(SLICE), "gzip")
    (info,) = inbox.list()
    assert measure(ObjectSource.of(inbox, info), Hints()).size == len(SLICE)


def archived(kind: str, members: dict[str, bytes]) -> bytes:
    """Return a zip, tar or tar.gz."""
    target = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=target, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


@pytest.fixture(params=["object", "web", "fsspec", "member", "stream"])
def source(request: pytest.FixtureRequest, inbox: MemoryStore, web: Web, tmp_path: Path) -> Source:
    """Return a source of 7.5 MB of each kind that is copied."""
    data = web.files["large.dcm"]
    if request.param == "object":
        put(inbox, "large.dcm", data)
        return ObjectSource.of(inbox, inbox.stat("large.dcm"))
    if request.param == "web":
        return source_of(f"{web.url}/plain/large.dcm")
    if request.param == "stream":
        return source_of(f"{web.url}/chunked/large.dcm")
    (tmp_path / "box.zip").write_bytes(archived("zip", {"large.dcm": data}))
    path = tmp_path / "box.zip"
    return source_of(f"zip://large.dcm::{path}" if request.param == "fsspec" else f"{path}://large.dcm")


def test_a_copy_for_which_there_is_no_room_leaves_nothing(source: Source, scratch: Path) -> None:
    """When the disk is full the copy fails, and what was written of it is gone."""
    with files_of_at_most(1 << 20), pytest.raises((OSError, InstanceValidationError), match=r"(?i)file too large"):
        copied(source, scratch)
    assert not list(scratch.iterdir())
    assert copied(source, scratch).read_bytes()


class CancelledError(Exception):
    """Somebody pressed Ctrl-C."""


def test_copying_ends_when_it_is_told_to(source: Source, scratch: Path) -> None:
    """Whoever copies asks now and then whether to go on, and leaves nothing if not."""

    def check() -> None:
        raise CancelledError

    if source.uri.endswith("box.zip://large.dcm"):
        assert fetched(source, scratch, check) is source  # members are read where they are
        return
    with pytest.raises(CancelledError):
        fetched(source, scratch, check)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_copy_of_a_member_that_is_cut_short_leaves_nothing(kind: str, tmp_path: Path, scratch: Path) -> None:
    """An archive that ends within a member is an error of that member, without a copy."""
    whole = archived(kind, {"1.dcm": SLICE * 20})
    path = tmp_path / f"box.{kind}"
    path.write_bytes(whole)
    member = source_of(f"{path}://1.dcm")
    path.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(InstanceValidationError):
        copied(member, scratch)
    assert not list(scratch.iterdir())


def test_an_unpacked_archive_goes_with_its_last_member(tmp_path: Path, scratch: Path) -> None:
    """A gzipped tar is unpacked for as long as somebody holds a member of it; a pickled member deletes nothing."""
    path = tmp_path / "box.tar.gz"
    path.write_bytes(archived("tar.gz", {"1.dcm": SLICE, "2.dcm": SLICE}))
    first, second = iter_sources([path], temp_dir=scratch)
    assert len(list(scratch.iterdir())) == 1
    del first
    again = pickle.loads(pickle.dumps(second))
    with again.open() as stream:
        assert stream.read() == SLICE
    del again
    assert len(list(scratch.iterdir())) == 1
    del second
    assert not list(scratch.iterdir())


def test_a_copied_archive_goes_with_its_last_member(web: Web, scratch: Path) -> None:
    """So does the copy of an archive whose server has no ranges."""
    web.files["box.zip"] = archived("zip", {"1.dcm": SLICE})
    (member,) = iter_sources([f"{web.url}/noranges/box.zip"], temp_dir=scratch)
    assert len(list(scratch.iterdir())) == 1
    assert not isinstance(member, SourceFailure)
    with member.open() as stream:
        assert stream.read() == SLICE
    del member, stream
    assert not list(scratch.iterdir())


def test_an_archive_for_which_there_is_no_room_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    """A gzipped tar that cannot be unpacked is a failure, and what was unpacked of it is gone."""
    path = tmp_path / "box.tar.gz"
    path.write_bytes(archived("tar.gz", {"1.dcm": bytes(4 << 20)}))
    with files_of_at_most(1 << 20):
        (failure,) = iter_sources([path], temp_dir=scratch)
    assert isinstance(failure, SourceFailure)
    assert "too large" in failure.reason
    assert not list(scratch.iterdir())


def test_an_object_that_is_kept_packed_is_the_same_listed_or_named(inbox: MemoryStore, scratch: Path) -> None:
    """Gzip as a content encoding is undone, also where nobody has said before that the object has it."""
    packed = BytesPayload(gzip.compress(SLICE))
    inbox.create("a.dcm", packed, write_id=new_write_id(), attributes=Attributes(content_encoding="gzip"))
    for source in (ObjectSource(inbox.url_of("a.dcm"), inbox, "a.dcm"), *iter_sources([inbox.url_of("")], None)):
        with fetched(source, scratch).open() as stream:  # type: ignore[union-attr]
            assert stream.read() == SLICE
    assert len(list(scratch.iterdir())) == 1


def test_an_object_of_which_nobody_can_say_how_it_is_kept_leaves_nothing(inbox: MemoryStore, scratch: Path) -> None:
    """What looks packed is asked for; when that fails, the copy is gone."""
    put(inbox, "a.dcm", gzip.compress(SLICE))
    store = FaultyStore(inbox, [StoreFault(StoreFaultKind.FAIL, operation="stat")])
    with pytest.raises(TransientStorageError):
        fetched(ObjectSource(inbox.url_of("a.dcm"), store, "a.dcm"), scratch)
    assert not list(scratch.iterdir())
