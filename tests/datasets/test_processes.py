"""Datasets in other processes: forked, spawned, and beside a writer."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.datasets import FrameDataset, SliceDataset
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer

from .conftest import CHEST, HEAD, TILES, fill

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
WORKERS = """
import multiprocessing, pickle, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork, in a process with threads
import numpy as np
from cloud_optimized_dicom.datasets import SliceDataset

method, url = sys.argv[1:]

def serve(dataset, numbers, answers):
    for number in numbers:
        answers.put((number, dataset[number]["image"].tobytes()))

if __name__ == "__main__":
    context = multiprocessing.get_context(method)
    dataset = SliceDataset(url)
    expected = {number: dataset[number]["image"].tobytes() for number in range(len(dataset))}
    answers = context.Queue()
    process = dataset._frames._process
    with process.lock:  # as another thread of the parent may hold it when the process forks
        workers = [context.Process(target=serve, args=(dataset, range(start, 7, 2), answers)) for start in (0, 1)]
        for worker in workers:
            worker.start()
    found = dict(answers.get(timeout=60) for _ in expected)
    again = {number: dataset[number]["image"].tobytes() for number in expected}
    for worker in workers:
        worker.join()
    print(found == expected, again == expected, [worker.exitcode for worker in workers])
"""

APPENDING = """
import sys
from cloud_optimized_dicom import Datastore, Instance
url, study, series, *paths = sys.argv[1:]
for path in paths:
    with Datastore(url).open(study, series, "a", wait_seconds=20) as cod:
        assert len(cod.append([Instance(path)]).new) == 1
    print("appended", flush=True)
"""


@pytest.fixture(params=["local", "gcs"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of an empty datastore that other processes reach too."""
    if request.param == "local":
        yield str(tmp_path / "store")
        return
    with GcsServer() as server:
        server.create_bucket("shared")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield "gs://shared/store"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_their_parent_reads(method: str, place: str, tmp_path: Path) -> None:
    """Forked and spawned workers read every item, whatever the parent was doing, and the parent reads on."""
    fill(Datastore(place), tmp_path / "files")
    script = tmp_path / "workers.py"
    script.write_text(WORKERS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), method, place],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split("\n")[0] == "True True [0, 0]", done.stderr


def test_items_stay_what_they_are_while_another_process_appends(place: str, tmp_path: Path) -> None:
    """Random items and whole batches of a series are right at every moment of another process's appends to it."""
    folder = tmp_path / "late"
    folder.mkdir()
    grown = CtSeries(HEAD.instances + 8, rows=HEAD.rows, columns=HEAD.columns, seed=HEAD.seed)
    paths = [folder / f"{index}.dcm" for index in range(HEAD.instances, grown.instances)]
    for index, path in enumerate(paths, HEAD.instances):
        path.write_bytes(grown.instance(index))
    datastore = fill(Datastore(place), tmp_path / "files")
    dataset = SliceDataset(datastore)
    pixels = {
        series.instance_uid(index): series.pixels(index)
        for series in (HEAD, CHEST)
        for index in range(series.instances)
    }
    arguments = [place, HEAD.uids.study, HEAD.uids.series, *map(str, paths)]
    chosen = random.Random(5)
    read = 0
    with subprocess.Popen(
        [sys.executable, "-c", APPENDING, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        while writer.poll() is None or read < 50:
            for item in dataset.__getitems__(chosen.sample(range(7), 3)):
                assert (item["image"] == pixels[item["instance_uid"]]).all()
                read += 1
    assert writer.returncode == 0
    assert len(FrameDataset(datastore)) == 7 + TILES + len(paths)


def test_torch_is_not_imported(tmp_path: Path) -> None:
    """Datasets are made and read without torch, MONAI or, from local folders, a cloud SDK being loaded."""
    fill(Datastore(tmp_path / "store"), tmp_path / "files")
    script = """
import sys
from cloud_optimized_dicom.datasets import SliceDataset
dataset = SliceDataset(sys.argv[1])
print(len(dataset), dataset[0]["image"].shape, sorted({"torch", "monai", "google.cloud.storage"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "7 (16, 12) []"
