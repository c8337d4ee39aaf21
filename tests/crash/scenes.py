"""The writes that are interrupted: what there is before each, and what it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.bounding_box import BoundingBox, PixelRedaction
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_ENTRY = next(
    entry
    for entry in json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))["series"]
    if entry["store"] == "v2-series"
)
KEY = SeriesKey(_ENTRY["study_uid"], _ENTRY["series_uid"])
"""Every scene plays in this series, so that a store of an older writer can be one of them."""

INSTANCES = 7
SECOND = 5
"""The instance that the writer after an interrupted one appends, to be interrupted itself."""
MARKER = 6
"""The instance that the writer after all interrupted ones appends."""

REDACTED, REDACTED_BOX = (1, 2), BoundingBox(1, 1, 7, 5)
"""The instances, and the pixels of each, that a redaction overwrites."""

_INBOX = "memory://crash-inbox"


@dataclass(frozen=True)
class Folder:
    """DICOM files ``0.dcm`` to ``6.dcm`` of the series, and others of the same UIDs.

    ``1-other.dcm`` has another byte in its header; ``1-edited.dcm`` and ``2-edited.dcm`` have other pixels and are
    longer.
    """

    path: Path

    @classmethod
    def write(cls, path: Path) -> Folder:
        """Make the files."""
        path.mkdir(parents=True)
        series = _series(0)
        for index in range(INSTANCES):
            (path / f"{index}.dcm").write_bytes(series.instance(index))
        # One number differs, of the same width: another file under the same UID.
        (path / "1-other.dcm").write_bytes(series.instance(1).replace(b"Phantom 64", b"Phantom 65"))
        for index in (1, 2):
            edited = pydicom.dcmread(path / f"{index}.dcm")
            edited.PixelData = bytes(reversed(edited.PixelData))
            edited.ImageComments = "edited " * 90
            edited.save_as(path / f"{index}-edited.dcm")
        return cls(path)

    def instances(self, *names: int | str) -> list[Instance]:
        """Return new instances of some of the files."""
        return [Instance(self.path / f"{name}.dcm") for name in names]

    def bytes(self, name: int | str) -> bytes:
        """Return one file's bytes."""
        return (self.path / f"{name}.dcm").read_bytes()


def _series(seed: int) -> CtSeries:
    return CtSeries(INSTANCES, rows=8, columns=8, seed=seed, study_uid=KEY.study_uid, series_uid=KEY.series_uid)


def uid(index: int) -> str:
    """Return the UID of the instance in a file."""
    return _series(0).instance_uid(index)


def open_series(store: ObjectStore, mode: str = "r") -> CODObject:
    """Return the series; its lock is not renewed while a test runs."""
    return CODObject(store, None, KEY.study_uid, KEY.series_uid, mode)  # type: ignore[arg-type]


Act = Callable[["ObjectStore", Folder], None]


@dataclass(frozen=True)
class Scene:
    """A write to be interrupted.

    Parameters
    ----------
    start
        What there is before: one of `STARTS`.
    act
        The write.
    pinned
        Whether readers of `start` name the tar that they mean.  Those of an older writer's store cannot: while it is
        rewritten for the first time, only checksums of whole instances protect them.
    hides
        Whether it is a redaction: behind it nothing may show the old pixels.
    """

    start: str
    act: Act
    pinned: bool = True
    hides: bool = False


# -- what there is before


def _nothing(store: ObjectStore, folder: Folder) -> None:
    del store, folder


def _three(store: ObjectStore, folder: Folder) -> None:
    with open_series(store, "w") as cod:
        cod.append(folder.instances(0, 1, 2))
        cod.add_metadata_field("note", "first")


def _golden(store: ObjectStore, folder: Folder) -> None:
    """Copy a store of an older writer: a tar with end-of-archive blocks, a document without its generation."""
    del folder
    source = open_store(GOLDEN / "v2-series")
    for info in source.list():
        attributes = Attributes(content_encoding=info.content_encoding)
        payload = BytesPayload(source.read_object(info.name).data)
        store.create(info.name, payload, write_id=new_write_id(), attributes=attributes)


def _indexed(store: ObjectStore, folder: Folder) -> None:
    """Store what `_three` does, for older readers too."""
    with CODObject(store, None, KEY.study_uid, KEY.series_uid, "w", legacy_index=True) as cod:
        cod.append(folder.instances(0, 1, 2))
        cod.add_metadata_field("note", "first")


def _drawn(store: ObjectStore, folder: Folder) -> None:
    """Store what `_three` does, and a thumbnail of it."""
    _three(store, folder)
    with open_series(store, "a") as cod:
        cod.get_thumbnail(thumbnail_size=16)


STARTS: dict[str, Act] = {
    "nothing": _nothing,
    "three": _three,
    "golden": _golden,
    "indexed": _indexed,
    "drawn": _drawn,
}


# -- what is done


def _appends(mode: str, *names: int | str) -> Act:
    def act(store: ObjectStore, folder: Folder) -> None:
        with open_series(store, mode) as cod:
            assert len(cod.append(folder.instances(*names)).new) == len(names)

    return act


def _remove(store: ObjectStore, folder: Folder) -> None:
    del folder
    with open_series(store, "a") as cod:
        cod.remove(uid(0))


def _truncate(store: ObjectStore, folder: Folder) -> None:
    del folder
    with open_series(store, "a") as cod:
        cod.truncate([uid(1)])


def _empty(store: ObjectStore, folder: Folder) -> None:
    del folder
    with open_series(store, "a") as cod:
        cod.truncate([])


def _field(store: ObjectStore, folder: Folder) -> None:
    del folder
    with open_series(store, "a") as cod:
        cod.add_metadata_field("note", "second")
        cod.add_metadata_field("more", [1, 2])


def _mixed(store: ObjectStore, folder: Folder) -> None:
    """Do everything in one commit."""
    with open_series(store, "a") as cod:
        cod.remove(uid(0))
        cod.append(folder.instances(3))
        cod.remove_metadata_field("note")
        cod.add_metadata_field("more", True)


def _edit(store: ObjectStore, folder: Folder) -> None:
    """Rewrite the file of one instance; its pixels are others, too."""
    with open_series(store, "e") as cod:
        Path(cod.get_instance(uid(1)).dicom_uri).write_bytes(folder.bytes("1-edited"))


def _edit_and_field(store: ObjectStore, folder: Folder) -> None:
    """Rewrite two files, and say so, as a redaction does."""
    with open_series(store, "e") as cod:
        for index, name in ((1, "1-edited"), (2, "2-edited")):
            Path(cod.get_instance(uid(index)).dicom_uri).write_bytes(folder.bytes(name))
        cod.add_metadata_field("edited", [uid(1), uid(2)])


def _golden_edit(store: ObjectStore, folder: Folder) -> None:
    del folder
    with open_series(store, "e") as cod:
        path = Path(next(iter(cod.get_instances().values())).dicom_uri)
        path.write_bytes(path.read_bytes()[:-2] + b"\1\2")


def _redact(store: ObjectStore, folder: Folder) -> None:
    """Overwrite pixels of two instances."""
    del folder
    with open_series(store, "e") as cod:
        boxes = [PixelRedaction(REDACTED_BOX, [uid(index) for index in REDACTED])]
        cod.redact_pixel_data(boxes, reviewer="Dr. Test")


def _conflict(store: ObjectStore, folder: Folder) -> None:
    """Offer another file under a stored UID: only its URI is kept, the tar stays as it is."""
    inbox = open_store(_INBOX)
    if inbox.find("other.dcm") is None:
        inbox.create("other.dcm", BytesPayload(folder.bytes("1-other")), write_id=new_write_id())
    with open_series(store, "a") as cod:
        assert len(cod.append([Instance(f"{_INBOX}/other.dcm")]).conflict) == 1


def _nothing_new(store: ObjectStore, folder: Folder) -> None:
    with open_series(store, "a") as cod:
        assert len(cod.append(folder.instances(0, 1, 2)).same) == 3


def _index(store: ObjectStore, folder: Folder) -> None:
    del folder
    with CODObject(store, None, KEY.study_uid, KEY.series_uid, "a", legacy_index=True):
        pass


def _no_index(store: ObjectStore, folder: Folder) -> None:
    with CODObject(store, None, KEY.study_uid, KEY.series_uid, "a", legacy_index=False) as cod:
        cod.append(folder.instances(3))


def _draw(store: ObjectStore, folder: Folder) -> None:
    """Add an instance, and a thumbnail of all."""
    with open_series(store, "a") as cod:
        cod.append(folder.instances(3))
        cod.get_thumbnail(thumbnail_size=16)


def _seal(store: ObjectStore, folder: Folder) -> None:
    del folder
    with open_series(store, "a") as cod:
        cod.seal()


def _golden_remove(store: ObjectStore, folder: Folder) -> None:
    del folder
    with open_series(store, "a") as cod:
        cod.remove(next(iter(cod.get_instances())))


SCENES: dict[str, Scene] = {
    "create": Scene("nothing", _appends("a", 0, 1, 2)),
    "append": Scene("three", _appends("a", 3, 4)),
    "remove": Scene("three", _remove),
    "overwrite": Scene("three", _appends("w", "1-other", 3)),
    "overwrite-with-the-same": Scene("three", _appends("w", 0, 1, 2)),
    "truncate": Scene("three", _truncate),
    "empty": Scene("three", _empty),
    "field": Scene("three", _field),
    "mixed": Scene("three", _mixed),
    "conflict": Scene("three", _conflict),
    "nothing-new": Scene("three", _nothing_new),
    "thumbnail": Scene("drawn", _draw),
    "remove-with-thumbnail": Scene("drawn", _remove),
    "edit": Scene("three", _edit),
    "edit-with-thumbnail": Scene("drawn", _edit_and_field),
    "edit-with-index": Scene("indexed", _edit),
    "edit-older": Scene("golden", _golden_edit, pinned=False),
    "redact": Scene("drawn", _redact, hides=True),
    "seal": Scene("three", _seal),
    "index": Scene("three", _index),
    "append-with-index": Scene("indexed", _appends("a", 3, 4)),
    "swap-with-index": Scene("indexed", _appends("w", "1-other", 0, 2)),
    "drop-index": Scene("indexed", _no_index),
    "append-to-older": Scene("golden", _appends("a", 0)),
    "remove-from-older": Scene("golden", _golden_remove, pinned=False),
}
