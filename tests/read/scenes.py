"""Series that are read while they change: what is read, what happens meanwhile, and the moment at which it happens."""

from __future__ import annotations

import gzip
import json
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import CODError, TransientStorageError
from cloud_optimized_dicom.fsspec import CodFileSystem
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.testing.datasets.base import Uids, make_uid
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import slide_instance
from cloud_optimized_dicom.testing.intercepting_store import InterceptingStore
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.intercepting_store import Operation

Result = TypeVar("Result")

STORED = 3
"""How many instances there are before; the next one is appended."""
TARGET = 1
"""The instance that is read where only one is."""
TILES = 150


@dataclass(frozen=True)
class Files:
    """DICOM files of one series: number 0 to 2, which are stored, and 3, which is appended."""

    key: SeriesKey
    uids: tuple[str, ...]
    paths: tuple[Path, ...]
    changed: tuple[Path, ...]
    """Files of the same UIDs and sizes, with other pixels."""

    @classmethod
    def write(
        cls, folder: Path, uids: Uids, instances: Sequence[tuple[str, bytes]], change: Callable[[bytes], bytes]
    ) -> Files:
        """Write them, and changed ones."""
        folder.mkdir()
        paths, changed = [], []
        for number, (_, data) in enumerate(instances):
            paths.append(folder / f"{number}.dcm")
            paths[-1].write_bytes(data)
            changed.append(folder / f"{number}-changed.dcm")
            changed[-1].write_bytes(change(data))
        key = SeriesKey(uids.study, uids.series)
        return cls(key, tuple(uid for uid, _ in instances), tuple(paths), tuple(changed))

    @property
    def target(self) -> str:
        """The UID of the instance that is read."""
        return self.uids[TARGET]

    def open(self, store: ObjectStore | str, mode: Any = "r", client: Any = None) -> CODObject:
        """Open the series."""
        return CODObject(store, client, self.key.study_uid, self.key.series_uid, mode, wait_seconds=30)

    def store(self, store: ObjectStore, paths: Sequence[Path]) -> None:
        """Make the series of some files, in this order."""
        with self.open(store, "w") as cod:
            for path in paths:  # in the order of the call, not of the workers
                assert len(cod.append([Instance(path)]).new) == 1


def slices_of(folder: Path) -> Files:
    """Return CT slices, which stack to a volume."""
    series = CtSeries(STORED + 1, rows=48, columns=48)
    uids = [series.instance_uid(index) for index in range(STORED + 1)]

    def change(data: bytes) -> bytes:
        return data[:-4000] + bytes(byte ^ 1 for byte in data[-4000:])

    return Files.write(folder, series.uids, list(zip(uids, series, strict=True)), change)


def slides_of(folder: Path) -> Files:
    """Return slides, each larger than what is fetched whole."""
    first = Uids.of("slides beside a writer")
    uids = [Uids(first.study, first.series, make_uid("slide beside a writer", number)) for number in range(STORED + 1)]
    data = [slide_instance(TILES, "empty", seed=number, uids=each) for number, each in enumerate(uids)]
    return Files.write(folder, first, [(each.instance, slide) for each, slide in zip(uids, data, strict=True)], _change)


def _change(slide: bytes) -> bytes:
    """Change a bit of every tile, in the entropy-coded data before the end of its image."""
    changed = bytearray(slide)
    at = slide.find(b"\xff\xd9")
    while at >= 0:
        if not {0xFE, 0xFF} & set(slide[at - 31 : at - 28]):  # no marker is made, or broken
            changed[at - 30] ^= 1
        at = slide.find(b"\xff\xd9", at + 2)
    return bytes(changed)


# -- what is read


def _path(files: Files, number: int = TARGET) -> str:
    return f"{files.key.folder}/instances/{files.uids[number]}.dcm"


def _frames(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        return cod.read_frames(files.target, [0, TILES // 2, TILES - 1]), cod.read_frames(files.target, [7])


def _single_frame(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        return cod.read_frames(files.target, verify_checksums=False)


def _frame_array(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        return [cod.read_frame_array(files.target, frame).tobytes() for frame in (0, TILES - 1)]


def _volume(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        volume, affine = cod.read_volume()
    return volume.tobytes(), np.asarray(affine).tolist()


def _instances(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        return sorted(cod.iter_instances(batch_bytes=1))


def _bulk_data(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        uri = cod.get_instance(files.target).metadata["7FE00010"]["BulkDataURI"]
        return cod.read_bulk_data(uri)


def _parts(stream: Any) -> list[bytes]:
    parts = [stream.read(200)]
    for position in (1_500_000, 900_000, 4_000, 2_000_000, 1_500_500):
        stream.seek(position)
        parts.append(stream.read(5_000))
    return parts


def _held_open(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod, cod.open_instance(files.target) as stream:
        return _parts(stream)


def _shown_table(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod, cod.open_instance(files.target, offset_table="extended") as stream:
        return _parts(stream)


def _whole(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod, cod.open_instance(files.target) as stream:
        return stream.read()


def _in_small_parts(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod, cod.open_instance(files.target) as stream:
        return b"".join(iter(lambda: stream.read(64 << 10), b""))


def _extracted(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        return {uid: path.read_bytes() for uid, path in cod.extract_locally().items()}


def _tar(store: ObjectStore, files: Files) -> Any:
    with files.open(store) as cod:
        return cod.pull_tar().read_bytes(), sorted(cod.get_metadata()["cod"]["instances"])


def _file_system_open(store: ObjectStore, files: Files) -> Any:
    filesystem = CodFileSystem(store, skip_instance_cache=True)
    size = filesystem.info(_path(files))["size"]
    with filesystem.open(_path(files)) as stream:
        return size, _parts(stream)


def _cat_file(store: ObjectStore, files: Files) -> Any:
    filesystem = CodFileSystem(store, skip_instance_cache=True)
    filesystem.info(_path(files))
    return filesystem.cat_file(_path(files))


def _cat_ranges(store: ObjectStore, files: Files) -> Any:
    filesystem = CodFileSystem(store, skip_instance_cache=True)
    paths = [_path(files)] * 3
    return filesystem.cat_ranges(paths, [10, 1_000_000, 2_000_000], [90, 1_000_900, 2_000_900], on_error="raise")


Face = "Callable[[ObjectStore, Files], Any]"
FACES_OF_SLICES: dict[str, Callable[[ObjectStore, Files], Any]] = {
    "frames": _single_frame,
    "volume": _volume,
    "instances": _instances,
    "bulk-data": _bulk_data,
    "extract": _extracted,
    "tar": _tar,
    "cat-file": _cat_file,
}
FACES_OF_SLIDES: dict[str, Callable[[ObjectStore, Files], Any]] = {
    "frames": _frames,
    "frame-array": _frame_array,
    "held-open": _held_open,
    "extended": _shown_table,
    "whole": _whole,
    "in-small-parts": _in_small_parts,
    "fsspec": _file_system_open,
    "cat-ranges": _cat_ranges,
}


# -- what happens meanwhile


def _append(store: ObjectStore, files: Files) -> None:
    with files.open(store, "a") as cod:
        assert len(cod.append([Instance(files.paths[STORED])]).new) == 1


def _remove(store: ObjectStore, files: Files, number: int) -> None:
    with files.open(store, "a") as cod:
        cod.remove(files.uids[number])


class HalfStore(InterceptingStore):
    """A store for a writer that dies when it has written the tar, but not yet the document."""

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Carry out an operation, up to the last."""
        if operation.kind == "replace" and operation.name.endswith("metadata.json"):
            raise TransientStorageError(self.url, "the writer is gone")
        return act()


def _half(write: Callable[[ObjectStore, Files], None]) -> Callable[[ObjectStore, Files], None]:
    def act(store: ObjectStore, files: Files) -> None:
        with suppress(CODError):
            write(HalfStore(store), files)
        assert store.find(files.key.lock) is not None

    return act


def _remove_before(store: ObjectStore, files: Files) -> None:
    _remove(store, files, 0)


def _remove_it(store: ObjectStore, files: Files) -> None:
    _remove(store, files, TARGET)


WRITES: dict[str, Callable[[ObjectStore, Files], None]] = {
    "append": _append,
    "half an append": _half(_append),
    "remove another": _remove_before,
    "half a remove": _half(_remove_before),
    "remove it": _remove_it,
    "replace": lambda store, files: files.store(store, files.changed[:STORED]),
    "shuffle": lambda store, files: files.store(store, files.paths[STORED - 1 :: -1]),
}
APPENDS = {"append", "half an append"}
TOUCHES_IT = {"remove it", "replace"}


class DisturbedStore(InterceptingStore):
    """Another store on which something happens just before a reader's operation number `at`.

    Notes
    -----
    A stream is one operation more for each of its chunks: it may be overtaken while it runs.
    """

    def __init__(self, inner: ObjectStore, at: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(inner)
        self.operations: list[str] = []
        self._at, self._meanwhile = at, meanwhile
        self._one = threading.Lock()

    def _step(self, kind: str) -> None:
        with self._one:
            self.operations.append(kind)
            if len(self.operations) - 1 == self._at:
                self._meanwhile()

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Let it happen, then carry out the operation."""
        self._step(operation.kind)
        return act()

    def around_iterator(self, operation: Operation, act: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """Let it happen before the stream begins, or within it."""
        self._step(operation.kind)
        for item in act():
            yield item
            self._step("chunk")


# -- what there is before


def copy_of(store: MemoryStore) -> MemoryStore:
    """Return another store with the same objects at the same versions."""
    copy = MemoryStore(f"memory://{uuid.uuid4().hex}")
    copy._bucket.objects.update(store._bucket.objects)
    return copy


def age(store: ObjectStore, key: SeriesKey) -> None:
    """Make of a series what an older writer would have left: no tar on record, no tables to trust, end blocks."""
    document = json.loads(gzip.decompress(store.read_object(key.metadata).data))
    del document["cod"]["tar"], document["cod"]["commits"]
    for record in document["cod"]["instances"].values():
        tables = record["offset_tables"]
        for name in set(tables) - {"CustomOffsetTable", "CustomOffsetTableLengths"}:
            del tables[name]
    info = store.stat(key.metadata)
    attributes = Attributes(content_encoding=info.content_encoding)
    payload = BytesPayload(gzip.compress(json.dumps(document).encode()))
    store.replace(key.metadata, payload, version=info.version, write_id=new_write_id(), attributes=attributes)
    tar = b"".join(store.iter_chunks(key.tar)) + bytes(1024)
    version = store.stat(key.tar).version
    store.replace(key.tar, BytesPayload(tar), version=version, write_id=new_write_id())
