"""A series as large as the largest: one element for one worker, written in parts, in bounded memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.memory import peak_bytes_of
from cloud_optimized_dicom import Datastore, checksum
from cloud_optimized_dicom.beam import IngestOptions
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.beam.archive import ROOT, workers_of
from tests.beam.conftest import write_inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS, NEW, STORED = 90_000, 2_000, 1_000
ROW_BYTES, TOLD_BYTES = 4 << 10, 1 << 10
"""What a row takes in memory, and what is told of one that is done (500 to 800 bytes were measured).

The runner of this machine keeps both of whole stages: all 90,000 rows before the first is written.
"""
WRITING_BYTES = IngestOptions.batch_files * ROW_BYTES + ROWS * TOLD_BYTES
"""What is added by writing: a batch at a time, and what is told.  Batches that stayed would be ``ROWS * ROW_BYTES``."""


def iter_rows(ct: CtSeries, folder: Path) -> Iterator[list[str]]:
    """Yield a row per file: new ones, which are written, and a great many that claim to be what is stored."""
    uids = [ct.uids.study, ct.uids.series]
    claims = []
    for index, data in enumerate(ct):
        path = folder / f"{index:05d}.dcm"
        path.write_bytes(data)
        claim = [str(len(data)), checksum.encode(checksum.crc32c(data)), *uids, ct.instance_uid(index)]
        if index < STORED:
            claims.append(claim)
        else:
            yield [str(path), *claim]
    for number in range(ROWS - NEW):
        yield [f"/nowhere/{number:05d}.dcm", *claims[number % STORED]]


def run_and_watch(command: list[str], folder: Path, tar: Path) -> tuple[dict[str, int], int, int]:
    """Run a pipeline of one worker; return its counters, the worker's peak at its first commit, and that at its end."""
    before, first, peak = tar.stat().st_size, 0, 0
    with (folder / "log").open("wb") as log:
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        while run.poll() is None:
            peak = max([peak, *map(peak_bytes_of, workers_of(run.pid))])
            if not first and tar.stat().st_size > before:
                first = peak
            time.sleep(0.1)
        out, _ = run.communicate()
    assert run.returncode == 0
    return json.loads(out), first, peak


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_series_of_ninety_thousand_rows(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """All rows of one series are told once, in as many commits as batches, and no batch adds to what is held."""
    ct = CtSeries(STORED + NEW, rows=8, columns=8)
    (tmp_path / "files").mkdir()
    rows = list(iter_rows(ct, tmp_path / "files"))
    store = tmp_path / "store"
    first = sorted((tmp_path / "files").iterdir())[:STORED]
    (key,) = Datastore(store).ingest(first, workers=1).series
    random.Random(1).shuffle(rows)  # so that there is something new in every batch
    inventory = write_inventory(tmp_path / "inventory.csv", rows)
    command = [sys.executable, "-m", "pipelines.ingest", "--store", str(store), "--inventory", inventory]
    command += ["--report", str(tmp_path / "report"), "--direct_running_mode=multi_processing"]
    counters, early, peak = run_and_watch(command, tmp_path, store / key.tar)
    record_property("peak_bytes", (early, peak))
    assert (counters["files_new"], counters["files_same"]) == (NEW, ROWS - NEW)
    assert counters["commits"] == -(-ROWS // IngestOptions.batch_files)
    lines = "".join(path.read_text("utf-8") for path in tmp_path.glob("report-*.jsonl")).splitlines()
    assert sorted(json.loads(line)["uri"] for line in lines) == sorted(row[0] for row in rows)
    assert 0 < early <= peak < early + WRITING_BYTES
    (report,) = Datastore(store).verify()
    assert (report.ok, report.instances) == (True, STORED + NEW)
