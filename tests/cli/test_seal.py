"""``cod seal``: what it does to a store, and how it ends."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.format.sqlite_index import parse_sqlite_index

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cod


def test_sealed_tars_are_appended_to_by_others(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """Every series of a store is sealed, with an index where that is asked for; the second time nothing changes."""
    tar = tmp_path / f"{one_series.removeprefix(f'{tmp_path}/')}.tar"
    size = tar.stat().st_size
    done = cod("seal", tmp_path / "store", "--legacy-index", "--json")
    assert (done.code, done.document) == (0, {"series": [{"series": one_series, "reason": None}]})
    assert tar.stat().st_size == size + 1024
    index = parse_sqlite_index((tmp_path / "store" / f"{one_series.partition('store/')[2]}/index.sqlite").read_bytes())
    assert index is not None
    assert (index.tar_bytes, len(index.members)) == (size + 1024, 5)
    assert cod("seal", one_series).out == "1 series: 1 sealed, 0 left alone\n"
    assert tar.stat().st_size == size + 1024
    with tarfile.open(tar, "a") as opened:
        assert len(opened.getnames()) == 5


def test_a_locked_series_is_left_alone(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A series that is being written is listed with its reason, and the exit code tells; a missing one is not found."""
    (key,) = Datastore(tmp_path / "store").series()
    with Datastore(tmp_path / "store").open(key.study_uid, key.series_uid, "a"):
        done = cod("seal", tmp_path / "store")
    assert done.code == 4
    assert one_series in done.out
    assert done.out.endswith("1 series: 0 sealed, 1 left alone\n")
    assert cod("seal", tmp_path / "store/studies/1.2/series/1.3").code == 3
