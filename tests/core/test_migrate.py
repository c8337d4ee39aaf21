"""Series of older writers in the present format: what changes, what does not, and what is left alone."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.format.dicom_json import unpack_header
from cloud_optimized_dicom.format.metadata.document import SeriesDocument
from cloud_optimized_dicom.format.metadata.record import record_version
from cloud_optimized_dicom.series.migrate import migrate_series
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.counting_store import CountingStore
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, SimulatedCrash, StoreFault, StoreFaultKind
from tests.core.test_golden_stores import GOLDEN, MANIFEST
from tests.core.test_repair import DEEP, commits_of, files_of, older_store, state_of
from tests.core.test_verify import LaterStore, edit_metadata, kinds, write_over
from tests.core.tiny import KEY, open_tiny, tiny_store, uid

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

MIGRATED = sorted({entry["store"] for entry in MANIFEST["series"]} - {"v2-hanging-lock", "v2-error-log"})


def in_memory(name: str) -> MemoryStore:
    """Return a copy of a golden store."""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    for path in (path for path in (GOLDEN / name).rglob("*") if path.is_file()):
        payload = BytesPayload(path.read_bytes())
        store.create(str(path.relative_to(GOLDEN / name)), payload, write_id=new_write_id())
    return store


def document_of(store: ObjectStore, key: SeriesKey) -> dict[str, Any]:
    """Return the document of a series."""
    with open_tiny(store, key=key) as cod:
        return cod.get_metadata()


@pytest.mark.parametrize("name", MIGRATED)
def test_every_older_store_comes_out_clean(name: str, tmp_path: Path) -> None:
    """One commit gives records of version 2, full tables and checksums, no end blocks; every instance is as before."""
    store, key = older_store(tmp_path, name)
    files, before = files_of(store, key), document_of(store, key)
    dry = migrate_series(store, key, dry_run=True)
    assert commits_of(store, key) == []
    result = migrate_series(store, key)
    assert result == dry
    assert result.reason is None
    assert bool(result.actions) is bool(files)
    assert kinds(verify_series(store, key, DEEP), damage=True) == []
    assert set(kinds(verify_series(store, key), damage=False)) <= {"no-instances"}
    assert files_of(store, key) == files
    after = document_of(store, key)
    assert {name: value for name, value in after.items() if name != "cod"} == {
        name: value for name, value in before.items() if name != "cod"
    }
    assert list(after["cod"]["instances"]) == list(before["cod"]["instances"])
    assert len(commits_of(store, key)) == bool(files)
    if files:
        check_present(store, key, after)


def check_present(store: ObjectStore, key: SeriesKey, document: dict[str, Any]) -> None:
    """Check that a document is as we write it, and that its tar ends with its last member."""
    state = document["cod"]["tar"]
    assert (state["generation"], state["size"]) == (store.stat(key.tar).version, store.stat(key.tar).size)
    assert state["size"] == SeriesDocument("", document).members_end
    for record in document["cod"]["instances"].values():
        assert record["version"] == "2.0"
        assert isinstance(record["metadata"], str)
        assert {"instance_uid", "series_uid", "study_uid", "has_pixeldata"} <= record.keys()
        assert not record["has_pixeldata"] or record["offset_tables"]["FrameCrc32c"]


@pytest.mark.parametrize("name", MIGRATED)
def test_a_second_migration_does_nothing(name: str, tmp_path: Path) -> None:
    """What is migrated is known by its document and the state of its tar: nothing is locked, read or written."""
    inner, key = older_store(tmp_path, name)
    migrate_series(inner, key)
    store, before = CountingStore(inner), state_of(inner)
    assert migrate_series(store, key).actions == ()
    assert state_of(inner) == before
    assert store.operations == ("read_object", "stat")


def test_a_record_of_version_1_is_what_an_ingest_would_write(tmp_path: Path) -> None:
    """Header and tables are those of the file; what nobody knows of stays in its place."""
    store, key = older_store(tmp_path, "v1-series")

    def edit(document: dict[str, Any]) -> None:
        document["site"] = {"a": 1}
        document["cod"]["more"] = [1]
        for record in document["cod"]["instances"].values():
            assert record_version(record) == "1.0"
            record["unknown"] = "kept"

    edit_metadata(store, edit, key)
    first = migrate_series(store, key).actions[0]
    assert first == "3 records converted to version 2.0"
    assert verify_series(store, key, DEEP).ok
    document = document_of(store, key)
    assert document["site"] == {"a": 1}
    assert document["cod"]["more"] == [1]
    for record in document["cod"]["instances"].values():
        assert record["unknown"] == "kept"
    fresh = Datastore(tmp_path / "fresh")
    with open_tiny(store, key=key) as cod:
        paths = cod.extract_locally(tmp_path / "files")
        headers = {name: one.metadata for name, one in cod.get_instances(strict_sorting=False).items()}
    assert paths
    fresh.ingest([tmp_path / "files"])
    with fresh.open(key.study_uid, key.series_uid) as cod:
        for name, one in cod.get_instances(strict_sorting=False).items():
            ours = {tag: value for tag, value in one.metadata.items() if "BulkDataURI" not in value}
            assert ours == {tag: value for tag, value in headers[name].items() if "BulkDataURI" not in value}
            assert "00020010" in headers[name]


def test_a_file_that_cannot_be_read_keeps_what_is_on_record(tmp_path: Path) -> None:
    """Of bytes that we do not take for an instance, the record of version 1 is all there is: packed, else as it was."""
    store, key = older_store(tmp_path, "v1-series")
    tar, lost = bytearray(store.read_object(key.tar).data), next(iter(files_of(store, key)))

    def edit(document: dict[str, Any]) -> None:
        record = document["cod"]["instances"][lost]
        start, stop = record["headers"]["start_byte"], record["headers"]["end_byte"]
        tar[start:stop] = bytes(stop - start)
        record["crc32c"] = encode(crc32c(tar[start:stop]))

    edit_metadata(store, edit, key)
    write_over(store, key.tar, bytes(tar))
    before = document_of(store, key)["cod"]["instances"][lost]
    result = migrate_series(store, key)
    assert result.reason is None
    assert result.actions[0] == "3 records converted to version 2.0"
    after = document_of(store, key)["cod"]["instances"][lost]
    assert unpack_header(after.pop("metadata")) == before.pop("metadata")
    named = {"instance_uid": lost, "series_uid": key.series_uid, "study_uid": key.study_uid, "has_pixeldata": True}
    assert after == named | before | {"version": "2.0"}
    assert migrate_series(store, key).actions == ()


def test_strict_tools_list_the_whole_tar(tmp_path: Path) -> None:
    """After a migration the tar is a sequence of members, in the places that they had."""
    store, key = older_store(tmp_path, "v2-series")
    with tarfile.open(tmp_path / "v2-series" / key.tar) as tar:
        before = [(member.name, member.offset_data, member.size) for member in tar]
    migrate_series(store, key)
    with tarfile.open(tmp_path / "v2-series" / key.tar) as tar:
        assert [(member.name, member.offset_data, member.size) for member in tar] == before


def test_what_is_damaged_is_left_alone(tmp_path: Path) -> None:
    """A flipped byte makes a migration say so and change nothing, with and without --dry-run."""
    store, key = older_store(tmp_path, "v2-series")
    data = bytearray(store.read_object(key.tar).data)
    data[2000] ^= 1
    write_over(store, key.tar, bytes(data))
    before = state_of(store)
    for dry_run in (True, False):
        result = migrate_series(store, key, dry_run=dry_run)
        assert result.actions == ()
        assert "HashMismatchError" in (result.reason or "")
    assert state_of(store) == before


def test_orphans_behind_the_last_record_stay(tmp_path: Path) -> None:
    """Members that no record names are kept by the trimmed tar: a repair may record them later."""
    store, key = older_store(tmp_path, "v2-series")
    files = files_of(store, key)
    last = max(files, key=lambda name: document_of(store, key)["cod"]["instances"][name]["headers"]["start_byte"])
    edit_metadata(store, lambda document: document["cod"]["instances"].pop(last), key)
    assert migrate_series(store, key).reason is None
    assert kinds(verify_series(store, key), damage=False) == ["orphan-member"]
    assert [result.reason for result in Datastore(store).repair([key])] == [None]
    assert files_of(store, key) == files


def test_quarantine_and_an_older_lock_are_respected(tmp_path: Path) -> None:
    """A quarantined series and one with an older writer's lock stay as they are, and are named."""
    store, key = older_store(tmp_path, "v2-error-log")
    for dry_run in (True, False):
        assert "ErrorLogExistsError" in (migrate_series(store, key, dry_run=dry_run).reason or "")
    store, key = older_store(tmp_path, "v2-hanging-lock")
    assert migrate_series(store, key).busy


def test_our_own_series_need_nothing(tmp_path: Path) -> None:
    """A series that this package wrote costs one read and one state."""
    store = CountingStore(tiny_store(tmp_path, 0, 1, 2))
    assert migrate_series(store, KEY).actions == ()
    assert store.operations == ("read_object", "stat")
    with open_tiny(store) as cod:
        assert list(cod.get_instances(strict_sorting=False)) == [uid(0), uid(1), uid(2)]


def test_a_seal_is_kept(tmp_path: Path) -> None:
    """End-of-archive blocks that a caller asked for are no older writer's: they stay."""
    store = tiny_store(tmp_path, 0, 1)
    transaction = Transaction.begin(store, KEY, TransactionOptions())
    transaction.seal()
    transaction.commit()
    before = state_of(store)
    assert store.read_object(KEY.tar).data.endswith(bytes(1024))
    assert migrate_series(store, KEY).actions == ()
    assert state_of(store) == before


def test_a_death_at_any_operation_is_made_up_for() -> None:
    """Killed before or after any operation, a migration leaves the old or the new series, and the next one finishes."""
    for kind in (StoreFaultKind.CRASH_BEFORE, StoreFaultKind.CRASH_AFTER):
        for skip in range(100):
            store = in_memory("v1-series")
            (key,) = Datastore(store).series()
            files = files_of(store, key)
            with contextlib.suppress(SimulatedCrash):
                migrate_series(FaultyStore(store, [StoreFault(kind, skip=skip)]), key)
                break
            assert files_of(store, key) == files
            assert migrate_series(LaterStore(store), key).reason is None
            list(Datastore(LaterStore(store)).recover([key]))
            assert verify_series(store, key, DEEP).ok
            assert files_of(store, key) == files
            assert migrate_series(store, key).actions == ()
        assert skip > 10


def test_the_command_tells_and_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cod migrate --dry-run` says what `cod migrate` then does; run again there is nothing left to do."""
    archive = tmp_path / "archive"
    for name in ("v1-series", "v2-rtdose", "v2-error-log"):
        shutil.copytree(GOLDEN / name, archive, dirs_exist_ok=True)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        return main(["migrate", str(archive), *arguments]), capsys.readouterr().out

    code, out = run("--dry-run")
    assert code == 1
    assert "3 records converted to version 2.0" in out
    assert "1 frame table rebuilt" in out
    assert out.endswith("3 series: 2 to migrate, 0 as they should be, 1 left alone\n")
    code, out = run()
    assert code == 1
    assert out.endswith("3 series: 2 migrated, 0 as they should be, 1 left alone\n")
    assert run()[1].endswith("3 series: 0 migrated, 2 as they should be, 1 left alone\n")
