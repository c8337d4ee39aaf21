"""The command line on hashed UIDs: they go in by ``--uid-hash``, and every verb works on what is there."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.ingest.report_file import read_report
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.uids import SeriesKey
from tests.cli.conftest import start
from tests.core.conftest import write_series
from tests.core.test_bulk_requests import hints_of
from tests.hashed.functions import PSEUDONYM, is_told, pseudonym

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cod
    from tests.core.conftest import Files

MODULE = (
    "import hashlib\n\n\ndef hashed(uid):\n    return '2.25.' + str(int(hashlib.sha1(uid.encode()).hexdigest(), 16))\n"
)


def write_rows(path: Path, files: Files, *indexes: int) -> Path:
    """Write an inventory that claims everything of some files, in original UIDs as inventories do."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["uri", "size", "crc32c", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
        for index in indexes:
            hints = hints_of(files, index)
            uids = hints.study_uid, hints.series_uid, hints.instance_uid
            table.writerow([files.paths[index], hints.size, hints.crc32c, *uids])
    return path


def folder_of(files: Files) -> str:
    """Return the folder of the hashed series."""
    return SeriesKey(pseudonym(files.series.uids.study), pseudonym(files.series.uids.series)).folder


def test_files_go_in_and_come_back_under_hashed_uids(store_url: str, files: Files, tmp_path: Path, cod: Cod) -> None:
    """On every store, names and output of each verb are hashed; bytes are those that went in."""
    done = cod("ingest", *files.paths, store_url, "--uid-hash", PSEUDONYM, "--json")
    assert (done.code, done.document["counts"]["new"]) == (0, 5)
    assert not is_told(files, done.out + done.err)
    assert {line["uid_hash"] for line in done.document["files"]} == {PSEUDONYM}
    (series,) = cod("ls", store_url, "--json").document["series"]
    assert series["uri"].endswith(folder_of(files))
    listed = cod("ls", series["uri"], "--json").document["instances"]
    assert {one["uid"] for one in listed} == {pseudonym(uid) for uid in files.uids}
    assert cod("export", store_url, tmp_path / "out").code == 0
    found = {path.stem: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    assert found == {pseudonym(uid): files.bytes(index) for index, uid in enumerate(files.uids)}
    again = cod("ingest", *files.paths, store_url, "--uid-hash", PSEUDONYM)
    assert again.out.startswith("0 new, 5 same")


def test_every_verb_works_on_a_hashed_series(files: Files, tmp_path: Path, cod: Cod) -> None:
    """Looking, reading, checking, mending, drawing, removing: no verb fails, and none but `header` tells a UID."""
    store = tmp_path / "store"
    assert cod("ingest", *files.paths, store, "--uid-hash", PSEUDONYM).code == 0
    series, uid = store / folder_of(files), pseudonym(files.uids[0])
    for command in (
        ["ls", series],
        ["info", series],
        ["info", series, "--json", "--html", tmp_path / "page.html"],
        ["verify", store, "--deep"],
        ["verify", store, "--repair"],
        ["locks", store],
        ["recover", store],
        ["unlock", series, "--yes"],
        ["migrate", store],
        ["frame", series, uid, "0", "-o", tmp_path / "frame.png"],
        ["get", series, uid, "-o", tmp_path / "one.dcm"],
        ["thumbnail", series, "--store", "-o", tmp_path / "thumbnail.mp4"],
        ["seal", store, "--legacy-index"],
        ["catalogue", store, tmp_path / "catalogue"],
        ["query", "SELECT * FROM instances", tmp_path / "catalogue"],
        ["query", "SELECT * FROM series", tmp_path / "catalogue"],
        ["remove", series, pseudonym(files.uids[1]), "--yes"],
        ["verify", series, "--deep"],
    ):
        done = cod(*command)
        assert done.code == 0, (command, done.out, done.err)
        assert not is_told(files, done.out + done.err), command
    assert (tmp_path / "one.dcm").read_bytes() == files.bytes(0)
    assert not is_told(files, (tmp_path / "page.html").read_text(encoding="utf-8"))
    header = cod("header", series, uid, "--json").document
    assert header["00080018"]["Value"] == [files.uids[0]]
    assert not is_told(files, "".join(map(str, store.rglob("*"))))
    for missing in (["get", series, files.uids[0]], ["remove", series, files.uids[0], "--yes"]):
        assert cod(*missing).code == 3


def test_an_inventory_is_of_original_uids(files: Files, tmp_path: Path, cod: Cod) -> None:
    """What a table claims is known again under hashed UIDs, without a source; the report tells the hashed ones."""
    store, report = tmp_path / "store", tmp_path / "report.jsonl"
    rows = write_rows(tmp_path / "rows.csv", files, 0, 1, 2)
    arguments = ["--inventory", rows, store, "--uid-hash", PSEUDONYM]
    done = cod("ingest", *arguments, "--report", report)
    assert done.out.startswith("3 new, 0 same"), done
    lines = list(read_report(report))
    assert {line.instance_uid for line in lines} == {pseudonym(uid) for uid in files.uids[:3]}
    assert {line.series_uri for line in lines} == {f"{store}/{folder_of(files)}"}
    assert not is_told(files, report.read_text(encoding="utf-8"))
    for path in files.paths[:3]:
        path.unlink()
    done = cod("ingest", *arguments, "--json")
    assert done.document["counts"]["same"] == 3
    assert not is_told(files, done.out)


@pytest.mark.parametrize("name", ["report.jsonl", "report.csv"])
def test_a_run_goes_on_with_the_same_function_only(name: str, files: Files, tmp_path: Path, cod: Cod) -> None:
    """A report is gone on with by the function that it was begun with: no other one, and not by none."""
    store, report = tmp_path / "store", tmp_path / name
    rows = write_rows(tmp_path / "rows.csv", files, 0, 1)
    cod("ingest", "--inventory", rows, store, "--report", report, "--uid-hash", PSEUDONYM)
    before = report.read_bytes()
    rows = write_rows(tmp_path / "rows.csv", files, 0, 1, 2)
    resume = ["ingest", "--inventory", rows, store, "--report", report, "--resume"]
    for other in ([], ["--uid-hash", "tests.hashed.functions:KEYED.pseudonym"]):
        done = cod(*resume, *other)
        assert (done.code, done.out) == (2, "")
        assert "hashed UIDs otherwise" in " ".join(done.err.split())
    assert report.read_bytes() == before
    assert len(list(Datastore(store).series())) == 1
    done = cod(*resume, "--uid-hash", PSEUDONYM)
    assert done.out.startswith("1 new, 0 same"), done
    assert "2 files done before" in done.out
    assert [line.uid_hash for line in read_report(report)] == [PSEUDONYM] * 3


def test_reports_from_before_are_gone_on_with(files: Files, tmp_path: Path, cod: Cod) -> None:
    """A report whose lines do not say which function hashed is one of original UIDs."""
    store, report = tmp_path / "store", tmp_path / "report.jsonl"
    rows = write_rows(tmp_path / "rows.csv", files, 0, 1)
    cod("ingest", "--inventory", rows, store, "--report", report)
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert [line.pop("uid_hash") for line in lines] == [None, None]
    report.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    assert "2 files done before" in cod("ingest", "--inventory", rows, store, "--report", report, "--resume").out
    assert cod("ingest", "--inventory", rows, store, "--report", report, "--resume", "--uid-hash", PSEUDONYM).code == 2


def test_hashing_and_recompression_go_together(tmp_path: Path, cod: Cod) -> None:
    """`--compress` stores smaller files under hashed UIDs, and knows them again."""
    files = write_series(tmp_path / "large", CtSeries(2, rows=64, columns=64))
    arguments = ["ingest", tmp_path / "large", tmp_path / "store", "--uid-hash", PSEUDONYM, "--compress", "jpegls"]
    assert "2 recompressed" in cod(*arguments).out
    assert cod(*arguments).out.startswith("0 new, 2 same")
    assert cod("verify", tmp_path / "store", "--deep").code == 0
    assert (tmp_path / "store" / folder_of(files)).is_dir()


@pytest.mark.parametrize("name", ["nothing", "no.such.module:x", "os:sep"])
def test_a_name_of_no_function_is_usage(name: str, files: Files, tmp_path: Path, cod: Cod) -> None:
    """The command says what is wrong with the name, exits with 2 and makes nothing, no report either."""
    done = cod("ingest", *files.paths, tmp_path / "store", "--uid-hash", name, "--report", tmp_path / "report.jsonl")
    assert done.code == 2
    assert "--uid-hash" in done.err
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "report.jsonl").exists()


def test_errors_of_files_tell_hashed_uids(files: Files, tmp_path: Path, cod: Cod) -> None:
    """A table that claims other UIDs for a file than it has: the error names both of them hashed."""
    rows = write_rows(tmp_path / "rows.csv", files, 0)
    text = rows.read_text(encoding="utf-8").replace(files.uids[0], files.uids[1])
    rows.write_text(text, encoding="utf-8")
    done = cod("ingest", "--inventory", rows, tmp_path / "store", "--uid-hash", PSEUDONYM)
    assert done.code == 1
    printed = done.out.replace("\n", "")
    assert pseudonym(files.uids[0]) in printed
    assert pseudonym(files.uids[1]) in printed
    assert not is_told(files, done.out + done.err)


def test_a_module_of_the_working_directory_is_found(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process of its own, the command finds a function in a file that lies where it is run."""
    (tmp_path / "pseudonyms.py").write_text(MODULE, encoding="ascii")
    arguments = ["ingest", *files.paths, tmp_path / "store", "--uid-hash", "pseudonyms:hashed", "--json"]
    monkeypatch.chdir(tmp_path)
    process = start(*arguments, PYTHONSAFEPATH="1", PYTHONPATH=":".join(path for path in sys.path if path))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.load(io.BytesIO(out))["counts"]["new"] == 5
    assert not is_told(files, out.decode() + err.decode())
