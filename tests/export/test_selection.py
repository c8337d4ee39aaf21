"""Which instances an export takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.errors import InvalidUidError
from cloud_optimized_dicom.export import Condition, Selection, export_dicom, parse_uids
from cloud_optimized_dicom.testing.counting_store import CountingStore
from tests.export.conftest import Archive, tree, uid_in

if TYPE_CHECKING:
    from pathlib import Path

HEADER: dict[str, Any] = {
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00080008": {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY", "AXIAL"]},
    "0008103E": {"vr": "LO", "Value": ["Thorax Lung 1.0"]},
    "00080022": {"vr": "DA", "Value": ["20240131"]},
    "00180060": {"vr": "DS", "Value": [120.0]},
    "00280030": {"vr": "DS", "Value": [0.5, None, 0.75]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
    "00100020": {"vr": "LO"},
    "0020000D": {"vr": "UI", "Value": ["1.20"]},
    "00091001": {"vr": "LO", "Value": ["private"]},
}


@pytest.mark.parametrize(
    "text",
    [
        "Modality=CT",
        " Modality = CT ",
        "00080060=CT",
        "0008,0060=CT",
        "(0008,0060)=CT",
        "0x00080060=CT",
        "Modality!=MR",
        "ImageType=PRIMARY",
        "SeriesDescription~lung",
        "SeriesDescription~^thorax.*1\\.0$",
        "AcquisitionDate>=20240101",
        "AcquisitionDate<20240201",
        "KVP=120",
        "KVP=120.0",
        "KVP>99",
        "PixelSpacing<=0.5",
        "PatientName=Yamada^Tarou",
        "PatientName~太郎",
        "PatientID=",
        "PatientSex=",
        "Modality!=",
        "PatientID!=A",
        "0009,1001=private",
    ],
)
def test_conditions_that_hold(text: str) -> None:
    """Keywords and tags, any of several values, numbers as numbers, names in each form, and what is empty."""
    assert Condition.parse(text).holds(HEADER)


@pytest.mark.parametrize(
    "text",
    [
        "Modality=ct",
        "Modality=C",
        "Modality!=CT",
        "ImageType!=AXIAL",
        "SeriesDescription~^lung",
        "AcquisitionDate>20240131",
        "KVP>120",
        "KVP<99",
        "KVP=many",
        "PatientID=A",
        "PatientID~.*",
        "PatientID>0",
        "PatientID!=",
        "Modality=",
        "StudyInstanceUID=1.2",
    ],
)
def test_conditions_that_do_not_hold(text: str) -> None:
    """Text compares exactly, a UID is no number, and what has no value fits nothing but its absence."""
    assert not Condition.parse(text).holds(HEADER)


@pytest.mark.parametrize(
    "text", ["Modality", "=CT", "", "Modalty=CT", "0008=CT", "ReferencedSeriesSequence=1", "SeriesDescription~("]
)
def test_conditions_that_are_none(text: str) -> None:
    """What names no attribute, compares a sequence or is no regular expression is refused."""
    with pytest.raises(ValueError, match=r"condition|keyword|sequence|expression"):
        Condition.parse(text)


def test_an_unknown_operator_is_refused() -> None:
    """A condition made in a program is checked as one that was parsed."""
    with pytest.raises(ValueError, match="is not one of"):
        Condition("00080060", "==", "CT")


def test_lists_of_uids() -> None:
    """One UID a line; comments, blank lines, a byte order mark and foreign line ends do not count."""
    assert parse_uids("\ufeff1.2\r\n\n# of May\n 3.4  # first\n1.2\n") == {"1.2", "3.4"}
    with pytest.raises(InvalidUidError):
        parse_uids("1.2\n../../etc\n")
    with pytest.raises(InvalidUidError):
        Selection(uids=frozenset([".."]))


def test_uids_of_every_level(archive: Archive, tmp_path: Path) -> None:
    """A study's, a series' and an instance's UID each take what they name, and together their union."""
    first, second = archive.datastore.series()
    name = next(name for name in archive.files if name.startswith(second.study_uid))
    cases = {
        frozenset([first.study_uid]): archive.of(first),
        frozenset([second.series_uid]): archive.of(second),
        frozenset([uid_in(name)]): {name: archive.files[name]},
        frozenset([first.series_uid, uid_in(name)]): archive.of(first) | {name: archive.files[name]},
        frozenset([second.series_uid, uid_in(name)]): archive.of(second),
    }
    for number, (uids, files) in enumerate(cases.items()):
        report = export_dicom(archive.datastore, tmp_path / str(number), selection=Selection(uids=uids))
        assert report.ok
        assert tree(tmp_path / str(number)) == files


def test_what_is_not_found_is_told(archive: Archive, tmp_path: Path) -> None:
    """UIDs that nothing has are listed; the others are exported."""
    key, _ = archive.datastore.series()
    selection = Selection(uids=frozenset(["1.2.3", key.series_uid, "9.9"]))
    report = export_dicom(archive.datastore, tmp_path / "out", selection=selection)
    assert (report.not_found, report.ok, report.failures) == (("1.2.3", "9.9"), False, ())
    assert tree(tmp_path / "out") == archive.of(key)


def test_series_named_by_uid_cost_no_other_metadata(archive: Archive, tmp_path: Path) -> None:
    """Where every UID is a study's or a series', only those series are opened."""
    key, _ = archive.datastore.series()
    counted = CountingStore(archive.store)
    export_dicom(Datastore(counted), tmp_path / "out", selection=Selection(uids=frozenset([key.series_uid])))
    assert [r.name for r in counted.records if r.operation == "read_object"] == [key.metadata]


def test_conditions_select_instances(archive: Archive, tmp_path: Path) -> None:
    """All conditions must hold, each instance is looked at by itself, and no byte of the others is asked for."""
    where = (Condition.parse("Modality=CT"), Condition.parse("InstanceNumber<=2"))
    report = export_dicom(archive.datastore, tmp_path / "out", selection=Selection(where=where))
    assert report.written == 4
    assert tree(tmp_path / "out").items() <= archive.files.items()
    nothing = Selection(where=(Condition.parse("Modality=MR"),))
    counted = CountingStore(archive.store)
    report = export_dicom(Datastore(counted), tmp_path / "none", selection=nothing)
    assert (report.series, report.written, report.ok) == (2, 0, True)
    assert "read" not in counted.operations
    assert tree(tmp_path / "none") == {}
