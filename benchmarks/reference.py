"""The published library, in a virtual environment of its own, as a black box: its documented API and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Spent, Traffic
from cloud_optimized_dicom.testing.published import install_published

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.workbench import Workbench
    from cloud_optimized_dicom.uids import SeriesKey

_DRIVER = Path(__file__).with_name("reference_driver.py")
_SECONDS = 1800
_NO_LOOK_UP = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
"""Spares the reference a request that has nothing to do with it; our client is spared it too."""


class ReferenceError_(Exception):  # noqa: N801, N818 - the plain name is a builtin's
    """What the library said when it could not do something."""


class Reference:
    """The library, installed.

    Parameters
    ----------
    folder
        Where its environment is, or is to be made.
    """

    def __init__(self, folder: Path) -> None:
        self.python = install_published(folder)

    def run(self, bench: Workbench, job: str, url: str, key: SeriesKey, **arguments: Any) -> Spent:
        """Do one job in a new process.

        Raises
        ------
        ReferenceError_
            If it fails, or ends with other counts than the argument `expect` says.
        """
        order = {"job": job, "datastore": url, "study_uid": key.study_uid, "series_uid": key.series_uid, **arguments}
        order["endpoint"] = bench.server.url
        bench.server.reset_counters()
        environment = os.environ | {"STORAGE_EMULATOR_HOST": bench.server.url, _NO_LOOK_UP: "true"}
        # Isolated (-I): our own package is not to be imported in its stead.
        done = subprocess.run(
            [str(self.python), "-I", str(_DRIVER)], input=json.dumps(order), capture_output=True, text=True,
            cwd=bench.folder, env=environment, timeout=_SECONDS,
            check=False,
        )  # fmt: skip
        traffic = Traffic.of(bench.server.counters())
        if done.returncode:
            raise ReferenceError_((done.stderr.strip().splitlines() or ["no word"])[-1][:200])
        found = json.loads(done.stdout.splitlines()[-1])
        if found["found"] != arguments.get("expect", found["found"]):
            raise ReferenceError_(f"new, same, conflict, error: {found['found']}")
        return Spent(found["wall_seconds"], found["cpu_seconds"], traffic, found["peak_mib"])

    def stored(self, bench: Workbench, files: Any, key: SeriesKey) -> tuple[str, Spent]:
        """Let it store files as they are, once; return where, and what that took."""
        stores = bench.reference_stores
        if files.name not in stores:
            url = bench.place()
            spent = self.run(bench, "ingest", url, key, **new_files(files.paths))
            stores[files.name] = url, spent
        return stores[files.name]


def new_files(paths: Iterable[object], *, compress: bool = False) -> dict[str, Any]:
    """Return the arguments of a job that stores files, each of which is new."""
    uris = [str(path) for path in paths]
    return {"uris": uris, "compress": compress, "expect": [len(uris), 0, 0, 0]}


def beside(
    bench: Workbench, job: str, key: SeriesKey, *, stored: Any = None, **arguments: Any
) -> tuple[Spent | None, str]:
    """Return what the reference takes for a job, or why there is no such figure; nothing where it was not asked for.

    Parameters
    ----------
    stored
        Files that it has to have stored before; without any the job gets an empty datastore.
    """
    reference = bench.reference
    if reference is None:
        return None, ""
    try:
        if stored is None:
            return reference.run(bench, job, bench.place(), key, **arguments), ""
        url, spent = reference.stored(bench, stored, key)
        return (spent if job == "ingest" else reference.run(bench, job, url, key, **arguments)), ""
    except (ReferenceError_, subprocess.TimeoutExpired) as failure:
        return None, f"the reference failed: {failure}"


def without_peak(spent: Spent | None) -> Spent | None:
    """Return figures without the memory, for rows that do not compare it."""
    return replace(spent, peak_mib=None) if spent else None
