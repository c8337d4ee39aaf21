"""Series with records of version 1, for readers that know no other: made on request, kept so, and made undone."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.errors import InstanceValidationError, MetadataError
from cloud_optimized_dicom.format.dicom_json import pack_header, unpack_header
from cloud_optimized_dicom.format.json_stream import dump_gzip
from cloud_optimized_dicom.format.metadata.record import parse_record
from cloud_optimized_dicom.format.metadata.versions import as_version, must_convert
from cloud_optimized_dicom.series.migrate import migrate_series
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.testing.counting_store import CountingStore
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, SimulatedCrash, StoreFault, StoreFaultKind
from tests.core.test_golden_stores import GOLDEN
from tests.core.test_migrate import MIGRATED, document_of, in_memory
from tests.core.test_repair import DEEP, commits_of, files_of, older_store, state_of
from tests.core.test_verify import LaterStore, edit_metadata
from tests.core.tiny import KEY, append_tiny, open_tiny, tiny_store, uid
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

ONLY_V2 = {"instance_uid", "series_uid", "study_uid", "has_pixeldata"}
PLACES = {"uri", "modified_datetime"}
"""What tells one golden store from another that holds the same instances."""


def golden_records(name: str) -> list[Mapping[str, Any]]:
    """Return the records of a golden store, without their places."""
    (path,) = (GOLDEN / name).rglob("metadata.json")
    records = json.loads(gzip.decompress(path.read_bytes()))["cod"]["instances"].values()
    return [{key: value for key, value in record.items() if key not in PLACES} for record in records]


def records_of(store: ObjectStore, key: SeriesKey = KEY) -> dict[str, Any]:
    """Return the records of a series as their JSON."""
    return dict(document_of(store, key)["cod"]["instances"])


def unpacked(store: ObjectStore, key: SeriesKey) -> dict[str, Any]:
    """Return the records of a series with their headers unpacked: another library's compression gives other bytes."""
    records = records_of(store, key)
    return {name: record | {"metadata": unpack_header(record["metadata"])} for name, record in records.items()}


def check_version_1(store: ObjectStore, key: SeriesKey = KEY) -> None:
    """Check that every record is one of version 1 as the format has it, and that nothing is wrong."""
    document = document_of(store, key)
    assert document["cod"]["record_version"] == "1.0"
    for name, record in document["cod"]["instances"].items():
        assert record["version"] == "1.0"
        assert not ONLY_V2 & record.keys()
        assert isinstance(record["metadata"], dict)
        assert record["metadata"]["00080018"]["Value"] == [name]
    assert verify_series(store, key, DEEP).ok


def test_a_record_is_as_the_published_library_wrote_it() -> None:
    """Golden records of version 2 become those of version 1 of the same instances, key by key, and back."""
    ours = [dict(as_version(record, "1.0")) for record in golden_records("v2-series")]
    assert ours == golden_records("v1-series")
    assert [list(record) for record in ours] == [list(record) for record in golden_records("v1-series")]
    for record, expected in zip(golden_records("v1-series"), golden_records("v2-series"), strict=True):
        packed = dict(as_version(record, "2.0"))
        assert list(packed) == list(expected)
        assert unpack_header(packed.pop("metadata")) == unpack_header(expected["metadata"])
        assert packed == {key: value for key, value in expected.items() if key != "metadata"}


def test_there_and_back_nothing_has_changed(tmp_path: Path) -> None:
    """Version 1 and then version 2 again is the same document but for its log, byte for byte, and the same tar."""
    store = tiny_store(tmp_path, 0, 1, 2)
    with open_tiny(store, "a") as cod:
        cod.add_metadata_field("site", {"b": 1, "a": [None]})
    before, tar = document_of(store, KEY), state_of(store)[KEY.tar]
    assert migrate_series(store, KEY, to="v1").actions == ("3 records converted to version 1.0, as later ones will be",)
    check_version_1(store)
    assert migrate_series(store, KEY, to="v2").actions == ("3 records converted to version 2.0",)
    after = document_of(store, KEY)
    assert len(after["cod"].pop("commits")) == len(before["cod"].pop("commits")) + 2
    assert json.dumps(after) == json.dumps(before)
    assert state_of(store)[KEY.tar] == tar


def test_later_commits_keep_to_it(tmp_path: Path) -> None:
    """Append, remove, overwrite, fields, an edited record: whatever we commit, the records stay of version 1."""
    store = tiny_store(tmp_path, 0, 1)
    migrate_series(store, KEY, to="v1")
    append_tiny(store, tmp_path, 2, 3)
    check_version_1(store)
    with open_tiny(store, "a") as cod:
        cod.remove(uid(0))
        cod.add_metadata_field("site", "north")
    check_version_1(store)
    append_tiny(store, tmp_path, 4, 5, mode="w")
    check_version_1(store)
    assert list(records_of(store)) == [uid(4), uid(5)]
    with open_tiny(store) as cod:
        assert cod.read_frames(uid(4), [1])
        assert cod.get_instance(uid(4)).metadata["00080018"]["Value"] == [uid(4)]
    migrate_series(store, KEY, to="v2")
    append_tiny(store, tmp_path, 6)
    assert {record["version"] for record in records_of(store).values()} == {"2.0"}


def test_what_is_staged_reads_as_it_will_be_stored(tmp_path: Path) -> None:
    """Within the block that adds an instance, its record is of version 1 already, and it can be read."""
    store = tiny_store(tmp_path, 0)
    migrate_series(store, KEY, to="v1")
    (tmp_path / "new").mkdir()
    append_tiny(tiny_store(tmp_path / "new"), tmp_path / "new", 1)
    with open_tiny(store, "a") as cod:
        cod.append([Instance(tmp_path / "new" / "1.dcm")])
        assert cod.get_metadata()["cod"]["instances"][uid(1)]["version"] == "1.0"
        with cod.open_instance(uid(1)) as stream:
            assert stream.read() == (tmp_path / "new" / "1.dcm").read_bytes()


def test_a_migration_leaves_it_alone(tmp_path: Path) -> None:
    """Without a version, a migration of a whole store leaves series alone that are of version 1 by request."""
    store = tiny_store(tmp_path, 0, 1)
    migrate_series(store, KEY, to="v1")
    counted, before = CountingStore(store), state_of(store)
    for to in (None, "v1"):
        assert migrate_series(counted, KEY, to=to).actions == ()  # type: ignore[arg-type]
    assert state_of(store) == before
    assert counted.operations == ("read_object", "stat") * 2


def test_no_instance_is_read_for_it(tmp_path: Path) -> None:
    """Of a series of ours only the document is read and written, there and back; the tar is looked at, and stays."""
    inner = tiny_store(tmp_path, 0, 1, 2)
    for to in ("v1", "v2"):
        store = CountingStore(inner)
        migrate_series(store, KEY, to=to)  # type: ignore[arg-type]
        assert not {"read", "iter_chunks", "concat"} & set(store.operations)


@pytest.mark.parametrize("name", MIGRATED)
def test_every_older_store_can_be_brought_to_it(name: str, tmp_path: Path) -> None:
    """Series of the published library, of either version, hashed too: our facts in records of version 1, and back."""
    store, key = older_store(tmp_path, name)
    files, hashed = files_of(store, key), "deid_study_uid" in document_of(store, key)
    dry = migrate_series(store, key, to="v1", dry_run=True)
    assert commits_of(store, key) == []
    assert migrate_series(store, key, to="v1") == dry
    assert dry.reason is None
    assert {finding.kind for finding in verify_series(store, key, DEEP).findings} <= {"no-instances"}
    for record in records_of(store, key).values():
        assert record["version"] == "1.0"
        assert not ONLY_V2 & record.keys()
        assert record["metadata"].get("7FE00010") is None or record["offset_tables"]["FrameCrc32c"]
    assert files_of(store, key) == files
    assert ("deid_study_uid" in document_of(store, key)) is hashed
    migrate_series(store, key, to="v2")
    twin, _ = older_store(tmp_path / "twin", name)
    migrate_series(twin, key)
    assert unpacked(store, key) == unpacked(twin, key), "as if it had been brought to version 2 at once"
    assert migrate_series(store, key).actions == ()


def test_what_cannot_be_said_is_refused(tmp_path: Path) -> None:
    """A record whose header does not name its instance, or is none, stays of version 2, and so does the series."""
    for damage in ({"instance_uid": "1.2.3"}, {"has_pixeldata": False}, {"metadata": "!"}):
        store = tiny_store(tmp_path, 0, 1)
        edit_metadata(store, lambda document, damage=damage: document["cod"]["instances"][uid(1)].update(damage))
        before = state_of(store)
        for dry_run in (True, False):
            result = migrate_series(store, KEY, to="v1", dry_run=dry_run)
            assert result.actions == ()
            assert (result.reason or "").startswith("MetadataError")
        assert state_of(store) == before


def test_every_header_survives_both_ways() -> None:
    """The header of every real file comes back byte for byte, odd text and numbers included, and says the same."""
    count = 0
    for file in real_files():
        try:
            facts = inspect_dicom(io.BytesIO(file.read()), "x", bulk_data_uri=lambda uid, span: f"{uid}?{span}")
        except InstanceValidationError:
            continue
        record = golden_records("v2-series")[0] | {"uri": "", "metadata": pack_header(facts.header)}
        record |= {name: getattr(facts, name) for name in ONLY_V2}
        assert must_convert("x", facts.instance_uid, record, "1.0")
        stored = json.loads(gzip.decompress(dump_gzip({"r": as_version(record, "1.0")}, level=1)))["r"]
        assert dict(as_version(stored, "2.0")) == record, file.name
        assert not must_convert("x", facts.instance_uid, stored, "1.0")
        count += 1
    assert count > 200


def test_text_that_is_no_unicode_is_kept() -> None:
    """A lone surrogate in a header, which JSON can hold and UTF-8 cannot, is an escape in either version."""
    header = {"00080018": {"vr": "UI", "Value": ["1.2"]}, "00100010": {"vr": "LO", "Value": ["\ud800é"]}}
    raw = as_version(golden_records("v1-series")[0] | {"metadata": header, "uri": ""}, "2.0")
    assert unpack_header(raw["metadata"]) == unpack_header(as_version(raw, "1.0")["metadata"]) == header
    stored = gzip.decompress(dump_gzip(as_version(raw, "1.0"), level=1))
    assert json.loads(stored)["metadata"] == header
    with pytest.raises(MetadataError, match="metadata"):
        parse_record("x", "1.2", as_version(raw, "1.0"))


def test_a_death_at_any_operation_is_made_up_for() -> None:
    """Killed before or after any operation, it leaves version 2 or version 1, and the next one finishes."""
    versions = set()
    for kind in (StoreFaultKind.CRASH_BEFORE, StoreFaultKind.CRASH_AFTER):
        for skip in range(100):
            store = in_memory("v2-series-hashed")
            (key,) = Datastore(store).series()
            files = files_of(store, key)
            with contextlib.suppress(SimulatedCrash):
                migrate_series(FaultyStore(store, [StoreFault(kind, skip=skip)]), key, to="v1")
                break
            assert files_of(store, key) == files
            found = {record["version"] for record in records_of(store, key).values()}
            assert len(found) == 1
            versions |= found
            assert migrate_series(LaterStore(store), key, to="v1").reason is None
            list(Datastore(LaterStore(store)).recover([key]))
            assert verify_series(store, key, DEEP).ok
            assert files_of(store, key) == files
            assert {record["version"] for record in records_of(store, key).values()} == {"1.0"}
            assert migrate_series(store, key, to="v1").actions == ()
        assert skip > 10
    assert versions == {"1.0", "2.0"}


def test_a_decided_append_is_finished_in_it(tmp_path: Path) -> None:
    """A writer that dies behind its decision leaves records of version 2 in the lock, and gets them as version 1."""
    inner = tiny_store(tmp_path, 0)
    migrate_series(inner, KEY, to="v1")
    fault = StoreFault(StoreFaultKind.CRASH_BEFORE, operation="concat")
    with contextlib.suppress(SimulatedCrash):
        append_tiny(FaultyStore(inner, [fault]), tmp_path, 1)
    assert list(records_of(inner)) == [uid(0)]
    list(Datastore(LaterStore(inner)).recover([KEY]))
    assert list(records_of(inner)) == [uid(0), uid(1)]
    check_version_1(inner)


def test_any_other_version_is_refused(tmp_path: Path) -> None:
    """There is no version 3."""
    with pytest.raises(ValueError, match="v3"):
        migrate_series(tiny_store(tmp_path, 0), KEY, to="v3")  # type: ignore[arg-type]


def test_the_command_goes_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cod migrate --to v1` and `--to v2` say what they do, and would do; another version is a usage error."""
    archive = tmp_path / "archive"
    for name in ("v1-series", "v2-rtdose"):
        shutil.copytree(GOLDEN / name, archive, dirs_exist_ok=True)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        return main(["migrate", str(archive), *arguments]), capsys.readouterr().out

    assert "would be" in run("--to", "v1", "--dry-run")[1]
    code, out = run("--to", "v1")
    assert code == 0
    assert "3 headers made anew" in out
    assert "3 records converted to version 1.0, as later ones will be" in out
    assert out.endswith("2 series: 2 migrated, 0 as they should be, 0 left alone\n")
    assert run()[1].endswith("2 series: 0 migrated, 2 as they should be, 0 left alone\n")
    assert run("--to", "v2")[1].endswith("2 series: 2 migrated, 0 as they should be, 0 left alone\n")
    assert run("--to", "v2")[1].endswith("2 series: 0 migrated, 2 as they should be, 0 left alone\n")
    assert run("--to", "v3")[0] == 2


def test_an_edited_series_stays_of_it(tmp_path: Path) -> None:
    """What is changed in edit mode gets a record of version 1 as well, and so does what a recompression adds."""
    store = tiny_store(tmp_path, 0, 1)
    migrate_series(store, KEY, to="v1")
    with open_tiny(store, "e") as cod:
        path = Path(cod.get_instance(uid(0)).dicom_uri)
        dataset = dcmread(path)
        dataset.InstanceNumber = 77
        dataset.save_as(path)
    check_version_1(store)
    assert records_of(store)[uid(0)]["metadata"]["00200013"]["Value"] == [77]
    with open_tiny(store, "a") as cod:
        (tmp_path / "more").mkdir()
        append_tiny(tiny_store(tmp_path / "more"), tmp_path / "more", 3)
        assert len(cod.append([Instance(tmp_path / "more" / "3.dcm")], compress="rle").new) == 1
    check_version_1(store)


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    """A header with NaN, which an older writer could pack and no document can hold, comes to version 1 without it."""
    store = tiny_store(tmp_path, 0, 1)

    def spoil(document: dict[str, Any]) -> None:
        record = document["cod"]["instances"][uid(1)]
        header = unpack_header(record["metadata"]) | {"00181318": {"vr": "DS", "Value": [float("nan"), 1.5]}}
        record["metadata"] = pack_header(json.dumps(header).encode())

    edit_metadata(store, spoil)
    assert migrate_series(store, KEY, to="v1").reason is None
    assert records_of(store)[uid(1)]["metadata"]["00181318"]["Value"] == [None, 1.5]
    assert verify_series(store, KEY).ok
