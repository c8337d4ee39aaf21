"""An archive as one arrives: hundreds of series in a bucket, an inventory of them, and rows in it that are wrong."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_optimized_dicom import Datastore, checksum
from cloud_optimized_dicom.series.look import Look
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.testing.gcs_server import GcsServer

ROOT = Path(__file__).resolve().parents[2]
SERIES, INSTANCES = 300, 2000
# Instances a series at these quantiles: those of NCI IDC up to the 90th percentile, then cut off.
_QUANTILES = ((0.55, 1), (0.70, 4), (0.80, 12), (0.90, 30), (1.0, 90))
_EDGES = (16, 16, 32, 64, 128)
_MAX_FILE_BYTES = 300_000


@dataclass(frozen=True)
class Source:
    """A file, and what is true of it."""

    data: bytes
    study_uid: str
    series_uid: str
    instance_uid: str


def real_sources(folder: Path) -> Iterator[Source]:
    """Yield the real files that can be stored, of every UID the first."""
    paths = [file.path_in(folder) for file in real_files()]
    report = Datastore("memory://real-files-for-beam").ingest(
        [str(p) for p in paths if p.stat().st_size < _MAX_FILE_BYTES]
    )
    for result in report.files:
        if result.outcome == "new" and result.series is not None and result.instance_uid is not None:
            data = Path(result.uri).read_bytes()
            yield Source(data, result.series.study_uid, result.series.series_uid, result.instance_uid)


def made_sources(series: int, instances: int) -> Iterator[Source]:
    """Yield at least so many synthetic files of so many series, of sizes as archives have them."""
    chance = random.Random(6)
    sizes = [next(size for share, size in _QUANTILES if chance.random() <= share) for _ in range(series)]
    sizes[0] += max(0, instances - sum(sizes))  # one that is larger than all others
    for number, size in enumerate(sizes):
        edge = chance.choice(_EDGES)
        ct = CtSeries(size, rows=edge, columns=edge, seed=1000 + number)
        for index in range(size):
            yield Source(ct.instance(index), ct.uids.study, ct.uids.series, ct.instance_uid(index))


@dataclass(frozen=True)
class Archive:
    """Files in a bucket, and their inventory.

    Parameters
    ----------
    stored
        By series folder, what there is to be stored: CRC32C by instance UID.
    bad
        What the dead letters must name.
    """

    server: GcsServer
    bucket: str
    inventory: Path
    stored: dict[str, dict[str, int]]
    bad: frozenset[str]

    def store(self, name: str) -> str:
        """Return the URL of a datastore."""
        return f"gs://{self.bucket}/{name}"

    def start(self, store: str, report: Path, *flags: str) -> subprocess.Popen[bytes]:
        """Start an ingest with two worker processes, in a process group of its own."""
        command = [sys.executable, "-m", "pipelines.ingest", "--store", store, "--inventory", str(self.inventory)]
        command += ["--report", str(report), "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
        command += ["--lease_seconds=4", "--wait_seconds=12", *flags]
        environment = {**os.environ, "STORAGE_EMULATOR_HOST": self.server.url, "PYTHONPATH": str(ROOT)}
        with report.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=report.parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def versions(self, store: str) -> dict[str, int]:
        """Return the generation of every object of a datastore."""
        client = self.server.client()
        prefix = store.removeprefix(f"gs://{self.bucket}/") + "/"
        found = {blob.name: blob.generation for blob in client.list_blobs(self.bucket, prefix=prefix)}
        client.close()
        return found

    def check(self, store: str) -> None:
        """Check that all there is to be stored is stored, once, sound, and nothing else lies about."""
        client = self.server.client()
        datastore = Datastore(store, client)
        reports = list(datastore.verify())
        odd = [finding for report in reports for finding in report.findings]
        assert odd == [], odd[:3]  # nobody rewrites the asserts of a helper
        found = {}
        for key in datastore.series():
            seen = Look.at(datastore.store, key).document
            assert seen is not None
            records = [seen.document.get(uid) for uid in seen.document.instances]
            found[key.folder] = {record.instance_uid: record.crc32c for record in records}
        assert found == self.stored
        names = {info.name for info in datastore.store.list()}
        assert names == {f"{folder}{end}" for folder in found for end in (".tar", "/metadata.json")}
        client.close()


def upload_archive(server: GcsServer, bucket: str, folder: Path) -> Archive:
    """Upload the files, and write the inventory, rows that are wrong among them."""
    sources = list(real_sources(folder))
    real_series = len({source.series_uid for source in sources})
    sources += made_sources(SERIES - real_series, INSTANCES - len(sources))
    client = server.client()
    blobs = client.bucket(bucket)
    with ThreadPoolExecutor(8) as pool:
        names = [f"in/{number:05d}.dcm" for number in range(len(sources))]
        list(pool.map(lambda name, source: blobs.blob(name).upload_from_string(source.data), names, sources))
        blobs.blob("in/notes.dcm").upload_from_string(b"not a DICOM file" * 100)
        blobs.blob("in/cut.dcm").upload_from_string(sources[-1].data[:400])
    client.close()
    stored: dict[str, dict[str, int]] = {}
    rows = []
    for name, source in zip(names, sources, strict=True):
        crc = checksum.crc32c(source.data)
        stored.setdefault(f"studies/{source.study_uid}/series/{source.series_uid}", {})[source.instance_uid] = crc
        uids = (source.study_uid, source.series_uid, source.instance_uid)
        rows.append([f"gs://{bucket}/{name}", len(source.data), checksum.encode(crc), *uids])
    missing, text, cut = (f"gs://{bucket}/in/{name}.dcm" for name in ("missing", "notes", "cut"))
    rows.insert(7, [missing, *rows[0][1:5], "1.2.3.4"])
    rows.insert(1200, [text, "", "", "", "", ""])
    rows.insert(1300, [cut, "", "", *rows[-1][3:5], ""])
    rows.insert(1400, ["", *rows[-1][1:]])
    wrong = f"gs://{bucket}/in/00001.dcm#"
    rows.insert(1500, [wrong, "", "", *rows[0][3:5], "not a UID"])
    random.Random(7).shuffle(rows)
    inventory = folder / "inventory.csv"
    with inventory.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["uri", "size", "crc32c", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
        writer.writerows(rows)
    nameless = f"{inventory} line {next(number for number, row in enumerate(rows, 2) if not row[0])}"
    return Archive(server, bucket, inventory, stored, frozenset({missing, text, cut, wrong, nameless}))


def children_of(pid: int) -> list[int]:
    """Return the processes that a process and its children have started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text(encoding="ascii").split()):
            found += [child, *children_of(child)]
    return found


def kill_at_random(run: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Kill one of the worker processes of a run, then all that is left of it."""
    workers = children_of(run.pid)
    if workers:
        os.kill(chance.choice(workers), signal.SIGKILL)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
