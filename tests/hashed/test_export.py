"""Exports whose names are hashed: from any datastore, of one's own UIDs or hashed already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.catalogue.frames import FrameTable
from cloud_optimized_dicom.errors import HashedUidsError, InvalidUidError
from cloud_optimized_dicom.export import export_dicom
from cloud_optimized_dicom.export.copy import copy_series
from tests.core.bulk import memory_store, write_many
from tests.export.conftest import tree
from tests.hashed.functions import KEYED, PSEUDONYM, Table, is_told, pseudonym

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cod
    from tests.core.conftest import Files


def test_names_are_hashed_and_bytes_are_not(files: Files, tmp_path: Path, cod: Cod) -> None:
    """`cod export --uid-hash` names folders and files by the function; a second run finds all of them there."""
    Datastore(tmp_path / "store").ingest(files.paths)
    arguments = ["export", tmp_path / "store", tmp_path / "out", "--uid-hash", PSEUDONYM, "--json"]
    done = cod(*arguments)
    assert (done.code, done.document["written"]) == (0, 5)
    uids = files.series.uids
    folder = f"{pseudonym(uids.study)}/{pseudonym(uids.series)}"
    expected = {f"{folder}/{pseudonym(uid)}.dcm": files.bytes(index) for index, uid in enumerate(files.uids)}
    assert tree(tmp_path / "out") == expected
    assert not is_told(files, "".join(map(str, (tmp_path / "out").rglob("*"))))
    again = cod(*arguments).document
    assert (again["written"], again["skipped"]) == (0, 5)
    assert cod("export", tmp_path / "store", tmp_path / "no", "--uid-hash", "no.such.module:x").code == 2
    assert not (tmp_path / "no").exists()


def test_each_uid_is_hashed_once(files: Files, tmp_path: Path) -> None:
    """The function, which may ask a service, is called once for each UID of a series, at each export."""
    Datastore(tmp_path / "store").ingest(files.paths)
    called: list[str] = []

    def counted(uid: str) -> str:
        called.append(uid)
        return pseudonym(uid)

    uids = files.series.uids
    for written in (5, 0):
        called.clear()
        report = export_dicom(Datastore(tmp_path / "store"), tmp_path / "out", uid_hash_func=counted)
        assert report.written == written
        assert sorted(called) == sorted([uids.study, uids.series, *files.uids])


def test_hashed_series_are_exported_by_their_names(files: Files, tmp_path: Path) -> None:
    """What is stored under hashed UIDs is exported under these, or under what another function makes of them."""
    datastore = Datastore(tmp_path / "store")
    datastore.ingest(files.paths[:1], uid_hash_func=pseudonym)
    export_dicom(datastore, tmp_path / "out")
    export_dicom(datastore, tmp_path / "again", uid_hash_func=KEYED.pseudonym)
    uids = files.series.uids.study, files.series.uids.series, files.uids[0]
    stored = [pseudonym(uid) for uid in uids]
    assert set(tree(tmp_path / "out")) == {"/".join(stored) + ".dcm"}
    assert set(tree(tmp_path / "again")) == {"/".join(map(KEYED.pseudonym, stored)) + ".dcm"}


def test_a_series_without_names_is_a_failure(tmp_path: Path) -> None:
    """A table that lacks a UID, and a function with one name for two instances, fail their series and no other."""
    good, lacking, colliding = write_many(tmp_path / "in", 3, instances=2)
    datastore = Datastore(tmp_path / "store")
    datastore.ingest([tmp_path / "in"])
    series = [files.series.uids for files in (good, colliding)]
    known = Table([*good.uids, *(uid for uids in series for uid in (uids.study, uids.series))])

    def name(uid: str) -> str:
        return "2.25.1" if uid in colliding.uids else known(uid)

    report = export_dicom(datastore, tmp_path / "out", uid_hash_func=name)
    assert (report.written, len(report.failures)) == (2, 2)
    assert all(isinstance(failure.error, HashedUidsError) for failure in report.failures)
    assert not any(is_told(files, name) for files in (good, lacking, colliding) for name in tree(tmp_path / "out"))
    assert len(tree(tmp_path / "out")) == 2


def test_copies_and_tables_are_refused_as_files_are(files: Files, tmp_path: Path) -> None:
    """Where two instances have one hash, or a name is no UID, nothing is copied and no row is made."""
    datastore = Datastore(tmp_path / "store")
    datastore.ingest(files.paths)
    (key,) = datastore.series()
    target = memory_store()
    for function, error in ((lambda _uid: "2.25.1", HashedUidsError), (lambda uid: f"x{uid}", InvalidUidError)):
        with pytest.raises(error):
            copy_series(datastore.store, key, target, hash_uid=function)
        with pytest.raises(error):
            FrameTable(datastore.store, key, hash_uid=function)
    assert list(target.list("")) == []
