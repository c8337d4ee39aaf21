"""What the tables of a catalogue say, what an update reads, and what is left of one that dies."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from datetime import date
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.catalogue import Catalogue, columns, select_uids, update_catalogue
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.errors import InvalidUidError, MetadataError, ObjectNotFoundError, StorageError
from cloud_optimized_dicom.testing.counting_store import CountingStore
from cloud_optimized_dicom.testing.faulty_store import FaultyStore, SimulatedCrash, StoreFault, StoreFaultKind
from tests.catalogue.conftest import ask, contents, memory, overwrite, table_files, update
from tests.cli.test_processes import read_terminal
from tests.core.test_golden_stores import GOLDEN, MANIFEST
from tests.export.conftest import Archive
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore


def test_rows_say_what_the_files_hold(store: ObjectStore, tmp_path: Path) -> None:
    """On every kind of store, each row has the attributes, sizes, checksum and place of its file."""
    archive = Archive(memory(), tmp_path)
    archive.add(3, seed=1)
    update(archive, store)
    columns_asked = "SOPInstanceUID, SOPClassUID, InstanceNumber, Rows, TransferSyntaxUID, frames, size_bytes, crc32c"
    rows = {row[0]: row for row in ask(store, f"SELECT {columns_asked}, start_byte, end_byte FROM instances")}
    tar = next(archive.store.read_object(info.name).data for info in archive.store.list() if ".tar" in info.name)
    assert len(rows) == 3
    for data in archive.files.values():
        found = pydicom.dcmread(io.BytesIO(data))
        syntax = found.file_meta.TransferSyntaxUID
        uid, *values, start, end = rows[found.SOPInstanceUID]
        assert values == [found.SOPClassUID, found.InstanceNumber, 16, syntax, 1, len(data), encode(crc32c(data))]
        assert uid == found.SOPInstanceUID
        assert tar[start:end] == data


def test_the_query_attributes_of_a_real_series(tmp_path: Path) -> None:
    """Dates are dates, names are texts, and what is counted of a study is right."""
    source = pydicom.dcmread(real_file("98892003/MR2/6273").path)
    store, place = Datastore(GOLDEN / "v1-series"), memory()
    update_catalogue(store, place)
    names = [one.keyword for one in (*columns.STUDY_ATTRIBUTES, *columns.SERIES_ATTRIBUTES)]
    (row,) = ask(place, f"SELECT {', '.join(names)} FROM series")
    values = dict(zip(names, row, strict=True))
    day = source.StudyDate
    assert values["StudyDate"] == date(int(day[:4]), int(day[4:6]), int(day[6:]))
    assert values["PatientName"] == str(source.PatientName)
    assert values["PatientID"] == source.PatientID
    assert values["SeriesNumber"] == source.SeriesNumber
    assert values["Modality"] == "MR"
    counted = "ModalitiesInStudy, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances"
    assert ask(place, f"SELECT {counted} FROM studies") == [(["MR"], 1, 3)]


def test_every_older_store_is_catalogued(tmp_path: Path) -> None:
    """Series of every older writer are rows: their instances, and as many frames as can be read."""
    for entry in MANIFEST["series"]:
        place = memory()
        report = update_catalogue(Datastore(GOLDEN / entry["store"]), place)
        assert (report.series, report.instances, report.failures) == (1, entry["new"], ())
        with Datastore(GOLDEN / entry["store"]).open(entry["study_uid"], entry["series_uid"]) as cod:
            frames = {
                uid: len(cod.read_frames(uid)) if one.has_pixeldata else 0
                for uid, one in cod.get_instances(strict_sorting=False).items()
            }
        assert dict(ask(place, "SELECT SOPInstanceUID, frames FROM instances")) == frames


def test_a_hashed_series_shows_its_hashes_only(tmp_path: Path) -> None:
    """Of a series with hashed UIDs no original UID and nothing that identifies a patient is in any column."""
    place = memory()
    update_catalogue(Datastore(GOLDEN / "v2-series-hashed"), place)
    plain = memory()
    update_catalogue(Datastore(GOLDEN / "v2-series"), plain)
    shown = str(contents(place))
    originals = ask(plain, "SELECT StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID FROM instances")
    secrets = {value for row in originals for value in row}
    identifying = [one.keyword for one in columns.OF_SERIES if one.identifying]
    (values,) = ask(plain, f"SELECT {', '.join(identifying)} FROM series")
    assert sum(value is not None for value in values) > 5
    assert ask(place, f"SELECT {', '.join(identifying)} FROM series") == [(None,) * len(identifying)]
    assert not [secret for secret in secrets if f"'{secret}'" in shown]
    assert ask(place, "SELECT hashed_uids, Modality FROM series") == [(True, "MR")]
    assert ask(place, "SELECT count(original_path) FROM instances") == [(0,)]


def test_a_second_run_reads_nothing(archive: Archive) -> None:
    """Where nothing has changed the datastore is listed, and no object of it is read; nothing is written."""
    place = CountingStore(memory())
    assert isinstance(archive.store, CountingStore)
    first = update(archive, place)
    assert (first.series, first.instances, first.read, first.kept) == (2, 8, 2, 0)
    archive.store.reset()
    place.reset()
    second = update(archive, place)
    assert (second.series, second.instances, second.read, second.kept) == (2, 8, 0, 2)
    assert archive.store.operations == ("list",)
    assert not [record for record in place.records if record.bytes_up]


def test_an_update_reads_what_changed_and_drops_what_is_gone(archive: Archive) -> None:
    """Of a new, a changed, an unchanged and a removed series only the first two are read."""
    place = memory()
    assert isinstance(archive.store, CountingStore)
    changed, gone = archive.add(2, seed=3), archive.add(2, seed=4)
    update(archive, place, partitions=2)
    with archive.datastore.open(changed.study_uid, changed.series_uid, "a") as cod:
        cod.add_metadata_field("site", "A")
        cod.remove([next(iter(cod.get_instances(strict_sorting=False)))])
    new = archive.add(1, seed=5)
    for info in list(archive.store.list(gone.folder)):
        archive.store.delete(info.name)
    archive.store.reset()
    report = update(archive, place)
    assert (report.series, report.instances, report.read, report.kept, report.removed) == (4, 10, 2, 2, 1)
    read = sorted(record.name for record in archive.store.records if record.operation == "read_object")
    assert read == sorted([changed.metadata, new.metadata])
    fresh = memory()
    update(archive, fresh)
    assert contents(place) == contents(fresh)


def test_a_series_that_cannot_be_read_keeps_its_rows(archive: Archive) -> None:
    """A damaged metadata.json is a failure that stops no other series; the next run tries again."""
    place = memory()
    update(archive, place)
    (key, other) = archive.datastore.series()
    good = archive.store.read_object(key.metadata).data
    overwrite(archive.store, key.metadata, b"{}")
    with archive.datastore.open(other.study_uid, other.series_uid, "a") as cod:
        cod.add_metadata_field("site", "A")
    for _ in range(2):
        report = update(archive, place)
        assert [(failure.uri, type(failure.error)) for failure in report.failures] == [
            (archive.store.url_of(key.folder), MetadataError)
        ]
        assert (report.series, report.instances) == (2, 8)
    overwrite(archive.store, key.metadata, good)
    assert update(archive, place).ok


def test_a_death_at_any_write_leaves_a_whole_catalogue(archive: Archive) -> None:
    """Killed before or after any write, an update leaves old or new tables; the next one leaves no debris."""
    archive.add(2, seed=7)
    after = memory()
    update(archive, after, partitions=3)
    for kind in (StoreFaultKind.CRASH_BEFORE, StoreFaultKind.CRASH_AFTER):
        for skip in range(100):
            place = memory()
            faulty = FaultyStore(place, [StoreFault(kind, "[cr]*e", skip=skip)])
            try:
                update(archive, faulty, partitions=3)
            except SimulatedCrash:
                pass
            else:
                break
            if place.find("catalogue.json") is not None:
                assert contents(place) in (([], []), contents(after))
            update(archive, place, partitions=3)
            update(archive, place)
            assert contents(place) == contents(after)
            with Catalogue(place) as catalogue:
                assert table_files(place) == catalogue.manifest.names
        assert skip > 5


def test_two_runs_at_once_lose_nothing(archive: Archive) -> None:
    """A run that finds another one's publication in its way goes on from there."""
    place = memory()
    fault = StoreFault(StoreFaultKind.CALL_BEFORE, "create", "catalogue.json", call=lambda _: update(archive, place))
    report = update(archive, FaultyStore(place, [fault]))
    assert (report.read, report.kept) == (0, 2)
    assert ask(place, "SELECT count(*) FROM instances") == [(8,)]


def test_who_has_opened_a_catalogue_goes_on_reading(archive: Archive) -> None:
    """An update does not take the files away from those who read; the next update tidies them up."""
    place = memory()
    update(archive, place)
    with Catalogue(place) as catalogue:
        archive.add(1, seed=9)
        update(archive, place)
        assert list(catalogue.query("SELECT count(*) FROM instances")) == [(8,)]
        assert len(table_files(place)) == 4
    update(archive, place)
    assert len(table_files(place)) == 2


def test_a_catalogue_of_another_datastore_is_not_overwritten(archive: Archive, tmp_path: Path) -> None:
    """Only a rebuild turns the catalogue of one datastore into that of another."""
    place = memory()
    update(archive, place)
    other = Archive(memory(), tmp_path / "other")
    other.add(1, seed=3)
    with pytest.raises(StorageError, match="catalogue of memory://"):
        update(other, place)
    with pytest.raises(StorageError, match="1 partitions"):
        update(archive, place, partitions=2)
    report = update(other, place, rebuild=True)
    assert (report.series, report.read) == (1, 1)
    assert ask(place, "SELECT count(*) FROM series") == [(1,)]


def test_an_empty_datastore_has_an_empty_catalogue() -> None:
    """Without series the tables are there and have no rows."""
    place = memory()
    assert update_catalogue(Datastore(memory()), place).series == 0
    assert contents(place) == ([], [])
    with pytest.raises(ObjectNotFoundError):
        Catalogue(memory())


def test_the_lists_name_the_files(archive: Archive) -> None:
    """What other engines are pointed at are the present files of each table, by URL."""
    place = memory()
    update(archive, place)
    archive.add(1, seed=3)
    update(archive, place)
    with Catalogue(place) as catalogue:
        for table in ("series", "instances"):
            lines = place.read_object(f"{table}.txt").data.decode().splitlines()
            assert lines == [place.url_of(name) for name in catalogue.manifest.names_of(table)]


def test_rows_select_series_and_instances(archive: Archive) -> None:
    """A query by the right names gives series, or instances by series; any other is refused."""
    place = memory()
    update(archive, place)
    with Catalogue(place) as catalogue:
        series = select_uids(catalogue, "SELECT * FROM series WHERE NumberOfSeriesRelatedInstances = 5")
        assert [(found.key, found.instance_uids) for found in series] == [
            (key, None) for key in archive.datastore.series() if len(archive.of(key)) == 5
        ]
        instances = select_uids(catalogue, "SELECT * FROM instances WHERE InstanceNumber = 1")
        assert [len(found.instance_uids or ()) for found in instances] == [1, 1]
        with pytest.raises(ValueError, match="no column SeriesInstanceUID"):
            select_uids(catalogue, "SELECT StudyInstanceUID FROM series")
        with pytest.raises(InvalidUidError):
            select_uids(catalogue, "SELECT '../x' AS StudyInstanceUID, SeriesInstanceUID FROM series")


def test_an_error_of_a_query_quotes_no_value(archive: Archive) -> None:
    """The text of a wrong query is told, the value that a cast stumbles over is not."""
    place = memory()
    update(archive, place)
    with Catalogue(place) as catalogue:
        with pytest.raises(ValueError, match="nope"):
            catalogue.query("SELECT nope FROM series")
        with pytest.raises(ValueError, match=r"exception$") as caught:
            list(catalogue.query("SELECT Modality::INT FROM series"))
        assert "CT" not in str(caught.value)


@pytest.mark.parametrize(("module", "extra"), [("duckdb", "query"), ("pytz", "query"), ("pyarrow", "export")])
def test_a_missing_extra_is_named(module: str, extra: str, tmp_path: Path) -> None:
    """Without the libraries the package imports, and what needs them says which extra to install."""
    script = f"""
import sys
sys.modules[{module!r}] = None
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.catalogue import Catalogue, update_catalogue
from cloud_optimized_dicom.errors import MissingDependencyError
try:
    update_catalogue(Datastore({str(GOLDEN / "v2-series")!r}), "memory://x")
    Catalogue("memory://x")
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"[{extra}]" in done.stdout


def test_the_command_builds_and_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cod catalogue` tells what it read, `cod query` prints CSV or JSON, and a wrong query is wrong usage."""
    archive, place = str(shutil.copytree(GOLDEN / "v2-rtdose", tmp_path / "archive")), str(tmp_path / "tables")

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        return main(arguments), capsys.readouterr().out

    code, out = run("catalogue", archive, place)
    assert code == 0
    assert "1 series, 1 instance in" in out
    code, out = run("catalogue", archive, place, "--json")
    assert json.loads(out) == {
        "catalogue": place,
        "series": 1,
        "instances": 1,
        "read": 0,
        "kept": 1,
        "removed": 0,
        "partitions": 1,
        "failed": [],
    }
    sql = "SELECT Modality, frames, StudyDate, [1, 2] AS both FROM series"
    assert run("query", sql, place) == (0, "Modality,frames,StudyDate,both\nRTDOSE,15,2003-08-05,1; 2\n")
    code, out = run("query", sql, place, "--json")
    document = json.loads(out)
    assert document["rows"] == [{"Modality": "RTDOSE", "frames": 15, "StudyDate": "2003-08-05", "both": [1, 2]}]
    assert document["columns"][1] == {"name": "frames", "type": "BIGINT"}
    assert run("query", "SELECT nope", place)[0] == 2
    assert run("query", "SELECT 1", str(tmp_path / "nothing"))[0] == 3
    with CODObject.from_uri(next(iter(ask_local(place))), None, "a") as cod:
        cod.upload_error_log("for the test")
    assert run("catalogue", archive, place)[0] == 0


def ask_local(place: str) -> list[str]:
    """Return the URIs of the series in a catalogue."""
    with Catalogue(place) as catalogue:
        return [str(row[0]) for row in catalogue.query("SELECT uri FROM series")]


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    """On a terminal the answer is a table in which no value is taken for markup or can steer the terminal."""
    update_catalogue(Datastore(GOLDEN / "v2-rtdose"), tmp_path)
    primary, secondary = pty.openpty()
    sql = "SELECT Modality, '[bold]' AS markup, chr(27) || 'c' AS control FROM series"
    command = [sys.executable, "-m", "cloud_optimized_dicom.cli", "query", sql, str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=secondary)
    os.close(secondary)
    shown = read_terminal(primary).decode()
    os.close(primary)
    assert process.wait(timeout=60) == 0
    assert "RTDOSE" in shown
    assert "[bold]" in shown
    assert "\x1bc" not in shown
    assert shown.splitlines()[-1] == "1 row"
