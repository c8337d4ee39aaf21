"""Which series, and which instances, a pipeline is about; and what is asked of the store to find them."""

from __future__ import annotations

import json
import selectors
import socket
import socketserver
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.beam import ReadSeries, VerifySeries
from cloud_optimized_dicom.catalogue import update_catalogue
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from pipelines.export import main as export
from pipelines.verify import main as verify
from tests.beam.conftest import run_pipeline
from tests.beam.test_verify import run
from tests.catalogue.conftest import overwrite
from tests.export.conftest import Archive, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.beam.conftest import Bucket


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of three series, of three, two and one instances, each in a study of its own."""
    archive = Archive(open_store(tmp_path / "archive"), tmp_path / "files")
    for seed, count in enumerate((3, 2, 1)):
        archive.add(count, seed=seed)
    return archive


def names_of(archive: Archive, seed: int) -> list[str]:
    """Return the names that the instances of a series have in an export."""
    uids = CtSeries(1, seed=seed).uids
    return sorted(name for name in archive.files if name.startswith(f"{uids.study}/{uids.series}/"))


def selected(archive: Archive, *uids: str, **options: str) -> tuple[dict[str, list[str] | None], dict[str, str]]:
    """Return what is selected, series by series, and the reasons of the dead letters by what they are about."""
    url = archive.store.url
    found, _ = run_pipeline(lambda pipeline: (pipeline | ReadSeries(url, uids, **options))._asdict())
    series = {
        one.key.series_uid: None if one.instance_uids is None else sorted(one.instance_uids) for one in found["series"]
    }
    assert len(series) == len(found["series"])
    return series, {letter.subject: letter.reason for letter in found["dead_letters"]}


def test_an_export_is_of_what_has_the_uids_and_tells_those_that_nothing_has(archive: Archive, tmp_path: Path) -> None:
    """Of a list, a study, an instance and a UID of nothing: the first two are exported, the third is a dead letter."""
    instance = names_of(archive, 1)[0]
    study = CtSeries(1, seed=0).uids.study
    listed = tmp_path / "uids.txt"
    listed.write_text(f"{study}\n{instance.split('/')[2].removesuffix('.dcm')}  # one of two\n1.2.3\n", "ascii")
    arguments = ["--store", archive.store.url, "--destination", str(tmp_path / "out"), "--uids", str(listed)]
    assert export([*arguments, "--report", str(tmp_path / "report")]) == 1
    expected = {name: archive.files[name] for name in [*names_of(archive, 0), instance]}
    assert {name: data for name, data in tree(tmp_path / "out").items() if not name.startswith(".cod/")} == expected
    lines = [path.read_text("utf-8") for path in tmp_path.glob("report-dead_letters-*")]
    assert json.loads("".join(lines)) == {
        "stage": "selection",
        "subject": "1.2.3",
        "reason": "nothing has this UID",
        "retryable": False,
    }
    listed.write_text(instance.split("/")[2].removesuffix(".dcm"), "ascii")
    assert export(arguments) == 0


def test_lists_without_a_uid_are_refused(archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list that is empty, holds something else or is not there is wrong usage, and not the whole datastore."""
    for name, text in (("empty", "# nothing\n"), ("odd", "1.2.3\nJohn Doe\n"), ("missing", None)):
        if text is not None:
            (tmp_path / name).write_text(text, "ascii")
        with pytest.raises(SystemExit) as ended:
            verify(["--store", archive.store.url, "--uids", str(tmp_path / name)])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert f"--uids {tmp_path / name}" in said
        assert "John" not in said


def test_uids_select_studies_series_and_instances(archive: Archive) -> None:
    """What a UID names is taken, once and as a whole, however many UIDs name it or parts of it."""
    first, second, third = (CtSeries(3, seed=seed) for seed in range(3))
    everything = {each.uids.series: None for each in (first, second, third)}
    assert selected(archive) == (everything, {})
    wanted = (first.uids.study, first.uids.series, first.instance_uid(1), second.instance_uid(1), "9.9")
    series, dead = selected(archive, *wanted)
    assert series == {first.uids.series: None, second.uids.series: [second.instance_uid(1)]}
    assert dead == {"9.9": "nothing has this UID"}


def test_uids_and_a_query_both_have_to_hold(archive: Archive, tmp_path: Path) -> None:
    """Of the instances that a query names, those are taken that have one of the UIDs, or are in what has."""
    update_catalogue(Datastore(archive.store), tmp_path / "tables")
    first, second = (CtSeries(3, seed=seed) for seed in range(2))
    query = {"catalogue_url": str(tmp_path / "tables"), "sql": "SELECT * FROM instances WHERE InstanceNumber < 3"}
    series, dead = selected(archive, first.instance_uid(0), first.instance_uid(2), second.uids.series, **query)
    both = sorted(second.instance_uid(index) for index in range(2))
    assert series == {first.uids.series: [first.instance_uid(0)], second.uids.series: both}
    assert list(dead) == [first.instance_uid(2)]


def test_a_series_that_cannot_be_read_is_told_where_instances_are_looked_for(archive: Archive) -> None:
    """A damaged document hides the instances of its series and no other one; a tar without one has none."""
    keys = {key.series_uid: key for key in archive.datastore.series()}
    first, second, third = (CtSeries(1, seed=seed) for seed in range(3))
    overwrite(archive.store, keys[first.uids.series].metadata, b"{}")
    archive.store.delete(keys[second.uids.series].metadata)
    series, dead = selected(archive, third.instance_uid(0))
    assert series == {third.uids.series: [third.instance_uid(0)]}
    assert list(dead) == [archive.store.url_of(keys[first.uids.series].folder)]
    assert selected(archive, third.uids.series) == ({third.uids.series: None}, {})


def test_metadata_is_read_only_for_uids_of_instances(bucket: Bucket, tmp_path: Path) -> None:
    """Studies and series are found by listing; the UID of an instance takes the document of every series."""
    archive, first = stored_in(bucket, tmp_path, 3), CtSeries(1)

    def documents(uid: str) -> int:
        bucket.server.reset_counters()
        selected(archive, uid)
        return sum(record.object_name.endswith("/metadata.json") for record in bucket.server.counters())

    assert documents(first.uids.series) == documents(first.uids.study) == 0
    assert documents(first.instance_uid(0)) == 3


# -- connections


def stored_in(bucket: Bucket, folder: Path, series: int) -> Archive:
    """Return an archive in the bucket, of so many series of an instance, each in a study of its own."""
    archive = Archive(open_store(bucket.store), folder / "files")
    for seed in range(series):
        archive.add(1, seed=seed)
    return archive


class _Forwarder(socketserver.BaseRequestHandler):
    """One connection, passed on to the server behind."""

    server: _Counting

    def handle(self) -> None:
        """Pass bytes on, both ways, until one side ends."""
        self.server.connections += 1
        self.server.open.add(self.client_address)
        with socket.create_connection(self.server.behind) as onward, selectors.DefaultSelector() as ready:
            ready.register(self.request, selectors.EVENT_READ, onward)
            ready.register(onward, selectors.EVENT_READ, self.request)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)

    def finish(self) -> None:
        """Take note of its end."""
        self.server.open.discard(self.client_address)


class _Counting(socketserver.ThreadingTCPServer):
    """Counts the connections to a server: all of them, and those that are open."""

    daemon_threads = True
    connections = 0

    def __init__(self, url: str) -> None:
        self.open: set[object] = set()
        parts = urlsplit(url)
        self.behind = (parts.hostname or "", parts.port or 0)
        super().__init__(("127.0.0.1", 0), _Forwarder)

    def handle_error(self, *_: object) -> None:
        """Say nothing of a connection that a client has dropped."""


@pytest.fixture
def counting(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Counting]:
    """Put a proxy that counts connections before the server that clients find by themselves."""
    with _Counting(bucket.server.url) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.server_address[1]}")
        yield proxy
        proxy.shutdown()


def test_clients_are_made_per_worker(bucket: Bucket, counting: _Counting, tmp_path: Path) -> None:
    """However many studies are listed and series verified, connections are as many as for a few, and all are closed."""
    taken = []
    for number, series in enumerate((2, 12)):
        archive = stored_in(replace(bucket, folder=f"store{number}"), tmp_path / str(number), series)
        archive.store.close()
        counting.connections = 0
        assert len(run(VerifySeries(archive.store.url), archive.store.url)[0]["results"]) == series
        taken.append(counting.connections)
        for _ in range(500):  # the proxy hears of it a moment later
            if not counting.open:
                break
            time.sleep(0.01)
        assert counting.open == set()
    assert taken[0] == taken[1] > 0
