"""The demo that newcomers run first."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.cli.demo import main

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demo_runs_and_holds(tmp_path: Path) -> None:
    """The demo exits with 0, leaves nothing behind, and says what a frame costs and that nothing is damaged."""
    done = subprocess.run(
        [sys.executable, "-m", "cloud_optimized_dicom.cli.demo"],
        env={"PATH": "", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "22 instances recognised as the same, 0 new" in done.stdout
    assert "frame 13 of 30: 2 requests" in done.stdout
    assert "no damage" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_demo_whose_claims_do_not_hold_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing can be stored, the demo says which claim does not hold and exits with 1."""
    (tmp_path / "file").write_bytes(b"")
    assert main(["--keep", str(tmp_path / "file/store")]) == 1
    assert "This does not hold: 0 instances stored" in capsys.readouterr().err


def test_the_demo_keeps_its_datastore_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--keep leaves a datastore that opens, and a folder that holds something is refused."""
    assert main(["--keep", str(tmp_path / "kept")]) == 0
    assert len(list(Datastore(tmp_path / "kept").series())) == 10
    assert str(tmp_path / "kept") in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["--keep", str(tmp_path / "kept")])
