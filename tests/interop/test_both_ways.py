"""The published library and we on one series, in turn."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import LockAcquisitionError, LockVerificationError
from cloud_optimized_dicom.format.sqlite_index import index_of, parse_sqlite_index
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.published import PublishedError
from tests.core.conftest import write_series
from tests.dicom import oracle
from tests.hashed.functions import pseudonym as hashed
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.conftest import Shared

pytestmark = pytest.mark.slow

AT_ONCE = {"empty_lock_override_age": 1e-9}
"""Theirs is in hours: every lock is older."""
LEASE_SECONDS = 9

KINDS = ["examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm", "JPEG2000.dcm", "rtdose.dcm", "rtplan.dcm"]


def check_our_index(shared: Shared) -> None:
    """Make sure that the index is exactly that of the tar."""
    store = shared.ours().store
    document = SeriesReader.open(store, shared.key).document
    index = parse_sqlite_index(store.read_object(shared.key.index).data)
    assert index == index_of(document.iter_records(), store.stat(shared.key.tar).size)


# -- series that they wrote


def test_what_they_write_we_change_and_they_read(shared: Shared) -> None:
    """Append, remove, truncate and fields of ours, on a series of theirs: they see each state, by an index of it."""
    assert shared.they_write("w", 0, 1, 2, fields={"site": "north"})["new"] == 3
    shared.check_both(0, 1, 2)
    with shared.ours("a") as cod:
        assert cod.get_metadata_field("site") == "north"
        assert len(cod.append(shared.files.instances(3, 4)).new) == 2
    check_our_index(shared)
    shared.check_both(0, 1, 2, 3, 4)
    with shared.ours("a") as cod:
        cod.remove(shared.files.uids[1])
    check_our_index(shared)
    shared.check_both(0, 2, 3, 4)
    with shared.ours("a") as cod:
        cod.add_metadata_field("site", "south")
    assert shared.theirs("field", name="site") == "south"
    with shared.ours("a") as cod:
        cod.truncate(shared.files.uids[2:4])
    shared.check_both(2, 3)
    with shared.ours("w") as cod:
        cod.append(shared.files.instances(5))
    check_our_index(shared)
    shared.check_both(5)


def test_a_swap_that_keeps_the_tars_size_is_seen(shared: Shared) -> None:
    """An index of the old tar would fit the new one's size, and be wrong about every member."""
    shared.they_write("w", 0, 1)
    with shared.ours("w") as cod:
        cod.append(shared.files.instances(0, 1, 2))
    shared.check_both(0, 1, 2)
    with shared.ours("w") as cod:
        cod.append(shared.files.instances(2, 3, 0))
    shared.check_both(0, 2, 3)


def test_the_same_files_are_the_same_to_both(shared: Shared) -> None:
    """What one has stored, the other recognises by UID and checksum."""
    shared.they_write("w", 0, 1)
    with shared.ours("a") as cod:
        result = cod.append(shared.files.instances(0, 1, 2))
        assert (len(result.same), len(result.new)) == (2, 1)
        cod.seal()
    found = shared.they_write("a", 0, 2, 3)
    assert (found["same"], found["new"]) == (2, 1)
    shared.check_both(0, 1, 2, 3)


def test_series_of_hashed_uids(shared: Shared) -> None:
    """Hashed UIDs are theirs and ours: read, appended to, and read by both."""
    options = {"hashed_uids": True}
    uids = shared.files.series.uids
    key = type(shared.key)(hashed(uids.study), hashed(uids.series))
    plain, shared.key = shared.key, key
    assert shared.they_write("w", 0, 1, options=options)["new"] == 2
    with shared.ours("a", **options) as cod:
        files = [Instance(shared.files.paths[index], uid_hash_func=hashed) for index in (2, 3)]
        assert len(cod.append(files).new) == 2
    expected = {hashed(uid): crc for uid, crc in shared.expected(0, 1, 2, 3).items()}
    assert shared.theirs("read", options=options) == expected == shared.we_read()
    assert shared.theirs("check", options=options)
    check_our_index(shared)
    assert plain != key


def test_what_they_recompress_we_read_and_append_to(shared: Shared, tmp_path: Path) -> None:
    """Their JPEG 2000 decodes to the pixels of the source, also behind an append of ours."""
    shared.files = write_series(tmp_path / "larger", CtSeries(3, rows=128, columns=128))
    shared.key = type(shared.key)(shared.files.series.uids.study, shared.files.series.uids.series)
    found = shared.they_write("w", 0, 1, compress=True)
    assert found["new"] == 2, found
    with shared.ours("a") as cod:
        assert len(cod.append(shared.files.instances(2)).new) == 1
    with shared.ours() as cod:
        for index, uid in enumerate(shared.files.uids):
            pixels = oracle.read(shared.files.bytes(index)).pixel_array
            assert (cod.read_frame_array(uid, 0) == pixels).all()
            syntax = cod.get_instance(uid).metadata["00020010"]["Value"][0]
            assert syntax.startswith("1.2.840.10008.1.2.4.9") is (index < 2)
        assert not cod.verify().damaged
    assert shared.theirs("read") == shared.we_read()
    assert shared.theirs("check")


def test_a_series_that_they_edited(shared: Shared) -> None:
    """What they change in edit mode is what we read, of a series that both have written."""
    shared.they_write("w", 0, 1)
    with shared.ours("a") as cod:
        cod.append(shared.files.instances(2))
    shared.theirs("edit", uid=shared.files.uids[2], old="Phantom", new="PHANTOM")
    with shared.ours("a") as cod:
        cod.append(shared.files.instances(3))
    read = shared.we_read()
    assert shared.theirs("read") == read
    assert shared.theirs("check")
    check_our_index(shared)
    with shared.ours() as cod:
        for index, uid in enumerate(shared.files.uids[:4]):
            with cod.open_instance(uid) as stream:
                data = stream.read()
            source = shared.files.bytes(index)
            # Their edit mode takes one byte too many of every instance.
            assert data.startswith(source if index != 2 else source.replace(b"Phantom", b"PHANTOM"))
            assert len(data) - len(source) in {0, 1}


def test_a_thumbnail_of_theirs_is_kept(shared: Shared) -> None:
    """Their thumbnail, and what the document says of it, outlives an append of ours."""
    shared.they_write("w", 0, thumbnail=True)
    with shared.ours() as cod:
        before = cod.get_metadata()["thumbnail"]
        name = f"studies/{before['uri'].rpartition('studies/')[2]}"
        data = cod.store.read_object(name).data
    with shared.ours("a") as cod:
        cod.append(shared.files.instances(1))
    with shared.ours() as cod:
        assert cod.get_metadata()["thumbnail"] == before
        assert cod.store.read_object(name).data == data
    shared.check_both(0, 1)


# -- series that we wrote


def test_what_we_write_they_read_and_check(shared: Shared) -> None:
    """With `legacy_index` they open, pull, read and check a series of ours, however many commits it has seen."""
    with shared.ours("w", legacy_index=True) as cod:
        cod.append(shared.files.instances(0, 1, 2))
    shared.check_both(0, 1, 2)
    with shared.ours("a") as cod:
        cod.append(shared.files.instances(3))
        cod.add_metadata_field("site", "north")
    shared.check_both(0, 1, 2, 3)
    assert shared.theirs("field", name="site") == "north"
    with shared.ours("a") as cod:
        cod.remove(shared.files.uids[0])
    shared.check_both(1, 2, 3)


def test_a_series_without_an_index_gets_one(shared: Shared) -> None:
    """They cannot open a series without an index; `legacy_index` on a stored series is all that it takes."""
    with shared.ours("w") as cod:
        cod.append(shared.files.instances(0, 1))
    with pytest.raises(PublishedError, match="NotFound"):
        shared.theirs("read")
    with shared.ours("a", legacy_index=True):
        pass
    shared.check_both(0, 1)


def test_an_empty_index_is_enough_for_them(shared: Shared) -> None:
    """What a commit of ours leaves until it is finished: they make an index of their own."""
    with shared.ours("w", legacy_index=True) as cod:
        cod.append(shared.files.instances(0, 1))
    shared.client.bucket("bucket").blob(f"{shared.url.rpartition('/')[2]}/{shared.key.index}").upload_from_string(b"")
    shared.check_both(0, 1)


@pytest.mark.parametrize("name", KINDS)
def test_they_read_every_kind_of_file(shared: Shared, name: str) -> None:
    """Native, encapsulated, multi-frame, without pixel data: the same bytes for them as for us."""
    data = real_file(name).read()
    dataset = oracle.read(data)
    shared.key = type(shared.key)(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
    with shared.ours("w", legacy_index=True) as cod:
        assert len(cod.append([Instance(real_file(name).path)]).new) == 1
    expected = {str(dataset.SOPInstanceUID): zlib.crc32(data)}
    assert shared.theirs("read") == expected == shared.we_read()
    assert shared.theirs("check")


def test_a_preamble_that_they_refuse(shared: Shared) -> None:
    """What blocks them, whoever has stored it: a preamble that is not zero is legal, and no DICOM to them."""
    path = real_file("MR_small.dcm").path
    dataset = oracle.read(path.read_bytes())
    shared.key = type(shared.key)(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
    with shared.ours("w", legacy_index=True) as cod:
        cod.append([Instance(path)])
    with pytest.raises(PublishedError, match="not a valid DICOM"):
        shared.theirs("read")
    assert shared.we_read() == {str(dataset.SOPInstanceUID): zlib.crc32(path.read_bytes())}


def test_they_append_to_a_sealed_tar_only(shared: Shared) -> None:
    """Without end-of-archive blocks they refuse, and change nothing; sealed, they append, and so do we again."""
    with shared.ours("w", legacy_index=True) as cod:
        cod.append(shared.files.instances(0, 1))
    with pytest.raises(PublishedError, match="ReadError"):
        shared.they_write("a", 2)
    shared.check_both(0, 1)
    for first in (2, 4, 6):
        with shared.ours("a") as cod:
            cod.seal()
        check_our_index(shared)
        assert shared.they_write("a", first)["new"] == 1
        shared.check_both(*range(first + 1))
        with shared.ours("a") as cod:
            assert len(cod.append(shared.files.instances(first + 1)).new) == 1
        shared.check_both(*range(first + 2))


# -- locks


def test_locks_exclude_each_other(shared: Shared) -> None:
    """Whoever holds the lock keeps the other out, also one that may override older locks; then all goes on."""
    with shared.ours("w", legacy_index=True) as cod:
        cod.append(shared.files.instances(0))
        cod.seal()
    shared.theirs("hold", mode="a")
    with pytest.raises(LockAcquisitionError, match="no lease"), shared.ours("a"):
        pass
    shared.published.do("let_go")
    with shared.ours("a", lease_seconds=LEASE_SECONDS) as cod:
        time.sleep(LEASE_SECONDS + 1)  # the lock was taken longer ago than that, and renewed since
        for options in ({}, {"empty_lock_override_age": LEASE_SECONDS / 3600}):
            with pytest.raises(PublishedError, match="LockAcquisitionError"):
                shared.they_write("a", 1, options=options)
        cod.append(shared.files.instances(2))
        cod.seal()
    assert shared.they_write("a", 1)["new"] == 1
    shared.check_both(0, 1, 2)


def test_what_they_may_override(shared: Shared) -> None:
    """With an age that every lock has, they override one of theirs that holds no instances, and none that does."""
    name = f"{shared.url.rpartition('/')[2]}/{shared.key.lock}"
    for number, is_empty in enumerate((True, False)):
        shared.theirs("hold", mode="a")
        lock = shared.client.bucket("bucket").get_blob(name)
        body = lock.download_as_bytes(raw_download=True)
        shared.published.do("let_go")
        left = shared.client.bucket("bucket").blob(name)
        left.content_encoding = lock.content_encoding
        left.upload_from_string(body)
        with pytest.raises(PublishedError, match="LockAcquisitionError"):
            shared.they_write("a", number)
        if is_empty:
            assert shared.they_write("a", number, options=AT_ONCE)["new"] == 1
            assert shared.client.bucket("bucket").get_blob(name) is None
        else:
            with pytest.raises(PublishedError, match="LockAcquisitionError"):
                shared.they_write("a", number, options=AT_ONCE)
            left.delete()
    shared.check_both(0)


def test_a_lock_of_ours_that_they_override(shared: Shared) -> None:
    """Before anything is decided ours holds no instances: overridden at any age, it loses, and nothing is damaged."""
    with shared.ours("w", legacy_index=True) as cod:
        cod.append(shared.files.instances(0))
        cod.seal()
    with pytest.raises(LockVerificationError), shared.ours("a") as cod:
        assert shared.they_write("a", 1, options=AT_ONCE)["new"] == 1
        cod.append(shared.files.instances(2))
    shared.check_both(0, 1)


def test_a_reader_of_ours_outlives_their_append(shared: Shared) -> None:
    """A series that we have open while they append goes on to be read."""
    shared.they_write("w", 0, 1)
    with CODObject(shared.url, shared.client, shared.key.study_uid, shared.key.series_uid) as cod:
        with cod.open_instance(shared.files.uids[0]) as stream:
            half = stream.read(1000)
            shared.they_write("a", 2)
            assert half + stream.read() == shared.files.bytes(0)
        with cod.open_instance(shared.files.uids[1]) as stream:
            assert stream.read() == shared.files.bytes(1)
