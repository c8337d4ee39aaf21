"""Each verb does what its help says, on every kind of store."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Datastore, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from tests.realfiles import real_file

if TYPE_CHECKING:
    from tests.cli.conftest import Cod

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def uid_of(path: Path) -> str:
    """Return the SOP Instance UID of a file."""
    return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def golden_series(name: str) -> Path:
    """Return the tar of the one series of a golden store."""
    (tar,) = (GOLDEN / name).glob("studies/*/series/*.tar")
    return tar


def test_files_go_in_and_come_back_byte_for_byte(store_url: str, inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """On every store, what is ingested is listed, fetched, exported and verified as exactly the files that went in."""
    files = {uid_of(path): path for path in inbox.glob("*.dcm")}
    done = cod("ingest", inbox, store_url, "--json")
    assert done.code == 1  # because of the text file
    assert done.document["counts"] == {"new": 6, "same": 0, "conflict": 0, "error": 1}

    again = cod("ingest", inbox, store_url, "--json").document
    assert again["counts"] == {"new": 0, "same": 6, "conflict": 0, "error": 1}

    listed = cod("ls", store_url, "--json").document["series"]
    found: dict[str, bytes] = {}
    for series in listed:
        for instance in cod("ls", series["uri"], "--json").document["instances"]:
            target = tmp_path / "one.dcm"
            assert cod("get", series["uri"], instance["uid"], "-o", target).code == 0
            found[instance["uid"]] = target.read_bytes()
            assert instance["crc32c"] == encode(crc32c(found[instance["uid"]]))
            assert instance["size_bytes"] == len(found[instance["uid"]])
            target.unlink()
            assert cod("get", instance["uri"], "-o", target).code == 0
            assert target.read_bytes() == found[instance["uid"]]
    assert found == {uid: path.read_bytes() for uid, path in files.items()}

    assert cod("export", store_url, tmp_path / "out").code == 0
    exported = {path.stem: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    assert exported == found
    verified = cod("verify", store_url, "--json")
    assert verified.code == 0
    assert sum(report["instances"] for report in verified.document["series"]) == 6


def test_listing_a_store_gives_uris_that_other_verbs_take(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """The lines of ls are what the other verbs take; a study lists its own series, a series its instances in order."""
    study = one_series.rpartition("/series/")[0]
    assert cod("ls", study).out == f"{one_series}\n"
    for form in (one_series, f"{one_series}/", f"{one_series}.tar", f"{one_series}/metadata.json"):
        assert len(cod("ls", form).out.splitlines()) == 5
    with CODObject.from_uri(one_series) as series:
        ordered = list(series.get_instances())
    assert [line.split()[0] for line in cod("ls", one_series).out.splitlines()] == ordered
    assert cod("ls", f"file://{tmp_path / 'store'}").out == f"{one_series}\n"


def test_relative_paths_name_series(one_series: str, tmp_path: Path, cod: Cod, monkeypatch: Any) -> None:
    """A series may be named from within its datastore, or from beside it."""
    relative = one_series.removeprefix(f"{tmp_path}/")
    monkeypatch.chdir(tmp_path)
    assert len(cod("ls", relative).out.splitlines()) == 5
    monkeypatch.chdir(tmp_path / "store")
    assert len(cod("ls", relative.removeprefix("store/")).out.splitlines()) == 5


def test_what_could_not_be_stored_is_listed_with_its_reason(inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """A file that is not DICOM, a missing one and a conflict are named with the reason; the others are stored."""
    slice_path = min(inbox.glob("2*.dcm"))
    changed = pydicom.dcmread(slice_path)
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(tmp_path / "changed.dcm")
    done = cod("ingest", inbox, tmp_path / "changed.dcm", tmp_path / "missing.dcm", tmp_path / "store")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith(f"error  {inbox}/notes.txt: not DICOM")
    assert lines[1].startswith(f"conflict  {tmp_path}/changed.dcm: another file is stored under the same UID")
    assert lines[2] == f"error  {tmp_path}/missing.dcm: no such file or directory"
    assert lines[3] == "6 new, 0 same, 1 conflict, 2 error; 2 series"
    assert len(lines) == 4


def test_header_differences_can_be_taken_for_the_same(tmp_path: Path, cod: Cod) -> None:
    """With --treat-metadata-diffs-as-same, a file with the stored pixels but another header is no conflict."""
    original = real_file("CT_small.dcm").path
    changed = pydicom.dcmread(original)
    changed.InstitutionName = "elsewhere"
    changed.save_as(tmp_path / "changed.dcm")
    cod("ingest", original, tmp_path / "store")
    assert cod("ingest", tmp_path / "changed.dcm", tmp_path / "store").code == 1
    done = cod("ingest", tmp_path / "changed.dcm", tmp_path / "store", "--treat-metadata-diffs-as-same", "--json")
    assert (done.code, done.document["counts"]["same"]) == (0, 1)


def test_the_report_has_one_json_object_per_file(inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """--report writes a line per file as its fate is known, and --json gives the same in the order of the sources."""
    report = tmp_path / "report.jsonl"
    report.write_text("an older report", encoding="ascii")
    done = cod("ingest", inbox, tmp_path / "store", "--report", report, "--json")
    written = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    lines = done.document["files"]
    assert sorted(written, key=lambda line: line["uri"]) == sorted(lines, key=lambda line: line["uri"])
    assert [Path(line["uri"]).name for line in lines] == sorted(path.name for path in inbox.iterdir())
    by_name = {Path(line["uri"]).name: line for line in lines}
    assert by_name["notes.txt"]["outcome"] == "error"
    cine = by_name["cine.dcm"]
    assert (cine["outcome"], cine["instance_uid"]) == ("new", uid_of(inbox / "cine.dcm"))
    assert cine["size_bytes"] == (inbox / "cine.dcm").stat().st_size
    assert not list(tmp_path.glob(".cod-*"))


def test_archives_and_patterns_are_ingested(inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """A pattern takes what it matches, a zip its members."""
    assert cod("ingest", inbox / "[0-9]*.dcm", tmp_path / "store").code == 0
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in inbox.glob("*.dcm"):
            archive.write(path, path.name)
    (tmp_path / "all.zip").write_bytes(packed.getvalue())
    done = cod("ingest", tmp_path / "all.zip", tmp_path / "store", "--json")
    assert done.document["counts"] == {"new": 1, "same": 5, "conflict": 0, "error": 0}


def test_an_empty_folder_is_nothing_to_store_and_no_failure(tmp_path: Path, cod: Cod) -> None:
    """An inbox without files ends well, so that a job may run on it every hour."""
    (tmp_path / "inbox").mkdir()
    done = cod("ingest", tmp_path / "inbox", tmp_path / "store")
    assert (done.code, done.out) == (0, "0 new, 0 same, 0 conflict, 0 error; 0 series\n")


def test_info_counts_bytes_syntaxes_and_frames(inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """Info tells instances, bytes, transfer syntaxes, frames, and how a frame is reached."""
    cod("ingest", inbox / "cine.dcm", tmp_path / "store")
    uri = cod("ls", tmp_path / "store").out.strip()
    document = cod("info", uri, "--json").document
    size = (inbox / "cine.dcm").stat().st_size
    assert document | {"study_uid": "", "series_uid": ""} == {
        "uri": uri,
        "study_uid": "",
        "series_uid": "",
        "instances": 1,
        "instance_bytes": size,
        "tar_bytes": Path(f"{uri}.tar").stat().st_size,
        "transfer_syntaxes": [{"uid": "1.2.840.10008.1.2.4.50", "name": "JPEG Baseline (Process 1)", "instances": 1}],
        "record_versions": {"2.0": 1},
        "frames": 30,
        "frame_access": {"one range per frame": 1},
        "lock": None,
        "quarantined": False,
    }
    text = cod("info", uri).out
    assert f"220 KiB ({size} bytes)" in text
    assert "JPEG Baseline (Process 1) (1)" in text


@pytest.mark.parametrize(
    ("name", "access"),
    [
        ("image_dfl.dcm", "deflated, a frame needs the whole instance"),
        ("rtplan.dcm", "no pixel data"),
        ("MR_small_RLE.dcm", "one range per frame"),
    ],
)
def test_info_says_how_a_frame_is_reached(name: str, access: str, tmp_path: Path, cod: Cod) -> None:
    """Info tells deflated instances and those without pixel data from those whose frames are one range away."""
    cod("ingest", real_file(name).path, tmp_path / "store")
    uri = cod("ls", tmp_path / "store").out.strip()
    assert cod("info", uri, "--json").document["frame_access"] == {access: 1}


def test_info_tells_older_tables_locks_and_quarantine(cod: Cod) -> None:
    """Series of older writers say so: their frame tables, a lock that was left behind, an error.log."""
    cine = cod("info", golden_series("v2-examples-ybr-color"), "--json").document
    assert (cine["frames"], cine["frame_access"]) == (30, {"older frame table, rebuilt when read": 1})
    assert cod("info", golden_series("v2-error-log"), "--json").document["quarantined"] is True
    lock = cod("info", golden_series("v2-hanging-lock"), "--json").document["lock"]
    assert (lock["owner"], lock["expires"], lock["commit_decided"]) == (None, None, False)
    assert "held by an unknown writer" in cod("info", golden_series("v2-hanging-lock")).out


def test_info_tells_who_holds_the_lock(one_series: str, cod: Cod) -> None:
    """While somebody writes, info names the owner and when the lease ends, and reads all the same."""
    with CODObject.from_uri(one_series, mode="a"):
        lock = cod("info", one_series, "--json").document["lock"]
    assert lock["owner"]
    assert lock["expires"]
    assert cod("info", one_series, "--json").document["lock"] is None


def test_header_prints_dicom_json(one_series: str, cod: Cod) -> None:
    """One UID gives its header as an object, none gives all headers as an array; both are DICOM JSON."""
    everything = cod("header", one_series).document
    assert len(everything) == 5
    uid = everything[2]["00080018"]["Value"][0]
    assert cod("header", one_series, uid).document == everything[2]
    one_line = cod("header", f"{one_series}.tar://instances/{uid}.dcm", "--json")
    assert one_line.document == everything[2]
    assert one_line.out.count("\n") == 1
    assert everything[2]["00080060"] == {"vr": "CS", "Value": ["CT"]}
    assert "BulkDataURI" in everything[2]["7FE00010"] or "InlineBinary" in everything[2]["7FE00010"]


def test_export_leaves_equal_files_alone_and_replaces_others(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A second export writes only what is missing or different, and leaves nothing temporary behind."""
    out = tmp_path / "out"
    assert cod("export", one_series, out, "--json").document["written"] == 5
    kept, broken, shorter, missing, _ = sorted(out.rglob("*.dcm"))
    before = {path: path.read_bytes() for path in (kept, broken, shorter, missing)}
    stamp = kept.stat().st_mtime_ns
    broken.write_bytes(bytes(len(before[broken])))
    shorter.write_bytes(b"cut off")
    missing.unlink()
    again = cod("export", one_series, out, "--json").document
    assert (again["written"], again["skipped"], again["failed"]) == (3, 2, [])
    assert {path: path.read_bytes() for path in before} == before
    assert kept.stat().st_mtime_ns == stamp
    assert [path.name for path in (out / ".cod-export").iterdir()] == ["verified.sqlite"]


def test_removed_instances_are_gone_and_the_others_stay(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """Remove takes out what is named, once however often; the others read back and verify."""
    uids = [line.split()[0] for line in cod("ls", one_series).out.splitlines()]
    done = cod("remove", one_series, uids[0], uids[3], uids[0], "--yes", "--json")
    assert done.document == {"series": one_series, "removed": sorted([uids[0], uids[3]]), "instances_left": 3}
    left = [line.split()[0] for line in cod("ls", one_series).out.splitlines()]
    assert left == [uids[1], uids[2], uids[4]]
    assert cod("verify", tmp_path / "store").code == 0


def test_verify_tells_odd_from_damaged(cod: Cod) -> None:
    """What older writers left is listed as odd and is no failure."""
    done = cod("verify", GOLDEN / "v2-hanging-lock")
    assert done.code == 0
    assert done.out.startswith("odd ")
    assert "lock-present" in done.out
    assert "1 series, 0 damaged, 0 not verified" in done.out


def test_verbs_leave_stores_of_older_writers_as_they_are(tmp_path: Path, cod: Cod) -> None:
    """Every reading verb works on an older store, hashed UIDs included, and changes no byte of it."""
    before = {path: path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()}
    for name in ("v1-series", "v2-series-hashed", "v2-rtdose"):
        for verb in ("ls", "info", "header", "verify"):
            target = GOLDEN / name if verb == "verify" else golden_series(name)
            assert cod(verb, target, "--json").code == 0
        assert cod("export", GOLDEN / name, tmp_path / name).code == 0
        with Datastore(GOLDEN / name).open(*_key(golden_series(name))) as series:
            assert {path.stem for path in (tmp_path / name).rglob("*.dcm")} == set(series.get_instances())
    assert {path: path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()} == before


def _key(tar: Path) -> tuple[str, str]:
    return tar.parts[-3], tar.stem


def test_an_instance_that_was_appended_meanwhile_is_seen(one_series: str, cod: Cod) -> None:
    """Each command reads the present state: what another writer appended is there."""
    path = real_file("CT_small.dcm").path
    dataset = pydicom.dcmread(path)
    study, series = _key(Path(f"{one_series}.tar"))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    late = Path(one_series).parents[3] / "late.dcm"
    dataset.save_as(late)
    with CODObject.from_uri(one_series, mode="a") as writing:
        writing.append([Instance(late)])
    assert len(cod("ls", one_series).out.splitlines()) == 6
