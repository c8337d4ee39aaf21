"""``cod ingest --inventory`` stores what a table names, tells what became of each row, and does only what is left."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.ingest.report_file import read_report
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ingest.web import Web

HEADER = ["gcs_url", "instance_size", "crc32c", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]


@pytest.fixture
def server() -> Iterator[GcsServer]:
    """Return a server of our own, whose requests are ours alone."""
    with GcsServer() as running:
        running.create_bucket("inbox")
        running.create_bucket("archive")
        yield running


@pytest.fixture
def inventory(server: GcsServer, tmp_path: Path) -> Path:
    """Return a table of the twelve instances of two series, which lie in the bucket ``inbox``."""
    store, table = open_store("gs://inbox", server.client()), [HEADER]
    for seed in (1, 2):
        series = CtSeries(6, rows=32, columns=32, seed=seed)
        uids = series.uids
        for number, data in enumerate(series):
            name = f"{seed}/{number}.dcm"
            store.create(name, BytesPayload(data), write_id=new_write_id())
            row = [f"gs://inbox/{name}", str(len(data)), encode(crc32c(data)), uids.study, uids.series]
            table.append([*row, str(dcmread(io.BytesIO(data)).SOPInstanceUID)])
    path = tmp_path / "rows.csv"
    write(path, table)
    return path


def write(path: Path, table: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)


def lines_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def cod(server: GcsServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a command against the server and returns its exit code and JSON document."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)

    def run(*arguments: str | Path) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["ingest", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out or "null")

    return run


def test_everything_that_a_table_names_is_stored_once(cod: Any, inventory: Path, server: GcsServer) -> None:
    """The first run stores all rows, a second finds all of them the same, by a list and a document for each series."""
    code, document = cod("--inventory", inventory, "gs://archive/ct")
    assert (code, document["counts"]["new"], len(document["series"])) == (0, 12, 2)
    inventory_store = open_store("gs://inbox")
    for name in [info.name for info in inventory_store.list()]:
        inventory_store.delete(name)
    server.reset_counters()
    code, document = cod("--inventory", inventory, "gs://archive/ct")
    assert (code, document["counts"]) == (0, {"new": 0, "same": 12, "conflict": 0, "error": 0})
    asked = Counter(record.operation for record in server.counters())
    assert asked == {"objects.list": 2, "objects.download": 2}


@pytest.mark.parametrize("name", ["report.jsonl", "report.csv"])
def test_a_run_goes_on_where_its_report_ends(name: str, cod: Any, inventory: Path, tmp_path: Path) -> None:
    """With --resume, rows that the report has as stored are left out; others, and changed ones, are tried."""
    report, rows = tmp_path / name, lines_of(inventory)
    write(inventory, rows[:7])
    assert cod("--inventory", inventory, "--report", report, "gs://archive/ct")[0] == 0
    assert [line.outcome for line in read_report(report)] == ["new"] * 6
    rows[1][2] = encode(1)  # as if that object had been replaced since
    write(inventory, [*rows, ["gs://inbox/none.dcm", "", "", "", "", ""]])
    code, document = cod("--inventory", inventory, "--report", report, "--resume", "gs://archive/ct")
    assert (code, document["skipped"]) == (1, 5)
    assert document["counts"] == {"new": 6, "same": 0, "conflict": 0, "error": 2}
    lines = {line.uri: line for line in read_report(report)}
    assert len(lines) == 13
    assert "crc32c" in str(lines["gs://inbox/1/0.dcm"].reason)
    assert lines["gs://inbox/none.dcm"].outcome == "error"
    stored = lines["gs://inbox/2/0.dcm"]
    assert (stored.outcome, stored.crc32c, stored.size_bytes) == ("new", rows[7][2], int(rows[7][1]))
    assert stored.series_uri == f"gs://archive/ct/studies/{rows[7][3]}/series/{rows[7][4]}"
    assert stored.instance_uid == rows[7][5]
    code, document = cod("--inventory", inventory, "--report", report, "--resume", "gs://archive/other")
    assert (code, document) == (2, None)


def test_bad_rows_are_in_the_report_and_stop_nothing(cod: Any, inventory: Path, tmp_path: Path) -> None:
    """A row without a URI, or with a size that is none, is an error with its place; the others are stored."""
    report, rows = tmp_path / "report.jsonl", lines_of(inventory)
    write(inventory, [*rows[:3], ["", "1", "", "", "", ""], ["gs://inbox/x", "big", "", "", "", ""], *rows[3:5]])
    code, document = cod("--inventory", inventory, "--report", report, "gs://archive/ct")
    assert (code, document["counts"]["new"], document["counts"]["error"]) == (1, 4, 2)
    reasons = {line.uri: str(line.reason) for line in read_report(report) if line.outcome == "error"}
    assert f"{inventory} line 4" in reasons
    assert "line 5" in reasons["gs://inbox/x"]


def test_no_report_tells_a_secret(web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A signed URL of which a table claims what cannot be is told without its signature, and tried again."""
    web.files["1.dcm"] = CtSeries(1, 8, 8).instance(0)
    table, report = tmp_path / "rows.jsonl", tmp_path / "report.jsonl"
    url = f"{web.url}/plain/1.dcm"
    arguments = ["ingest", "--inventory", table, "--report", report, tmp_path / "store", "--resume"]
    told = []
    for size, outcome in (("large", "error"), (None, "new")):
        table.write_text(json.dumps({"url": f"{url}?sig=s3cret", "size": size}), encoding="utf-8")
        main(list(map(str, arguments)))
        told += [*capsys.readouterr(), report.read_text(encoding="utf-8")]
        assert [(line.uri, line.outcome) for line in read_report(report)] == [(url, outcome)]
    assert "s3cret" not in str(told)
    main(list(map(str, arguments)))
    assert "1 file done before" in capsys.readouterr().out


@pytest.mark.parametrize("is_claimed", [False, True], ids=["bare", "with CRC32C"])
def test_a_run_goes_on_with_files_that_are_shown_alike(is_claimed: bool, cod: Any, web: Web, tmp_path: Path) -> None:
    """Which of two files a line tells of whose URLs differ in a token, nobody knows: neither is left out."""
    series = CtSeries(2, 8, 8)
    files = [series.instance(number) for number in range(2)]
    claims = [encode(crc32c(data)) if is_claimed else None for data in files]
    rows = [{"url": f"{web.url}/plain/dl?token=t0ken{number}", "crc32c": claims[number]} for number in range(2)]
    table, report = tmp_path / "rows.jsonl", tmp_path / "report.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = ["--inventory", table, "--report", report, "--resume", tmp_path / "store"]
    told = []
    for number, counts in ((0, (1, 0, 1)), (1, (1, 1, 0))):  # new, same, error
        web.files[f"dl?token=t0ken{number}"] = files[number]
        _, document = cod(*arguments)
        assert (document["skipped"], *(document["counts"][name] for name in ("new", "same", "error"))) == (0, *counts)
        told += [str(document), report.read_text(encoding="utf-8")]
    assert "t0ken" not in str(told)
    (key,) = Datastore(tmp_path / "store").series()
    with Datastore(tmp_path / "store").open(key.study_uid, key.series_uid) as stored:
        assert sorted(stored.get_instances()) == sorted(map(series.instance_uid, range(2)))


def test_what_is_no_inventory_starts_nothing(cod: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table without a usable column, a missing one, and options that do not go together are usage errors."""
    (tmp_path / "rows.csv").write_text("colour,taste\nred,sweet\n", encoding="ascii")
    for arguments in (
        ["--inventory", tmp_path / "rows.csv"],
        ["--inventory", tmp_path / "none.csv"],
        ["--inventory", tmp_path / "rows.csv", "--columns", "uri"],
        ["--inventory", tmp_path / "rows.csv", "--resume"],
        [tmp_path / "rows.csv", "--columns", "uri=colour"],
        [],
    ):
        assert main(["ingest", *map(str, arguments), str(tmp_path / "store")]) == 2, arguments
    assert main(["ingest"]) == 2
    capsys.readouterr()
    assert not (tmp_path / "store").exists()


def test_files_of_a_web_server_are_stored(cod: Any, web: Web, tmp_path: Path) -> None:
    """A table of http URLs, and a URL by itself, are ingested; a refusal is an error of its file."""
    series = CtSeries(3, rows=32, columns=32, seed=3)
    web.files |= {f"{number}.dcm": data for number, data in enumerate(series)}
    lines = [json.dumps({"url": f"{web.url}/plain/{number}.dcm"}) for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    code, document = cod("--inventory", tmp_path / "rows.jsonl", f"{web.url}/noranges/0.dcm", tmp_path / "store")
    assert code == 1
    assert {file["uri"]: file["outcome"] for file in document["files"]} == {
        f"{web.url}/noranges/0.dcm": "new",
        f"{web.url}/plain/0.dcm": "same",
        f"{web.url}/plain/1.dcm": "new",
        f"{web.url}/plain/2.dcm": "new",
        f"{web.url}/plain/3.dcm": "error",
    }
    (key,) = Datastore(tmp_path / "store").series()
    assert key.series_uid == series.uids.series


def test_a_killed_run_is_finished_by_the_next(inventory: Path, server: GcsServer, tmp_path: Path) -> None:
    """SIGKILL as soon as a first file is reported: the same command again stores the rest, none twice, none lost."""
    report, name = tmp_path / "report.jsonl", uuid.uuid4().hex
    command = [sys.executable, "-m", "cloud_optimized_dicom.cli", "ingest", "--inventory", str(inventory)]
    command += ["--report", str(report), "--resume", f"gs://archive/{name}", "--wait", "200"]
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": server.url}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (report.exists() and report.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = [line.uri for line in read_report(report) if line.is_finished]
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, check=False)
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["skipped"] == len(finished)
    assert document["counts"]["new"] + document["counts"]["same"] + len(finished) == 12
    assert sorted(line.uri for line in read_report(report)) == sorted(row[0] for row in lines_of(inventory)[1:])
    store = Datastore(f"gs://archive/{name}", server.client())
    assert sum(len(store.open(key.study_uid, key.series_uid).get_instances()) for key in store.series()) == 12
