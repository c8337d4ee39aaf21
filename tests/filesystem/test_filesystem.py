"""Datastores as a filesystem: what fsspec's users see, and what it costs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pydicom
import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.errors import StaleReadError
from cloud_optimized_dicom.fsspec import CodFileSystem
from cloud_optimized_dicom.testing.datasets.base import Uids
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

CT = CtSeries(6, rows=32, columns=32)
SLIDE = Uids.of("slide of this module")
CT_FOLDER = f"studies/{CT.uids.study}/series/{CT.uids.series}"
SLIDE_PATH = f"studies/{SLIDE.study}/series/{SLIDE.series}/instances/{SLIDE.instance}.dcm"


def ct_path(index: int) -> str:
    """Return the path of a slice within its datastore."""
    return f"{CT_FOLDER}/instances/{CT.instance_uid(index)}.dcm"


def fill(store: Datastore, folder: Path, slices: range = range(5)) -> None:
    """Store slices and a slide."""
    folder.mkdir(exist_ok=True)
    files = {f"{index}.dcm": CT.instance(index) for index in slices}
    files["slide.dcm"] = slide_instance(150, "empty", uids=SLIDE)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert store.ingest([folder]).count("new") == len(files)


@dataclass
class Place:
    """A filled datastore, a filesystem over it, and what stands before its paths there."""

    store: Datastore
    filesystem: Any
    prefix: str


@pytest.fixture
def place(store_kind: str, datastore_url: str, gcs_client: Any, tmp_path: Path) -> Place:
    """Return a filled datastore of each kind."""
    store = Datastore(datastore_url, gcs_client)
    fill(store, tmp_path / "files")
    protocol = {"local": "file", "gcs": "gs"}.get(store_kind, store_kind)
    filesystem = CodFileSystem(target_protocol=protocol, client=gcs_client)
    return Place(store, filesystem, datastore_url.rpartition("://")[2] + "/")


def test_folders_hold_studies_series_and_instances(place: Place) -> None:
    """A datastore is walked down to the files, each with its size."""
    filesystem, prefix = place.filesystem, place.prefix
    assert filesystem.ls(prefix, detail=False) == [f"{prefix}studies"]
    studies = [f"{prefix}studies/{uid}" for uid in (CT.uids.study, SLIDE.study)]
    assert sorted(filesystem.ls(f"cod://{prefix}studies/", detail=False)) == sorted(studies)
    assert filesystem.ls(studies[0], detail=False) == [f"{studies[0]}/series"]
    assert filesystem.ls(f"{studies[0]}/series", detail=False) == [prefix + CT_FOLDER]
    assert filesystem.ls(prefix + CT_FOLDER, detail=False) == [f"{prefix}{CT_FOLDER}/instances"]
    entries = filesystem.ls(f"{prefix}{CT_FOLDER}/instances")
    assert {entry["name"]: entry["size"] for entry in entries} == {
        prefix + ct_path(index): len(CT.instance(index)) for index in range(5)
    }
    files = sorted([prefix + SLIDE_PATH, *(prefix + ct_path(index) for index in range(5))])
    assert filesystem.find(prefix) == files
    assert filesystem.glob(f"{prefix}studies/*/series/*/instances/*.dcm") == files


def test_files_are_those_that_were_stored(place: Place) -> None:
    """Opened, read whole or in part, a file is what was stored."""
    filesystem, path = place.filesystem, place.prefix + ct_path(2)
    data = CT.instance(2)
    with filesystem.open(path) as file:
        assert file.read() == data
    assert filesystem.cat_file(path) == filesystem.cat(path) == data
    assert filesystem.cat_file(path, 10, -20) == data[10:-20]
    assert filesystem.cat_file(path, -5) == data[-5:]
    assert filesystem.cat_file(path, 50, 10) == b""
    assert filesystem.info(path)["size"] == filesystem.size(path) == len(data)
    assert filesystem.isfile(path)
    with pytest.raises(IsADirectoryError):
        filesystem.open(f"{place.prefix}{CT_FOLDER}")


def test_ranges_of_many_files_come_in_order(place: Place) -> None:
    """Ranges of several series are returned in the order asked for, and what is not there is an error of its own."""
    slide = slide_instance(150, "empty", uids=SLIDE)
    paths = [place.prefix + path for path in (ct_path(3), SLIDE_PATH, ct_path(9), ct_path(0), ct_path(3))]
    starts, ends = [5, 1_000_000, 0, None, 7], [9, 1_000_100, 1, None, 3]
    found = place.filesystem.cat_ranges(paths, starts, ends)
    assert [found[0], found[1], *found[3:]] == [CT.instance(3)[5:9], slide[1_000_000:1_000_100], CT.instance(0), b""]
    assert isinstance(found[2], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        place.filesystem.cat_ranges(paths, starts, ends, on_error="raise")


@pytest.mark.parametrize(
    "path",
    [
        "studies/1.2.3",
        "studies/1.2.3/series/4.5",
        "studies/1.2.3/series/4.5/instances/6.dcm",
        f"{CT_FOLDER}/instances/1.2.dcm",
        f"{CT_FOLDER}/metadata.json",
        f"{CT_FOLDER}.tar",
        "studies/../series/..",
        "elsewhere",
    ],
)
def test_what_is_not_there_is_not_found(path: str, place: Place) -> None:
    """Whatever does not exist, or is no part of the tree of instances, is not found."""
    assert not place.filesystem.exists(place.prefix + path)
    with pytest.raises(FileNotFoundError):
        place.filesystem.ls(place.prefix + path)
    with pytest.raises(FileNotFoundError):
        place.filesystem.info(place.prefix + path)


def test_folders_exist(place: Place) -> None:
    """Every folder on the way to a file exists and is a folder."""
    parts = (place.prefix + ct_path(0)).rpartition("/studies/")[2].split("/")
    for length in range(1, len(parts)):
        assert place.filesystem.isdir(place.prefix + "/".join(["studies", *parts[:length]]))
    assert place.filesystem.isdir(place.prefix)


def test_the_other_offset_table_can_be_asked_for(place: Place) -> None:
    """As an option of a file, or of the filesystem, files show an Extended Offset Table; their sizes fit."""
    path = place.prefix + SLIDE_PATH
    built = slide_instance(150, "extended", uids=SLIDE)
    with place.filesystem.open(path, offset_table="extended") as file:
        assert file.read() == built
    options = place.filesystem.storage_options | {"offset_table": "extended"}
    extended = CodFileSystem(**options)
    assert extended.cat_file(path) == built
    assert extended.cat_ranges([path], [3_000], [-9]) == [built[3_000:-9]]
    assert extended.info(path)["size"] == len(built)
    assert extended.ls(path.rpartition("/")[0])[0]["size"] is None
    with extended.open(path) as file:
        assert len(pydicom.dcmread(file, stop_before_pixels=True).ExtendedOffsetTable) == 8 * 150


def test_what_is_appended_is_found(place: Place, tmp_path: Path) -> None:
    """An instance that came later is found by its name at once, and listed when asked anew."""
    folder = f"{place.prefix}{CT_FOLDER}/instances"
    assert len(place.filesystem.ls(folder)) == 5
    path = tmp_path / "late.dcm"
    path.write_bytes(CT.instance(5))
    with place.store.open(CT.uids.study, CT.uids.series, "a") as cod:
        cod.append([Instance(path)])
    assert place.filesystem.cat_file(place.prefix + ct_path(1)) == CT.instance(1)
    assert place.filesystem.cat_file(place.prefix + ct_path(5)) == CT.instance(5)
    assert len(place.filesystem.ls(folder, refresh=True)) == 6
    place.filesystem.invalidate_cache()
    assert len(place.filesystem.ls(folder)) == 6


def test_what_is_replaced_or_removed_is_seen(place: Place, tmp_path: Path) -> None:
    """By its name the present instance is read, though the series was open; only what is gone is an error."""
    filesystem = place.filesystem
    paths = [place.prefix + ct_path(index) for index in range(5)]
    held = filesystem.open(paths[0])
    other = CT.instance(0)[:-2] + b"xy"
    path = tmp_path / "other.dcm"
    path.write_bytes(other)
    with place.store.open(CT.uids.study, CT.uids.series, "a") as cod:
        cod.remove([CT.instance_uid(0), CT.instance_uid(3)])
    with place.store.open(CT.uids.study, CT.uids.series, "a") as cod:
        assert len(cod.append([Instance(path)]).new) == 1
    with pytest.raises(StaleReadError):
        held.read()
    found = filesystem.cat_ranges(paths, 10, None)
    assert isinstance(found.pop(3), FileNotFoundError)
    assert found == [other[10:], *(CT.instance(index)[10:] for index in (1, 2, 4))]
    assert filesystem.cat_file(paths[0]) == other
    with filesystem.open(paths[0]) as file:
        assert file.read() == other
    with pytest.raises(FileNotFoundError):
        filesystem.open(paths[3])
    assert len(filesystem.ls(f"{place.prefix}{CT_FOLDER}/instances")) == 4


def test_files_are_copied_out_with_their_times(place: Place, tmp_path: Path) -> None:
    """A file is got whole, and tells when it was stored."""
    path = place.prefix + ct_path(1)
    place.filesystem.get(path, str(tmp_path / "got.dcm"))
    assert (tmp_path / "got.dcm").read_bytes() == CT.instance(1)
    assert place.filesystem.modified(path) == place.filesystem.info(path)["modified"]
    assert place.filesystem.modified(path).tzinfo is not None
    with pytest.raises(IsADirectoryError):
        place.filesystem.modified(f"{place.prefix}{CT_FOLDER}")


WRITES: dict[str, tuple[Any, ...]] = {
    "open": ("wb",),
    "pipe_file": (b"",),
    "mkdir": (),
    "makedirs": (),
    "rm": (),
    "rm_file": (),
    "touch": (),
    "cp_file": ("elsewhere",),
    "mv": ("elsewhere",),
}


@pytest.mark.parametrize("name", WRITES)
def test_writing_is_refused(name: str) -> None:
    """Every way to write says that there is none."""
    filesystem = CodFileSystem("memory://never-filled")
    with pytest.raises(OSError, match="read-only"):
        getattr(filesystem, name)(f"{ct_path(0)}", *WRITES[name])


def test_threads_share_a_filesystem(place: Place) -> None:
    """Many threads read through one filesystem at once, each what it asked for."""
    with ThreadPoolExecutor(8) as pool:
        indexes = [index % 5 for index in range(40)]
        found = pool.map(lambda index: place.filesystem.cat_file(place.prefix + ct_path(index)), indexes)
        assert list(found) == [CT.instance(index) for index in indexes]


def test_a_pickled_filesystem_reads(place: Place) -> None:
    """A filesystem crosses to other processes without its connections."""
    place.filesystem.cat_file(place.prefix + ct_path(0))
    copy = pickle.loads(pickle.dumps(place.filesystem))
    assert copy.cat_file(place.prefix + ct_path(4)) == CT.instance(4)


READ_IN_FORK = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork, in a process with threads
from cloud_optimized_dicom.fsspec import CodFileSystem
protocol, path, *other = sys.argv[1:]
filesystem = CodFileSystem(target_protocol=protocol)
before = filesystem.cat_file(path)
series = filesystem._series
lock = series._lock
lock.acquire()  # as another thread of the parent may hold it when the process forks
pid = os.fork()
if pid == 0:
    os._exit(0 if filesystem.cat_file(path) == before else 1)
_, status = os.waitpid(pid, 0)
lock.release()
print(os.waitstatus_to_exitcode(status), filesystem.cat_file(path) == before)
"""


@pytest.mark.parametrize("protocol", ["file", "gs"])
def test_a_forked_process_reads(protocol: str, tmp_path: Path) -> None:
    """A child opens what it needs itself, whatever its parent was doing when it forked."""
    with GcsServer() as server:
        server.create_bucket("forked")
        client: Any = server.client()
        root = str(tmp_path / "store") if protocol == "file" else "forked/store"
        url = root if protocol == "file" else f"gs://{root}"
        fill(Datastore(url, client if protocol == "gs" else None), tmp_path / "files")
        done = subprocess.run(
            [sys.executable, "-c", READ_IN_FORK, protocol, f"{root}/{ct_path(0)}"],
            env=os.environ | {"STORAGE_EMULATOR_HOST": server.url},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout.split() == ["0", "True"], done.stderr


# -- how it is reached


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Return a filled datastore in a folder."""
    fill(Datastore(tmp_path / "store"), tmp_path / "files")
    return tmp_path / "store"


def test_fsspec_opens_a_url_of_any_form(filled: Path) -> None:
    """A local datastore is named in the path, as a target, or at the end of a chain."""
    for url, options in (
        (f"cod://{filled}/{ct_path(1)}", {"target_protocol": "file"}),
        (f"cod://{ct_path(1)}", {"target": str(filled)}),
        (f"cod://{ct_path(1)}::file://{filled}", {}),
    ):
        with fsspec.open(url, **options) as file:
            assert pydicom.dcmread(file).SOPInstanceUID == CT.instance_uid(1)


@pytest.mark.parametrize("form", ["path", "target", "cached"])
def test_a_bucket_is_reached_by_a_url_of_any_form(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket is named in the path or as a target, caches go before it; the client is made where none is given."""
    with GcsServer() as server:
        server.create_bucket("forms")
        fill(Datastore("gs://forms/store", server.client()), tmp_path / "files")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        url, options = {
            "path": (f"cod://forms/store/{ct_path(1)}", {}),
            "target": (f"cod://{ct_path(1)}", {"target": "gs://forms/store"}),
            "cached": (f"simplecache::cod://forms/store/{ct_path(1)}", {"cod": {"skip_instance_cache": True}}),
        }[form]
        with fsspec.open(url, **options) as file:
            assert file.read() == CT.instance(1)


def test_a_store_in_memory_is_reached(tmp_path: Path) -> None:
    """A datastore in this process's memory is a target, or the end of a chain."""
    name = uuid.uuid4().hex
    fill(Datastore(f"memory://{name}"), tmp_path / "files")
    with fsspec.open(f"cod://{ct_path(0)}::memory://{name}") as file:
        assert file.read() == CT.instance(0)
    assert fsspec.filesystem("cod", target=f"memory://{name}").cat_file(ct_path(0)) == CT.instance(0)


def test_fsspec_knows_the_protocol() -> None:
    """The protocol is registered by the package's entry point."""
    assert fsspec.get_filesystem_class("cod") is CodFileSystem


# -- what it costs


class Counted:
    """A filled datastore on a server that counts."""

    def __init__(self, server: GcsServer, folder: Path) -> None:
        self._server = server
        self.client: Any = server.client()
        self.root = f"files/{uuid.uuid4().hex}"
        fill(Datastore(f"gs://{self.root}", self.client), folder)

    def requests(self) -> int:
        """Return the number of requests since the last call."""
        records = self._server.counters()
        self._server.reset_counters()
        return len(records)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    """Return a filled datastore, the counters at zero."""
    with GcsServer() as server:
        server.create_bucket("files")
        counted = Counted(server, tmp_path / "files")
        counted.requests()
        yield counted


def test_a_series_is_opened_once(counted: Counted) -> None:
    """Listing, looking at and opening the files of a series costs one request, and one for each file that is read."""
    filesystem = CodFileSystem(client=counted.client)
    folder = f"{counted.root}/{CT_FOLDER}/instances"
    for entry in filesystem.ls(folder):
        assert filesystem.info(entry["name"])["size"] == entry["size"]
        assert filesystem.exists(entry["name"])
    assert counted.requests() == 1
    filesystem.cat_file(f"{counted.root}/{ct_path(0)}")
    with filesystem.open(f"{counted.root}/{ct_path(1)}") as file:
        pydicom.dcmread(file)
    assert counted.requests() == 2


def test_ranges_that_lie_together_are_one_request(counted: Counted) -> None:
    """Ranges of all files of a series, which lie side by side in its tar, come in one request."""
    filesystem = CodFileSystem(client=counted.client)
    paths = [f"{counted.root}/{ct_path(index)}" for index in range(5)]
    filesystem.info(paths[0])
    counted.requests()
    assert filesystem.cat_ranges(paths, 50, None) == [CT.instance(index)[50:] for index in range(5)]
    assert counted.requests() == 1


def test_the_header_of_a_slide_is_one_request(counted: Counted) -> None:
    """A slide is opened, with its series, and its header read, in two requests."""
    filesystem = CodFileSystem(client=counted.client, offset_table="extended")
    with filesystem.open(f"cod://{counted.root}/{SLIDE_PATH}") as file:
        assert pydicom.dcmread(file, stop_before_pixels=True).NumberOfFrames == 150
    assert counted.requests() == 2
