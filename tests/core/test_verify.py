"""What a verification says of a series: damage is damage, and what is merely under way is none."""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.errors import CODObjectNotFoundError, TarValidationError, TransientStorageError
from cloud_optimized_dicom.format.dicom_json import pack_header, unpack_header_bytes
from cloud_optimized_dicom.format.json_stream import dump_gzip
from cloud_optimized_dicom.format.metadata.document import parse_json_object
from cloud_optimized_dicom.format.tar import END_OF_ARCHIVE, member_header
from cloud_optimized_dicom.series.maintenance import recover_series
from cloud_optimized_dicom.series.tar_check import VerifyOptions
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.storage.base import DEFAULT_ATTRIBUTES, new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.counting_store import CountingStore
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.test_golden_stores import GOLDEN, MANIFEST
from tests.core.tiny import KEY, Flip, FlippingStore, append_tiny, open_tiny, tiny_store, uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud_optimized_dicom.series.findings import VerifyReport
    from cloud_optimized_dicom.storage.base import ObjectStore, ReadResult
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")


def kinds(report: VerifyReport, *, damage: bool) -> list[str]:
    """Return the kinds of the findings that are damage, or of those that are not."""
    return sorted({finding.kind for finding in report.findings if finding.damage is damage})


def edit_metadata(store: ObjectStore, edit: Callable[[dict[str, Any]], object], key: SeriesKey = KEY) -> None:
    """Change the JSON of a metadata.json behind everybody's back."""
    document = parse_json_object("x", store.read_object(key.metadata).data)
    edit(document)
    write_over(store, key.metadata, dump_gzip(document, level=1))


def member_start(store: ObjectStore, index: int) -> int:
    """Return where an instance's member begins in the tar."""
    with open_tiny(store) as cod:
        record = cod.get_instance(uid(index)).record
        assert record is not None
        return record.start - 512


def write_over(store: ObjectStore, name: str, data: bytes) -> None:
    """Write an object, as somebody outside the protocol would."""
    present = store.find(name)
    if present is None:
        store.create(name, BytesPayload(data), write_id=new_write_id(), attributes=DEFAULT_ATTRIBUTES)
    else:
        store.replace(name, BytesPayload(data), version=present.version, write_id=new_write_id())


def tar_of(store: ObjectStore) -> bytes:
    """Return the tar."""
    return b"".join(store.iter_chunks(KEY.tar))


class PowerCut(BaseException):
    """What ends a writer in the middle."""


class DyingStore(InterceptingStore):
    """Another store, through which only so many operations go; from then on whoever uses it is as good as dead."""

    def __init__(self, inner: ObjectStore, lives: int) -> None:
        super().__init__(inner)
        self.lives = lives

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Carry out an operation, while that lasts."""
        del operation
        if self.lives <= 0:
            raise PowerCut
        self.lives -= 1
        return act()


class LaterStore(InterceptingStore):
    """Another store an hour later, by its own clock."""

    def read_object(self, name: str) -> ReadResult:
        """Read a whole object an hour later."""
        found = super().read_object(name)
        return found._replace(served_at=found.served_at + timedelta(hours=1))


class BusyStore(InterceptingStore):
    """Another store on which somebody else does something right before one of our operations, once or ever again."""

    def __init__(self, inner: ObjectStore, before: tuple[str, str], act: Callable[[], object], times: int = 1) -> None:
        super().__init__(inner)
        self._before, self._act, self._times = before, act, times

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Let the other one go first."""
        if (operation.kind, operation.name) == self._before and self._times:
            self._times -= 1
            self._act()
        return act()


# -- what is under way


def create(store: ObjectStore, folder: Path) -> None:
    """Store a series that is not there."""
    append_tiny(store, folder, 3)


def append(store: ObjectStore, folder: Path) -> None:
    """Add an instance."""
    append_tiny(store, folder, 3)


def overwrite(store: ObjectStore, folder: Path) -> None:
    """Replace everything."""
    append_tiny(store, folder, 3, mode="w")


def remove(store: ObjectStore, folder: Path) -> None:
    """Take the first instance out, so that the others move."""
    with open_tiny(store, "a") as cod:
        cod.remove([uid(0)])


def set_field(store: ObjectStore, folder: Path) -> None:
    """Change a field, and no byte of the tar."""
    with open_tiny(store, "a") as cod:
        cod.add_metadata_field("field", 1)


@pytest.mark.parametrize("change", [create, append, overwrite, remove, set_field])
def test_what_a_dead_writer_left_is_no_damage(change: Callable[[ObjectStore, Path], None], tmp_path: Path) -> None:
    """However far a writer came before it died, a verification names its lock and its leftovers, and no damage."""
    before = () if change is create else (0, 1, 2)
    lives = 0
    while True:
        store = tiny_store(tmp_path, *before) if before else MemoryStore(f"memory://{uuid.uuid4().hex}")
        try:
            change(DyingStore(store, lives), tmp_path)
        except PowerCut:
            pass
        else:
            break
        if any(store.list(KEY.folder)):
            report = verify_series(store, KEY)
            assert kinds(report, damage=True) == [], f"after {lives} operations"
            assert set(kinds(report, damage=False)) <= {"lock-present", "pending-leftover", "no-instances"}
            assert verify_series(LaterStore(store), KEY, VerifyOptions(deep=True)).damaged is False
        lives += 1
    assert lives > 5
    assert verify_series(store, KEY).ok


def test_a_decided_commit_counts_as_done(tmp_path: Path) -> None:
    """Between the two writes of a commit its new instances are verified, and none of them is an orphan."""
    for lives in range(20):
        store = tiny_store(tmp_path, 0)
        size = store.stat(KEY.tar).size
        with pytest.raises(PowerCut):
            append_tiny(DyingStore(store, lives), tmp_path, 1)
        if store.stat(KEY.tar).size > size:
            break
    report = verify_series(store, KEY)
    assert (report.instances, report.damaged) == (2, False)
    assert kinds(report, damage=False) == ["lock-present", "pending-leftover"]
    assert recover_series(LaterStore(store), KEY).outcome == "finished"
    assert verify_series(store, KEY).ok


@pytest.mark.parametrize("before", [("stat", KEY.tar), ("read", KEY.tar), ("read_object", KEY.metadata)])
@pytest.mark.parametrize("change", [append, overwrite, remove])
def test_a_commit_meanwhile_is_no_damage(
    change: Callable[[ObjectStore, Path], None], before: tuple[str, str], tmp_path: Path
) -> None:
    """A series that is changed while it is being verified is verified as it is then."""
    store = tiny_store(tmp_path, 0, 1, 2)
    report = verify_series(BusyStore(store, before, lambda: change(store, tmp_path)), KEY)
    assert report.ok
    with open_tiny(store) as cod:
        assert report.instances == len(cod.get_instances())


def test_a_series_that_never_rests_is_not_called_damaged(tmp_path: Path) -> None:
    """If every attempt finds the tar replaced under it, the verification fails for now and says so."""
    store = tiny_store(tmp_path, 0)

    def rewrite() -> None:
        append_tiny(store, tmp_path, 0, mode="w")

    with pytest.raises(TransientStorageError, match="kept changing"):
        verify_series(BusyStore(store, ("read", KEY.tar), rewrite, times=1000), KEY)


# -- locks


def lock_detail(store: ObjectStore) -> str:
    """Return what is said of a lock; nothing else is to be said."""
    (finding,) = verify_series(store, KEY).findings
    assert (finding.kind, finding.subject, finding.damage) == ("lock-present", KEY.lock, False)
    return finding.detail


def test_every_state_of_a_lock_is_told(tmp_path: Path) -> None:
    """Live, expired, holding a decided commit, an older writer's, damaged: each is odd, and said in its own words."""
    store = tiny_store(tmp_path, 0)
    with open_tiny(store, "a"):
        assert lock_detail(store).endswith("a writer is at work")
        assert "its lease has run out" in lock_detail(LaterStore(store))
    with pytest.raises(PowerCut):
        dying = DyingStore(store, 1000)
        with open_tiny(dying, "a") as cod:
            cod.add_metadata_field("x", 1)
            dying.lives = 1  # the decision, and nothing behind it
    assert ", and finishes commit " in lock_detail(store)
    assert "the next writer takes over, and finishes commit " in lock_detail(LaterStore(store))
    assert recover_series(LaterStore(store), KEY).outcome == "finished"
    write_over(store, KEY.lock, b"")
    assert lock_detail(store).startswith("an older writer's lock")
    write_over(store, KEY.lock, dump_gzip({"lock": {"owner": 1}}, level=1))
    assert lock_detail(store) == "the lock cannot be read: MetadataError"


def test_a_series_that_is_only_begun_is_not_damaged() -> None:
    """The first writer's lock, before anything is stored, is no sign that anything was lost."""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    with open_tiny(store, "a"):
        assert "a writer is at work" in lock_detail(store)
    with pytest.raises(CODObjectNotFoundError), open_tiny(store):
        pass
    assert kinds(verify_series(store, KEY), damage=True) == ["metadata-missing"]


def test_leftovers_and_quarantine_are_told(tmp_path: Path) -> None:
    """Pending segments without a lock, and an error.log, are odd."""
    store = tiny_store(tmp_path, 0)
    write_over(store, KEY.segment("dead", 0), b"bytes")
    write_over(store, KEY.error_log, b"look at this")
    assert kinds(verify_series(store, KEY), damage=False) == ["error-log", "pending-leftover"]
    assert not verify_series(store, KEY).damaged
    assert recover_series(store, KEY).outcome == "swept"
    assert kinds(verify_series(store, KEY), damage=False) == ["error-log"]


# -- the tar


def test_end_of_archive_blocks_between_members_are_damage(tmp_path: Path) -> None:
    """Zero blocks in the middle hide what follows from other tools; behind the last member they belong."""
    store = tiny_store(tmp_path, 0, 2)
    data = tar_of(store)
    start = member_start(store, 2)

    def shift(document: dict[str, Any]) -> None:
        document["cod"]["instances"][uid(2)]["headers"]["start_byte"] += len(END_OF_ARCHIVE)
        document["cod"].pop("tar")

    write_over(store, KEY.tar, data[:start] + END_OF_ARCHIVE + data[start:])
    edit_metadata(store, shift)
    report = verify_series(store, KEY)
    assert kinds(report, damage=True) == ["end-blocks-inside"]
    assert report.instances == 2
    write_over(store, KEY.tar, data + END_OF_ARCHIVE)
    edit_metadata(store, lambda document: document["cod"]["instances"].pop(uid(2)))
    assert kinds(verify_series(store, KEY), damage=True) == []
    assert kinds(verify_series(store, KEY), damage=False) == ["orphan-member"]


def test_a_member_of_a_negative_size_is_none(tmp_path: Path) -> None:
    """A header that would send whoever walks the tar backwards is no member's, and the walk ends."""
    store = tiny_store(tmp_path, 0)
    header = bytearray(member_header("instances/1.2.dcm", 0))
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode("ascii")
    assert tarfile.TarInfo.frombuf(bytes(header), "utf-8", "strict").size == -1024
    write_over(store, KEY.tar, tar_of(store) + bytes(header))
    edit_metadata(store, lambda document: document["cod"].pop("tar"))
    assert verify_series(store, KEY).ok
    with pytest.raises(TarValidationError, match="neither members nor zeros"):
        append_tiny(store, tmp_path, 1)


def test_a_member_that_no_record_names_is_odd(tmp_path: Path) -> None:
    """Orphans are told wherever they lie, with their place and size."""
    for index in range(3):
        store = tiny_store(tmp_path, 0, 1, 2)
        edit_metadata(store, lambda document, index=index: document["cod"]["instances"].pop(uid(index)))
        (finding,) = verify_series(store, KEY).findings
        assert (finding.kind, finding.damage) == ("orphan-member", False)
        assert f"{(tmp_path / f'{index}.dcm').stat().st_size} bytes at " in finding.detail


def test_what_is_missing_or_cut_off_is_damage(tmp_path: Path) -> None:
    """No metadata, no tar, a tar that ends too early, a metadata.json that is none: each has its kind."""
    store = tiny_store(tmp_path, 0, 2)
    data, metadata = tar_of(store), store.read_object(KEY.metadata).data
    write_over(store, KEY.tar, data[: member_start(store, 2) + 700])
    report = verify_series(store, KEY)
    assert kinds(report, damage=True) == ["tar-changed", "tar-too-short"]
    assert {finding.subject for finding in report.findings} == {uid(2), KEY.tar}
    store.delete(KEY.tar)
    assert kinds(verify_series(store, KEY), damage=True) == ["tar-missing"]
    write_over(store, KEY.tar, data)
    write_over(store, KEY.metadata, metadata[:-20])
    assert kinds(verify_series(store, KEY), damage=True) == ["metadata-damaged"]
    store.delete(KEY.metadata)
    assert kinds(verify_series(store, KEY), damage=True) == ["metadata-missing"]
    store.delete(KEY.tar)
    write_over(store, KEY.index, b"an older writer's index")
    assert kinds(verify_series(store, KEY), damage=True) == ["metadata-missing"]


def test_a_store_is_verified_to_its_last_tar(tmp_path: Path) -> None:
    """A series whose metadata.json is lost, and with it its folder, is found in the store by its tar."""
    store = tiny_store(tmp_path, 0)
    others = [SeriesKey(KEY.study_uid, f"{KEY.series_uid}{end}") for end in (".1", "1")]
    for key in others:
        write_over(store, key.tar, tar_of(store))
        write_over(store, key.metadata, b"{}")
    store.delete(KEY.metadata)
    datastore = Datastore(store)
    assert set(datastore.series()) == set(others)
    found = list(datastore.series(incomplete=True))
    assert (len(found), set(found)) == (3, {KEY, *others})
    assert set(datastore.series(KEY.study_uid, incomplete=True)) == set(found)
    reports = {report.series_uri: report for report in datastore.verify()}
    assert kinds(reports[store.url_of(KEY.folder)], damage=True) == ["metadata-missing"]


def test_a_record_that_points_elsewhere_is_damage(tmp_path: Path) -> None:
    """A wrong place, size, checksum or frame of one record is named, and the other instances are whole."""
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "member-mismatch": lambda record: record["headers"].update(start_byte=record["headers"]["start_byte"] + 512),
        "checksum-mismatch": lambda record: record.update(crc32c=encode(1)),
        "frame-table-damaged": lambda record: record["offset_tables"]["CustomOffsetTable"].reverse(),
        "metadata-damaged": lambda record: record.update(size=None),
    }
    for kind, change in changes.items():
        store = tiny_store(tmp_path, 0, 2)
        edit_metadata(store, lambda document, change=change: change(document["cod"]["instances"][uid(0)]))
        report = verify_series(store, KEY)
        assert kind in {finding.kind for finding in report.findings if finding.damage and finding.subject == uid(0)}
        assert uid(2) not in {finding.subject for finding in report.findings}


# -- deep


def altered_header(record: dict[str, Any]) -> None:
    """Change the header on record."""
    header = unpack_header_bytes(record["metadata"])
    assert b"SYNTHETIC-1" in header
    record["metadata"] = pack_header(header.replace(b"SYNTHETIC-1", b"SYNTHETIC-2"))


DEEP = {
    "header": altered_header,
    "no header": lambda record: record.update(metadata=""),
    "no zstd": lambda record: record.update(metadata=base64.b64encode(b"x").decode("ascii")),
    "series": lambda record: record.update(series_uid="1.2.3"),
    "instance": lambda record: record.update(instance_uid="1.2.3"),
    "pixel data": lambda record: record.update(has_pixeldata=not record["has_pixeldata"]),
    "element's place": lambda record: record["offset_tables"].update(PixelDataOffset=1),
    "fragments": lambda record: record["offset_tables"].update(FragmentCounts=[1, 1]),
    "no table": lambda record: record.update(offset_tables={}),
}


@pytest.mark.parametrize("what", DEEP)
def test_a_record_that_is_not_its_files_is_found_by_a_deep_look(what: str, tmp_path: Path) -> None:
    """What no checksum covers, the record's header, UIDs and table, is compared with the file by a deep look alone."""
    store = tiny_store(tmp_path, 0, 1)
    deep = VerifyOptions(deep=True)
    assert verify_series(store, KEY, deep).ok
    edit_metadata(store, lambda document: DEEP[what](document["cod"]["instances"][uid(1)]))
    assert verify_series(store, KEY).ok
    report = verify_series(store, KEY, deep)
    assert {(finding.kind, finding.subject, finding.damage) for finding in report.findings} == {
        ("content-mismatch", uid(1), True)
    }


def test_a_deep_look_finds_altered_headers_without_pixel_data(tmp_path: Path) -> None:
    """A header of an instance without pixel data, which might be an older writer's, is compared all the same."""
    store = tiny_store(tmp_path, 2)
    edit_metadata(store, lambda document: altered_header(document["cod"]["instances"][uid(2)]))
    assert kinds(verify_series(store, KEY, VerifyOptions(deep=True)), damage=True) == ["content-mismatch"]


@pytest.mark.parametrize("name", sorted({entry["store"] for entry in MANIFEST["series"]}))
def test_a_deep_look_finds_nothing_wrong_with_older_writers(name: str) -> None:
    """What older writers put into headers in their own way is no damage."""
    reports = list(Datastore(GOLDEN / name).verify(deep=True))
    assert reports
    assert not any(report.damaged for report in reports)


def test_a_deep_look_finds_altered_headers_of_older_writers(tmp_path: Path) -> None:
    """A value that is not the file's is found in an older header, too."""
    older = Datastore(shutil.copytree(GOLDEN / "v2-series", tmp_path / "older"))
    (key,) = older.series()

    def alter(document: dict[str, Any]) -> None:
        record = next(iter(document["cod"]["instances"].values()))
        header = json.loads(unpack_header_bytes(record["metadata"]))
        header["00080060"]["Value"] = ["XX"]
        record["metadata"] = pack_header(json.dumps(header).encode("utf-8"))

    edit_metadata(older.store, alter, key)
    assert kinds(next(older.verify()), damage=True) == []
    assert kinds(next(older.verify(deep=True)), damage=True) == ["content-mismatch"]


# -- samples


def damaged_subjects(store: ObjectStore, sample: int | None) -> Iterator[tuple[str, bool]]:
    """Damage each instance in turn; yield its UID and whether it was found."""
    with open_tiny(store) as cod:
        places = {name: instance.record for name, instance in cod.get_instances().items()}
    for name, record in places.items():
        assert record is not None
        rotten = FlippingStore(store, Flip(KEY.tar, record.start + 200, 1))
        yield name, verify_series(rotten, KEY, VerifyOptions(sample=sample)).damaged


def test_a_sample_looks_at_so_many_instances(tmp_path: Path) -> None:
    """A sample is always the same, finds what is wrong with its own instances, and reads no other."""
    store = tiny_store(tmp_path, *range(6))
    found = dict(damaged_subjects(store, 2))
    assert sum(found.values()) == 2
    assert dict(damaged_subjects(store, 2)) == found
    assert all(dict(damaged_subjects(store, 6)).values())
    report = verify_series(store, KEY, VerifyOptions(sample=2))
    assert report.ok
    assert report.instances == 6
    assert 0 < report.bytes_checked < verify_series(store, KEY).bytes_checked / 2


def test_a_sample_sees_a_tar_that_was_replaced(tmp_path: Path) -> None:
    """Even where its own instances are whole, a sample tells that the tar is another one."""
    store = tiny_store(tmp_path, *range(6))
    data = tar_of(store)
    write_over(store, KEY.tar, data + bytes(512))
    assert kinds(verify_series(store, KEY, VerifyOptions(sample=1)), damage=True) == ["tar-changed"]
    write_over(store, KEY.tar, data)
    assert verify_series(store, KEY, VerifyOptions(sample=1)).ok


def test_a_verification_reads_the_tar_once(tmp_path: Path) -> None:
    """A plain look costs a list, the metadata, a look at the tar and one range of it."""
    store = CountingStore(tiny_store(tmp_path, 0, 1, 2))
    assert verify_series(store, KEY).ok
    assert store.operations == ("list", "read_object", "stat", "read")
    assert store.bytes_down == store.stat(KEY.tar).size + store.stat(KEY.metadata).size
