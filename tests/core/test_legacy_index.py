"""index.sqlite beside a series and end-of-archive blocks behind its tar, in every kind of store."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.format.metadata.document import SeriesDocument
from cloud_optimized_dicom.format.sqlite_index import dump_sqlite_index, index_of, parse_sqlite_index
from cloud_optimized_dicom.series.legacy_index import set_aside, write_index
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from tests.core.conftest import read

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom import CODObject
    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.core.conftest import Files, Open

BLOCKS = 1024


def indexed(cod: CODObject) -> bool:
    """Return whether the series has an index, and it is exactly that of its tar."""
    found = cod.store.find(cod.key.index)
    if found is None:
        return False
    document = SeriesDocument(cod.metadata_uri, cod.get_metadata())
    tar = cod.store.find(cod.key.tar)
    assert tar is not None
    index = parse_sqlite_index(cod.store.read_object(cod.key.index).data)
    assert index == index_of(document.iter_records(), tar.size)
    return True


def put_index(store: ObjectStore, cod: CODObject, data: bytes) -> None:
    """Write an index over the one that is there, as nobody but a test does."""
    found = store.find(cod.key.index)
    assert found is not None
    store.replace(cod.key.index, BytesPayload(data), version=found.version, write_id=new_write_id())


@pytest.fixture
def with_index(open_cod: Open, files: Files) -> Open:
    """Return `open_cod` after three instances were stored with an index."""
    with open_cod("w", legacy_index=True) as cod:
        cod.append(files.instances(0, 1, 2))
    return open_cod


def test_a_series_has_no_index_unless_asked(stored: Open) -> None:
    """Nobody here needs one."""
    with stored() as cod:
        assert not indexed(cod)
        assert cod.verify().ok


def test_an_index_is_written_on_request(with_index: Open) -> None:
    """It names every instance's place and the tar's size."""
    with with_index() as cod:
        assert indexed(cod)
        assert cod.verify().ok


def test_an_index_is_kept_by_every_kind_of_commit(with_index: Open, files: Files) -> None:
    """Whatever changes the tar writes the index anew, without being told."""
    with with_index("a") as cod:
        cod.append(files.instances(3))
    with with_index() as cod:
        assert indexed(cod)
    with with_index("a") as cod:
        cod.remove(files.uids[0])
    with with_index() as cod:
        assert indexed(cod)
    with with_index("a") as cod:
        cod.seal()
    with with_index() as cod:
        assert indexed(cod)
    with with_index("w") as cod:
        cod.append(files.instances(4))
    with with_index() as cod:
        assert indexed(cod)
    with with_index("a") as cod:
        cod.truncate([])
    with with_index() as cod:
        assert indexed(cod)
        assert {finding.kind for finding in cod.verify().findings} == {"no-instances"}


def test_a_field_leaves_the_index_as_it_is(with_index: Open, store: ObjectStore) -> None:
    """The tar stays as it is, so the index does."""
    with with_index("a") as cod:
        before = store.find(cod.key.index)
        cod.add_metadata_field("site", "north")
    with with_index() as cod:
        assert store.find(cod.key.index) == before
        assert indexed(cod)


def test_a_stored_series_gets_an_index(stored: Open, store: ObjectStore) -> None:
    """Opening a series for writing with `legacy_index` is enough; the second time nothing is written."""
    with stored("a", legacy_index=True):
        pass
    with stored() as cod:
        assert indexed(cod)
    before = list(store.list())
    with stored("a", legacy_index=True):
        pass
    assert list(store.list()) == before


def test_an_index_is_dropped_on_request(with_index: Open, store: ObjectStore, files: Files) -> None:
    """False removes it, and later commits write none."""
    with with_index("a", legacy_index=False) as cod:
        cod.append(files.instances(3))
        assert cod.get_metadata()["cod"]["legacy_index"] is True
    with with_index("a") as cod:
        cod.append(files.instances(4))
    with with_index() as cod:
        assert store.find(cod.key.index) is None
        assert "legacy_index" not in cod.get_metadata()["cod"]
        assert cod.verify().ok


def test_an_index_in_a_stalled_writers_hand_is_refused(with_index: Open, files: Files, store: ObjectStore) -> None:
    """Who wakes after a later commit writes no index of the tar before it."""
    with with_index() as cod:
        key, before = cod.key, SeriesDocument(cod.metadata_uri, cod.get_metadata())
    aside = set_aside(store, key, "write")
    with with_index("a") as cod:
        cod.append(files.instances(3))
    write_index(store, key, before, aside)
    with with_index() as cod:
        assert indexed(cod)


def test_an_index_that_somebody_emptied_is_written_all_the_same(with_index: Open, store: ObjectStore) -> None:
    """As long as the document is the writer's own, what a woken writer did to the index is written over."""
    with with_index() as cod:
        document = SeriesDocument(cod.metadata_uri, cod.get_metadata())
        aside = set_aside(store, cod.key, "write")
        assert store.stat(cod.key.index).size == 0
        assert cod.verify().ok  # an empty one is right
        set_aside(store, cod.key, "write")
        write_index(store, cod.key, document, aside)
        assert indexed(cod)


def test_an_index_of_another_tar_is_found(with_index: Open, store: ObjectStore, files: Files) -> None:
    """A verification names a stale or missing index, damages nothing, and the next commit mends it."""
    with with_index() as cod:
        document = SeriesDocument(cod.metadata_uri, cod.get_metadata())
        records = list(document.iter_records())
        put_index(store, cod, dump_sqlite_index(records[:2], records[-1].span.stop))
        report = cod.verify()
        assert [(finding.kind, finding.damage) for finding in report.findings] == [("legacy-index", False)]
        store.delete(cod.key.index)
        assert [finding.kind for finding in cod.verify().findings] == ["legacy-index"]
    with with_index("a") as cod:
        cod.append(files.instances(3))
    with with_index() as cod:
        assert indexed(cod)
        assert cod.verify().ok


def test_a_sealed_tar_is_one_that_python_appends_to(stored: Open, tmp_path: Path, files: Files) -> None:
    """1024 zero bytes more, once; tarfile then appends, and our next append drops them."""
    with stored() as cod:
        before = cod.pull_tar().read_bytes()
    path = tmp_path / "series.tar"
    path.write_bytes(before)
    with pytest.raises(tarfile.ReadError):
        tarfile.open(path, "a").close()
    for _ in range(2):
        with stored("a") as cod:
            cod.seal()
        with stored() as cod:
            sealed = cod.pull_tar().read_bytes()
            assert sealed == before + bytes(BLOCKS)
            assert cod.verify().ok
            assert [read(cod, uid) for uid in cod.get_instances()] == [files.bytes(index) for index in range(3)]
    path.write_bytes(sealed)
    with tarfile.open(path, "a") as tar:
        tar.add(files.paths[3], "instances/1.2.dcm")
    with tarfile.open(path) as tar:
        assert len(tar.getnames()) == 4
    with stored("a") as cod:
        cod.append(files.instances(3, 4))
    with stored() as cod:
        assert cod.pull_tar().read_bytes().startswith(before)
        assert not cod.pull_tar().read_bytes().endswith(bytes(BLOCKS))
        assert cod.verify().ok


def test_a_commit_seals_what_it_changes(open_cod: Open, files: Files) -> None:
    """Sealing is part of the block's commit, whatever else that does: create, append, remove, overwrite."""
    for mode, change in (
        ("w", lambda cod: cod.append(files.instances(0, 1, 2))),
        ("a", lambda cod: cod.append(files.instances(3))),
        ("a", lambda cod: cod.remove(files.uids[1])),
        ("w", lambda cod: cod.append(files.instances(2, 3))),
        ("a", lambda cod: cod.truncate([])),
    ):
        with open_cod(mode) as cod:
            cod.seal()
            change(cod)
        with open_cod() as cod:
            data = cod.pull_tar().read_bytes()
            ends = [record["headers"]["end_byte"] for record in cod.get_metadata()["cod"]["instances"].values()]
            assert data.endswith(bytes(BLOCKS))
            assert len(data) == -(-max(ends, default=0) // 512) * 512 + BLOCKS
            assert not cod.verify().damaged


def test_a_series_without_a_tar_is_not_sealed(open_cod: Open, store: ObjectStore) -> None:
    """There is nothing to seal, and nothing is written."""
    with open_cod("a") as cod:
        cod.seal()
    assert list(store.list()) == []
