"""Mode "e" on every kind of instance, and on series of older writers."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Datastore, Instance
from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.format.metadata.document import SeriesDocument
from cloud_optimized_dicom.format.sqlite_index import index_of, parse_sqlite_index
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.core.conftest import write_series
from tests.core.test_golden_stores import GOLDEN, MANIFEST
from tests.dicom import oracle
from tests.edit.conftest import contents, rewrite
from tests.hashed.functions import pseudonym
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = [
    entry for entry in MANIFEST["series"] if entry["new"] and entry["store"] not in {"v2-error-log", "v2-hanging-lock"}
]
PIXELS = kinds.make_frames(5, 48, 40)
KINDS: dict[str, Callable[[], bytes]] = {
    "native": lambda: kinds.native(PIXELS),
    "implicit": lambda: kinds.implicit(PIXELS),
    "big endian": lambda: kinds.big_endian(PIXELS),
    "deflated": lambda: kinds.deflated(PIXELS),
    "JPEG 2000, Extended Offset Table": lambda: kinds.jpeg2000(PIXELS, offset_table="extended"),
    "JPEG 2000, fragmented": lambda: kinds.jpeg2000(PIXELS, fragments=3, offset_table="empty"),
    "HTJ2K": lambda: kinds.htj2k(PIXELS),
    "float": lambda: kinds.float_pixels(PIXELS.astype(np.float32)),
    "1-bit": lambda: kinds.one_bit_segmentation(np.random.default_rng(1).random((40, 33, 31)) > 0.6),
}


def check_frames(cod: CODObject, uid: str, data: bytes) -> None:
    """Make sure that the frames that are read are those that pydicom finds in the file."""
    dataset = oracle.read(data)
    frames = cod.read_frames(uid)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        assert frames == oracle.encapsulated_frames(dataset)
    else:
        element = next(dataset[tag] for tag in oracle.PIXEL_DATA if tag in dataset)
        joined = b"".join(frames)
        assert joined == element.value[: len(joined)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_edited(kind: str, datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """A header that grows moves everything behind it: frames are found by the new table, in every encoding."""
    path = tmp_path / "file.dcm"
    path.write_bytes(KINDS[kind]())
    store = Datastore(datastore_url, gcs_client)
    (key,) = store.ingest([path]).series
    with store.open(key.study_uid, key.series_uid, "e") as cod:
        (uid,) = cod.get_instances(strict_sorting=False)
        new = rewrite(cod.get_instance(uid).dicom_uri, PatientComments="longer than before " * 9)
    assert contents(store.open(key.study_uid, key.series_uid)) == {uid: new}
    with store.open(key.study_uid, key.series_uid) as cod:
        if kind != "1-bit":
            check_frames(cod, uid, new)
        assert cod.verify().ok


def test_another_encoding(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Files may come back compressed, decompressed, or without pixels."""
    path = tmp_path / "file.dcm"
    path.write_bytes(kinds.native(PIXELS))
    store = Datastore(datastore_url, gcs_client)
    (key,) = store.ingest([path]).series
    uid = str(pydicom.dcmread(path).SOPInstanceUID)
    for syntax in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1"):
        with store.open(key.study_uid, key.series_uid, "e") as cod:
            file = cod.get_instance(uid).dicom_uri
            dataset = pydicom.dcmread(file)
            if dataset.file_meta.TransferSyntaxUID.is_compressed:
                dataset.decompress(generate_instance_uid=False)
            else:
                dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(file)
        with store.open(key.study_uid, key.series_uid) as cod:
            assert cod.get_instance(uid).metadata["00020010"]["Value"] == [syntax]
            assert all((cod.read_frame_array(uid, at) == PIXELS[at]).all() for at in range(len(PIXELS)))
    with store.open(key.study_uid, key.series_uid, "e") as cod:
        file = cod.get_instance(uid).dicom_uri
        dataset = pydicom.dcmread(file)
        del dataset.PixelData
        dataset.save_as(file)
    with store.open(key.study_uid, key.series_uid) as cod:
        assert not cod.get_instance(uid).has_pixeldata
        assert cod.get_metadata()["cod"]["instances"][uid]["offset_tables"] == {}
        assert cod.verify().ok


def test_what_was_recompressed(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """The checksum of a source that is not stored any more goes: its file is a conflict then, and not "same"."""
    files = write_series(tmp_path / "files", CtSeries(2, rows=64, columns=64))
    place = datastore_url, gcs_client, files.series.uids.study, files.series.uids.series
    with CODObject(*place, "w") as cod:
        cod.append(files.instances(), compress="htj2k", workers=1)
        assert all("source_crc32c" in raw for raw in cod.get_metadata()["cod"]["instances"].values())
    with CODObject(*place, "e") as cod:
        rewrite(cod.get_instance(files.uids[0]).dicom_uri, PatientID="x")
    with CODObject(*place, "a") as cod:
        records = cod.get_metadata()["cod"]["instances"]
        assert not {"source_crc32c", "source_size"} & records[files.uids[0]].keys()
        assert {"source_crc32c", "source_size"} < records[files.uids[1]].keys()
        result = cod.append(files.instances())
        assert [len(result.same), len(result.conflict)] == [1, 1]
        assert (cod.read_frame_array(files.uids[0], 0) == files.series.pixels(0)).all()


def test_every_real_file(tmp_path: Path) -> None:
    """Whatever is stored of the real files can be edited: one byte of each preamble is another one, nothing else."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number, file in enumerate(real_files()):
        (inbox / f"{number}.dcm").write_bytes(file.read())
    store = Datastore(MemoryStore(f"memory://{uuid.uuid4().hex}"))
    store.ingest([inbox])
    edited = 0
    for key in store.series():
        expected = contents(store.open(key.study_uid, key.series_uid))
        with store.open(key.study_uid, key.series_uid, "e") as cod:
            for uid, data in expected.items():
                if data[128:132] == b"DICM":
                    expected[uid] = bytes([data[0] ^ 0xFF]) + data[1:]
                    Path(cod.get_instance(uid).dicom_uri).write_bytes(expected[uid])
                    edited += 1
        assert contents(store.open(key.study_uid, key.series_uid)) == expected
    assert edited > 150
    assert all(report.ok for report in store.verify(deep=True))


def test_hashed_series(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Files keep their own UIDs, the series its names and keys."""
    files = write_series(tmp_path / "files", CtSeries(3, rows=16, columns=16))
    uids = files.series.uids
    place = datastore_url, gcs_client, pseudonym(uids.study), pseudonym(uids.series)
    with CODObject(*place, "w", hashed_uids=True) as cod:
        cod.append([Instance(path, uid_hash_func=pseudonym) for path in files.paths])
    before = contents(CODObject(*place))
    name = pseudonym(files.uids[1])
    with CODObject(*place, "e", hashed_uids=True) as cod:
        assert Path(cod.get_instance(name).dicom_uri).name == f"{name}.dcm"
        new = rewrite(cod.get_instance(name).dicom_uri, PatientID="x")
    assert contents(CODObject(*place)) == before | {name: new}
    with CODObject(*place) as cod:
        document = cod.get_metadata()
        assert {"deid_study_uid", "deid_series_uid"} < document.keys()
        record = document["cod"]["instances"][name]
        assert record["instance_uid"] == files.uids[1]
        assert record["uri"].endswith(f"instances/{name}.dcm")
        uri = cod.get_instance(name).metadata["7FE00010"]["BulkDataURI"]
        assert cod.read_bulk_data(uri) == pydicom.dcmread(files.paths[1]).PixelData
        assert cod.verify().ok


def test_records_of_version_1(tmp_path: Path) -> None:
    """A series that is kept in the older version of records stays so: the edited one has its header in the clear."""
    files = write_series(tmp_path / "files", CtSeries(2, rows=16, columns=16))
    store = Datastore(tmp_path / "store")
    (key,) = store.ingest(files.paths).series
    (migrated,) = store.migrate(to="v1")
    assert migrated.actions
    with store.open(key.study_uid, key.series_uid, "e") as cod:
        new = rewrite(cod.get_instance(files.uids[1]).dicom_uri, PatientID="x")
    assert contents(store.open(key.study_uid, key.series_uid)) == {files.uids[0]: files.bytes(0), files.uids[1]: new}
    with store.open(key.study_uid, key.series_uid) as cod:
        records = cod.get_metadata()["cod"]["instances"].values()
        assert [record["version"] for record in records] == ["1.0", "1.0"]
        assert [record["metadata"]["00100020"]["Value"] for record in records][1] == ["x"]
        assert cod.verify().ok


# -- series of older writers


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry["store"])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> CODObject:
    """Return a series of the published library, in a folder that may be written to, to be edited."""
    entry = request.param
    folder = shutil.copytree(GOLDEN / entry["store"], tmp_path / "store")
    return CODObject(Path(folder), None, entry["study_uid"], entry["series_uid"], "e")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # what the RTDOSE has, and pydicom says so
def test_series_of_older_writers(golden: CODObject) -> None:
    """The edited instance is as it was written, all others keep bytes and records; the index is that of the tar."""
    reading = CODObject(golden.store, None, golden.key.study_uid, golden.key.series_uid)  # type: ignore[arg-type]
    before = contents(reading)
    with reading as cod:
        old = cod.get_metadata()
    uid = next(iter(before))
    with golden as cod:
        new = rewrite(cod.get_instance(uid).dicom_uri, PatientComments="longer than before " * 9)
    assert contents(reading) == before | {uid: new}
    with reading as cod:
        document = cod.get_metadata()
        for name in old.keys() - {"cod", "thumbnail"}:
            assert document[name] == old[name]
        for other, raw in document["cod"]["instances"].items():
            was = old["cod"]["instances"][other]
            if other == uid:
                assert raw["version"] == "2.0"
                assert raw["crc32c"] == encode(crc32c(new))
                assert raw["original_path"] == was["original_path"]
            else:
                assert {**raw, "headers": None} == {**was, "headers": None}
        if cod.get_instance(uid).has_pixeldata:
            check_frames(cod, uid, new)
        records = list(SeriesDocument(cod.metadata_uri, document).iter_records())
        tar_bytes = cod.store.stat(cod.key.tar).size
        index = parse_sqlite_index(cod.store.read_object(cod.key.index).data)
        assert index == index_of(records, tar_bytes)
        assert {finding.kind for finding in cod.verify().findings} <= {"frame-table-legacy"}


def test_reading_an_older_series_without_a_change(golden: CODObject) -> None:
    """An edit of nothing leaves every object of an older writer as it is."""
    before = [(info.name, info.version) for info in golden.store.list()]
    with golden as cod:
        assert cod.get_instances(strict_sorting=False)
    assert [(info.name, info.version) for info in golden.store.list()] == before


# -- what it costs


def test_what_an_edit_costs(tmp_path: Path) -> None:
    """Each byte of the tar comes down once and goes up once, whatever is edited; nothing goes up for no change."""
    files = write_series(tmp_path / "files", CtSeries(12, rows=256, columns=256))
    total = sum(path.stat().st_size for path in files.paths)
    with GcsServer() as server:
        server.create_bucket("bucket")
        place = "gs://bucket/store", server.client(), files.series.uids.study, files.series.uids.series
        with CODObject(*place, "w") as cod:
            cod.append(files.instances())
        server.reset_counters()
        with CODObject(*place, "e") as cod:
            rewrite(cod.get_instance(files.uids[7]).dicom_uri, PatientID="x")
        requests = server.counters()
        assert total < sum(request.bytes_out for request in requests) < total + 100_000
        assert total < sum(request.bytes_in for request in requests) < total + 100_000
        assert len(requests) == 10, [request.operation for request in requests]
        server.reset_counters()
        with CODObject(*place, "e") as cod:
            assert Path(cod.get_instance(files.uids[7]).dicom_uri).exists()
        requests = server.counters()
        assert sum(request.bytes_in for request in requests) < 10_000
        assert contents(CODObject(*place)).keys() == set(files.uids)


def test_a_large_instance_comes_in_parts(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """An instance of 18 MiB, read by several requests, is whole and can be edited."""
    files = write_series(tmp_path / "files", CtSeries(2, rows=3072, columns=3072))
    place = datastore_url, gcs_client, files.series.uids.study, files.series.uids.series
    with CODObject(*place, "w") as cod:
        cod.append(files.instances())
    with CODObject(*place, "e") as cod:
        for index, uid in enumerate(files.uids):
            assert Path(cod.get_instance(uid).dicom_uri).read_bytes() == files.bytes(index)
        new = rewrite(cod.get_instance(files.uids[1]).dicom_uri, PatientID="x")
    assert contents(CODObject(*place)) == {files.uids[0]: files.bytes(0), files.uids[1]: new}
