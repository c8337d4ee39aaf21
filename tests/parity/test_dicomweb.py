"""DICOMweb-style GETs: as Python objects, as they travel, and by a client that others have written."""

from __future__ import annotations

import io
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from cloud_optimized_dicom import CODObject, Datastore, Instance
from cloud_optimized_dicom.dicomweb import Dicomweb, DicomwebRequest, handle_request
from cloud_optimized_dicom.dicomweb.payload import json_response, little_endian_pixels
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    FrameNotFoundError,
    HashMismatchError,
    InstanceNotFoundError,
    InstanceValidationError,
    InvalidUidError,
    MetadataError,
)
from cloud_optimized_dicom.format.metadata.document import parse_json_object
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes
from cloud_optimized_dicom.testing.datasets.kinds import ENCAPSULATED_UNCOMPRESSED
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.conftest import Files, Open, write_series
from tests.core.test_golden_stores import GOLDEN, SERIES
from tests.dicom import oracle
from tests.parity.damage import damage
from tests.realfiles import real_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom import FileDataset

    from tests.realfiles import RealFile

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
MULTI_FRAME = [
    "OBXXXX1A_2frame.dcm",
    "OBXXXX1A_expb_2frame.dcm",
    "OBXXXX1A_rle_2frame.dcm",
    "SC_rgb_16bit_2frame.dcm",
    "SC_rgb_2frame.dcm",
    "SC_rgb_32bit_2frame.dcm",
    "SC_rgb_expb_16bit_2frame.dcm",
    "SC_rgb_expb_2frame.dcm",
    "SC_rgb_expb_32bit_2frame.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_32bit_2frame.dcm",
    "color3d_jpeg_baseline.dcm",
    "eCT_Supplemental.dcm",
    "emri_small.dcm",
    "emri_small_RLE.dcm",
    "emri_small_big_endian.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
    "examples_ybr_color.dcm",
    "liver.dcm",
    "liver_expb.dcm",
    pytest.param("philips_mprage.dcm.gz", marks=pytest.mark.slow),
    "rtdose.dcm",
    "rtdose_expb.dcm",
    "rtdose_rle.dcm",
]


class Stored:
    """A real file in a datastore of its own."""

    def __init__(self, file: RealFile, folder: Path) -> None:
        self.data = file.read()
        self.dataset: FileDataset = oracle.read(self.data)
        self.url = f"memory://{uuid.uuid4().hex}"
        path = folder / "file.dcm"
        path.write_bytes(self.data)
        (self.key,) = Datastore(self.url).ingest([path]).series
        self.uid = str(self.dataset.SOPInstanceUID)
        self.instance = f"{self.url}/{self.key}/instances/{self.uid}"

    @property
    def frames(self) -> list[bytes]:
        """The frames as pydicom finds them."""
        is_encapsulated = self.dataset.file_meta.TransferSyntaxUID.is_encapsulated
        return (oracle.encapsulated_frames if is_encapsulated else oracle.native_frames)(self.dataset)


@pytest.mark.parametrize("name", MULTI_FRAME)
def test_every_frame_is_the_one_that_was_asked_for(name: str, tmp_path: Path) -> None:
    """One by one, several at once and in any order, frames are those that pydicom finds in the file."""
    stored = Stored(real_file(name), tmp_path)
    expected = stored.frames
    assert len(expected) > 1
    assert [handle_request(f"{stored.instance}/frames/{n + 1}") for n in range(len(expected))] == [
        [frame] for frame in expected
    ]
    backwards = ",".join(str(n) for n in range(len(expected), 0, -1))
    assert handle_request(f"{stored.instance}/frames/{backwards}") == expected[::-1]
    assert handle_request(f"{stored.instance}/frames/2,1,2") == [expected[1], expected[0], expected[1]]
    with pytest.raises(FrameNotFoundError):
        handle_request(f"{stored.instance}/frames/{len(expected) + 1}")


@pytest.mark.parametrize("name", MULTI_FRAME)
def test_frames_travel_as_parts(name: str, tmp_path: Path) -> None:
    """Each frame is a part with its transfer syntax and its URL, in the order asked for."""
    stored = Stored(real_file(name), tmp_path)
    response = Dicomweb(stored.url, base_url="https://host/dicom").respond(f"{stored.instance}/frames/2,1")
    assert response.status == 200
    assert response.content_type.startswith("multipart/related; type=")
    urls = [f"https://host/dicom/{stored.key}/instances/{stored.uid}/frames/{number}" for number in (2, 1)]
    assert [part.location for part in response.parts] == urls
    syntax = stored.dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        assert [part.body for part in response.parts] == [stored.frames[1], stored.frames[0]]
        assert response.parts[0].content_type.endswith(f"; transfer-syntax={syntax}")
    else:
        assert response.parts[0].content_type == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        bits = stored.dataset.BitsAllocated
        if bits >= 8 and "422" not in stored.dataset.PhotometricInterpretation:
            found = [np.frombuffer(part.body, f"<u{bits // 8}") for part in response.parts]
            kept = (1 << stored.dataset.BitsStored) - 1
            pixels = stored.dataset.pixel_array
            by_plane = stored.dataset.get("PlanarConfiguration") == 1
            for part, frame in zip(found, (pixels[1], pixels[0]), strict=True):
                expected = np.moveaxis(frame, -1, 0) if by_plane else frame
                assert (part & kept == expected.reshape(-1).astype(part.dtype) & kept).all()
    assert response.body.count(response.parts[0].body) >= 1


@pytest.mark.parametrize(("syntax", "vr"), [("1.2.840.10008.1.2.1", "OB"), ("1.2.840.10008.1.2.2", "OW")])
@pytest.mark.parametrize("allocated", [1, 8])
def test_frames_that_begin_within_a_byte_or_a_word(syntax: str, vr: str, allocated: int) -> None:
    """A frame whose first bit lies within a byte, or first byte within a swapped word, travels from there on."""
    rows, columns, frames = 3, 5, 4
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 2 if allocated == 1 else 256, (frames, rows * columns), np.uint8)
    packed = pixels.reshape(-1) if allocated == 8 else np.packbits(pixels.reshape(-1), bitorder="little")
    value = packed.tobytes() + bytes(len(packed) % 2)
    swapped = syntax.endswith(".2")
    if swapped:
        value = np.frombuffer(value, "<u2").byteswap().tobytes()
    header = {"7FE00010": {"vr": vr}} | {
        tag: {"Value": [number]}
        for tag, number in (("00280010", rows), ("00280011", columns), ("00280002", 1), ("00280100", allocated))
    }
    bits, unit = rows * columns * allocated, 16 if swapped else 8
    for number in range(frames):
        first, last = number * bits // unit * unit // 8, -(-(number + 1) * bits // unit) * unit // 8
        found = little_endian_pixels(value[first:last], number, header, syntax)
        expected = pixels[number] if allocated == 8 else np.packbits(pixels[number], bitorder="little")
        assert found == expected.tobytes()


def stored_bytes(data: bytes, folder: Path) -> tuple[str, SeriesKey, str]:
    """Store a file, and return its datastore, its series, and its path there."""
    path, url = folder / "in.dcm", f"memory://{uuid.uuid4().hex}"
    path.write_bytes(data)
    (result,) = Datastore(url).ingest([path]).files
    assert result.series is not None
    return url, result.series, f"/{result.series}/instances/{result.instance_uid}"


@pytest.mark.parametrize("allocated", [1, 8])
def test_frames_that_have_an_item_each(allocated: int, tmp_path: Path) -> None:
    """Encapsulated uncompressed frames begin with their items, and travel without what pads these."""
    rows, columns, frames = 3, 5, 4
    pixels = np.random.default_rng(2).integers(0, 2 if allocated == 1 else 256, (frames, rows, columns), np.uint8)
    expected = [(frame if allocated == 8 else np.packbits(frame, bitorder="little")).tobytes() for frame in pixels]
    dataset = make_dataset(Uids.of("items", allocated))
    describe_pixels(dataset, (rows, columns), frames=frames, bits=allocated)
    dataset.add_new("PixelData", "OB", encapsulate(expected))
    dataset["PixelData"].is_undefined_length = True
    url, _, path = stored_bytes(to_bytes(dataset, ENCAPSULATED_UNCOMPRESSED), tmp_path)
    response = Dicomweb(url).respond(f"{path}/frames/3,1,2,4")
    assert [part.body for part in response.parts] == [expected[index] for index in (2, 0, 1, 3)]
    assert response.parts[0].content_type == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"


def test_frames_of_which_the_header_says_too_little() -> None:
    """A header without a size, or with a text for it, is no reason not to serve the frame that the table found."""
    for rows in ({}, {"00280010": {"vr": "US", "Value": ["many"]}}):
        header = {"7FE00010": {"vr": "OW"}, "00280011": {"Value": [2]}, "00280100": {"Value": [16]}, **rows}
        assert little_endian_pixels(b"abcd", 1, header, "1.2.840.10008.1.2.1") == b"abcd"
        assert little_endian_pixels(b"abcd", 1, header, "1.2.840.10008.1.2.2") == b"badc"


# -- metadata


@pytest.fixture
def study(open_cod: Open, files: Files) -> str:
    """Return the URL of a study of one series of five instances, and of a second series of two."""
    with open_cod("w") as cod:
        cod.append(files.instances(4, 1, 0, 3, 2))
        store = cod.store
    uids = files.series.uids
    second = list(CtSeries(2, rows=16, columns=16, seed=7, study_uid=uids.study))
    for number, data in enumerate(second):
        path = files.paths[0].with_name(f"second-{number}.dcm")
        path.write_bytes(data)
        Datastore(store).ingest([path])
    return f"{store.url}/studies/{uids.study}"


def test_metadata_of_study_series_and_instance(study: str, gcs_client: Any, files: Files) -> None:
    """A study is what its instances share, a series a list in reading order, an instance its header."""
    series = f"{study}/series/{files.series.uids.series}"
    of_study = handle_request(f"{study}/metadata", gcs_client)
    assert of_study["0020000D"] == {"vr": "UI", "Value": [files.series.uids.study]}
    assert "00080018" not in of_study
    of_series = handle_request(f"{series}/metadata", gcs_client)
    assert [header["00080018"]["Value"][0] for header in of_series] == files.uids
    assert handle_request(f"GET {series}/instances/{files.uids[3]}/metadata", gcs_client) == of_series[3]
    expected = oracle.header(oracle.read(files.bytes(3)))
    assert set(expected) == set(of_series[3])
    assert expected["00100020"] == of_series[3]["00100020"]


def test_metadata_travel_as_one_array(study: str, gcs_client: Any, files: Files) -> None:
    """Of a study, a series and an instance alike: an array of the headers of all instances."""
    service = Dicomweb(study.rpartition("/studies/")[0], gcs_client)
    series = f"/studies/{files.series.uids.study}/series/{files.series.uids.series}"
    for url, count in ((series.partition("/series/")[0], 7), (series, 5), (f"{series}/instances/{files.uids[0]}", 1)):
        response = service.respond(f"{url}/metadata")
        assert (response.status, response.content_type) == (200, "application/dicom+json")
        headers = json.loads(response.body)
        assert len(headers) == count
        for header in headers:
            assert list(header) == sorted(header)
            assert header["00083002"]["Value"] == ["1.2.840.10008.1.2.1"]
            assert not any(tag.startswith("0002") for tag in header)


def test_what_is_no_number_is_null_in_json() -> None:
    """Headers of older writers may hold what JSON does not know."""
    header = {"00180088": {"vr": "DS", "Value": [float("nan"), 1.5]}, "00400275": {"vr": "SQ", "Value": []}}
    assert json.loads(json_response([header]).body)[0]["00180088"]["Value"] == [None, 1.5]


def test_large_values_are_requests(tmp_path: Path) -> None:
    """A BulkDataURI of a header is answered with the value, also where it lies in a sequence."""
    stored = Stored(real_file("liver_1frame.dcm"), tmp_path)
    header = handle_request(f"{stored.instance}/metadata")
    found = list(bulk_values(header, stored.dataset))
    assert found
    for uri, value in found:
        assert uri.startswith(f"{stored.instance}/bulkdata?")
        assert handle_request(uri) == value
    response = Dicomweb(stored.url).respond(found[0][0])
    assert (response.parts[0].content_type, response.parts[0].body) == ("application/octet-stream", found[0][1])


def test_a_value_in_a_sequence_of_any_length_is_found_by_its_tags(tmp_path: Path) -> None:
    """The path of a value leads into sequences that are written with their length, and into such without."""
    for is_undefined in (False, True):
        dataset = pydicom.dcmread(io.BytesIO(CtSeries(1, 8, 8).instance(0)))
        item = Dataset()
        item.EncapsulatedDocument = b"%PDF"
        dataset.ReferencedImageSequence = [item]
        dataset["ReferencedImageSequence"].is_undefined_length = is_undefined
        path = tmp_path / "in.dcm"
        dataset.save_as(path)
        url = f"memory://{uuid.uuid4().hex}"
        (key,) = Datastore(url).ingest([path]).series
        asked = f"{url}/{key}/instances/{dataset.SOPInstanceUID}/bulkdata/00081140/0/00420011"
        assert handle_request(asked) == b"%PDF"


def test_a_value_in_a_private_sequence_is_found_by_its_tags(tmp_path: Path) -> None:
    """What says that a private element is a sequence, where the file does not, is read with it."""
    dataset, item = make_dataset(Uids.of("private")), Dataset()
    item.EncapsulatedDocument = b"%PDF"
    block = dataset.private_block(0x3101, "AMI Annotations_01", create=True)
    block.add_new(0x10, "SQ", [item])
    for syntax in ("1.2.840.10008.1.2", EXPLICIT_LITTLE):
        url, _, path = stored_bytes(to_bytes(dataset, syntax), tmp_path)
        asked = f"{path}/bulkdata/{block.get_tag(0x10):08X}/0/00420011"
        assert Dicomweb(url).handle(asked) == b"%PDF"


def test_a_series_that_is_being_made_hides_no_other(study: str, gcs_client: Any, open_cod: Open) -> None:
    """A study is answered while the first write to one more series of it is under way."""
    cod = open_cod()
    before = handle_request(f"{study}/metadata", gcs_client)
    lock = SeriesKey(cod.key.study_uid, "1.2.3").lock
    cod.store.create(lock, BytesPayload(b"{}"), write_id=new_write_id())
    assert handle_request(f"{study}/metadata", gcs_client) == before


def bulk_values(header: dict[str, Any], dataset: Any) -> Iterator[tuple[str, bytes]]:
    """Yield each BulkDataURI of a header, with the value that pydicom has there."""
    for tag, element in header.items():
        if "BulkDataURI" in element:
            yield element["BulkDataURI"], dataset.get_item(int(tag, 16)).value
        elif element["vr"] == "SQ":
            for number, item in enumerate(element.get("Value", [])):
                yield from bulk_values(item, dataset[int(tag, 16)].value[number])


@pytest.mark.parametrize("entry", SERIES)
def test_series_of_the_published_library(entry: dict[str, Any]) -> None:
    """Of a series that version 2.2.0 wrote, hashed or not: metadata, large values by their tags, every frame."""
    series = f"{GOLDEN / entry['store']}/studies/{entry['study_uid']}/series/{entry['series_uid']}"
    headers = handle_request(f"{series}/metadata")
    assert len(headers) == entry["new"]
    with Datastore(GOLDEN / entry["store"]).open(entry["study_uid"], entry["series_uid"]) as cod:
        for uid, instance in cod.get_instances(strict_sorting=False).items():
            url = f"{series}/instances/{uid}"
            with instance.open() as stream:
                data = stream.read()
            assert handle_request(url) == data
            dataset = oracle.read(data)
            for uri, value in bulk_values(handle_request(f"{url}/metadata"), dataset):
                assert handle_request(uri) == value
            if instance.has_pixeldata:
                frames = cod.read_frames(uid)
                numbers = ",".join(str(number + 1) for number in range(len(frames)))
                assert handle_request(f"{url}/frames/{numbers}") == frames


def test_a_series_of_hashed_uids(tmp_path: Path, files: Files) -> None:
    """Instances are asked for by the UIDs that they are stored under."""
    uids = files.series.uids
    hashed = {uid: f"2.25.{number}" for number, uid in enumerate((uids.study, uids.series, *files.uids))}
    with CODObject(tmp_path / "store", None, hashed[uids.study], hashed[uids.series], "w", hashed_uids=True) as cod:
        cod.append([Instance(path, uid_hash_func=hashed.__getitem__) for path in files.paths])
    url = f"{tmp_path}/store/studies/2.25.0/series/2.25.1/instances/2.25.4"
    assert handle_request(url) == files.bytes(2)
    assert len(handle_request(f"{url}/frames/1")) == 1
    with pytest.raises(InstanceNotFoundError):
        handle_request(f"{url.rpartition('/')[0]}/{files.uids[2]}/metadata")


def test_urls_are_those_of_the_place_that_was_asked(tmp_path: Path) -> None:
    """In a datastore that was moved, large values are named where it is now."""
    stored = Stored(real_file("CT_small.dcm"), tmp_path)
    source = Datastore(stored.url).store
    moved = Datastore(tmp_path / "moved").store
    for info in source.list():
        moved.create(info.name, BytesPayload(source.read_object(info.name).data), write_id=new_write_id())
    url = f"{tmp_path}/moved/{stored.key}/instances/{stored.uid}"
    uri = handle_request(f"{url}/metadata")["7FE00010"]["BulkDataURI"]
    assert uri.startswith(url)
    assert handle_request(uri) == stored.dataset.PixelData


# -- requests


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server that counts."""
    with GcsServer() as running:
        running.create_bucket("counted")
        yield running


def test_a_frame_of_an_open_series_is_one_request(server: GcsServer, tmp_path: Path) -> None:
    """Once a series is open a frame is one range request of its bytes, and several neighbours are one too."""
    file = real_file("color3d_jpeg_baseline.dcm")
    data = file.read()
    dataset = oracle.read(data)
    client, url = server.client(), f"gs://counted/{uuid.uuid4().hex}"
    (tmp_path / "a.dcm").write_bytes(data)
    (key,) = Datastore(url, client).ingest([tmp_path / "a.dcm"]).series
    service = Dicomweb(url, client)
    path = f"/{key}/instances/{dataset.SOPInstanceUID}"
    expected = oracle.encapsulated_frames(dataset)
    server.reset_counters()
    assert service.handle(f"{path}/frames/3") == [expected[2]]
    assert [record.operation for record in server.counters()] == ["objects.download"] * 2
    for asked, frames in (("50", expected[49:50]), ("7,8,9", expected[6:9])):
        server.reset_counters()
        assert service.handle(f"{path}/frames/{asked}") == frames
        (record,) = server.counters()
        assert record.bytes_out <= sum(map(len, frames)) + 8 * len(frames)
    server.reset_counters()
    assert service.handle(f"{path}/metadata")["00280008"]["Value"] == [120]
    assert len(server.counters()) == 1


@pytest.mark.parametrize("encapsulated", [False, True])
def test_a_value_is_found_by_its_tag_without_the_pixels(
    server: GcsServer, tmp_path: Path, *, encapsulated: bool
) -> None:
    """One value of a header of an older writer takes the header, whatever follows it."""
    dataset, side = make_dataset(Uids.of("tags", encapsulated)), 1024
    dataset.EncapsulatedDocument = b"%PDF"
    describe_pixels(dataset, (side, side), frames=4)
    frames = [bytes([number]) * (2 * side * side) for number in range(4)]
    dataset.add_new("PixelData", "OB", encapsulate(frames) if encapsulated else b"".join(frames))
    dataset["PixelData"].is_undefined_length = encapsulated
    (tmp_path / "a.dcm").write_bytes(to_bytes(dataset, ENCAPSULATED_UNCOMPRESSED if encapsulated else EXPLICIT_LITTLE))
    client, url = server.client(), f"gs://counted/{uuid.uuid4().hex}"
    (key,) = Datastore(url, client).ingest([tmp_path / "a.dcm"]).series
    service, path = Dicomweb(url, client), f"/{key}/instances/{dataset.SOPInstanceUID}"
    service.handle(f"{path}/frames/1")
    server.reset_counters()
    assert service.handle(f"{path}/bulkdata/00420011") == b"%PDF"
    assert sum(record.bytes_out for record in server.counters()) <= 4096
    assert service.handle(f"{path}/bulkdata/7FE00010") == dataset.PixelData


def test_what_is_committed_later_is_seen(stored: Open, files: Files) -> None:
    """A service that has a series open sees what was added and removed, and reads on where an instance has moved."""
    with stored() as cod:
        service, path = Dicomweb(cod.store), f"/{cod.key}"
    first = service.handle(f"{path}/instances/{files.uids[1]}/frames/1")
    with stored("a") as cod:
        cod.append(files.instances(3))
        cod.remove(files.uids[0])
    assert service.handle(f"{path}/instances/{files.uids[1]}/frames/1") == first
    assert len(service.handle(f"{path}/instances/{files.uids[3]}/frames/1")) == 1
    assert len(service.handle(f"{path}/metadata")) == 3
    with pytest.raises(InstanceNotFoundError):
        service.handle(f"{path}/instances/{files.uids[0]}/metadata")
    assert service.respond(f"{path}/instances/{files.uids[0]}/frames/1").status == 404


# -- what cannot be answered


def test_what_is_missing_is_said(stored: Open, files: Files, gcs_client: Any) -> None:
    """A study, series, instance or frame that is not there is the error of its kind, and status 404."""
    with stored() as cod:
        series, service = cod.datastore_series_uri, Dicomweb(cod.store)
        url = cod.store.url
    missing = {
        f"{url}/studies/1.2.3/metadata": CODObjectNotFoundError,
        f"{series.rpartition('/')[0]}/1.2.3/metadata": CODObjectNotFoundError,
        f"{series}/instances/1.2.3/metadata": InstanceNotFoundError,
        f"{series}/instances/1.2.3/frames/1": InstanceNotFoundError,
        f"{series}/instances/{files.uids[0]}/frames/2": FrameNotFoundError,
    }
    for request, error in missing.items():
        with pytest.raises(error):
            handle_request(request, gcs_client)
        assert service.respond(request).status == 404


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ("gs://bucket/store", ValueError),
        ("gs://bucket/store/studies/1.2", ValueError),
        ("gs://bucket/store/studies/1.2/series/3.4", ValueError),
        ("gs://bucket/store/studies/1.2/series/3.4/instances", ValueError),
        ("gs://bucket/store/studies/1.2/series/3.4/instances/5.6/frames/0", ValueError),
        ("gs://bucket/store/studies/1.2/series/3.4/instances/5.6/frames/-1", ValueError),
        ("gs://bucket/store/studies/1.2/series/3.4/instances/5.6/frames/x", ValueError),
        ("gs://bucket/store/studies/1.2/series/3.4/instances/5.6/frames/1,,2", ValueError),
        ("gs://bucket/store/studies/1.2/series/3.4/instances/5.6/rendered", ValueError),
        ("gs://bucket/store/studies/../metadata", InvalidUidError),
        ("gs://bucket/store/studies/1.2/series/x/metadata", InvalidUidError),
        ("gs://bucket/store/studies/1.2/series/3.4/instances/../metadata", InvalidUidError),
    ],
)
def test_what_makes_no_sense_is_refused(request_: str, error: type[Exception]) -> None:
    """What is no request is an error before anything is read, and status 400."""
    with pytest.raises(error):
        handle_request(request_)
    assert Dicomweb(f"memory://{uuid.uuid4().hex}").respond(request_).status == 400


@pytest.mark.parametrize("tail", ["?offset=x&length=1", "/zz", "/00100010/0/00100010", "?offset=0&length=99999999"])
def test_bulk_data_that_are_none(stored: Open, files: Files, tail: str) -> None:
    """Places that hold no large value are refused."""
    with stored() as cod:
        response = Dicomweb(cod.store).respond(f"/{cod.key}/instances/{files.uids[0]}/bulkdata{tail}")
    assert response.status == 400


def test_a_damaged_frame_is_not_served(stored: Open, files: Files) -> None:
    """A frame whose checksum is not the recorded one is an error, and status 500."""
    with stored() as cod:
        record = cod.get_instance(files.uids[0]).record
        assert record is not None
        service, request = Dicomweb(cod.store), f"/{cod.key}/instances/{files.uids[0]}/frames/1"
        damage(cod, record.frame_span(0).start + 10)
    with pytest.raises(HashMismatchError):
        service.handle(request)
    assert service.respond(request).status == 500


def test_a_damaged_header_is_not_taken_for_a_bad_request(stored: Open, files: Files) -> None:
    """A stored header that cannot be unpacked is an error of the document, and status 500, whatever is asked."""
    with stored() as cod:
        overwrite_header(cod, files.uids[0], "no header")
        service, series, url = Dicomweb(cod.store), f"/{cod.key}", cod.metadata_uri
    instance = f"{series}/instances/{files.uids[0]}"
    for asked in (f"{series}/metadata", f"{instance}/metadata", f"{instance}/bulkdata?offset=0&length=1", instance):
        with pytest.raises(MetadataError, match=f"cod.instances.{files.uids[0]}.metadata") as caught:
            service.handle(asked)
        assert caught.value.uri == url
        assert service.respond(asked).status == 500
    assert service.respond(f"{instance}/frames/1").status == 500
    with stored() as cod, pytest.raises(MetadataError):
        _ = cod.get_instance(files.uids[0]).metadata
    with stored() as cod, pytest.raises(MetadataError):
        cod.read_frame_array(files.uids[0], 0)


def overwrite_header(cod: CODObject, uid: str, header: str) -> None:
    """Put a text in the place of a stored header."""
    store, name = cod.store, cod.key.metadata
    raw = parse_json_object(name, store.read_object(name).data)
    raw["cod"]["instances"][uid]["metadata"] = header
    store.replace(
        name, BytesPayload(json.dumps(raw).encode()), version=store.stat(name).version, write_id=new_write_id()
    )


def test_a_series_that_is_gone_is_missing(tmp_path: Path) -> None:
    """A value that is named by its tag, of a series that was deleted behind an open reader, is status 404."""
    dataset = make_dataset(Uids.of("gone"))
    dataset.EncapsulatedDocument = b"%PDF"
    url, key, path = stored_bytes(to_bytes(dataset), tmp_path)
    service, asked = Dicomweb(url), f"{path}/bulkdata/00420011"
    assert service.handle(asked) == b"%PDF"
    store = Datastore(url).store
    for name in (key.tar, key.metadata):
        store.delete(name)
    with pytest.raises(CODObjectNotFoundError):
        service.handle(asked)
    assert service.respond(asked).status == 404


def test_a_deflated_file_that_was_stored_cut_off(tmp_path: Path) -> None:
    """A value of a file that cannot be inflated is an error of the instance, and status 500."""
    dataset = make_dataset(Uids.of("deflated"))
    dataset.EncapsulatedDocument = np.random.default_rng(3).bytes(8192)
    url, _, path = stored_bytes(to_bytes(dataset, "1.2.840.10008.1.2.1.99")[:-1000], tmp_path)
    with pytest.raises(InstanceValidationError):
        Dicomweb(url).handle(f"{path}/bulkdata/00420011")
    assert Dicomweb(url).respond(f"{path}/bulkdata/00420011").status == 500


def test_a_request_says_what_it_asks_for() -> None:
    """The parts of a request are those that the first library's has."""
    found = DicomwebRequest.from_uri("gs://bucket/a/studies/b/studies/1.2/series/3.4/instances/5.6/frames/1%2C2")
    assert (found.datastore_uri, found.study_uid) == ("gs://bucket/a/studies/b", "1.2")
    assert (found.series_uid, found.instance_uid, found.frames) == ("3.4", "5.6", [1, 2])
    assert found.key == SeriesKey("1.2", "3.4")
    assert DicomwebRequest("memory://x", "1.2", "3.4").frames == []


# -- a client that others have written


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[DICOMwebClient, Files]]:
    """Return a client of a web server in front of a service, and the files of the series in it."""
    files = write_series(tmp_path / "files", CtSeries(3, rows=16, columns=16))
    Datastore(tmp_path / "store").ingest([tmp_path / "files"])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            response = service.respond(self.path)
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        url = f"http://127.0.0.1:{running.server_port}"
        service = Dicomweb(tmp_path / "store", base_url=url)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield DICOMwebClient(url), files
        running.shutdown()
        thread.join()


def test_a_client_of_others_reads(web: tuple[DICOMwebClient, Files]) -> None:
    """Metadata, frames, bulk data and instances arrive at dicomweb-client as they are stored."""
    client, files = web
    uids = files.series.uids.study, files.series.uids.series
    dataset = oracle.read(files.bytes(1))
    assert len(client.retrieve_study_metadata(uids[0])) == 3
    headers = client.retrieve_series_metadata(*uids)
    assert [header["00080018"]["Value"][0] for header in headers] == files.uids
    (frame,) = client.retrieve_instance_frames(*uids, files.uids[1], [1])
    assert frame == dataset.PixelData
    assert client.retrieve_bulkdata(headers[1]["7FE00010"]["BulkDataURI"]) == [dataset.PixelData]
    assert client.retrieve_instance(*uids, files.uids[1]).PatientID == dataset.PatientID
