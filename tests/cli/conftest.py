"""The command line as the tests run it: in this process for speed, in one of its own where that is the point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from cloud_optimized_dicom.cli.main import main
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that stdout is."""
        return json.loads(self.out)


class Cod(Protocol):
    """Run a command line in this process."""

    def __call__(self, *arguments: str | Path) -> Done:
        """Return how it ended."""
        ...


@pytest.fixture
def cod(capsys: pytest.CaptureFixture[str]) -> Cod:
    """Return a function that runs one command line and tells how it ended."""

    def run(*arguments: str | Path) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def store_url(store_kind: str, datastore_url: str, request: pytest.FixtureRequest, monkeypatch: Any) -> str:
    """Return an empty datastore that the command finds by itself, as a user's would."""
    if store_kind == "gcs":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gcs_endpoint"))
    return datastore_url


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Return a folder of five CT slices of one series, a cine, and a file that is not DICOM."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    slices = real_file("98892001/CT5N/2062").path.parent
    for path in sorted(slices.iterdir()):
        (folder / f"{path.name}.dcm").write_bytes(path.read_bytes())
    (folder / "cine.dcm").write_bytes(real_file("examples_ybr_color.dcm").read())
    (folder / "notes.txt").write_text("not DICOM", encoding="ascii")
    return folder


@pytest.fixture
def one_series(tmp_path: Path, cod: Cod) -> str:
    """Return the path of a stored series of five CT slices in a local datastore, in ``tmp_path / "store"``."""
    slices = real_file("98892001/CT5N/2062").path.parent
    assert cod("ingest", slices, tmp_path / "store").code == 0
    return cod("ls", tmp_path / "store").out.strip()


# A shell lets its background jobs ignore Ctrl-C, and they hand that on: what is started here hears it all the same.
_AS_FROM_A_TERMINAL = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("cloud_optimized_dicom.cli", run_name="__main__", alter_sys=True)
"""


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own, as from a terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", _AS_FROM_A_TERMINAL, *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
