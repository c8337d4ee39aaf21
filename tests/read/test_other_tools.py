"""Other people's readers over our store: equal pixels, and fewer requests and bytes than from a loose object."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pytest
from wsidicom import WsiDicom

from benchmarks.tools import SLIDE_TILES, TOOLS, Cost, Loose, cheapest, counted
from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.testing.datasets.whole_slides import slide_pyramid, whole_slide
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_optimized_dicom.testing.datasets.slides import OffsetTable
    from cloud_optimized_dicom.uids import SeriesKey

BUCKET = "slides"
pytestmark = pytest.mark.usefixtures("quiet")
TABLES: tuple[OffsetTable, ...] = ("basic", "empty", "extended")


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server that counts, of this module's own."""
    with GcsServer() as running:
        running.create_bucket(BUCKET)
        yield running


class Slide:
    """One slide of 2000 tiles on the server: loose, and in a datastore."""

    def __init__(self, server: GcsServer, table: OffsetTable, folder: Path) -> None:
        self.server, self.table, self.data = server, table, whole_slide(SLIDE_TILES, table)
        path = folder / f"{table}.dcm"
        path.write_bytes(self.data)
        client = server.client()
        blob = client.bucket(BUCKET).blob(f"loose-{table}.dcm")
        blob.upload_from_filename(str(path))
        self.loose = Loose(server, blob)
        self.store = Datastore(f"gs://{BUCKET}/{uuid.uuid4().hex}", client)
        (self.key,) = self.store.ingest([path]).series

    def read(self, tool: Any, offset_table: Any) -> tuple[Any, Cost]:
        """Return what a tool reads through our file of a series that is open, and what it cost."""
        with self.store.open(self.key.study_uid, self.key.series_uid) as cod:
            with counted(self.server) as cost, cod.open_instance(0, offset_table) as file:
                pixels = tool(file)
            return pixels, cost()


@pytest.fixture(scope="module", params=TABLES)
def slide(request: pytest.FixtureRequest, server: GcsServer, tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """Return a slide with each kind of offset table in turn."""
    return Slide(server, request.param, tmp_path_factory.mktemp("slide"))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reads_with_fewer_requests_and_bytes_than_from_a_loose_object(tool: str, slide: Slide) -> None:
    """Its pixels are the same; it costs less of both than at the best chunk size, and at the one of fewest bytes."""
    read = TOOLS[tool]
    costs = slide.loose.costs(read)
    expected = read(io.BytesIO(slide.data))
    best, fewest_bytes = costs[cheapest(costs)], min(costs.values(), key=lambda cost: cost.bytes_down)
    pixels, ours = slide.read(read, "extended")
    assert np.array_equal(pixels, expected)
    for loose in (best, fewest_bytes):
        assert ours.requests < loose.requests
        assert ours.bytes_down < loose.bytes_down
    # Fewer requests still are only to be had by moving a large part of the slide.
    for loose in costs.values():
        assert ours.requests < loose.requests or 10 * ours.bytes_down < loose.bytes_down
        assert ours.worth_bytes < loose.worth_bytes


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reads_the_file_as_it_is_stored(tool: str, slide: Slide) -> None:
    """Without another table than its own, too, it costs less of both than at the best chunk size."""
    read = TOOLS[tool]
    costs = slide.loose.costs(read)
    pixels, ours = slide.read(read, None)
    assert np.array_equal(pixels, read(io.BytesIO(slide.data)))
    best = costs[cheapest(costs)]
    assert ours.requests < best.requests
    assert ours.bytes_down < best.bytes_down
    assert all(ours.worth_bytes < loose.worth_bytes for loose in costs.values())
    assert ours.bytes_down <= len(slide.data)


# By tool and table: the file as it is stored, and shown an Extended Offset Table.
REQUESTS = {
    ("highdicom", "basic"): (6, 6),
    ("highdicom", "empty"): (9, 6),  # it looks into every frame: a scan of the file
    ("highdicom", "extended"): (6, 6),
    ("wsidicom", "basic"): (6, 6),
    ("wsidicom", "empty"): (7, 6),  # it looks for the end of the items
    ("wsidicom", "extended"): (6, 6),
    ("pydicom", "basic"): (4, 4),
    ("pydicom", "empty"): (5, 4),
    ("pydicom", "extended"): (4, 4),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_takes_so_many_requests(tool: str, slide: Slide) -> None:
    """One for the header, two for the first row of tiles, one for each other row, or each frame that is far away."""
    costs = [slide.read(TOOLS[tool], shown)[1] for shown in (None, "extended")]
    assert tuple(cost.requests for cost in costs) == REQUESTS[tool, slide.table]


def opened(server: GcsServer, files: list[bytes], folder: Path) -> tuple[Datastore, SeriesKey, str]:
    """Store files of one series on the server; return the datastore, the series and the folder of its instances."""
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data)
    name = uuid.uuid4().hex
    store = Datastore(f"gs://{BUCKET}/{name}", server.client())
    report = store.ingest(paths)
    assert report.count("new") == len(files), report.errors
    (key,) = report.series
    return store, key, f"cod://{BUCKET}/{name}/{key.folder}/instances"


@pytest.mark.parametrize("offset_table", [None, "extended"])
def test_wsidicom_opens_a_pyramid_by_url(offset_table: Any, server: GcsServer, tmp_path: Path) -> None:
    """Four levels are one request for the series and one each; a tile of any level is one more, of its bytes."""
    levels = slide_pyramid(across=24, levels=4)
    _, _, url = opened(server, levels, tmp_path)
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, data in enumerate(levels):
        (loose / f"{number}.dcm").write_bytes(data)
    options = {"client": server.client(), "offset_table": offset_table}
    with WsiDicom.open(loose) as expected:
        with counted(server) as cost:
            slide = WsiDicom.open(url, file_options=options)
        assert [level.size for level in slide.levels] == [level.size for level in expected.levels]
        assert cost().requests == 5
        for level, tile in ((0, (17, 20)), (1, (5, 3)), (3, (2, 2))):
            slide.read_encoded_tile(level, (0, 0))  # so that the offset table has been looked for
            with counted(server) as cost:
                found = slide.read_encoded_tile(level, tile)
            assert found == expected.read_encoded_tile(level, tile)
            assert cost().requests <= 1
            assert cost().bytes_down <= len(found) + 9
        slide.close()


def test_a_wide_region_takes_a_request_a_row(server: GcsServer, tmp_path: Path) -> None:
    """A region of 9 x 9 tiles: the first row finds out how wide it is, each other is one request of its bytes."""
    data = whole_slide(1600, "empty")
    store, key, _ = opened(server, [data], tmp_path)
    with store.open(key.study_uid, key.series_uid) as cod:
        (uid,) = cod.get_instances()
        rows = [cod.read_frames(uid, list(range(40 * row + 20, 40 * row + 29))) for row in range(10, 19)]
        with counted(server) as cost, cod.open_instance(uid, "extended") as file:
            slide = highdicom.imread(file, lazy_frame_retrieval=True)
            slide.get_total_pixel_matrix(
                row_start=10 * 256 + 1, row_end=19 * 256 + 1, column_start=20 * 256 + 1, column_end=29 * 256 + 1
            )
    tiles = sum(len(tile) + 8 for row in rows for tile in row)
    header = data.index(b"\xe0\x7f\x10\x00") + 16 * 1600 + 100
    assert cost().requests <= 1 + 3 + 8
    assert cost().bytes_down < header + 1.1 * tiles
