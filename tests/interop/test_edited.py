"""Series edited in mode "e", by the published library and by us."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Instance
from cloud_optimized_dicom.errors import EditSetChangedError, LockAcquisitionError
from cloud_optimized_dicom.testing.published import PublishedError
from tests.dicom import oracle
from tests.edit.conftest import rewrite
from tests.hashed.functions import pseudonym as hashed
from tests.interop.test_both_ways import check_our_index
from tests.realfiles import real_file

if TYPE_CHECKING:
    from tests.interop.conftest import Shared

pytestmark = pytest.mark.slow

KINDS = ["examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm", "JPEG2000.dcm", "rtplan.dcm"]


def check_both_read(shared: Shared, expected: dict[str, bytes], **options: object) -> None:
    """Make sure that they and we read exactly these bytes, and find nothing wrong."""
    crcs = {uid: zlib.crc32(data) for uid, data in expected.items()}
    assert shared.theirs("read", **options) == crcs
    assert shared.theirs("check", **options)
    assert shared.we_read() == crcs
    check_our_index(shared)


def all_bytes(shared: Shared) -> dict[str, bytes]:
    """Return every instance's bytes as we read them, by UID."""
    with shared.ours() as cod:
        return dict(cod.iter_instances())


def test_what_we_edit_they_read_and_check(shared: Shared) -> None:
    """Of a series of ours: each state of it, by an index that an edit keeps up to date."""
    with shared.ours("w", legacy_index=True) as cod:
        cod.append(shared.files.instances(0, 1, 2))
    expected = {shared.files.uids[index]: shared.files.bytes(index) for index in range(3)}
    for number in range(2):
        uid = shared.files.uids[number]
        with shared.ours("e") as cod:
            new = rewrite(cod.get_instance(uid).dicom_uri, PatientName=f"Edited^{number}", ImageComments="x" * 700)
        expected[uid] = new
        check_both_read(shared, expected)
    assert shared.theirs("headers") == {uid: uid for uid in expected}


def test_what_they_wrote_we_edit(shared: Shared) -> None:
    """Of a series of theirs: the edit shows, their field and their other instances stay, and they go on with it."""
    shared.they_write("w", 0, 1, 2, fields={"site": "north"})
    uid = shared.files.uids[1]
    with shared.ours("e") as cod:
        new = rewrite(cod.get_instance(uid).dicom_uri, PatientName="Edited^Name")
        cod.seal()
    expected = {shared.files.uids[index]: shared.files.bytes(index) for index in (0, 2)} | {uid: new}
    check_both_read(shared, expected)
    assert shared.theirs("field", name="site") == "north"
    found = shared.they_write("a", 1, 3)
    assert (found["conflict"], found["new"]) == (1, 1)
    expected[shared.files.uids[3]] = shared.files.bytes(3)
    check_both_read(shared, expected)


def test_what_they_edited_we_edit_and_they_edit_again(shared: Shared) -> None:
    """Turn by turn on one series; what either has changed, both read."""
    shared.they_write("w", 0, 1, 2)
    first, second = shared.files.uids[:2]
    shared.theirs("edit", uid=first, old="Phantom", new="PHANTOM")
    expected = all_bytes(shared)
    assert b"PHANTOM" in expected[first]
    with shared.ours("e") as cod:
        for uid, data in expected.items():
            assert Path(cod.get_instance(uid).dicom_uri).read_bytes() == data
        expected[second] = rewrite(cod.get_instance(second).dicom_uri, PatientName="Edited^Name")
        cod.seal()
    check_both_read(shared, expected)
    shared.theirs("edit", uid=second, old="Edited", new="EDITED")
    after = all_bytes(shared)
    assert b"EDITED^Name" in after[second]
    assert b"PHANTOM" in after[first]
    assert shared.theirs("check")
    with shared.ours("a") as cod:
        assert len(cod.append(shared.files.instances(3)).new) == 1
    check_both_read(shared, after | {shared.files.uids[3]: shared.files.bytes(3)})


def test_hashed_series(shared: Shared) -> None:
    """Names stay hashed, and files keep their own UIDs."""
    options = {"hashed_uids": True}
    uids = shared.files.series.uids
    shared.key = type(shared.key)(hashed(uids.study), hashed(uids.series))
    assert shared.they_write("w", 0, 1, options=options)["new"] == 2
    name = hashed(shared.files.uids[0])
    with shared.ours("e", **options) as cod:
        new = rewrite(cod.get_instance(name).dicom_uri, PatientName="Edited^Name")
    expected = {name: new, hashed(shared.files.uids[1]): shared.files.bytes(1)}
    check_both_read(shared, expected, options=options)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file(shared: Shared, name: str) -> None:
    """Encapsulated, multi-frame, without pixel data: edited by us, the same bytes for them as for us."""
    dataset = oracle.read(real_file(name).read())
    shared.key = type(shared.key)(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
    uid = str(dataset.SOPInstanceUID)
    with shared.ours("w", legacy_index=True) as cod:
        assert len(cod.append([Instance(real_file(name).path)]).new) == 1
    with shared.ours("e") as cod:
        new = rewrite(cod.get_instance(uid).dicom_uri, PatientComments="longer than before " * 9)
    check_both_read(shared, {uid: new})


def test_a_thumbnail_of_theirs(shared: Shared) -> None:
    """Their thumbnail is drawn anew when we change an instance that it shows, and we find it."""
    shared.they_write("w", 0, thumbnail=True)
    with shared.ours("e") as cod:
        rewrite(cod.get_instance(shared.files.uids[0]).dicom_uri, PatientName="Edited^Name")
    with shared.ours() as cod:
        assert cod.get_thumbnail(generate_if_missing=False).shape == (128, 128, 3)
        pictures = [info.name for info in cod.store.list() if info.name.endswith((".mp4", ".jpg"))]
        assert len(pictures) == 1
    assert shared.theirs("check")


def test_an_edit_excludes_the_other(shared: Shared) -> None:
    """While one edits, the other is kept out; an edit that fails leaves the lock free for them."""
    shared.they_write("w", 0, 1)
    shared.theirs("hold", mode="e")
    with pytest.raises(LockAcquisitionError), shared.ours("e"):
        pass
    shared.published.do("let_go")
    with pytest.raises(EditSetChangedError), shared.ours("e") as cod:
        with pytest.raises(PublishedError, match="LockAcquisitionError"):
            shared.they_write("a", 2)
        rewrite(cod.get_instance(shared.files.uids[0]).dicom_uri, SOPInstanceUID="1.2.3.4")
    assert shared.they_write("a", 2)["new"] == 1
