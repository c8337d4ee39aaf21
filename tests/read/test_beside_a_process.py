"""Every way to read a series while another process appends to it, removes from it and rewrites it, and after that."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.datasets import FrameDataset
from cloud_optimized_dicom.errors import InstanceNotFoundError, StaleReadError
from cloud_optimized_dicom.export import Selection, export_dicom
from cloud_optimized_dicom.fsspec import CodFileSystem
from tests.read.beside import COMMITS, KEPT, PIXELS, SERIES, other_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.read.beside import Place


class Reader:
    """Everything that was opened before the other process began, and everything that can be opened anew."""

    def __init__(self, place: Place, scratch: Path) -> None:
        self._place, self._scratch = place, scratch
        self._cod = place.open().__enter__()
        self._files = {index: self._cod.open_instance(SERIES.instance_uid(index)) for index in KEPT}
        self._filesystem = CodFileSystem(place.url, client=place.client, skip_instance_cache=True)
        self._held = {index: self._filesystem.open(self._path(index)) for index in KEPT}
        self._datasets = {index: self._dataset(index) for index in KEPT}
        self.stale = 0
        self.faces: dict[str, Callable[[int], None]] = {
            name.removeprefix("look_at_"): getattr(self, name) for name in dir(self) if name.startswith("look_at_")
        }

    def _dataset(self, index: int) -> FrameDataset:
        wanted = SERIES.instance_uid(index)
        store = Datastore(self._place.url, self._place.client)
        return FrameDataset(store, where=lambda header: header.get("SOPInstanceUID") == wanted)

    @staticmethod
    def _path(index: int) -> str:
        uids = SERIES.uids
        return f"studies/{uids.study}/series/{uids.series}/instances/{SERIES.instance_uid(index)}.dcm"

    def look_at_frames(self, index: int) -> None:
        """Read a frame, encoded and decoded, of a series that has long been open."""
        uid = SERIES.instance_uid(index)
        assert self._cod.read_frames(uid) == [SERIES.pixels(index).tobytes()]
        assert (self._cod.read_frame_array(uid, 0) == SERIES.pixels(index)).all()

    def look_at_bulk_data(self, index: int) -> None:
        """Read the pixels by their URI."""
        uri = self._cod.get_instance(SERIES.instance_uid(index)).metadata["7FE00010"]["BulkDataURI"]
        assert self._cod.read_bulk_data(uri) == SERIES.pixels(index).tobytes()

    def look_at_old_files(self, index: int) -> None:
        """Read on in files that have long been open, by both their faces."""
        data = SERIES.instance(index)
        for stream in (self._files[index], self._held[index]):
            stream.seek(len(data) - 700)
            assert stream.read(500) == data[-700:-200]
        with self._cod.open_instance(SERIES.instance_uid(index), offset_table="extended") as stream:
            assert stream.read() == data

    def look_at_file_system(self, index: int) -> None:
        """Read files, and ranges of several, by name."""
        assert self._filesystem.cat_file(self._path(index)) == SERIES.instance(index)
        paths = [self._path(kept) for kept in KEPT]
        found = self._filesystem.cat_ranges(paths, -PIXELS, None, on_error="raise")
        assert found == [SERIES.pixels(kept).tobytes() for kept in KEPT]

    def look_at_everything(self, index: int) -> None:
        """Read all instances of a series that is opened now, in each way; those that come and go may be stale."""
        del index
        with self._place.open() as cod:
            uids = cod.get_metadata()["cod"]["instances"]
            indexes = [index for index in range(8) if SERIES.instance_uid(index) in uids]
            expected = {SERIES.instance_uid(index): SERIES.instance(index) for index in indexes}
            self._or_stale(lambda: dict(cod.iter_instances(batch_bytes=20_000)), expected)
            self._or_stale(lambda: {uid: path.read_bytes() for uid, path in cod.extract_locally().items()}, expected)

    def look_at_tar(self, index: int) -> None:
        """Pull the tar of a series that is opened now: it is the one that its document describes, or stale."""
        del index
        with self._place.open() as cod:
            recorded = cod.get_metadata()["cod"]["tar"]["size"]
            try:
                data = cod.pull_tar().read_bytes()
            except StaleReadError:
                self.stale += 1
                return
            assert len(data) == recorded
            for uid, record in cod.get_metadata()["cod"]["instances"].items():
                start = record["headers"]["start_byte"]
                own = data[start : start + record["size"]]
                assert cod.get_instance(uid).record.crc32c == crc32c(own)

    def look_at_volume(self, index: int) -> None:
        """Read the kept slices, which neighbour each other, as part of a volume."""
        del index
        with self._place.open() as cod:
            present = cod.get_metadata()["cod"]["instances"]
            numbers = [number for number in reversed(range(8)) if SERIES.instance_uid(number) in present]
            if numbers == list(range(numbers[0], numbers[-1] - 1, -1)):  # a gap is refused, beside a writer or not
                expected = np.stack([SERIES.pixels(number) for number in numbers])
                self._or_stale(lambda: bytes(cod.read_volume()[0].data), expected.tobytes())

    def look_at_datasets(self, index: int) -> None:
        """Take items of datasets for training, of one made long ago and of one made now."""
        for dataset in (self._datasets[index], self._dataset(index)):
            assert len(dataset) == 1
            assert (dataset[0]["image"] == SERIES.pixels(index)).all()

    def look_at_export(self, index: int) -> None:
        """Export an instance as a file."""
        uid = SERIES.instance_uid(index)
        folder = self._scratch / "exported"
        selection = Selection(uids=frozenset([uid]))
        report = export_dicom(Datastore(self._place.url, self._place.client), folder, selection=selection)
        assert report.ok
        (file,) = folder.rglob(f"{uid}.dcm")
        assert file.read_bytes() == SERIES.instance(index)

    def look_at_command_line(self, index: int) -> None:
        """Fetch a frame, a file and a header by the command line."""
        uids, uid = SERIES.uids, SERIES.instance_uid(index)
        series = f"{self._place.url}/studies/{uids.study}/series/{uids.series}"
        frame, file = self._scratch / "frame.bin", self._scratch / "file.dcm"
        assert main(["frame", series, uid, "0", "-o", str(frame)]) == 0
        assert frame.read_bytes() == SERIES.pixels(index).tobytes()
        assert main(["get", series, uid, "-o", str(file)]) == 0
        assert file.read_bytes() == SERIES.instance(index)
        assert main(["header", series, uid]) == 0

    def _or_stale(self, read: Callable[[], Any], expected: Any) -> None:
        try:
            found = read()
        except (StaleReadError, InstanceNotFoundError):
            self.stale += 1  # one of those that come and go
        else:
            assert found == expected

    def close(self) -> None:
        """Let go of everything."""
        for stream in (*self._files.values(), *self._held.values()):
            stream.close()
        self._cod.__exit__(None, None, None)


def test_reading_beside_a_process_that_writes(place: Place, tmp_path: Path) -> None:
    """Whichever face is used between whichever commits, kept instances are read right, and others right or not."""
    seed = 4
    chance = random.Random(seed)
    reader = Reader(place, tmp_path)
    with other_process(place, seed) as process:
        assert process.stdout is not None
        commits = 0
        while process.stdout.readline():  # a commit more is done; the next one is under way while we read
            commits += 1
            for name in chance.sample(sorted(reader.faces), 3):
                reader.faces[name](chance.choice(KEPT))
        assert commits == COMMITS
    stale = reader.stale
    for face in reader.faces.values():
        face(chance.choice(KEPT))
    assert reader.stale == stale, "nobody writes any more"
    reader.close()
    (report,) = Datastore(place.url, place.client).verify()
    assert report.ok
