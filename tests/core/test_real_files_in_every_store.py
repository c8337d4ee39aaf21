"""Every real file of set (a), through every kind of store and back."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from cloud_optimized_dicom import Datastore, Instance, checksum
from cloud_optimized_dicom.format.dicom_json import unpack_header
from tests.dicom import oracle
from tests.realfiles import RealFile, real_files

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom import CODObject


def is_instance(file: RealFile) -> bool:
    """Tell whether pydicom opens the file and finds three UIDs in it that may be part of an object's name."""
    try:
        dataset = oracle.read(file.read())
        legal = re.compile(r"[0-9.]{1,64}")
        return oracle.has_uids(dataset) and all(legal.fullmatch(dataset[uid].value) for uid in oracle.UIDS)
    except Exception:  # noqa: BLE001 - whatever pydicom raises, it does not open the file
        return False


def with_offsets(document: Any) -> Any:
    """Return a header whose BulkDataURIs are ``start:stop`` as the oracle's helper takes them."""
    if isinstance(document, list):
        return [with_offsets(item) for item in document]
    if not isinstance(document, dict):
        return document
    if isinstance(document.get("BulkDataURI"), str):
        query = parse_qs(document["BulkDataURI"].rpartition("?")[2])
        start, length = int(query["offset"][0]), int(query["length"][0])
        return {**document, "BulkDataURI": f"{start}:{start + length}"}
    return {key: with_offsets(value) for key, value in document.items()}


def check_bytes(cod: CODObject, uid: str, data: bytes) -> None:
    """Compare one stored instance with its file: bytes and checksum."""
    record = cod.get_instance(uid).record
    assert record is not None
    with cod.open_instance(uid) as stream:
        assert stream.read() == data
    assert cod.get_instance(uid).crc32c() == checksum.encode(checksum.crc32c(data))
    assert record.size == len(data)


def check_content(cod: CODObject, uid: str, data: bytes) -> int:
    """Compare one stored instance with pydicom's view of its file: header and frames; return the number of frames."""
    record = cod.get_instance(uid).record
    assert record is not None
    dataset = oracle.read(data)
    inflated = oracle.inflated(data, dataset)
    header = unpack_header(record.packed_header)
    json.dumps(header, allow_nan=False)
    found = oracle.with_bulk_data(with_offsets(header), inflated)
    assert list(oracle.differences(oracle.header(dataset), found)) == []
    if record.frame_table is None:
        return 0
    frames = cod.read_frames(uid)
    expected = [
        inflated[o : o + n] for o, n in zip(record.frame_table.offsets, record.frame_table.lengths, strict=True)
    ]
    if record.frame_table.fragment_counts is not None:
        expected = oracle.encapsulated_frames(dataset)
    assert frames == expected
    return len(frames)


def test_every_real_file_comes_back_byte_for_byte(datastore_url: str, gcs_client: Any, tmp_path: Path) -> None:
    """All instances are stored and read back equal, with the oracle's header and frames; all others are refused."""
    distinct = {file.read(): file for file in real_files()}  # some are also there in another packing
    files = {str(file.path_in(tmp_path)): file for file in distinct.values()}
    readable = {path for path, file in files.items() if is_instance(file)}
    assert len(readable) > 200
    remaining, refused, frames, kept = sorted(files), {}, Counter[str](), 0
    for attempt in range(20):
        if not remaining:
            break
        # What conflicts with another file goes to the next datastore, so that every file is stored somewhere.
        datastore = Datastore(f"{datastore_url}/{attempt}", gcs_client)
        report = datastore.ingest([Instance(path) for path in remaining])
        refused |= {result.uri: result.reason for result in report.files if result.outcome == "error"}
        for result in report.files:
            if result.outcome != "new":
                continue
            assert result.series is not None
            assert result.instance_uid is not None
            with datastore.open(result.series.study_uid, result.series.series_uid) as cod:
                data = files[result.uri].read()
                check_bytes(cod, result.instance_uid, data)
                if result.uri in readable:  # a few more are kept than pydicom can read
                    frames[result.uri] = check_content(cod, result.instance_uid, data)
            kept += 1
        assert not report.count("same")
        assert all(verified.ok for verified in datastore.verify())
        remaining = [result.uri for result in report.files if result.outcome == "conflict"]
    assert not remaining
    assert readable <= frames.keys(), readable - frames.keys()
    assert kept + len(refused) == len(files)
    assert sum(frames.values()) > 600
    for reason in refused.values():
        assert reason


@pytest.mark.parametrize("refused", ["not DICOM", "UID", "DICOMDIR"])
def test_what_is_refused_says_why(refused: str, tmp_path: Path) -> None:
    """The files of the set that are no instances are refused, each kind with its reason."""
    files = [file for file in real_files() if not is_instance(file)]
    report = Datastore(tmp_path / "store").ingest([file.path_in(tmp_path) for file in files])
    reasons = [result.reason or "" for result in report.errors]
    assert any(refused in reason for reason in reasons), reasons
