"""Stored instances as files: their bytes, an offset table that they show, and what they cost."""

from __future__ import annotations

import gzip
import io
import json
import random
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames, get_frame
from pydicom.pixels.utils import iter_pixels

from cloud_optimized_dicom import CODObject, Datastore, Instance, checksum
from cloud_optimized_dicom.errors import HashMismatchError
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.datasets.slides import OffsetTable, slide_instance, slide_tiles
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE, SMALL = 300, 3  # tiles: 4 MiB, and less than is worth a second request
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[bytes], CODObject]:
    """Return a function that stores one file and gives its series, to be opened."""

    def store(data: bytes) -> CODObject:
        path = tmp_path / f"{uuid.uuid4().hex}.dcm"
        path.write_bytes(data)
        report = Datastore(tmp_path / "store").ingest([path])
        key = report.series[0]
        return Datastore(tmp_path / "store").open(key.study_uid, key.series_uid)

    return store


def large_native() -> bytes:
    """Return 40 native frames of 80 KB each."""
    return kinds.native(kinds.make_frames(40, 200, 200))


def odd_segmentation() -> bytes:
    """Return a large 1-bit segmentation whose frames begin within bytes."""
    generator = np.random.default_rng(0)
    return kinds.one_bit_segmentation(generator.random((61, 701, 503)) > 0.5)


def fragmented() -> bytes:
    """Return 24 frames of noise, each in three fragments."""
    generator = np.random.default_rng(1)
    frames = [generator.bytes(100_000) for _ in range(24)]
    return kinds.encapsulated(frames, (223, 224), "1.2.840.10008.1.2.4.90", fragments=3, offset_table="empty")


def with_large_text() -> bytes:
    """Return a file of 3 MB without pixel data."""
    dataset = pydicom.dcmread(io.BytesIO(kinds.native(kinds.make_frames(1, 8, 8))))
    del dataset.PixelData
    dataset.add_new(0x00420011, "OB", random.Random(2).randbytes(3_000_000))
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def with_total_length() -> bytes:
    """Return a slide that names its Encapsulated Pixel Data Value Total Length (7FE0,0003)."""
    dataset = pydicom.dcmread(io.BytesIO(slide_instance(LARGE, "basic")))
    dataset.add_new(0x7FE00003, "UV", sum(map(len, slide_tiles(LARGE))))
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "slide, basic": lambda: slide_instance(LARGE, "basic"),
    "slide, empty": lambda: slide_instance(LARGE, "empty"),
    "slide, extended": lambda: slide_instance(LARGE, "extended"),
    "slide, small": lambda: slide_instance(SMALL, "empty"),
    "fragmented": fragmented,
    "native": large_native,
    "segmentation": odd_segmentation,
    "deflated": lambda: kinds.deflated(np.random.default_rng(3).integers(0, 65535, (12, 400, 400)).astype("u2")),
    "no pixels": with_large_text,
    "one frame": lambda: CtSeries(1, rows=3000, columns=2000).instance(0),
}


def look_around(stream: Any, expected: bytes, *, seed: int) -> None:
    """Read a stream here and there, in every way, and compare with what must be there."""
    chance = random.Random(seed)
    for _ in range(120):
        how = chance.random()
        if how < 0.5:
            position = chance.randrange(len(expected) + 10)
            assert stream.seek(position) == position
        length = chance.choice([1, 7, 8, 9, 5000, 8192, 8193, 30_000, 500_000, 5_000_000])
        position = stream.tell()
        assert stream.read(length) == expected[position : position + length]
        assert stream.tell() == min(max(position, len(expected)), position + length)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_was_stored(name: str, stored: Callable[[bytes], CODObject]) -> None:
    """Whatever is read, in whatever order, is what lies there in the file that was stored."""
    data = FILES[name]()
    with stored(data) as cod:
        with cod.open_instance(0) as stream:
            look_around(stream, data, seed=4)
            assert stream.seek(0, io.SEEK_END) == len(data)
            stream.seek(11)
            assert stream.read() == data[11:]
        with cod.open_instance(0) as stream:
            assert stream.read() == data


def test_a_file_that_nobody_holds_is_read_to_its_end(stored: Callable[[bytes], CODObject]) -> None:
    """A method of a file without a name reads it all the same."""
    data = next(iter(CtSeries(1)))
    assert stored(data).open_instance(0).read() == data


@pytest.mark.parametrize("table", ["basic", "empty"])
@pytest.mark.parametrize("tiles", [SMALL, LARGE])
def test_the_extended_form_is_the_file_that_pydicom_builds(
    table: OffsetTable, tiles: int, stored: Callable[[bytes], CODObject]
) -> None:
    """The file with an Extended Offset Table is, byte for byte, the one that another implementation builds."""
    built = slide_instance(tiles, "extended")
    with stored(slide_instance(tiles, table)) as cod:
        with cod.open_instance(0, offset_table="extended") as stream:
            assert stream.read() == built
        with cod.open_instance(0, offset_table="extended") as stream:
            look_around(stream, built, seed=5)
            assert stream.seek(0, io.SEEK_END) == len(built)
            stream.seek(-100, io.SEEK_END)
            assert stream.read() == built[-100:]
            stream.seek(100)
            assert stream.read() == built[100:]


def test_pydicom_finds_every_frame_by_the_extended_table(stored: Callable[[bytes], CODObject]) -> None:
    """Pydicom reads the virtual file whole, without its pixels, and lazily, and its frames are the real ones."""
    tiles = slide_tiles(LARGE)
    with stored(slide_instance(LARGE, "empty")) as cod, cod.open_instance(0, offset_table="extended") as stream:
        head = pydicom.dcmread(stream, stop_before_pixels=True)
        assert len(head.ExtendedOffsetTable) == 8 * LARGE
        assert "PixelData" not in head
        extended = (head.ExtendedOffsetTable, head.ExtendedOffsetTableLengths)
        stream.seek(0)
        whole = pydicom.dcmread(stream)
        assert list(generate_frames(whole.PixelData, extended_offsets=extended)) == [
            tile + b"\0" * (len(tile) % 2) for tile in tiles
        ]
        stream.seek(0)
        lazy = pydicom.dcmread(stream, defer_size=1024)
        assert get_frame(lazy.PixelData, 17, extended_offsets=extended).rstrip(b"\0") == tiles[17].rstrip(b"\0")


def test_the_table_comes_before_the_total_length(stored: Callable[[bytes], CODObject]) -> None:
    """Where the pixel data's total length is told, elements still follow each other in the order of their tags."""
    with stored(with_total_length()) as cod, cod.open_instance(0, offset_table="extended") as stream:
        tags = [element.tag for element in pydicom.dcmread(stream).group_dataset(0x7FE0)]
    assert tags == [0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010]


@pytest.mark.parametrize(
    "name", ["slide, extended", "fragmented", "native", "segmentation", "deflated", "no pixels", "one frame"]
)
def test_what_may_show_no_table_stays_as_it_is(name: str, stored: Callable[[bytes], CODObject]) -> None:
    """Native, deflated and fragmented pixel data and a file that has an extended table are shown as stored."""
    data = FILES[name]()
    with stored(data) as cod, cod.open_instance(0, offset_table="extended") as stream:
        look_around(stream, data, seed=6)
        stream.seek(0)
        assert stream.read() == data


@pytest.mark.parametrize("name", ["v2-sc-rgb-rle-2frame", "v2-examples-ybr-color", "v2-693-j2ki"])
def test_series_of_older_writers_show_a_table_too(name: str) -> None:
    """The table is built from the items where the recorded one is not to be trusted; the frames are pydicom's."""
    (key,) = Datastore(GOLDEN / name).series()
    with Datastore(GOLDEN / name).open(key.study_uid, key.series_uid) as cod:
        for uid in cod.get_instances(strict_sorting=False):
            with cod.open_instance(uid) as stream:
                plain = pydicom.dcmread(stream)
            with cod.open_instance(uid, offset_table="extended") as stream:
                shown = pydicom.dcmread(stream)
            frames = int(plain.get("NumberOfFrames", 1))
            extended = (shown.ExtendedOffsetTable, shown.ExtendedOffsetTableLengths)
            assert len(extended[0]) == 8 * frames
            assert list(generate_frames(shown.PixelData, number_of_frames=frames, extended_offsets=extended)) == list(
                generate_frames(plain.PixelData, number_of_frames=frames)
            )


def test_another_table_cannot_be_asked_for(stored: Callable[[bytes], CODObject]) -> None:
    """A table of an unknown name is refused."""
    with stored(slide_instance(SMALL)) as cod, pytest.raises(ValueError, match="offset_table"):
        cod.open_instance(0, offset_table="basic")  # type: ignore[arg-type]


@pytest.mark.parametrize("offset_table", [None, "extended"])
def test_a_whole_read_is_checked(offset_table: Any, stored: Callable[[bytes], CODObject], tmp_path: Path) -> None:
    """Bytes that are not those whose CRC32C is recorded are found by reading the whole file, in either form."""
    cod = stored(slide_instance(LARGE, "empty"))
    path = Path(cod.metadata_uri.removeprefix("file://"))
    document = json.loads(gzip.decompress(path.read_bytes()))
    (record,) = document["cod"]["instances"].values()
    record["crc32c"] = checksum.encode(checksum.decode(record["crc32c"]) ^ 1)
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    with cod, cod.open_instance(0, offset_table) as stream, pytest.raises(HashMismatchError):
        stream.read()


# -- what it costs


class Counted:
    """One stored file on a server that counts."""

    def __init__(self, server: GcsServer, data: bytes, folder: Path) -> None:
        self._server = server
        client: Any = server.client()
        path = folder / f"{uuid.uuid4().hex}.dcm"
        path.write_bytes(data)
        store = Datastore(f"gs://files/{path.stem}", client)
        key = store.ingest([Instance(path)]).series[0]
        self.cod = store.open(key.study_uid, key.series_uid)

    def requests(self) -> tuple[int, int]:
        """Return the requests since the last call, and the bytes that they gave."""
        records = self._server.counters()
        self._server.reset_counters()
        return len(records), sum(record.bytes_out for record in records)


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server of this module's own."""
    with GcsServer() as running:
        running.create_bucket("files")
        yield running


@pytest.mark.parametrize("table", ["basic", "empty", "extended"])
@pytest.mark.parametrize("offset_table", [None, "extended"])
def test_opening_and_reading_the_header_is_one_request(
    table: OffsetTable, offset_table: Any, server: GcsServer, tmp_path: Path
) -> None:
    """After the series is open, opening an instance and reading its header is one request of little but the header."""
    counted = Counted(server, slide_instance(LARGE, table), tmp_path)
    with counted.cod as cod:
        counted.requests()
        with cod.open_instance(0, offset_table) as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True)
            assert header.NumberOfFrames == LARGE
        requests, size = counted.requests()
    assert requests == 1
    assert size < 12_000


def test_a_header_of_a_megabyte_is_one_request(server: GcsServer, tmp_path: Path) -> None:
    """However large the header, it comes in one request, and no pixel with it."""
    dataset = pydicom.dcmread(io.BytesIO(large_native()))
    dataset.add_new(0x00420011, "OB", bytes(1_000_000))
    target = io.BytesIO()
    dataset.save_as(target)
    counted = Counted(server, target.getvalue(), tmp_path)
    with counted.cod as cod:
        counted.requests()
        with cod.open_instance(0) as stream:
            assert len(pydicom.dcmread(stream, stop_before_pixels=True)[0x00420011].value) == 1_000_000
        requests, size = counted.requests()
    assert requests == 1
    assert size < 1_005_000


def test_a_frame_is_one_request_of_its_bytes(server: GcsServer, tmp_path: Path) -> None:
    """Reading within a frame, its item's header first, fetches that frame once and nothing of its neighbours."""
    tiles = slide_tiles(LARGE)
    counted = Counted(server, slide_instance(LARGE, "empty"), tmp_path)
    with counted.cod as cod, cod.open_instance(0, offset_table="extended") as stream:
        head = pydicom.dcmread(stream, stop_before_pixels=True)
        start = stream.tell() + 12 + 8 + int.from_bytes(head.ExtendedOffsetTable[8 * 40 : 8 * 41], "little")
        counted.requests()
        stream.seek(start)
        assert stream.read(4) == b"\xfe\xff\x00\xe0"
        length = int.from_bytes(stream.read(4), "little")
        assert b"".join([stream.read(100), stream.read(length - 100)]) == tiles[40] + b"\0" * (len(tiles[40]) % 2)
        requests, size = counted.requests()
    assert requests == 1
    assert size == length + 8


@pytest.mark.parametrize("table", ["empty", "basic", "extended"])
def test_the_last_item_is_told_where_the_table_has_its_length(
    table: OffsetTable, server: GcsServer, tmp_path: Path
) -> None:
    """The header of the last item moves no frame, unless an Extended Offset Table hides how the item is padded."""
    data = slide_instance(LARGE, table)
    counted = Counted(server, data, tmp_path)
    start = data.rindex(b"\xfe\xff\x00\xe0")
    with counted.cod as cod, cod.open_instance(0) as stream:
        pydicom.dcmread(stream, stop_before_pixels=True)
        counted.requests()
        stream.seek(start)
        assert stream.read(8) == data[start : start + 8]
        requests, _ = counted.requests()
        assert stream.read(100) == data[start + 8 : start + 108]
        stream.seek(len(data) - 8)
        assert stream.read() == b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert requests == (1 if table == "extended" else 0)


def test_looking_something_up_again_does_not_end_a_run(server: GcsServer, tmp_path: Path) -> None:
    """A reader that looks at the end of the items before each frame is served its neighbours together all the same."""
    counted = Counted(server, slide_instance(LARGE, "empty"), tmp_path)
    with counted.cod as cod, cod.open_instance(0) as stream:
        (uid,) = cod.get_instances()
        counted.requests()
        wanted = [100, 101, 102, 103]
        found = list(iter_pixels(stream, indices=wanted))
        assert counted.requests()[0] == 4  # the header, the last item, a frame, its neighbours
        assert np.array_equal(found, [cod.read_frame_array(uid, number) for number in wanted])


@pytest.mark.parametrize("table", ["empty", "extended"])
def test_going_from_item_to_item_moves_no_frame_but_the_last(
    table: OffsetTable, server: GcsServer, tmp_path: Path
) -> None:
    """A reader that scans the items of a file without a table pays for the header, not for 300 requests or the file."""
    counted = Counted(server, slide_instance(LARGE, table), tmp_path)
    with counted.cod as cod, cod.open_instance(0) as stream:
        counted.requests()
        pydicom.dcmread(stream, stop_before_pixels=True)
        stream.seek(12, io.SEEK_CUR)
        lengths = []
        while stream.read(4) == b"\xfe\xff\x00\xe0":
            lengths.append(int.from_bytes(stream.read(4), "little"))
            stream.seek(lengths[-1], io.SEEK_CUR)
        requests, size = counted.requests()
    assert lengths[1:] == [len(tile) + len(tile) % 2 for tile in slide_tiles(LARGE)]
    assert requests <= 3
    assert size < 60_000


def test_touching_every_frame_is_a_scan(server: GcsServer, tmp_path: Path) -> None:
    """A reader that looks into frame after frame, as highdicom does without a table, is soon served many at a time."""
    counted = Counted(server, slide_instance(LARGE, "empty"), tmp_path)
    with counted.cod as cod, cod.open_instance(0) as stream:
        pydicom.dcmread(stream, stop_before_pixels=True)
        stream.seek(12, io.SEEK_CUR)
        counted.requests()
        items = 0
        while stream.read(4) == b"\xfe\xff\x00\xe0":
            length = int.from_bytes(stream.read(4), "little")
            assert stream.read(min(2, length)) == (b"\xff\xd8" if items else b"")
            stream.seek(max(0, length - 2), io.SEEK_CUR)
            items += 1
        requests, size = counted.requests()
    assert items == LARGE + 1
    assert requests <= 8
    assert size < 1.1 * sum(map(len, slide_tiles(LARGE)))


def test_opening_it_again_costs_nothing(server: GcsServer, tmp_path: Path) -> None:
    """The table that an instance shows is made once for a series that stays open."""
    counted = Counted(server, slide_instance(LARGE, "empty"), tmp_path)
    with counted.cod as cod:
        counted.requests()
        for _ in range(3):
            with cod.open_instance(0, offset_table="extended") as stream:
                assert len(pydicom.dcmread(stream, stop_before_pixels=True).ExtendedOffsetTable) == 8 * LARGE
        assert counted.requests()[0] == 1


def test_copying_takes_few_requests(server: GcsServer, tmp_path: Path) -> None:
    """Whoever reads on and on in small parts is served in large ones, each byte about once."""
    for data in (slide_instance(LARGE, "empty"), with_large_text()):
        counted = Counted(server, data, tmp_path)
        with counted.cod as cod, cod.open_instance(0) as stream:
            counted.requests()
            parts = list(iter(lambda: stream.read(64 << 10), b""))
            requests, size = counted.requests()
        assert b"".join(parts) == data
        assert requests <= 8
        assert size < 1.1 * len(data)
