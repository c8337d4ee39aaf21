"""What comes in from the world: a bad file is named with its reason, an odd one stored, and the others always are."""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.errors import (
    MetadataError,
    TarMissingInstanceError,
    TarValidationError,
    UnsupportedVersionError,
)
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.datasets import damaged, kinds
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.conftest import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.storage.base import ObjectStore
    from tests.core.conftest import Files, Open


def with_uid(keyword: str, value: str | None) -> Callable[[bytes], bytes]:
    """Return a function that changes, or with None removes, a UID of a file."""

    def change(data: bytes) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(data))
        if value is None:
            delattr(dataset, keyword)
        else:
            dataset[keyword].VR = "UT"  # pydicom would not write it as a UID
            setattr(dataset, keyword, value)
        target = io.BytesIO()
        dataset.save_as(target)
        return target.getvalue()

    return change


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "not-dicom": (lambda _: b"Dear colleague, " * 40, "not DICOM"),
    "noise": (lambda _: damaged.random_bytes(5000), "not DICOM"),
    "jpeg": (lambda _: b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(300), "not DICOM"),
    "empty": (lambda _: b"", "empty"),
    "cut-in-the-preamble": (lambda data: data[:60], "not DICOM"),
    "cut-in-the-meta": (lambda data: data[:200], "UID"),
    "no-instance-uid": (with_uid("SOPInstanceUID", None), "instance UID"),
    "no-series-uid": (with_uid("SeriesInstanceUID", None), "series UID"),
    "no-study-uid": (with_uid("StudyInstanceUID", None), "study UID"),
    "long-uid": (with_uid("SOPInstanceUID", "1." + "2" * 63), "instance UID of 65 characters"),
    "letters-in-uid": (with_uid("SOPInstanceUID", "1.2.abc"), "instance UID"),
    "dots-as-uid": (with_uid("SOPInstanceUID", ".."), "instance UID"),
    "path-as-uid": (with_uid("SOPInstanceUID", "../../1.2"), "instance UID"),
    "slash-in-uid": (with_uid("SeriesInstanceUID", "1.2/3"), "series UID"),
    "dots-as-study": (with_uid("StudyInstanceUID", ".."), "study UID"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_file_is_refused_and_the_others_stored(kind: str, stored: Open, files: Files, tmp_path: Path) -> None:
    """The error names the file and why, repeats no value, the rest of the batch is stored, what was stored stays."""
    spoil, reason = REFUSED[kind]
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(spoil(files.bytes(4)))
    with stored("a") as cod:
        result = cod.append([*files.instances(3), Instance(bad), *files.instances(4)])
    assert [instance.dicom_uri for instance in result.new] == [str(files.paths[3]), str(files.paths[4])]
    ((instance, error),) = result.errors
    assert instance.dicom_uri == str(bad)
    assert str(bad) in str(error)
    assert reason in str(error)
    for value in ("abc", "../../", "Synthetic", "SYNTHETIC"):
        assert value not in str(error)
    with stored() as cod:
        assert [read(cod, uid) for uid in files.uids] == [files.bytes(index) for index in range(5)]
        assert cod.verify().ok


def odd_native(**values: Any) -> bytes:
    """Return a native instance with odd header values."""
    dataset = pydicom.dcmread(io.BytesIO(kinds.native(kinds.make_frames(1, 8, 8))))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def without_pixels() -> bytes:
    """Return an instance without pixel data."""
    dataset = pydicom.dcmread(io.BytesIO(kinds.native(kinds.make_frames(1, 8, 8))))
    del dataset.PixelData
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


PLAIN = kinds.native(kinds.make_frames(1, 8, 8))
STORED: dict[str, tuple[bytes, int | None]] = {
    "tiff-preamble": (damaged.with_tiff_preamble(PLAIN), 1),
    "no-preamble": (damaged.without_preamble(PLAIN), 1),
    "no-meta": (damaged.without_meta(PLAIN), 1),
    "deflated": (kinds.deflated(kinds.make_frames(3, 8, 8)), 3),
    "big-endian": (kinds.big_endian(kinds.make_frames(2, 8, 8)), 2),
    "implicit": (kinds.implicit(kinds.make_frames(2, 8, 8)), 2),
    "wrong-vr-length": (damaged.wrong_length(), None),
    "no-pixel-data": (without_pixels(), None),
    "zero-frames": (odd_native(NumberOfFrames="0"), 1),
    "nested-2000-deep": (damaged.nested(2000), None),
    "nested-2000-deep-explicit": (damaged.nested(2000, undefined_length=False), None),
    "claims-8-gigabytes": (damaged.huge_claim(), 0),
    "value-of-3-gigabytes": (damaged.long_value(), None),
    "not-finite": (damaged.not_finite(), None),
    "wrong-syntax-in-meta": (damaged.wrong_syntax("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"), 1),
    "truncated-pixels": (PLAIN[:-64], 0),
    "leading-zeros-in-uid": (with_uid("SOPInstanceUID", "1.02.003")(PLAIN), 1),
    "short-uid": (odd_native(SOPInstanceUID="1.2"), 1),
}


@pytest.mark.parametrize("kind", STORED)
def test_an_odd_file_is_stored_as_it_is(kind: str, datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Odd and hostile files whose UIDs can be read are stored byte for byte, and verify finds nothing wrong."""
    data, frames = STORED[kind]
    path = tmp_path / "odd.dcm"
    path.write_bytes(data)
    datastore = Datastore(datastore_url, gcs_client)
    report = datastore.ingest([path])
    assert [result.reason for result in report.errors] == []
    (key,) = report.series
    with datastore.open(key.study_uid, key.series_uid) as cod:
        ((uid, instance),) = cod.get_instances().items()
        assert read(cod, uid) == data
        assert instance.has_pixeldata == (frames is not None)
        if frames:
            assert len(cod.read_frames(uid)) == frames
        json.dumps(instance.metadata, allow_nan=False)
        assert cod.verify().ok


def test_what_cannot_be_opened(stored: Open, files: Files, tmp_path: Path) -> None:
    """A directory, a missing file and an unknown scheme are errors of their own; the rest is stored."""
    bad = [Instance(tmp_path), Instance(tmp_path / "none.dcm"), Instance("ftp://host/file.dcm")]
    with stored("a") as cod:
        result = cod.append([*bad, *files.instances(3)])
    assert len(result.new) == 1
    reasons = [str(error) for _, error in result.errors]
    assert "directory" in reasons[0]
    assert "no such file" in reasons[1]
    assert "ftp" in reasons[2]


def test_an_unreadable_file(files: Files) -> None:
    """A file that may not be read is an error that says so."""
    with tempfile.TemporaryDirectory() as folder:  # every user may enter it, which pytest's own folders do not allow
        Path(folder).chmod(0o755)
        secret = Path(folder) / "secret.dcm"
        secret.write_bytes(files.bytes(0))
        secret.chmod(0)
        datastore = Datastore("memory://unreadable")
        assert datastore.ingest([files.paths[1]]).count("new") == 1  # and everything is imported
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # permissions do not bind root
        try:
            report = datastore.ingest([Instance(secret)])
        finally:
            os.seteuid(user)
    assert [(result.uri, result.reason) for result in report.errors] == [(str(secret), "permission denied")]


def test_transfer_syntaxes_mix_within_a_series(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """Instances of one series in several transfer syntaxes are stored together and read each in its own way."""
    paths = []
    for number, make in enumerate((kinds.implicit, kinds.big_endian, kinds.deflated, kinds.jpeg2000)):
        dataset = pydicom.dcmread(io.BytesIO(make(kinds.make_frames(2, 8, 8, seed=number))))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.1", "1.2", f"1.3.{number}"
        dataset.InstanceNumber = number
        paths.append(tmp_path / f"{number}.dcm")
        dataset.save_as(paths[-1])
    datastore = Datastore(datastore_url, gcs_client)
    assert datastore.ingest(paths).count("new") == 4
    with datastore.open("1.1", "1.2") as cod:
        for number, path in enumerate(paths):
            assert read(cod, number) == path.read_bytes()
            pixels = pydicom.dcmread(path).pixel_array
            for frame in range(2):
                assert (cod.read_frame_array(f"1.3.{number}", frame) == pixels[frame]).all()


def overwrite(store: ObjectStore, name: str, data: bytes) -> None:
    """Put other bytes in the place of an object, as somebody outside the protocol would."""
    version = store.stat(name).version
    attributes = Attributes("application/json", "gzip") if name.endswith(".json") else Attributes()
    store.replace(name, BytesPayload(data), version=version, write_id=new_write_id(), attributes=attributes)


def key_of(files: Files) -> SeriesKey:
    """Return the series of the files."""
    return SeriesKey(files.series.uids.study, files.series.uids.series)


DAMAGED_METADATA: dict[str, Callable[[bytes], bytes]] = {
    "half-written": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "not-json": lambda _: gzip.compress(b"{'single': quotes}"),
    "a-list": lambda _: gzip.compress(b"[]"),
    "no-instances": lambda _: gzip.compress(b'{"study_uid": "1", "series_uid": "2", "cod": {}}'),
    "flipped": lambda data: data[:40] + bytes([data[40] ^ 0xFF]) + data[41:],
    "another-series": lambda data: gzip.compress(
        json.dumps(json.loads(gzip.decompress(data)) | {"series_uid": "1.2.3"}).encode()
    ),
    "infinity": lambda _: gzip.compress(b'{"a": Infinity}'),
}


@pytest.mark.parametrize("kind", DAMAGED_METADATA)
def test_damaged_metadata(kind: str, stored: Open, files: Files, store: ObjectStore) -> None:
    """A damaged document is a MetadataError for readers and writers alike, and neither changes anything."""
    key = key_of(files)
    overwrite(store, key.metadata, DAMAGED_METADATA[kind](store.read_object(key.metadata).data))
    before = [(info.name, info.version) for info in store.list()]
    for mode in ("r", "a", "w"):
        with pytest.raises(MetadataError) as caught, stored(mode) as cod:
            cod.get_instances()
        assert caught.value.uri.endswith("metadata.json")
        assert caught.value.problems
    assert [(info.name, info.version) for info in store.list()] == before
    report = stored().verify()
    assert [finding.kind for finding in report.findings] == ["metadata-damaged"]


def test_a_format_version_of_the_future(stored: Open, files: Files, store: ObjectStore) -> None:
    """A record of a version that this release does not know is refused by name, before anything is written."""
    key = key_of(files)
    document = json.loads(gzip.decompress(store.read_object(key.metadata).data))
    document["cod"]["instances"][files.uids[1]]["version"] = "3.0"
    overwrite(store, key.metadata, gzip.compress(json.dumps(document).encode()))
    for mode in ("r", "a"):
        with pytest.raises(UnsupportedVersionError, match=r"3\.0"), stored(mode):
            pass


def test_a_damaged_record_names_its_fields(stored: Open, files: Files, store: ObjectStore) -> None:
    """Every field of a record that is missing or of the wrong type is listed."""
    key = key_of(files)
    document = json.loads(gzip.decompress(store.read_object(key.metadata).data))
    record = document["cod"]["instances"][files.uids[1]]
    del record["crc32c"]
    record["size"] = "many"
    record["headers"] = {"start_byte": -1}
    overwrite(store, key.metadata, gzip.compress(json.dumps(document).encode()))
    with stored() as cod, pytest.raises(MetadataError) as caught:
        cod.get_instance(files.uids[1])
    assert len(caught.value.problems) == 3
    assert all(files.uids[1] in problem for problem in caught.value.problems)
    with stored() as cod:
        assert read(cod, files.uids[0]) == files.bytes(0)


def test_a_tar_shorter_than_the_metadata_says(stored: Open, files: Files, store: ObjectStore) -> None:
    """Nothing is read from a tar that is not the recorded one, and a writer quarantines the series."""
    key = key_of(files)
    overwrite(store, key.tar, store.read_object(key.tar).data[:3000])
    with stored() as cod, pytest.raises(Exception, match="not the one"):
        read(cod, files.uids[2])
    report = stored().verify()
    assert {finding.kind for finding in report.findings} >= {"tar-changed", "tar-too-short"}
    assert report.damaged
    with pytest.raises(TarValidationError):
        stored().integrity_check()
    with pytest.raises(TarValidationError), stored("a"):
        pass
    assert store.find(key.error_log) is not None
    assert store.find(key.lock) is None


def test_a_tar_that_is_gone(stored: Open, files: Files, store: ObjectStore) -> None:
    """Readers and verify say that the tar is missing."""
    key = key_of(files)
    store.delete(key.tar)
    with stored() as cod, pytest.raises(TarValidationError, match="missing"):
        read(cod, files.uids[2])
    assert [finding.kind for finding in stored().verify().findings] == ["tar-missing"]
    with pytest.raises(TarMissingInstanceError):
        stored().integrity_check()
