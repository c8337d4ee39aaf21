"""What a pipeline lists: nothing is kept of it on the workers, and nothing secret is asked of them.

Some functions are called as a runner calls them: no pipeline shows what lies there between two elements, or goes on
with a function that was interrupted.
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import apache_beam as beam
import pytest

from cloud_optimized_dicom.beam import ReadInventory
from cloud_optimized_dicom.beam.ingest import IngestOptions, _Ingest
from cloud_optimized_dicom.beam.inventory import ExpandArchives, _Expand, _ListSources
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.inventory import InventoryRow
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.uids import SeriesKey
from tests.beam.conftest import run_pipeline

if TYPE_CHECKING:
    from pathlib import Path

CT = CtSeries(3, 16, 16)


def files_in(folder: Path) -> list[Path]:
    """Write some slices."""
    folder.mkdir()
    paths = [folder / f"{index}.dcm" for index in range(3)]
    for path, data in zip(paths, CT, strict=True):
        path.write_bytes(data)
    return paths


def test_nothing_stays_of_an_archive_that_was_listed(tmp_path: Path) -> None:
    """A gzipped tar is unpacked to list its members, and what was unpacked is gone with the element."""
    archive = tmp_path / "box.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in files_in(tmp_path / "files"):
            tar.add(path, path.name)
    for function, element in ((_ListSources(), str(archive)), (_Expand(), InventoryRow(str(archive), Hints()))):
        function.setup()
        rows = list(function.process(element))
        assert [row.uri for row in rows] == [f"{archive}://{index}.dcm" for index in range(3)]
        assert not list(function.stores.scratch.iterdir())
        function.teardown()


@pytest.mark.parametrize("place", ["https://h/x.dcm?X-Goog-Signature=secret", "sftp://me:secret@h/inbox/"])
def test_places_with_secrets_are_refused_at_once(place: str) -> None:
    """Rows are recorded and passed on without secrets, so workers could not read them: said before it runs."""
    for given in ({"sources": [place]}, {"tables": [place]}):
        with pytest.raises(ValueError, match="password or signature") as caught:
            ReadInventory(**given)
        assert "secret" not in str(caught.value)
    ReadInventory(sources=["https://h/x.dcm?object=1#part"])


def test_rows_of_archives_with_secrets_are_dead_letters() -> None:
    """An archive's members would be named without them."""
    row = InventoryRow("https://me:secret@h/x.zip", Hints())
    found, _ = run_pipeline(lambda pipeline: (pipeline | beam.Create([row]) | ExpandArchives())._asdict())
    assert found["rows"] == []
    (letter,) = found["dead_letters"]
    assert "password or signature" in letter.reason
    assert "secret" not in repr(letter)


class Interrupting(str):
    """The URI of a file at which the bundle breaks off."""

    __slots__ = ()

    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_a_bundle_that_broke_off_spoils_no_other(tmp_path: Path) -> None:
    """The function that was interrupted in a bundle does the next one."""
    function = _Ingest(str(tmp_path / "store"), IngestOptions(), is_last=True)
    key = SeriesKey(CT.uids.study, CT.uids.series)
    uris = [str(path) for path in files_in(tmp_path / "files")]
    function.setup()
    function.start_bundle()
    list(function.process((key, [InventoryRow(Interrupting("x"), Hints())]), 0, None))
    with pytest.raises(KeyboardInterrupt):
        list(function.finish_bundle())
    function.start_bundle()
    list(function.process((key, [InventoryRow(uri, Hints()) for uri in uris]), 0, None))
    assert [done.value.outcome for done in function.finish_bundle()] == ["new"] * 3
    function.teardown()
