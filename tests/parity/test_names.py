"""The names that programs import, and how they call them."""

from __future__ import annotations

import ast
import gzip
import importlib
import inspect
import io
import json
import uuid
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
import typer

from cloud_optimized_dicom import CODObject, Datastore, Hints, Instance
from cloud_optimized_dicom.cli.main import app
from cloud_optimized_dicom.custom_offset_tables import get_multiframe_offset_tables
from cloud_optimized_dicom.errors import InstanceValidationError, MetadataError, StorageError
from cloud_optimized_dicom.query_parsing import (
    instances_to_codobj_tuples,
    query_result_to_codobjects,
    query_result_to_instances,
)
from cloud_optimized_dicom.series_metadata import SeriesMetadata
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.kinds import make_frames, native
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.thumbnail import ThumbnailCoordConverter
from cloud_optimized_dicom.utils import delete_uploaded_blobs, generate_ptr_crc32c, is_remote
from cloud_optimized_dicom.virtual_file import VirtualFile
from tests.core.conftest import Files, Open, write_series
from tests.core.test_golden_stores import GOLDEN, SERIES
from tests.dicom import oracle
from tests.realfiles import real_file

if TYPE_CHECKING:
    from pathlib import Path

# Module, name, and the parameters: those that people give by name or position in their order, those behind "*" by name.
# A default is here where the list of names has one.
SERIES_PARAMETERS = """
    datastore_path client study_uid series_uid mode sync_on_exit=True hashed_uids=False create_if_missing=True
    temp_dir=None override_errors=False empty_lock_override_age=None
    * lease_seconds=120 wait_seconds=0 legacy_index=None hooks=()
"""
APPEND_PARAMETERS = """
    self instances treat_metadata_diffs_as_same=False max_instance_size=10 max_series_size=100
    delete_local_origin=False compress=False * progress=None workers=None
"""
NAMES: list[tuple[str, str, str]] = [
    ("cod_object", "CODObject", SERIES_PARAMETERS),
    ("cod_object", "CODObject.from_uri", "uri client mode hashed_uids create_if_missing"),
    ("cod_object", "CODObject.append", APPEND_PARAMETERS),
    ("cod_object", "CODObject.remove", "self"),
    ("cod_object", "CODObject.truncate", "self instances"),
    ("cod_object", "CODObject.get_metadata", "self"),
    ("cod_object", "CODObject.get_instances", "self strict_sorting=True"),
    ("cod_object", "CODObject.get_instance", "self"),
    ("cod_object", "CODObject.get_instance_by_index", "self"),
    ("cod_object", "CODObject.open_instance", "self"),
    ("cod_object", "CODObject.read_frames", "self uid frames=None"),
    ("cod_object", "CODObject.read_frame_array", "self uid frame"),
    ("cod_object", "CODObject.read_volume", "self"),
    ("cod_object", "CODObject.iter_instances", "self batch_bytes"),
    ("cod_object", "CODObject.read_bulk_data", "self uri"),
    ("cod_object", "CODObject.pull_tar", "self"),
    ("cod_object", "CODObject.extract_locally", "self"),
    ("cod_object", "CODObject.integrity_check", "self"),
    ("cod_object", "CODObject.verify", "self"),
    ("cod_object", "CODObject.seal", "self"),
    ("cod_object", "CODObject.add_metadata_field", "self name value overwrite_existing=True"),
    ("cod_object", "CODObject.get_metadata_field", "self name"),
    ("cod_object", "CODObject.remove_metadata_field", "self name"),
    (
        "cod_object",
        "CODObject.get_thumbnail",
        "self generate_if_missing=True instance_uid=None thumbnail_size=128",
    ),
    ("cod_object", "CODObject.get_instance_by_thumbnail_index", "self"),
    ("cod_object", "CODObject.redact_pixel_data", "self redactions * reviewer fill_value=None"),
    ("cod_object", "CODObject.upload_error_log", "self message"),
    ("cod_object", "CODObject.delete_dependencies", "self dryrun=False validate_blob_hash=False"),
    ("cod_object", "CODObject.assert_instance_belongs_to_cod_object", "self instance"),
    ("instance", "Instance", "dicom_uri dependencies hints transport_params uid_hash_func=None"),
    *(
        ("instance", f"Instance.{name}", "self trust_hints_if_available=False")
        for name in (
            *("size", "crc32c", "instance_uid", "series_uid", "study_uid"),
            *("hashed_instance_uid", "hashed_series_uid", "hashed_study_uid"),
        )
    ),
    *(("instance", f"Instance.{name}", "self") for name in ("open", "fetch", "validate")),
    ("instance", "Instance.get_instance_uid", "self hashed trust_hints_if_available"),
    ("instance", "Instance.delete_dependencies", "self dryrun=False validate_blob_hash=True"),
    ("hints", "Hints", "size crc32c instance_uid series_uid study_uid"),
    ("append", "AppendResult", "new same conflict errors"),
    ("series_metadata", "SeriesMetadata", "study_uid series_uid hashed_uids instances metadata_fields is_sorted"),
    ("thumbnail", "ThumbnailCoordConverter.from_anchors", "anchors"),
    ("bounding_box", "BoundingBox", "x y width height"),
    ("bounding_box", "PixelRedaction", "box applies_to frames=None"),
    ("dicomweb", "handle_request", "request client"),
    ("query_parsing", "query_result_to_codobjects", "client query_result datastore_path validate_datastore_path mode"),
    ("query_parsing", "instances_to_codobj_tuples", "client instances datastore_path empty_lock_override_age mode"),
    ("virtual_file", "VirtualFile", "master_file start stop"),
    ("custom_offset_tables", "get_multiframe_offset_tables", "dataset"),
    ("utils", "is_remote", "uri"),
    ("utils", "generate_ptr_crc32c", "ptr blocksize"),
    ("utils", "delete_uploaded_blobs", "client uris_to_delete"),
    ("datastore", "Datastore", "path client=None"),
    *(
        ("datastore", f"Datastore.{name}", "self")
        for name in ("studies", "series", "open", "ingest", "verify", "recover", "locks")
    ),
]
VERBS = "ingest ls info header get frame export verify recover locks unlock remove seal migrate thumbnail"
PROPERTIES = {
    "CODObject": "mode lock lock_generation datastore_series_uri tar_uri metadata_uri index_uri error_log_uri",
    "Instance": "metadata has_pixeldata is_nested_in_tar",
}
ERRORS = """
    CODError CODObjectNotFoundError InstanceNotFoundError FrameNotFoundError WriteOperationInReadModeError
    CleanOpOnUnlockedCODObjectError LockAcquisitionError LockVerificationError ConflictError CommitUnknownError
    StaleReadError ErrorLogExistsError TarValidationError TarMissingInstanceError HashMismatchError HintMismatchError
    InstanceValidationError InvalidUidError EditSetChangedError RedactionError RedactionTargetMissingError
    RedactionFrameOutOfRangeError RedactionBoxOutOfBoundsError RedactionFillValueError FormatError MetadataError
    UnsupportedVersionError FrameTableError StorageError PermissionDeniedError TransientStorageError
    MissingDependencyError
"""


@pytest.mark.parametrize(("module", "name", "parameters"), NAMES, ids=lambda value: value if "." in value else None)
def test_every_name_is_there_and_takes_its_parameters(module: str, name: str, parameters: str) -> None:
    """Each name imports from its module and takes what it is given, in that order, with the defaults of the list."""
    found: Any = importlib.import_module(f"cloud_optimized_dicom.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    taken = inspect.signature(found).parameters
    in_order, _, by_name = parameters.partition("*")
    wanted = [parameter.partition("=")[::2] for parameter in (*in_order.split(), *by_name.split())]
    names = [name for name, _ in wanted]
    assert list(taken)[: len(in_order.split())] == names[: len(in_order.split())]
    assert set(names) <= set(taken)
    for parameter, default in wanted:
        if default:
            expected, actual = ast.literal_eval(default), taken[parameter].default
            assert (actual, type(actual)) == (expected, type(expected)), parameter
    assert found.__doc__


def test_an_instance_needs_a_uri_and_nothing_else(files: Files) -> None:
    """What the list of names gives as empty is empty, and belongs to one instance alone."""
    instance = Instance(files.paths[0])
    assert (list(instance.dependencies), instance.hints) == ([], Hints())
    assert instance.transport_params == {}
    assert instance.size() == len(files.bytes(0))


def test_every_verb_is_there() -> None:
    """The command has each verb of the list of names; `serve` is to come."""
    group: Any = typer.main.get_command(app)
    assert set(VERBS.split()) <= set(group.commands)


@pytest.mark.parametrize("mode", ["r", "w", "a", "e"])
def test_a_datastore_on_s3_says_that_there_is_none_yet(mode: Any) -> None:
    """A series on S3 is an error that names the scheme and those that there are, before anything is done."""
    with pytest.raises(StorageError, match=r"no store for s3://; known are file://, gs://, memory:// and local paths"):
        CODObject("s3://bucket/prefix", None, "1.2", "3.4", mode)
    with pytest.raises(StorageError, match="no store for s3://"):
        Datastore("s3://bucket/prefix")


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_property_is_there(name: str) -> None:
    """Each property of the two classes can be asked for, and not be set."""
    cls = {"CODObject": CODObject, "Instance": Instance}[name]
    for attribute in PROPERTIES[name].split():
        found = inspect.getattr_static(cls, attribute)
        assert isinstance(found, property)
        assert found.fset is None


def test_every_error_is_there() -> None:
    """Each error imports from the module of errors, and the two that are also others are so."""
    errors = importlib.import_module("cloud_optimized_dicom.errors")
    for name in ERRORS.split():
        assert issubclass(getattr(errors, name), errors.CODError), name
    assert issubclass(errors.InvalidUidError, ValueError)
    assert issubclass(errors.CODObjectNotFoundError, LookupError)
    assert issubclass(errors.MissingDependencyError, ImportError)
    assert errors.CleanOpOnUnlockedCODObjectError is errors.WriteOperationInReadModeError


# -- series metadata


@pytest.mark.parametrize("entry", SERIES)
def test_metadata_of_golden_stores_come_back_equal(entry: dict[str, Any], tmp_path: Path) -> None:
    """What the published library wrote is parsed and given back with nothing lost, and its instances open."""
    store = open_store(GOLDEN / entry["store"])
    with Datastore(store).open(entry["study_uid"], entry["series_uid"]) as cod:
        document, data = cod.get_metadata(), store.read_object(cod.key.metadata).data
    metadata = SeriesMetadata.from_bytes(data)
    assert metadata.to_dict() == document == SeriesMetadata.from_dict(document).to_dict()
    assert json.loads(gzip.decompress(metadata.to_gzipped_json())) == document
    assert list(metadata.to_dict()) == list(document)
    assert (metadata.study_uid, metadata.series_uid) == (entry["study_uid"], entry["series_uid"])
    assert metadata.hashed_uids is ("deid_study_uid" in document)
    assert set(metadata.metadata_fields) == set(document) - {
        *("cod", "study_uid", "series_uid", "deid_study_uid", "deid_series_uid")
    }


def test_metadata_of_a_blob(gcs_session_client: Any, gcs_bucket: str, files: Files) -> None:
    """The blob of a metadata.json becomes metadata whose instances are sorted, opened and given a hash function."""
    url, uids = f"gs://{gcs_bucket}/{uuid.uuid4().hex}", files.series.uids
    with CODObject(url, gcs_session_client, uids.study, uids.series, "w") as cod:
        cod.append(files.instances(2, 0, 1))
        cod.add_metadata_field("site", "north")
    name = cod.metadata_uri.removeprefix(f"gs://{gcs_bucket}/")
    blob = gcs_session_client.bucket(gcs_bucket).blob(name)
    metadata = SeriesMetadata.from_blob(blob, uid_hash_func=str.upper)
    assert list(metadata.instances) == [files.uids[number] for number in (2, 0, 1)]
    metadata.sort_instances(strict=True)
    assert metadata.is_sorted
    assert list(metadata.instances) == files.uids[:3]
    assert metadata.metadata_fields == {"site": "north"}
    instance = metadata.instances[files.uids[1]]
    assert instance.uid_hash_func is str.upper
    assert instance.metadata["00080018"]["Value"] == [files.uids[1]]
    with instance.open() as stream:
        assert stream.read() == files.bytes(1)
    metadata.metadata_fields["site"] = "south"
    del metadata.instances[files.uids[0]]
    changed = metadata.to_dict()
    assert changed["site"] == "south"
    assert list(changed["cod"]["instances"]) == [files.uids[1], files.uids[2]]


def test_metadata_that_are_made(stored: Open, files: Files) -> None:
    """Metadata made of stored instances have the keys of the format; an instance that is not stored has no record."""
    with stored() as cod:
        found = cod.get_instances()
        document = cod.get_metadata()
    made = SeriesMetadata("1.2", "3.4", hashed_uids=True, instances=found, metadata_fields={"a": 1}).to_dict()
    assert list(made) == ["deid_study_uid", "deid_series_uid", "cod", "a"]
    assert made["cod"]["instances"].keys() == document["cod"]["instances"].keys()
    for uid, record in made["cod"]["instances"].items():
        assert record == document["cod"]["instances"][uid]
    new = SeriesMetadata("1.2", "3.4", hashed_uids=False, instances={"5": Instance(files.paths[0])})
    with pytest.raises(ValueError, match="is not stored"):
        new.to_dict()
    with pytest.raises(MetadataError):
        SeriesMetadata.from_dict({"study_uid": "1.2"})


# -- queries


def test_a_row_of_a_query_becomes_instances() -> None:
    """Everything that a row says of a file is a hint, and the file is what the instance depends on."""
    row = {
        "study_uid": "1.2",
        "series_uid": "3.4",
        "files": [
            {"file_uri": "gs://b/1.dcm", "size": "5", "crc32c": "AAAAAA==", "instance_uid": "5.6"},
            {"file_uri": "gs://b/2.dcm"},
        ],
    }
    first, second = query_result_to_instances(row, uid_hash_func=str.upper)
    assert first.hints == Hints(5, "AAAAAA==", "5.6", "3.4", "1.2")
    assert second.hints == Hints(series_uid="3.4", study_uid="1.2")
    assert (first.dicom_uri, first.dependencies) == ("gs://b/1.dcm", ["gs://b/1.dcm"])
    assert first.uid_hash_func is str.upper
    for wrong in ({}, {"files": [{"size": 1}]}):
        with pytest.raises(ValueError, match="file"):
            query_result_to_instances(wrong)


def test_a_query_becomes_series(
    datastore_url: str, gcs_client: Any, store_kind: str, files: Files, tmp_path: Path
) -> None:
    """Files of several series, some without hints and one that is none, are gathered by series and stored."""
    other = write_series(tmp_path / "other", CtSeries(2, rows=16, columns=16, seed=5))
    (tmp_path / "bad.dcm").write_bytes(b"not DICOM")
    uris = [str(path) for path in (*files.paths[:2], *other.paths, tmp_path / "bad.dcm", tmp_path / "none.dcm")]
    found = query_result_to_codobjects(gcs_client, {"files": [{"file_uri": uri} for uri in uris]}, datastore_url)
    assert sorted(cod.key.series_uid for cod, _ in found) == [cod.key.series_uid for cod, _ in found]
    assert {cod.key.series_uid: len(instances) for cod, instances in found} == {
        files.series.uids.series: 2,
        other.series.uids.series: 2,
    }
    for cod, instances in found:
        assert cod.mode == "a"
        with cod:
            assert len(cod.append(instances).new) == 2
    uids = files.series.uids
    hinted = {"study_uid": uids.study, "series_uid": uids.series, "files": [{"file_uri": str(tmp_path / "none.dcm")}]}
    ((cod, _),) = query_result_to_codobjects(gcs_client, hinted, datastore_url, mode="r")
    with cod:
        assert len(cod.get_instances()) == 2


def test_a_path_that_names_no_store_is_an_error_or_left_out(files: Files) -> None:
    """Validated, a path that names no store is an error at once; else there are no series."""
    row = {"files": [{"file_uri": str(files.paths[0])}]}
    with pytest.raises(StorageError):
        query_result_to_codobjects(None, row, "strange://x")
    assert query_result_to_codobjects(None, row, "strange://x", validate_datastore_path=False) == []


def test_instances_with_a_hash_function_make_series_of_hashed_uids(files: Files, tmp_path: Path) -> None:
    """Where all instances of a series can hash, the series is of hashed UIDs."""
    instances = [Instance(path, uid_hash_func=lambda uid: f"2.25.{len(uid)}{uid[-4:]}") for path in files.paths]
    ((cod, members),) = instances_to_codobj_tuples(None, instances, str(tmp_path / "store"), mode="w")
    assert members == instances
    with cod:
        assert len(cod.append(members).new) == 5
    with cod:
        assert "deid_study_uid" in cod.get_metadata()


# -- small things


def test_a_stretch_of_a_tar_reads_as_a_file(stored: Open, files: Files) -> None:
    """An instance read out of a pulled tar by its place, several stretches over one open file."""
    with stored() as cod:
        tar = cod.pull_tar()
        records = [cod.get_instance(uid).record for uid in files.uids[:3]]
        with tar.open("rb") as master:
            for number, record in enumerate(records):
                assert record is not None
                stretch = VirtualFile(master, record.start, record.span.stop)
                assert pydicom.dcmread(stretch).SOPInstanceUID == files.uids[number]
                stretch.seek(0)
                assert stretch.read() == files.bytes(number)
    master = io.BytesIO(bytes(range(100)))
    with VirtualFile(master, 10, 20) as stretch:
        assert (stretch.read(3), stretch.tell(), stretch.writable()) == (bytes([10, 11, 12]), 3, False)
        assert (stretch.seek(-2, io.SEEK_END), stretch.read(100)) == (8, bytes([18, 19]))
        assert (stretch.seek(50), stretch.read(3)) == (50, b"")
        with pytest.raises(ValueError, match="negative"):
            stretch.seek(-5)
    assert master.closed
    with pytest.raises(ValueError, match="no stretch"):
        VirtualFile(io.BytesIO(), 3, 2)


@pytest.mark.parametrize("name", ["emri_small.dcm", "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm", "rtdose.dcm"])
@pytest.mark.parametrize("how", ["path", "buffer", "memory"])
def test_offset_tables_name_the_frames(name: str, how: str, tmp_path: Path) -> None:
    """The table of a dataset gives each frame's bytes in its file, wherever pydicom has read it from."""
    file = real_file(name)
    data = file.read()
    if how == "memory":
        given = oracle.read(data)
        given.filename = given.buffer = None
        target = tmp_path / "written.dcm"
        given.save_as(target, enforce_file_format=True)
        data = target.read_bytes()
    else:
        given = pydicom.dcmread(file.path if how == "path" else io.BytesIO(data))
    table = get_multiframe_offset_tables(given)
    places = zip(table["CustomOffsetTable"], table["CustomOffsetTableLengths"], strict=True)
    dataset = oracle.read(data)
    is_encapsulated = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    frames = (oracle.encapsulated_frames if is_encapsulated else oracle.native_frames)(dataset)
    assert [data[start : start + length] for start, length in places] == frames


class CountingFile(io.BytesIO):
    """A file that counts what is read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and count."""
        data = super().read(size)
        self.count += len(data)
        return data


def test_an_offset_table_takes_no_copy_of_the_file() -> None:
    """Of a file that is open only headers are read, and it stays open, where it was; also where it has no table."""
    data = native(make_frames(50, 128, 128))
    file = CountingFile(data)
    given = pydicom.dcmread(file)
    file.seek(7)
    file.count = 0
    table = get_multiframe_offset_tables(given)
    starts, length = table["CustomOffsetTable"], 2 * 128 * 128
    assert [data[start : start + length] for start in starts] == oracle.native_frames(oracle.read(data))
    assert (file.tell(), file.closed) == (7, False)
    assert file.count < len(data) / 20
    file.seek(0)
    file.write(bytes(len(data)))
    file.seek(7)
    with pytest.raises(InstanceValidationError):
        get_multiframe_offset_tables(given)
    assert file.tell() == 7


def test_offset_tables_of_one_frame_are_empty() -> None:
    """A dataset of one frame has none; one that has its own keeps them."""
    assert get_multiframe_offset_tables(oracle.read(real_file("CT_small.dcm").read())) == {}
    dataset = oracle.read(real_file("rtdose.dcm").read())
    own = {"CustomOffsetTable": [1], "CustomOffsetTableLengths": [2]}
    dataset.__dict__ |= own  # pydicom warns of what is no keyword
    assert get_multiframe_offset_tables(dataset) == own


@pytest.mark.parametrize(
    ("uri", "remote"),
    [
        *((uri, True) for uri in ("gs://a/b", "http://x/y", "https://x/y", "s3://x/y", "gs://a.tar://instances/1.dcm")),
        *((uri, False) for uri in ("/a/b", "a.dcm", "file:///a/b", "a.tar://instances/1.dcm", "/x/a.zip://1.dcm")),
    ],
)
def test_what_is_remote(uri: str, remote: bool) -> None:
    """A URL is remote, a path and a member of a local archive are not."""
    assert is_remote(uri) is remote


def test_a_checksum_is_that_of_the_cloud(gcs_session_client: Any, gcs_bucket: str) -> None:
    """The checksum of an open file is what Google Cloud Storage prints for the same bytes."""
    blob = gcs_session_client.bucket(gcs_bucket).blob(uuid.uuid4().hex)
    blob.upload_from_string(b"abcdef" * 1000)
    blob.reload()
    assert generate_ptr_crc32c(io.BytesIO(b"abcdef" * 1000)) == blob.crc32c
    assert generate_ptr_crc32c(io.BytesIO(b"abcdef"), blocksize=2) == "U7zv8Q=="


def test_tidying_up_deletes_a_folder_and_nothing_else(gcs_session_client: Any, gcs_bucket: str) -> None:
    """Everything in the folders goes; what only begins with their name stays."""
    root = uuid.uuid4().hex
    bucket = gcs_session_client.bucket(gcs_bucket)
    for name in ("a/1", "a/b/2", "ab/3", "c/4"):
        bucket.blob(f"{root}/{name}").upload_from_string(b"x")
    delete_uploaded_blobs(gcs_session_client, [f"gs://{gcs_bucket}/{root}/a", f"gs://{gcs_bucket}/{root}/c/"])
    assert [blob.name for blob in gcs_session_client.list_blobs(gcs_bucket, prefix=root)] == [f"{root}/ab/3"]


def test_positions_are_converted_as_pairs_of_x_and_y() -> None:
    """Corners map to corners, in the order in which the published library takes and gives them."""
    anchors = {
        "original_size": {"width": 100, "height": 200},
        "thumbnail_upper_left": {"row": 0, "col": 32},
        "thumbnail_bottom_right": {"row": 127, "col": 95},
    }
    converter = ThumbnailCoordConverter.from_anchors(anchors)
    assert converter.thumbnail_to_original((32, 0)) == (0, 0)
    assert converter.thumbnail_to_original((95, 127)) == (100, 200)
    assert converter.original_to_thumbnail((100, 200)) == (95, 127)
    assert converter.original_to_thumbnail((50, 20)) == pytest.approx((63.5, 12.7))
