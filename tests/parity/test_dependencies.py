"""Deleting what was ingested: only what is certain to be stored, and nothing else."""

from __future__ import annotations

import gzip
import os
import pickle
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from cloud_optimized_dicom import CODObject, Datastore, Hints, Instance
from cloud_optimized_dicom.errors import (
    DependencyError,
    HashMismatchError,
    LockVerificationError,
    WriteOperationInReadModeError,
)
from cloud_optimized_dicom.ingest.dependencies import check_source
from cloud_optimized_dicom.ingest.sources import source_of
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.core.conftest import Files, Open, write_series
from tests.parity.damage import damage

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore


class Inbox:
    """Where sources come from: a folder, or a prefix of the same bucket as the datastore's."""

    def __init__(self, url: str, client: Any) -> None:
        self.store: ObjectStore = open_store(url, client)
        self._client = client

    def put(self, name: str, data: bytes) -> str:
        """Write a source; return its URI."""
        info = self.store.find(name)
        payload, write = BytesPayload(data), new_write_id()
        if info is None:
            self.store.create(name, payload, write_id=write)
        else:
            self.store.replace(name, payload, version=info.version, write_id=write)
        return self.store.url_of(name)

    def instance(self, uri: str, *dependencies: str, **options: Any) -> Instance:
        """Return the instance of a source, which it depends on if nothing else is given."""
        params = {"client": self._client} if self._client is not None else {}
        return Instance(uri, dependencies or [uri], transport_params=params, **options)

    @property
    def names(self) -> list[str]:
        """What is there."""
        return [info.name for info in self.store.list()]


@pytest.fixture
def inbox(store_kind: str, gcs_client: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Inbox:
    """Return an empty inbox of the kind at hand."""
    name = uuid.uuid4().hex
    if store_kind == "gcs":
        return Inbox(f"gs://{request.getfixturevalue('gcs_bucket')}/inbox-{name}", gcs_client)
    return Inbox(f"memory://inbox-{name}" if store_kind == "memory" else str(tmp_path / "inbox"), None)


Given = list[Instance]


@pytest.fixture
def given(inbox: Inbox, files: Files, open_cod: Open) -> Given:
    """Return three stored instances whose sources are still in the inbox."""
    instances = [inbox.instance(inbox.put(f"{number}.dcm", files.bytes(number))) for number in range(3)]
    with open_cod("w") as cod:
        assert len(cod.append(instances).new) == 3
    return instances


def uris(instances: list[Instance]) -> list[str]:
    """Return where instances came from."""
    return [instance.original_path for instance in instances]


# -- what is deleted


def test_sources_go_once_the_series_is_verified(given: Given, inbox: Inbox, open_cod: Open) -> None:
    """All sources of a series go, their URIs come back, and a second call finds nothing to delete."""
    with open_cod("a") as cod:
        assert cod.delete_dependencies(validate_blob_hash=True) == uris(given)
        assert inbox.names == []
        assert cod.delete_dependencies() == []
        assert not cod.verify().damaged


def test_a_dry_run_tells_and_deletes_nothing(given: Given, inbox: Inbox, open_cod: Open) -> None:
    """A dry run gives the list of a real one."""
    with open_cod("a") as cod:
        assert cod.delete_dependencies(dryrun=True) == uris(given)
    assert given[0].delete_dependencies(dryrun=True) == uris(given[:1])
    assert len(inbox.names) == 3


def test_an_instance_deletes_its_own(given: Given, inbox: Inbox, open_cod: Open) -> None:
    """After the commit an appended instance deletes its source, and so does one that the series gives."""
    assert given[0].delete_dependencies() == uris(given[:1])
    assert given[0].delete_dependencies() == []
    with open_cod() as cod:
        assert cod.get_instance_by_index(1).delete_dependencies() == uris(given[1:2])
    assert inbox.names == ["2.dcm"]


def test_a_pickled_instance_deletes_its_own(store_kind: str, given: Given, inbox: Inbox) -> None:
    """Where an instance is stored crosses to another process with it."""
    for instance in given:
        instance.transport_params.clear()  # clients do not pickle
    again = pickle.loads(pickle.dumps(given[0]))
    if store_kind != "memory":  # whose objects do not cross
        assert again.delete_dependencies() == uris(given[:1])
        assert inbox.names == ["1.dcm", "2.dcm"]


def test_what_was_stored_before_is_as_good(given: Given, inbox: Inbox, files: Files, open_cod: Open) -> None:
    """A source that was recognised goes, by its hints as by its bytes; a conflicting one stays."""
    crc = given[1].crc32c()
    for number in range(3):
        data = files.bytes(number)
        inbox.put(f"again-{number}.dcm", data if number < 2 else data[:-1] + bytes([data[-1] ^ 1]))
    again = [inbox.instance(inbox.store.url_of(f"again-{number}.dcm")) for number in range(3)]
    again[1].hints = Hints(crc32c=crc, instance_uid=files.uids[1])
    with open_cod("a") as cod:
        result = cod.append(again)
        assert (result.same, result.conflict) == (again[:2], again[2:])
    for instance in result.same:
        assert len(instance.delete_dependencies()) == 1
    with pytest.raises(DependencyError, match="is not stored"):
        again[2].delete_dependencies(validate_blob_hash=False)
    assert inbox.names == ["0.dcm", "1.dcm", "2.dcm", "again-2.dcm"]


@pytest.mark.parametrize("is_hinted", [False, True], ids=["measured", "hinted"])
def test_what_an_ingest_found_stored_is_as_good(
    given: Given, inbox: Inbox, files: Files, datastore_url: str, gcs_client: Any, is_hinted: bool
) -> None:
    """A source that an ingest of many files recognised goes as one that was appended; a conflicting one stays."""
    uids, data = files.series.uids, files.bytes(1)
    crc = given[1].crc32c()
    again = inbox.instance(inbox.put("again.dcm", data))
    other = inbox.instance(inbox.put("other.dcm", data[:-1] + bytes([data[-1] ^ 1])))
    if is_hinted:
        again.hints = Hints(len(data), crc, files.uids[1], uids.series, uids.study)
    report = Datastore(datastore_url, gcs_client).ingest([again, other])
    assert [result.outcome for result in report.files] == ["same", "conflict"]
    assert again.delete_dependencies() == uris([again])
    with pytest.raises(DependencyError, match="is not stored"):
        other.delete_dependencies(validate_blob_hash=False)
    assert inbox.names == ["0.dcm", "1.dcm", "2.dcm", "other.dcm"]


def test_a_recompressed_instance_is_compared_with_what_was_given(
    inbox: Inbox, datastore_url: str, gcs_client: Any, tmp_path: Path
) -> None:
    """The source of an instance that is stored in other bytes goes if it is the file that was recompressed."""
    files = write_series(tmp_path / "larger", CtSeries(2, rows=128, columns=128))
    instances = [inbox.instance(inbox.put(f"{number}.dcm", files.bytes(number))) for number in range(2)]
    uids = files.series.uids
    with CODObject(datastore_url, gcs_client, uids.study, uids.series, "w") as cod:
        cod.append(instances, compress="rle")
    assert all(instance.record and instance.record.source_crc32c for instance in instances)
    assert instances[0].delete_dependencies() == uris(instances[:1])
    inbox.put("1.dcm", files.bytes(1)[:-1] + b"?")
    with pytest.raises(DependencyError, match="differs"):
        instances[1].delete_dependencies()
    assert inbox.names == ["1.dcm"]


def test_several_sources_of_one_file_all_go(inbox: Inbox, files: Files, open_cod: Open, tmp_path: Path) -> None:
    """Parts that were made into a file cannot be compared with it; a file among them is."""
    parts = [inbox.put("header.dcm", b"header"), inbox.put("pixels.j2c", b"pixels")]
    made = inbox.put("made.dcm", files.bytes(1))
    with open_cod("w") as cod:
        instances = [Instance(files.paths[0], parts), inbox.instance(made, made, *parts)]
        assert len(cod.append(instances).new) == 2
    assert instances[0].delete_dependencies() == parts
    inbox.put("made.dcm", b"another")
    with pytest.raises(DependencyError, match="differs"):
        instances[1].delete_dependencies()
    assert inbox.names == ["made.dcm"]


def test_a_source_that_is_stored_gzipped(
    gcs_session_client: Any, gcs_bucket: str, files: Files, tmp_path: Path
) -> None:
    """Of an object that a bucket keeps gzipped, what is inside is compared."""
    blob = gcs_session_client.bucket(gcs_bucket).blob(f"{uuid.uuid4().hex}.dcm")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(files.bytes(0)), content_type="application/dicom")
    uri = f"gs://{gcs_bucket}/{blob.name}"
    instance = Instance(files.paths[0], [uri], transport_params={"client": gcs_session_client})
    uids = files.series.uids
    with CODObject(tmp_path / "store", None, uids.study, uids.series, "w") as cod:
        assert len(cod.append([instance]).new) == 1
    assert instance.delete_dependencies() == [uri]
    assert not blob.exists()


def test_what_it_costs(files: Files, tmp_path: Path) -> None:
    """One instance: the document, its bytes, a look at the source, a deletion; a series: two requests a source."""
    with GcsServer() as server:
        server.create_bucket("bucket")
        inbox = Inbox("gs://bucket/inbox", server.client())
        instances = [inbox.instance(inbox.put(f"{number}.dcm", files.bytes(number))) for number in range(5)]
        place = ("gs://bucket/store", server.client(), files.series.uids.study, files.series.uids.series)
        with CODObject(*place, "w") as cod:
            cod.append(instances)
        server.reset_counters()
        assert instances[0].delete_dependencies() == uris(instances[:1])
        assert len(server.counters()) == 4
        assert sum(record.bytes_out for record in server.counters()) < 3 * len(files.bytes(0))
        with CODObject(*place, "a") as cod:
            server.reset_counters()
            assert cod.delete_dependencies(validate_blob_hash=True) == uris(instances[1:])
            requests = [record.operation for record in server.counters()]
    assert requests.count("objects.delete") == 4
    assert requests.count("objects.get") <= 4 + 5 + 3  # a look at each source, gone ones too, and at the series


# -- what stays


def test_it_takes_a_lock(given: Given, open_cod: Open) -> None:
    """A series that is open for reading deletes nothing: others could remove meanwhile what is relied upon."""
    assert given
    with open_cod() as cod, pytest.raises(WriteOperationInReadModeError):
        cod.delete_dependencies(dryrun=True)


def test_without_a_lock_it_only_tells(given: Given, inbox: Inbox, open_cod: Open) -> None:
    """Without sync_on_exit nothing is locked: what would be deleted is told, and nothing is."""
    for cod in (open_cod("a", sync_on_exit=False), open_cod("w", sync_on_exit=False)):
        with pytest.raises(LockVerificationError, match="never taken"):  # in no block
            cod.delete_dependencies()
    with open_cod("a", sync_on_exit=False) as cod:
        assert cod.delete_dependencies(dryrun=True) == uris(given)
        for validate in (False, True):
            with pytest.raises(LockVerificationError, match="never taken"):
                cod.delete_dependencies(validate_blob_hash=validate)
    assert len(inbox.names) == 3


def test_a_source_that_differs_keeps_them_all(given: Given, inbox: Inbox, files: Files, open_cod: Open) -> None:
    """Where one source is not what is stored, none is deleted; without the comparison all are."""
    inbox.put("1.dcm", files.bytes(1) + b"?")
    with open_cod("a") as cod:
        with pytest.raises(DependencyError, match="differs") as caught:
            cod.delete_dependencies(validate_blob_hash=True)
        assert caught.value.uri == uris(given)[1]
        assert len(inbox.names) == 3
        assert cod.delete_dependencies() == uris(given)


def test_nothing_goes_where_the_stored_bytes_are_damaged(given: Given, inbox: Inbox, open_cod: Open) -> None:
    """Damage to one instance keeps every source of the series, whether sources are compared or not."""
    with open_cod() as cod:
        record = cod.get_instance_by_index(2).record
        assert record is not None
        damage(cod, record.start + 500)
    with open_cod("a") as cod:
        for validate in (False, True):
            with pytest.raises(HashMismatchError):
                cod.delete_dependencies(validate_blob_hash=validate)
        with pytest.raises(HashMismatchError):
            cod.get_instance_by_index(2).delete_dependencies(validate_blob_hash=False)
    assert len(inbox.names) == 3
    assert given[0].delete_dependencies() == uris(given[:1])


def test_a_source_that_is_replaced_after_the_comparison_stays(given: Given, inbox: Inbox, open_cod: Open) -> None:
    """An object goes at the generation that was compared, a file in the state that was compared, or not at all."""
    with open_cod() as cod:
        record = cod.get_instance_by_index(0).record
        uri = uris(given)[0]
        found = check_source(source_of(uri, inbox.store.client), uri, record, cod.store)
    assert found is not None
    inbox.put("0.dcm", b"replaced")
    with pytest.raises(DependencyError, match="changed after it was compared"):
        found.delete()
    assert inbox.store.read_object("0.dcm").data == b"replaced"


def test_no_part_of_the_datastore_is_ever_deleted(store_kind: str, stored: Open, files: Files, tmp_path: Path) -> None:
    """Neither tar nor metadata of any series goes, by whatever name it is given."""
    with stored() as cod:
        before = [info.name for info in cod.store.list()]
        own = [cod.tar_uri, cod.metadata_uri, cod.store.url_of("studies/1.2/series/3.4.tar")]
    if store_kind == "local":
        (tmp_path / "link").symlink_to(tmp_path / "datastore")
        (tmp_path / "tar").symlink_to(own[0])
        own += [Path(own[0]).as_uri(), own[0].replace("/datastore/", "/link/"), str(tmp_path / "tar")]
        own += [own[0].replace("/studies/", "/../datastore/studies/"), os.path.relpath(own[0])]
    for uri in own:
        with stored("a") as cod:
            cod.remove(files.uids[0])
            cod.append([Instance(files.paths[0], [uri])])
        with stored("a") as cod:
            for delete in (cod.delete_dependencies, cod.get_instance(files.uids[0]).delete_dependencies):
                with pytest.raises(DependencyError, match="is a part of the datastore"):
                    delete(validate_blob_hash=False)
    with stored() as cod:
        assert [info.name for info in cod.store.list()] == before


@pytest.mark.parametrize(
    "uri", ["a.zip://1.dcm", "a.tar://instances/1.2.dcm", "https://localhost/1.dcm", "strange://1.dcm", ""]
)
def test_what_cannot_be_deleted_is_refused(open_cod: Open, files: Files, uri: str) -> None:
    """Members of archives and files of web servers are an error, before anything is deleted."""
    with open_cod("w") as cod:
        cod.append([Instance(files.paths[0], [str(files.paths[0])]), Instance(files.paths[1], [uri])])
    with open_cod("a") as cod, pytest.raises(DependencyError):
        cod.delete_dependencies()
    assert files.paths[0].exists()


def test_a_folder_is_refused(open_cod: Open, files: Files, tmp_path: Path) -> None:
    """A folder is no file that could be deleted."""
    with open_cod("w") as cod:
        cod.append([Instance(files.paths[0], [str(tmp_path / "files")])])
    with open_cod("a") as cod, pytest.raises(DependencyError, match="not a regular file"):
        cod.delete_dependencies()


def test_a_relative_path_is_compared_or_refused(
    open_cod: Open, files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From another folder a relative path names another file, which stays."""
    monkeypatch.chdir(files.paths[0].parent)
    with open_cod("w") as cod:
        cod.append([Instance("0.dcm", ["0.dcm"])])
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "0.dcm").write_bytes(files.bytes(1))
    monkeypatch.chdir(other)
    with open_cod("a") as cod:
        with pytest.raises(DependencyError, match="relative"):
            cod.delete_dependencies()
        with pytest.raises(DependencyError, match="differs"):
            cod.delete_dependencies(validate_blob_hash=True)
    monkeypatch.chdir(files.paths[0].parent)
    with open_cod("a") as cod:
        assert cod.delete_dependencies(validate_blob_hash=True) == ["0.dcm"]
    assert (other / "0.dcm").exists()


def test_what_is_not_committed_keeps_its_source(open_cod: Open, files: Files) -> None:
    """Neither an instance that was never stored nor one that is only staged lets go of its source."""
    instance = Instance(files.paths[0], [str(files.paths[0])])
    with pytest.raises(DependencyError, match="is not stored"):
        instance.delete_dependencies()
    with open_cod("a") as cod:
        cod.append([instance])
        with pytest.raises(DependencyError, match="not committed yet"):
            instance.delete_dependencies()
    assert instance.delete_dependencies() == [str(files.paths[0])]
    assert not files.paths[0].exists()


def test_what_is_about_to_be_removed_keeps_its_source(given: Given, inbox: Inbox, open_cod: Open) -> None:
    """Within a block that removes an instance, its source stays; one that starts over keeps them all."""
    with open_cod("a") as cod:
        cod.remove(cod.get_instance_by_index(0))
        assert cod.delete_dependencies() == uris(given)[1:]
    assert inbox.names == ["0.dcm"]
    with open_cod("w") as cod:
        assert cod.delete_dependencies(dryrun=True) == []


def test_the_file_that_was_given_again_is_compared_too(inbox: Inbox, files: Files, open_cod: Open) -> None:
    """Of several dependencies, the one that this instance was read from is compared, whatever was stored first."""
    first, again, part = (inbox.put(name, files.bytes(0)) for name in ("first.dcm", "again.dcm", "part.raw"))
    with open_cod("w") as cod:
        cod.append([inbox.instance(first, first, part)])
    given_again = inbox.instance(again, again, part)
    with open_cod("a") as cod:
        assert cod.append([given_again]).same == [given_again]
    inbox.put("again.dcm", b"another")
    with pytest.raises(DependencyError, match="differs"):
        given_again.delete_dependencies()
    assert inbox.names == ["again.dcm", "first.dcm", "part.raw"]


def test_what_is_stored_by_its_pixels_alone_keeps_its_source(
    inbox: Inbox, files: Files, open_cod: Open, tmp_path: Path
) -> None:
    """A file that counts as the same though its header differs is stored nowhere."""
    dataset = pydicom.dcmread(files.paths[0])
    dataset.PatientID = "other"
    dataset.save_as(tmp_path / "other.dcm")
    other, part = inbox.put("other.dcm", (tmp_path / "other.dcm").read_bytes()), inbox.put("part.raw", b"part")
    instance = inbox.instance(other, other, part)
    with open_cod("w") as cod:
        cod.append(files.instances(0))
    with open_cod("a") as cod:
        assert cod.append([instance], treat_metadata_diffs_as_same=True).same == [instance]
    with pytest.raises(DependencyError, match="is not stored"):
        instance.delete_dependencies()
    assert inbox.names == ["other.dcm", "part.raw"]
