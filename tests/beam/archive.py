"""An archive as one arrives: hundreds of series in a bucket, an inventory of them, and rows in it that are wrong."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_optimized_dicom import Datastore, checksum
from cloud_optimized_dicom.series.look import Look
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.sizes import IDC_INSTANCES, draw_sizes
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud_optimized_dicom.testing.gcs_server import GcsServer

ROOT = Path(__file__).resolve().parents[2]
SERIES, INSTANCES = 300, 2000
# Instances a series are drawn from those of NCI IDC, and cut here: so that 300 series are more than 2000 instances, and
# not the 16,000 that they would be.
LARGEST = 40
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


def made_sources(sizes: Sequence[int], chance: random.Random) -> Iterator[Source]:
    """Yield the synthetic files of series of so many instances each."""
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
    files
        What an export must be: the files by their names.
    drawn
        How many instances the synthetic series have.
    """

    server: GcsServer
    bucket: str
    inventory: Path
    stored: dict[str, dict[str, int]]
    bad: frozenset[str]
    files: dict[str, bytes]
    drawn: tuple[int, ...]

    def store(self, name: str) -> str:
        """Return the URL of a datastore."""
        return f"gs://{self.bucket}/{name}"

    def start(self, store: str, report: Path, *flags: str) -> subprocess.Popen[bytes]:
        """Start an ingest with two worker processes, in a process group of its own."""
        waits = ("--lease_seconds=4", "--wait_seconds=12")
        return self.start_pipeline("ingest", store, report, "--inventory", str(self.inventory), *waits, *flags)

    def start_pipeline(self, name: str, store: str, report: Path, *flags: str) -> subprocess.Popen[bytes]:
        """Start a pipeline over a datastore with two worker processes, in a process group of its own."""
        command = [sys.executable, "-m", f"pipelines.{name}", "--store", store, "--report", str(report), *flags]
        command += ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
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
        client.close()
        self.check_objects(store)

    def check_objects(self, store: str) -> None:
        """Check that a datastore has a tar and a document for each series, and nothing else."""
        assert set(self.versions(store)) == {
            f"{store.removeprefix(f'gs://{self.bucket}/')}/{folder}{end}"
            for folder in self.stored
            for end in (".tar", "/metadata.json")
        }


def upload_archive(server: GcsServer, bucket: str, folder: Path) -> Archive:
    """Upload the files, and write the inventory, rows that are wrong among them."""
    sources = list(real_sources(folder))
    real_series = len({source.series_uid for source in sources})
    chance = random.Random(6)
    drawn = draw_sizes(IDC_INSTANCES, SERIES - real_series, chance, at_most=LARGEST)
    sources += made_sources(drawn, chance)
    client = server.client()
    blobs = client.bucket(bucket)
    with ThreadPoolExecutor(8) as pool:
        names = [f"in/{number:05d}.dcm" for number in range(len(sources))]
        list(pool.map(lambda name, source: blobs.blob(name).upload_from_string(source.data), names, sources))
        blobs.blob("in/notes.dcm").upload_from_string(b"not a DICOM file" * 100)
        blobs.blob("in/cut.dcm").upload_from_string(sources[-1].data[:400])
    client.close()
    stored: dict[str, dict[str, int]] = {}
    files: dict[str, bytes] = {}
    rows = []
    for name, source in zip(names, sources, strict=True):
        crc = checksum.crc32c(source.data)
        stored.setdefault(f"studies/{source.study_uid}/series/{source.series_uid}", {})[source.instance_uid] = crc
        uids = (source.study_uid, source.series_uid, source.instance_uid)
        files["/".join(uids) + ".dcm"] = source.data
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
    bad = frozenset({missing, text, cut, wrong, nameless})
    return Archive(server, bucket, inventory, stored, bad, files, tuple(drawn))


def children_of(pid: int) -> list[int]:
    """Return the processes that a process and its children have started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread, or a process, that has ended meanwhile
            for child in map(int, path.read_text(encoding="ascii").split()):
                found += [child, *children_of(child)]
    return found


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a run; not the shells that start them, whose command line is the same."""
    found = []
    for child in children_of(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"python" in command[0] and any(b"sdk_worker_main" in part for part in command):
                found.append(child)
    return found


def kill_worker(run: subprocess.Popen[bytes], chance: random.Random) -> int:
    """Kill one of the worker processes of a run, see that it is dead, and return which it was."""
    workers = workers_of(run.pid)
    assert workers, "a run without workers"
    victim = chance.choice(workers)
    os.kill(victim, signal.SIGKILL)
    while is_alive(victim):
        time.sleep(0.01)
    return victim


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that is dead and that nobody has asked for yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def kill_all(run: subprocess.Popen[bytes]) -> None:
    """Kill all that is left of a run."""
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
