"""A report grows a line at a time, survives being killed, and says what is left to be done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.report_file import ReportLine, ReportWriter, read_report

if TYPE_CHECKING:
    from pathlib import Path

STORE = "gs://archive/ct"
LINE = ReportLine(
    'in/a "b",\n1.dcm', "1.2", "1.2.3", "1.2.3.4", f"{STORE}/studies/1.2/series/1.2.3", 9, encode(7), None, "new"
)
OTHERS = [
    replace(LINE, uri="in/same.dcm", outcome="same", crc32c=None),
    replace(LINE, uri="in/conflict.dcm", outcome="conflict", reason="another file"),
    ReportLine("in/error.dcm", None, None, None, None, 0, None, "not DICOM", "error"),
]
FORMATS = pytest.mark.parametrize("name", ["report.jsonl", "report.csv"])


@FORMATS
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    """Every line comes back as it was, names with quotes and line ends included, also when threads write at once."""
    with ReportWriter(tmp_path / name, STORE) as report:
        for line in (LINE, *OTHERS):
            report.write(line)
            assert list(read_report(tmp_path / name))[-1] == line
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: report.write(replace(LINE, uri=f"in/{number}")), range(500)))
    lines = list(read_report(tmp_path / name))
    assert lines[:4] == [LINE, *OTHERS]
    assert {line.uri for line in lines[4:]} == {f"in/{number}" for number in range(500)}


@FORMATS
def test_a_killed_run_leaves_a_report_to_go_on_with(name: str, tmp_path: Path) -> None:
    """After SIGKILL the report holds every line that was written; a torn one is dropped by who goes on."""
    script = f"""
import sys
from dataclasses import replace
from pathlib import Path
from cloud_optimized_dicom.ingest.report_file import ReportWriter
from tests.ingest.test_report_file import LINE, STORE
report = ReportWriter(Path({str(tmp_path / name)!r}), STORE)
for number in range(1_000_000):
    report.write(replace(LINE, uri=str(number)))
    if number == 100:
        print("going", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = [line.uri for line in read_report(tmp_path / name)]
    assert before == [str(number) for number in range(len(before))]
    assert len(before) > 100
    with (tmp_path / name).open("ab") as file:
        file.write(b'{"uri": "torn", "study_uid"' if name.endswith("l") else b'"torn",1.2,1.')
    with ReportWriter(tmp_path / name, STORE, resume=True) as report:
        assert len(report.finished) == len(before)
        report.write(LINE)
    assert [line.uri for line in read_report(tmp_path / name)] == [*before, LINE.uri]


def test_a_run_killed_inside_a_cell_leaves_a_report_to_go_on_with(tmp_path: Path) -> None:
    """A cell may hold line ends: wherever between its quotes the report ends, what is whole is gone on with."""
    path = tmp_path / "report.csv"
    with ReportWriter(path, STORE) as report:
        report.write(OTHERS[0])
        whole = path.stat().st_size
        report.write(LINE)
    data = path.read_bytes()
    for size in range(whole, len(data)):
        path.write_bytes(data[:size])
        assert list(read_report(path)) == [OTHERS[0]]
        with ReportWriter(path, STORE, resume=True) as report:
            assert len(report.finished) == 1
        assert path.read_bytes() == data[:whole]
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_table_that_is_no_report_is_refused(tmp_path: Path) -> None:
    """Quotes where there can be none are told as what they are, and nothing is left of the attempt."""
    path = tmp_path / "report.csv"
    path.write_text('uri,outcome\n"a"b,new\n"c",new\n', encoding="ascii")
    with pytest.raises(ValueError, match="not a line of a report"):
        ReportWriter(path, STORE, resume=True)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@FORMATS
def test_going_on_keeps_what_is_finished_and_drops_what_is_tried_again(name: str, tmp_path: Path) -> None:
    """New and same lines stay; conflicts and errors go; a report that is not there yet is begun."""
    for _ in range(2):
        with ReportWriter(tmp_path / name, STORE, resume=True) as report:
            for line in [LINE, *OTHERS][len(report.finished) :]:
                report.write(line)
    assert list(read_report(tmp_path / name)) == [LINE, OTHERS[0], *OTHERS[1:]]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_only_the_file_that_was_finished_is_finished(tmp_path: Path) -> None:
    """A file is left out if nothing claimed of it differs from then: another CRC32C, or another size, is tried."""
    with ReportWriter(tmp_path / "report.jsonl", STORE) as report:
        report.write(LINE)
        report.write(OTHERS[0])
    with ReportWriter(tmp_path / "report.jsonl", STORE, resume=True) as report:
        held = report.finished.holds
    assert held(LINE.uri, Hints())
    assert held(LINE.uri, Hints(9, encode(7)))
    assert held(LINE.uri, Hints(9))
    assert not held(LINE.uri, Hints(9, encode(8)))
    assert not held(LINE.uri, Hints(10))
    assert not held("in/other.dcm", Hints(9, encode(7)))
    assert held(OTHERS[0].uri, Hints(9))
    assert not held(OTHERS[0].uri, Hints(9, encode(7)))  # nothing was claimed of it then


def test_a_report_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Neither another datastore's report nor any other file is gone on with, and neither is changed."""
    path = tmp_path / "report.jsonl"
    with ReportWriter(path, STORE) as report:
        report.write(LINE)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another datastore"):
        ReportWriter(path, "gs://archive/c", resume=True)
    assert path.read_bytes() == before
    for name, text in (("notes.txt", "dear diary\n"), ("x.jsonl", '{"uri": 1}\n'), ("x.csv", "a,b\n1,2\n")):
        (tmp_path / name).write_text(text, encoding="ascii")
        with pytest.raises(ValueError, match="not a line of a report"):
            ReportWriter(tmp_path / name, STORE, resume=True)
        assert (tmp_path / name).read_text(encoding="ascii") == text
