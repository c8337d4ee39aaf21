"""Every kind of series that the published library writes, and every change of ours to it; and the other way round."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloud_optimized_dicom import BoundingBox, Datastore, Instance, PixelRedaction
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.uids import SeriesKey
from tests.core.conftest import write_series
from tests.core.test_golden_stores import GOLDEN
from tests.dicom import oracle
from tests.edit.conftest import rewrite
from tests.hashed.functions import pseudonym as hashed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloud_optimized_dicom import CODObject
    from tests.interop.conftest import Shared

pytestmark = pytest.mark.slow

STORED, NEW, LATER = (0, 1, 2), 3, 4
"""The files that are stored first, that the change adds, and that the next writer of theirs adds."""
BOX = BoundingBox(10, 20, 30, 16)


@dataclass
class Scene:
    """A series of one kind, and the bytes that its instances have, as CRC-32 by the UID that each is stored under.

    Parameters
    ----------
    fills
        What `BOX` is filled with, by the UID of each instance that was redacted.
    """

    shared: Shared
    options: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    fills: dict[str, float] = field(default_factory=dict)

    def uid(self, index: int) -> str:
        """Return the UID that a file is stored under."""
        uid = self.shared.files.uids[index]
        return hashed(uid) if self.options else uid

    def ours(self, mode: str = "r", **options: Any) -> CODObject:
        """Return the series as we open it."""
        return self.shared.ours(mode, **self.options, **options)

    def files(self, *indexes: int) -> list[Instance]:
        """Return some of the files as instances of ours."""
        function = hashed if self.options else None
        return [Instance(self.shared.files.paths[index], uid_hash_func=function) for index in indexes]

    def source(self, index: int) -> int:
        """Return the CRC-32 of a file."""
        return zlib.crc32(self.shared.files.bytes(index))

    def theirs(self, job: str, **order: Any) -> Any:
        """Let the published library do something to the series."""
        return self.shared.theirs(job, options=self.options, **order)

    def they_append(self, index: int) -> None:
        """Let the published library add a file, as it is."""
        found = self.shared.they_write("a", index, options=self.options)
        assert found["new"] == 1, found
        self.expected[self.uid(index)] = self.source(index)

    def pixels(self, index: int) -> np.ndarray[Any, Any]:
        """Return what is to be seen of a file."""
        pixels = np.array(oracle.read(self.shared.files.bytes(index)).pixel_array)
        if self.uid(index) in self.fills:
            pixels[BOX.slices()] = self.fills[self.uid(index)]
        return pixels

    def check(self) -> None:
        """Make sure that they and we read exactly what is expected, every header, and find nothing wrong."""
        assert self.theirs("read") == self.expected
        by_uid = {self.uid(index): uid for index, uid in enumerate(self.shared.files.uids)}
        assert self.theirs("headers") == {uid: by_uid[uid] for uid in self.expected}
        assert self.theirs("check")
        assert self.shared.we_read() == self.expected
        with self.ours() as cod:
            assert {finding.kind for finding in cod.verify().findings} <= {"frame-table-legacy"}
            for uid in self.expected:
                pixels = self.pixels(list(by_uid).index(uid))
                assert (cod.read_frame_array(uid, 0) == pixels).all()


@pytest.fixture
def scene(shared: Shared, tmp_path: Path) -> Scene:
    """Return a series of slices that are large enough to be worth recompressing; nobody has written it yet."""
    shared.files = write_series(tmp_path / "slices", CtSeries(5, rows=64, columns=64))
    shared.key = SeriesKey(shared.files.series.uids.study, shared.files.series.uids.series)
    return Scene(shared)


def with_hashed_uids(scene: Scene) -> None:
    """Let the series be one of hashed UIDs."""
    scene.options = {"hashed_uids": True}
    scene.shared.key = SeriesKey(hashed(scene.shared.key.study_uid), hashed(scene.shared.key.series_uid))


# -- what they write


def they_write_plain(scene: Scene) -> None:
    """As the files are."""
    scene.shared.they_write("w", *STORED)


def they_write_recompressed(scene: Scene) -> None:
    """As JPEG 2000."""
    assert scene.shared.they_write("w", *STORED, compress=True)["new"] == len(STORED)
    assert scene.theirs("read") != {scene.uid(index): scene.source(index) for index in STORED}


def they_write_hashed(scene: Scene) -> None:
    """Under hashed UIDs."""
    with_hashed_uids(scene)
    scene.shared.they_write("w", *STORED, options=scene.options)


def they_write_with_a_thumbnail(scene: Scene) -> None:
    """With a thumbnail: of one frame, as their videos need a program that is not here; and then more instances."""
    scene.shared.they_write("w", STORED[0], thumbnail=True)
    scene.shared.they_write("a", *STORED[1:])
    with scene.ours() as cod:
        assert cod.get_metadata_field("thumbnail")


def they_write_with_fields(scene: Scene) -> None:
    """With custom fields."""
    scene.shared.they_write("w", *STORED, fields={"site": "north", "more": {"b": [1, None], "a": "é"}})


def they_edit(scene: Scene) -> None:
    """With one instance changed in their edit mode."""
    scene.shared.they_write("w", *STORED)
    scene.theirs("edit", uid=scene.uid(1), old="Phantom", new="PHANTOM")


THEIR_KINDS: dict[str, Callable[[Scene], None]] = {
    "plain": they_write_plain,
    "recompressed": they_write_recompressed,
    "hashed": they_write_hashed,
    "thumbnail": they_write_with_a_thumbnail,
    "fields": they_write_with_fields,
    "edited": they_edit,
}


# -- what we do to it


def append(scene: Scene) -> None:
    """Add an instance."""
    with scene.ours("a") as cod:
        assert len(cod.append(scene.files(NEW)).new) == 1
    scene.expected[scene.uid(NEW)] = scene.source(NEW)


def remove(scene: Scene) -> None:
    """Remove an instance."""
    with scene.ours("a") as cod:
        cod.remove(scene.uid(1))
    del scene.expected[scene.uid(1)]


def truncate(scene: Scene) -> None:
    """Keep one instance."""
    with scene.ours("a") as cod:
        cod.truncate([scene.uid(2)])
    scene.expected = {scene.uid(2): scene.expected[scene.uid(2)]}


def overwrite(scene: Scene) -> None:
    """Start over."""
    with scene.ours("w") as cod:
        cod.append(scene.files(NEW, 0))
    scene.expected = {scene.uid(index): scene.source(index) for index in (NEW, 0)}


def set_a_field(scene: Scene) -> None:
    """Set and remove fields."""
    with scene.ours("a") as cod:
        cod.add_metadata_field("ours", [1])
        cod.remove_metadata_field("site")
    assert scene.theirs("field", name="ours") == [1]
    assert scene.theirs("field", name="site") is None


def migrate(scene: Scene) -> None:
    """Bring it to the present format."""
    (result,) = Datastore(scene.shared.url, scene.shared.client).migrate([scene.shared.key])
    assert result.reason is None
    assert result.actions


def migrate_to_version_1(scene: Scene) -> None:
    """Give it records of version 1."""
    (result,) = Datastore(scene.shared.url, scene.shared.client).migrate([scene.shared.key], to="v1")
    assert result.reason is None
    with scene.ours() as cod:
        assert {record["version"] for record in cod.get_metadata()["cod"]["instances"].values()} == {"1.0"}


def verify(scene: Scene) -> None:
    """Check it, deeply."""
    (report,) = Datastore(scene.shared.url, scene.shared.client).verify([scene.shared.key], deep=True)
    assert (report.instances, report.damaged) == (len(scene.expected), False)


def draw(scene: Scene) -> None:
    """Store a thumbnail of ours, of another size than theirs; they find it, and show what it shows."""
    with scene.ours("a") as cod:
        pictures = cod.get_thumbnail(thumbnail_size=96)
    assert pictures.shape == (len(scene.expected), 96, 96, 3)
    shown = scene.theirs("thumbnail")
    assert shown["shape"] == list(pictures.shape)
    assert abs(shown["mean"] - pictures.mean()) < 1


def edit(scene: Scene) -> None:
    """Write one file anew, and longer."""
    uid = scene.uid(1)
    with scene.ours("e") as cod:
        new = rewrite(cod.get_instance(uid).dicom_uri, PatientName="Edited^Name", ImageComments="longer " * 90)
    scene.expected[uid] = zlib.crc32(new)


def redact(scene: Scene) -> None:
    """Overwrite pixels of one instance; another decoder than ours sees that, too."""
    uid = scene.uid(1)
    with scene.ours("e") as cod:
        record = cod.redact_pixel_data([PixelRedaction(BOX, [uid])], reviewer="Dr. Test")
    ((scene.fills[uid],),) = (done.fill for done in record.instances)
    with scene.ours() as cod, cod.open_instance(uid) as stream:
        new = stream.read()
        assert cod.get_metadata_field("redactions") == [record.as_json()]
    assert (oracle.read(new).pixel_array == scene.pixels(1)).all()
    assert zlib.crc32(new) != scene.expected.get(uid)
    scene.expected[uid] = zlib.crc32(new)
    assert scene.theirs("field", name="redactions") == [record.as_json()]


CHANGES: dict[str, Callable[[Scene], None]] = {
    "append": append,
    "remove": remove,
    "truncate": truncate,
    "overwrite": overwrite,
    "field": set_a_field,
    "migrate": migrate,
    "migrate-to-v1": migrate_to_version_1,
    "verify": verify,
    "thumbnail": draw,
    "edit": edit,
    "redact": redact,
}


def start(scene: Scene, kind: str) -> None:
    """Let them write a series; make sure that we read it as they do."""
    THEIR_KINDS[kind](scene)
    scene.expected = scene.theirs("read")
    assert len(scene.expected) == len(STORED)
    assert scene.shared.we_read() == scene.expected


@pytest.mark.parametrize("endpoint", ["strict"], indirect=True)
@pytest.mark.parametrize("kind", THEIR_KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_we_change_what_they_write(scene: Scene, kind: str, change: str) -> None:
    """We read it as they do; after the change both read what is expected, and after their next append as well."""
    start(scene, kind)
    CHANGES[change](scene)
    if kind == "fields" and change not in {"field", "overwrite"}:
        assert scene.theirs("field", name="more") == {"b": [1, None], "a": "é"}
    scene.check()
    with scene.ours("a") as cod:
        cod.seal()
    scene.they_append(LATER)
    assert scene.theirs("read") == scene.expected == scene.shared.we_read()


@pytest.mark.parametrize("endpoint", ["fake-gcs-server"], indirect=True)
@pytest.mark.parametrize("kind", THEIR_KINDS)
def test_we_change_it_again_and_again(scene: Scene, kind: str) -> None:
    """On the other server, too: all changes to one series, one after the other, and both read it after each."""
    start(scene, kind)
    changes = [verify, migrate, append, set_a_field, draw, edit, redact, remove]
    for change in (*changes, migrate_to_version_1, truncate, overwrite):
        change(scene)
        scene.check()
    with scene.ours("a") as cod:
        cod.seal()
    scene.they_append(LATER)
    scene.check()


def test_a_video_that_they_drew(shared: Shared) -> None:
    """A golden store's video is shown wherever the store is copied, stays with the instances, and goes with one."""
    store = open_store(GOLDEN / "v2-thumbnail")
    bucket, prefix = shared.client.bucket("bucket"), shared.url.rpartition("/")[2]
    for info in store.list():
        blob = bucket.blob(f"{prefix}/{info.name}")
        blob.content_encoding = "gzip" if info.name.endswith(".json") else None
        blob.upload_from_string(store.read_object(info.name).data)
    (shared.key,) = Datastore(shared.url, shared.client).series()
    with shared.ours("a") as cod:
        assert cod.get_thumbnail(generate_if_missing=False).shape == (3, 128, 128, 3)
        cod.add_metadata_field("site", "north")
    with shared.ours() as cod:
        assert cod.get_thumbnail(generate_if_missing=False).shape == (3, 128, 128, 3)
    with shared.ours("a") as cod:
        cod.remove(next(iter(cod.get_instances())))
    assert not [blob.name for blob in bucket.list_blobs(prefix=prefix) if "thumbnail" in blob.name]
    assert len(shared.theirs("read")) == 2


def test_their_write_ends_version_1(scene: Scene) -> None:
    """Whatever they write makes records of version 2 of all; ours do that of version 1, when asked again."""
    ours_of_version_1(scene)
    scene.expected = scene.shared.we_read()
    scene.they_append(LATER)
    with scene.ours() as cod:
        assert {record["version"] for record in cod.get_metadata()["cod"]["instances"].values()} == {"2.0"}
    migrate_to_version_1(scene)
    scene.check()


# -- what we write


def ours_plain(scene: Scene) -> None:
    """As the files are."""
    with scene.ours("w", legacy_index=True) as cod:
        cod.append(scene.files(*STORED))
        cod.seal()


def ours_recompressed(codec: str) -> Callable[[Scene], None]:
    """Return what stores the files in another transfer syntax."""

    def write(scene: Scene) -> None:
        with scene.ours("w", legacy_index=True) as cod:
            assert len(cod.append(scene.files(*STORED), compress=codec).new) == len(STORED)
            cod.seal()
        with scene.ours() as cod:
            assert cod.get_instance(scene.uid(0)).size() < len(scene.shared.files.bytes(0))

    return write


def ours_hashed(scene: Scene) -> None:
    """Under hashed UIDs."""
    with_hashed_uids(scene)
    ours_plain(scene)


def ours_with_a_thumbnail(scene: Scene) -> None:
    """With a thumbnail, which they show."""
    with scene.ours("w", legacy_index=True) as cod:
        cod.append(scene.files(*STORED))
        pictures = cod.get_thumbnail()
        cod.seal()
    assert scene.theirs("thumbnail")["shape"] == list(pictures.shape)


def ours_with_fields(scene: Scene) -> None:
    """With custom fields, which they read."""
    with scene.ours("w", legacy_index=True) as cod:
        cod.append(scene.files(*STORED))
        cod.add_metadata_field("site", {"a": [1, None, "é"]})
        cod.seal()
    assert scene.theirs("field", name="site") == {"a": [1, None, "é"]}


def ours_of_version_1(scene: Scene) -> None:
    """With records of version 1."""
    ours_plain(scene)
    migrate_to_version_1(scene)


def ours_changed(change: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """Return what stores the files, then changes one of them."""

    def write(scene: Scene) -> None:
        ours_plain(scene)
        change(scene)
        with scene.ours("a") as cod:
            cod.seal()

    return write


OUR_KINDS: dict[str, Callable[[Scene], None]] = {
    "plain": ours_plain,
    "jpeg2000": ours_recompressed("jpeg2000"),
    "htj2k": ours_recompressed("htj2k"),
    "rle": ours_recompressed("rle"),
    "jpegls": ours_recompressed("jpegls"),
    "hashed": ours_hashed,
    "thumbnail": ours_with_a_thumbnail,
    "fields": ours_with_fields,
    "version-1": ours_of_version_1,
    "edited": ours_changed(edit),
    "redacted": ours_changed(redact),
}


@pytest.mark.parametrize("kind", OUR_KINDS)
def test_they_read_and_append_to_what_we_write(scene: Scene, kind: str) -> None:
    """They read every instance and header of it, find nothing wrong, and append; then we do, and both read all."""
    OUR_KINDS[kind](scene)
    scene.expected = scene.shared.we_read()
    assert len(scene.expected) == len(STORED)
    scene.check()
    scene.they_append(LATER)
    scene.check()
    append(scene)
    scene.check()
