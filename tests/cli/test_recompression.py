"""Recompression as the command line has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.core.conftest import write_series

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cod


def test_the_command_tells_what_was_saved(tmp_path: Path, cod: Cod) -> None:
    """`cod ingest --compress` prints how many became smaller, and by how much; so does its JSON."""
    slices = write_series(tmp_path / "slices", CtSeries(3, rows=64, columns=64))
    done = cod("ingest", slices.paths[0].parent, tmp_path / "store", "--compress", "htj2k", "--workers", "1")
    assert done.code == 0
    assert "recompression: 3 recompressed; " in done.out
    document = cod("ingest", slices.paths[0].parent, tmp_path / "other", "--compress", "rle", "--json").document
    assert document["recompressions"] == {"recompressed": 3}
    assert document["saved_bytes"] > 0
    assert cod("ingest", slices.paths[0], tmp_path / "store", "--compress", "zip").code == 2
