"""Stores that the published library wrote: read, verified, appended to."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Datastore, Instance, checksum
from tests.core.conftest import read
from tests.dicom import oracle
from tests.realfiles import real_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))
SERIES = [pytest.param(entry, id=entry["store"]) for entry in MANIFEST["series"]]
ODD = {
    "v2-rtdose": {"frame-table-legacy"},  # its native offset table is 8 bytes off
    "v2-error-log": {"error-log"},
    "v2-hanging-lock": {"lock-present"},
    "v2-mr-small-implicit": {"no-instances"},
    "v2-transcoded-mr-truncated": {"no-instances"},
}


def source_of(entry: dict[str, object]) -> list[bytes]:
    """Return the files that a golden series was made from."""
    return [real_file(name).read() for name in entry["sources"]]  # type: ignore[attr-defined]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Return a copy of the golden stores that may be written to."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "golden"))


@pytest.mark.parametrize("entry", SERIES)
def test_instances_read_back_with_their_recorded_checksum(entry: dict[str, str]) -> None:
    """Every instance opens in place, from a folder nobody may write to, with the CRC32C of its record."""
    with Datastore(GOLDEN / entry["store"]).open(entry["study_uid"], entry["series_uid"]) as cod:
        instances = cod.get_instances(strict_sorting=False)
        assert len(instances) == entry["new"]
        for uid, instance in instances.items():
            with cod.open_instance(uid) as stream:
                data = stream.read()
            assert checksum.encode(checksum.crc32c(data)) == instance.crc32c()
            assert len(data) == instance.size()
            assert instance.instance_uid() == oracle.read(data).SOPInstanceUID
            assert instance.metadata["0020000E"]["Value"] == [instance.series_uid()]
        if not entry["compress"] and instances:
            stored = sorted(read(cod, uid) for uid in instances)
            assert stored == sorted(source_of(entry))


@pytest.mark.parametrize("entry", SERIES)
def test_frames_of_older_writers_are_read_right(entry: dict[str, str]) -> None:
    """Frames come from rebuilt tables, never from an older writer's: they are pydicom's own frames."""
    with Datastore(GOLDEN / entry["store"]).open(entry["study_uid"], entry["series_uid"]) as cod:
        for uid, instance in cod.get_instances(strict_sorting=False).items():
            if not instance.has_pixeldata:
                continue
            dataset = oracle.read(read(cod, uid))
            frames = cod.read_frames(uid)
            assert len(frames) == int(dataset.get("NumberOfFrames", 1))
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
                assert frames == oracle.encapsulated_frames(dataset)
            else:
                assert b"".join(frames) == dataset.PixelData[: sum(map(len, frames))]


@pytest.mark.parametrize("entry", SERIES)
def test_verify_names_exactly_the_odd_ones(entry: dict[str, str]) -> None:
    """Nothing is damaged; what is odd is named, and nothing else is."""
    with Datastore(GOLDEN / entry["store"]).open(entry["study_uid"], entry["series_uid"]) as cod:
        report = cod.verify()
    assert not report.damaged
    assert {finding.kind for finding in report.findings} == ODD.get(entry["store"], set())


def may_be_written(entry: dict[str, object]) -> bool:
    """Tell whether plain UIDs and no lock make the store one that anybody may append to."""
    return not entry["hashed"] and entry["store"] != "v2-hanging-lock"  # such a lock is respected: shown below


@pytest.mark.parametrize("entry", [param for param in SERIES if may_be_written(param.values[0])])
def test_an_append_keeps_what_was_there(entry: dict[str, str], golden: Path) -> None:
    """After an append every old instance reads back, unknown fields survive, and no end blocks lie inside the tar."""
    template = real_file("MR_small.dcm").path
    dataset = pydicom.dcmread(template)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = entry["study_uid"], entry["series_uid"]
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.save_as(golden / "new.dcm")
    path = golden / entry["store"]
    with Datastore(path).open(entry["study_uid"], entry["series_uid"]) as cod:
        before = cod.get_metadata()
        data = {uid: read(cod, uid) for uid in cod.get_instances(strict_sorting=False)}
    options = {"mode": "a", "override_errors": True}
    with CODObject(path, None, entry["study_uid"], entry["series_uid"], **options) as cod:
        assert len(cod.append([Instance(golden / "new.dcm")]).new) == 1
    with Datastore(path).open(entry["study_uid"], entry["series_uid"]) as cod:
        after = cod.get_metadata()
        for uid, content in data.items():
            assert read(cod, uid) == content
            assert after["cod"]["instances"][uid] == before["cod"]["instances"][uid]
        assert read(cod, "1.2.3.4") == (golden / "new.dcm").read_bytes()
        for name in before.keys() - {"cod"}:
            assert after[name] == before[name]
        kinds = {finding.kind for finding in cod.verify().findings}
    assert kinds <= {"error-log", "frame-table-legacy"}


def test_a_lock_of_an_older_writer_is_respected(golden: Path) -> None:
    """A lock without a lease keeps every writer out; readers do not mind it."""
    entry = next(item for item in MANIFEST["series"] if item["store"] == "v2-hanging-lock")
    store = Datastore(golden / "v2-hanging-lock")
    with pytest.raises(Exception, match="has no lease"), store.open(entry["study_uid"], entry["series_uid"], "a"):
        pass
    with store.open(entry["study_uid"], entry["series_uid"]) as cod:
        assert len(cod.get_instances()) == 1


def test_golden_objects_are_as_they_were_handed_over() -> None:
    """The committed bytes are those of the manifest."""
    objects = MANIFEST["objects"]
    assert len(objects) > 50
    for path, entry in objects.items():
        assert checksum.encode(checksum.crc32c((GOLDEN / path).read_bytes())) == entry["crc32c"], path


def test_a_read_only_store_is_read(tmp_path: Path) -> None:
    """Reading changes nothing, and needs no permission to."""
    root = Path(shutil.copytree(GOLDEN / "v2-series", tmp_path / "store"))
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = sorted(root.rglob("*"))
    for report in Datastore(root).verify():
        assert report.ok
    assert sorted(root.rglob("*")) == before
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
