"""The examples of the published library's README, and of our own list of names, run on ours.

Each example stands here as it stands there; the harness supplies what it leaves out.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import storage

from cloud_optimized_dicom import CODObject, Hints, Instance
from cloud_optimized_dicom.errors import (
    CODError,
    CODObjectNotFoundError,
    HintMismatchError,
    InstanceValidationError,
    LockAcquisitionError,
    WriteOperationInReadModeError,
)
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.core.conftest import Files, read
from tests.hashed.functions import pseudonym
from tests.interop.conftest import published_python

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["published_python"]  # a fixture

WITH_BLOCK = """
with CODObject(client=..., datastore_path=..., mode="w") as cod:
    cod.append(instances)
# sync() called automatically, lock released
"""
WITH_AN_EXCEPTION = """
with CODObject(client=..., datastore_path=..., mode="w") as cod:
    raise ValueError("test")
# lock is released; sync was skipped since no work reached the remote datastore
"""
WITHOUT_A_BLOCK = """
# Incorrect: Lock persists indefinitely
cod = CODObject(client=..., datastore_path=..., mode="w")
del cod  # Lock still exists remotely!
"""
REMOTE_INSTANCE = """
instance = Instance(dicom_uri="gs://some-bucket/example.dcm")
"""
NAMES = """
with CODObject(datastore_path="gs://bucket/prefix", client=storage.Client(), study_uid=..., series_uid=..., mode="a") as cod:
    result = cod.append([Instance(dicom_uri="gs://inbox/1.dcm"), ...])
# leaving the block commits and releases the lock
"""  # noqa: E501 - as it stands there


class Bench:
    """A server with the buckets of the examples, and the names that they use."""

    def __init__(self, server: GcsServer, files: Files) -> None:
        self.client: Any = server.client()
        self.url, self.files = f"gs://bucket/{uuid.uuid4().hex}", files
        for name, number in (("some-bucket/example.dcm", 0), ("inbox/1.dcm", 1)):
            bucket, _, blob = name.partition("/")
            self.client.bucket(bucket).blob(blob).upload_from_filename(files.paths[number])
        self.names: dict[str, Any] = {
            "CODObject": self.series,
            "Instance": Instance,
            "storage": storage,
            "instances": files.instances(),
        }

    def series(self, *, datastore_path: Any = ..., client: Any = ..., mode: str, **uids: Any) -> CODObject:
        """Return a series, with what an example leaves out."""
        assert all(value is ... for value in uids.values())
        return _Series(
            datastore_path=self.url if datastore_path is ... else datastore_path,
            client=self.client if client is ... else client,
            study_uid=self.files.series.uids.study,
            series_uid=self.files.series.uids.series,
            mode=mode,
        )

    def run(self, example: str) -> dict[str, Any]:
        """Run an example; return its names."""
        exec(example, self.names)
        return self.names

    def stored(self) -> list[str]:
        """Return the UIDs of what is stored."""
        with self.series(mode="r") as cod:
            return sorted(cod.get_instances())

    def blobs(self) -> list[str]:
        """Return the last parts of the names of all blobs of the datastore."""
        prefix = self.url.removeprefix("gs://bucket/")
        return sorted(blob.name.rpartition("/")[2] for blob in self.client.list_blobs("bucket", prefix=prefix))


class _Series(CODObject):
    def append(self, instances: Iterable[Any], *args: Any, **options: Any) -> Any:
        """Append what is not left out."""
        return super().append([instance for instance in instances if instance is not ...], *args, **options)


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a strict server with the buckets of the examples."""
    with GcsServer() as running:
        for name in ("bucket", "inbox", "some-bucket"):
            running.create_bucket(name)
        yield running


@pytest.fixture
def bench(server: GcsServer, files: Files, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return the names of the examples; a client that an example makes talks to the server."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    return Bench(server, files)


# -- the examples


@pytest.mark.slow
def test_the_examples_are_those_of_the_readme(published_python: Path) -> None:
    """Every block of Python of the published README, and its line about an instance, stands here word for word."""
    packages = published_python.parents[1].glob("lib/python*/site-packages")
    (metadata,) = (found for folder in packages for found in folder.glob("cloud_optimized_dicom-*.dist-info/METADATA"))
    readme = metadata.read_text(encoding="utf-8").partition("\n\n")[2]
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert blocks == [example.removeprefix("\n") for example in (WITH_BLOCK, WITH_AN_EXCEPTION, WITHOUT_A_BLOCK)]
    assert f"`{REMOTE_INSTANCE.strip()}`" in readme


def test_a_block_commits_and_lets_go_of_the_lock(bench: Bench) -> None:
    """What was appended in the block is stored behind it, and there is no lock."""
    bench.run(WITH_BLOCK)
    assert bench.stored() == sorted(bench.files.uids)
    assert ".gradient.lock" not in bench.blobs()


def test_an_exception_in_a_block_leaves_nothing(bench: Bench) -> None:
    """The exception comes out, and there is neither a lock nor anything else."""
    with pytest.raises(ValueError, match="test"):
        bench.run(WITH_AN_EXCEPTION)
    assert bench.blobs() == []


def test_a_series_that_is_never_entered_leaves_no_lock(bench: Bench) -> None:
    """Here a lock is taken on entry, so the mistake of the example does no harm."""
    bench.run(WITHOUT_A_BLOCK)
    assert bench.blobs() == []
    bench.run(WITH_BLOCK)


def test_an_instance_says_where_its_bytes_are(bench: Bench) -> None:
    """From the URI to the record in the datastore: what the four steps of the README come to."""
    instance: Instance = bench.run(REMOTE_INSTANCE)["instance"]
    uri = "gs://some-bucket/example.dcm"
    assert instance.dicom_uri == instance.original_path == uri
    with instance.open() as stream:
        assert stream.read() == bench.files.bytes(0)
    assert instance.dicom_uri == uri  # opened where it is; nothing was copied
    with bench.series(mode="w") as cod:
        assert cod.append([instance]).new == [instance]
    with bench.series(mode="r") as cod:
        (stored,) = cod.get_instances().values()
        assert stored.dicom_uri == f"{cod.tar_uri}://instances/{bench.files.uids[0]}.dcm"
        assert stored.original_path == uri
        assert cod.get_metadata()["cod"]["instances"][bench.files.uids[0]]["uri"] == stored.dicom_uri


def test_the_example_of_the_list_of_names(bench: Bench) -> None:
    """An instance of another bucket is appended, with a client that finds the server by itself."""
    result = bench.run(NAMES)["result"]
    assert len(result.new) == 1
    assert result.errors == []


# -- what the README says of them


def test_locks_exclude(bench: Bench) -> None:
    """A second writer is refused while there is a lock; a reader is not."""
    bench.run(WITH_BLOCK)
    with bench.series(mode="a"):
        with pytest.raises(LockAcquisitionError):
            bench.series(mode="a").__enter__()
        assert bench.stored() == sorted(bench.files.uids)


def test_reading_changes_nothing(bench: Bench) -> None:
    """Operations that write refuse a series that is open for reading."""
    bench.run(WITH_BLOCK)
    with bench.series(mode="r") as cod:
        for write in (
            lambda: cod.append([]),
            lambda: cod.add_metadata_field("a", 1),
            lambda: cod.remove_metadata_field("a"),
            lambda: cod.upload_error_log("x"),
            cod.delete_dependencies,
        ):
            with pytest.raises(WriteOperationInReadModeError):
                write()


def test_writing_anew_replaces_and_appending_adds(bench: Bench) -> None:
    """Mode "w" starts empty, mode "a" with what is there, and mode "e" needs a series."""
    with pytest.raises(CODObjectNotFoundError):
        bench.series(mode="e").__enter__()
    bench.run(WITH_BLOCK)
    with bench.series(mode="w") as cod:
        cod.append(bench.files.instances(0))
    assert bench.stored() == bench.files.uids[:1]
    with bench.series(mode="a") as cod:
        cod.append(bench.files.instances(1))
    assert bench.stored() == sorted(bench.files.uids[:2])


def test_files_are_edited_in_place(bench: Bench) -> None:
    """In mode "e" each instance is a local file, and what is written to it is stored behind the block."""
    bench.run(WITH_BLOCK)
    uid = bench.files.uids[0]
    with bench.series(mode="e") as cod, open(cod.get_instance(uid).dicom_uri, "r+b") as file:  # noqa: PTH123
        data = file.read().replace(b"Phantom", b"PHANTOM")
        file.seek(0)
        file.write(data)
    with bench.series(mode="r") as cod:
        assert read(cod, uid) == data != bench.files.bytes(0)


def test_hashes_need_a_hash_function(bench: Bench) -> None:
    """Hashed UIDs without a hash function are a ValueError, and with one they are its result."""
    plain, hashing = Instance(bench.files.paths[0]), Instance(bench.files.paths[0], uid_hash_func=lambda uid: uid[:9])
    for name in ("study", "series", "instance"):
        with pytest.raises(ValueError, match="uid_hash_func"):
            getattr(plain, f"hashed_{name}_uid")()
        assert getattr(hashing, f"hashed_{name}_uid")() == getattr(hashing, f"{name}_uid")()[:9]


def test_hints_skip_work_and_are_checked_before_they_cause_any(bench: Bench) -> None:
    """A file that hints know is not fetched; a new one whose hints are wrong is not stored."""
    bench.run(WITH_BLOCK)
    with bench.series(mode="a") as cod:
        known = cod.get_instance(bench.files.uids[0])
        hints = Hints(crc32c=known.crc32c(), instance_uid=known.instance_uid())
        result = cod.append([Instance("gs://inbox/absent.dcm", hints=hints)])
        assert len(result.same) == 1
    with bench.series(mode="w") as cod:
        result = cod.append([Instance(bench.files.paths[0], hints=Hints(crc32c="AAAAAA=="))])
        assert isinstance(result.errors[0][1], HintMismatchError)


def test_an_instance_of_another_series_does_not_belong(bench: Bench, tmp_path: Path) -> None:
    """An instance is asked whether it belongs to a series, with or without a hash function as the series has it."""
    bench.run(WITH_BLOCK)
    with bench.series(mode="r") as cod:
        assert cod.assert_instance_belongs_to_cod_object(bench.files.instances(0)[0])
        with pytest.raises(CODError, match="uid_hash_func"):
            cod.assert_instance_belongs_to_cod_object(Instance(bench.files.paths[0], uid_hash_func=lambda _: "1.2.3"))
        other = tmp_path / "other.dcm"
        other.write_bytes(CtSeries(1, rows=16, columns=16, seed=9).instance(0))
        with pytest.raises(InstanceValidationError):
            cod.assert_instance_belongs_to_cod_object(Instance(other))


def test_the_document_is_the_one_of_the_readme(bench: Bench) -> None:
    """Every key of the README's documents is in ours, at its place, the thumbnail's too."""
    bench.run(WITH_BLOCK)
    with bench.series(mode="a") as cod:
        cod.get_thumbnail()
        cod.add_metadata_field("other", {})
    with bench.series(mode="r") as cod:
        document = cod.get_metadata()
    assert {"study_uid", "series_uid", "cod", "thumbnail", "other"} <= document.keys()
    record = document["cod"]["instances"][bench.files.uids[0]]
    assert {
        *("instance_uid", "series_uid", "study_uid", "has_pixeldata", "metadata", "uri", "headers", "offset_tables"),
        *("crc32c", "size", "original_path", "dependencies", "diff_hash_dupe_paths", "version", "modified_datetime"),
    } <= record.keys()
    assert record["version"] == "2.0"
    assert record["headers"].keys() == {"start_byte", "end_byte"}
    assert {"CustomOffsetTable", "CustomOffsetTableLengths"} <= record["offset_tables"].keys()
    check_thumbnail(document["thumbnail"], bench.files.uids[0], document["study_uid"], document["series_uid"])


def test_the_document_of_hashed_uids_is_the_one_of_the_readme(bench: Bench) -> None:
    """With a hash function every UID that is a key or a part of a name in the README's document is the hashed one."""
    uids = bench.files.series.uids
    study, series, uid = (pseudonym(value) for value in (uids.study, uids.series, bench.files.uids[0]))
    place = {"datastore_path": bench.url, "client": bench.client, "study_uid": study, "series_uid": series}
    instances = [Instance(path, uid_hash_func=pseudonym) for path in bench.files.paths]
    with CODObject(**place, mode="w", hashed_uids=True) as cod:
        assert len(cod.append(instances).new) == len(instances)
        cod.get_thumbnail()
        cod.add_metadata_field("other", {})
    with CODObject(**place, mode="r", hashed_uids=True) as cod:
        document = cod.get_metadata()
    assert {"deid_study_uid", "deid_series_uid", "cod", "thumbnail", "other"} <= document.keys()
    assert not {"study_uid", "series_uid"} & document.keys()
    assert (document["deid_study_uid"], document["deid_series_uid"]) == (study, series)
    records = document["cod"]["instances"]
    assert records.keys() == {pseudonym(value) for value in bench.files.uids}
    assert records[uid]["uri"].endswith(f"/studies/{study}/series/{series}.tar://instances/{uid}.dcm")
    check_thumbnail(document["thumbnail"], uid, study, series)


def check_thumbnail(thumbnail: dict[str, Any], uid: str, study: str, series: str) -> None:
    """Check the part of a document that is about its thumbnail, whose first picture is of an instance."""
    assert thumbnail["version"] == "1.0"
    # The README leaves out where version 2.2.0 puts it: the datastore, and a name of its own in the series' folder.
    assert re.search(rf"/studies/{study}/series/{series}/[^/]+\.(mp4|jpg)$", thumbnail["uri"])
    assert thumbnail["thumbnail_index_to_instance_frame"][0] == [uid, 0]
    (frame,) = thumbnail["instances"][uid]["frames"]
    assert frame["thumbnail_index"] == 0
    assert {"original_size", "thumbnail_upper_left", "thumbnail_bottom_right"} <= frame["anchors"].keys()
