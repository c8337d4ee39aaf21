"""The page of ``cod info --html``: complete in itself, bounded, and silent about patients."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.core.tiny import append_tiny
from tests.realfiles import real_file
from tests.thumbnail.scenes import image, ramp, report, store_series

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cod


class Page:
    """A page as a browser's reader of XML sees it: every tag closed, every value escaped."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.root = ET.fromstring(self.text)

    @property
    def facts(self) -> dict[str, str]:
        """The table of facts."""
        return {row[0].text or "": row[1].text or "" for row in self.root.findall(".//table[@class='facts']/tr")}

    @property
    def rows(self) -> list[list[str]]:
        """The table of instances."""
        return [[cell.text or "" for cell in row] for row in self.root.findall(".//tbody/tr")]

    @property
    def pictures(self) -> list[np.ndarray[Any, Any]]:
        """The pictures, decoded."""
        found = []
        for tag in self.root.iter("img"):
            kind, _, data = tag.attrib["src"].partition(",")
            assert kind == "data:image/jpeg;base64"
            with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as opened:
                found.append(np.asarray(opened.convert("RGB")))
        return found

    @property
    def captions(self) -> list[str]:
        """What is written below each picture."""
        return [tag.text or "" for tag in self.root.iter("figcaption")]


def test_the_page_shows_the_series(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """Facts, a row for each instance, and the picture of each frame that the thumbnail has, in reading order."""
    done = cod("info", one_series, "--html", tmp_path / "page.html", "--json")
    page = Page(tmp_path / "page.html")
    assert (done.code, done.document["html"]) == (
        0,
        {"path": str(tmp_path / "page.html"), "size_bytes": len(page.text.encode()), "pictures": 5},
    )
    with CODObject.from_uri(one_series) as series:
        uids, pictures = list(series.get_instances()), series.get_thumbnail()
        metadata_bytes = series.store.stat(series.key.metadata).size
    assert page.facts["uri"] == one_series
    assert page.facts["instances"] == "5"
    assert page.facts["modality"] == "CT (5)"
    assert page.facts["kind of instance"] == "CT Image Storage (5)"
    assert page.facts["columns x rows"] == "16 x 16, 16 bits (5)"
    assert str(done.document["tar_bytes"]) in page.facts["tar bytes"]
    assert page.facts["metadata"].startswith(f"{metadata_bytes / 1024:.3g}")
    assert [row[:2] for row in page.rows] == [[str(number), uid] for number, uid in enumerate(uids, 1)]
    assert {tuple(row[2:6]) for row in page.rows} == {("CT Image Storage", "CT", "16 x 16, 16 bits", "1")}
    assert page.captions == ["1", "2", "3", "4", "5"]
    for shown, expected in zip(page.pictures, pictures, strict=True):
        assert np.abs(shown.astype(int) - expected).mean() < 4


def test_the_page_and_the_facts_are_of_one_state(tmp_path: Path, cod: Cod, monkeypatch: Any) -> None:
    """The metadata is read once, for the facts, the rows and the pictures."""
    slices = real_file("98892001/CT5N/2062").path.parent
    with GcsServer() as server:
        server.create_bucket("bucket")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        assert cod("ingest", slices, "gs://bucket/p").code == 0
        uri = cod("ls", "gs://bucket/p").out.strip()
        server.reset_counters()
        assert cod("info", uri, "--html", tmp_path / "page.html").code == 0
        read = [record.object_name for record in server.counters() if record.operation == "objects.download"]
    assert len(Page(tmp_path / "page.html").pictures) == 5
    assert sum(name.endswith("/metadata.json") for name in read) == 1


def test_the_page_needs_nothing_else(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """No script, no link, no font, no style sheet: whatever it refers to is in it, and a browser is told so."""
    cod("info", one_series, "--html", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert {tag.tag for tag in page.root.iter()} & {"script", "link", "iframe", "object", "a"} == set()
    assert not re.search(r"https?:|url\(|@import|//", page.text.partition("</style>")[0].replace("<!--", ""))
    sources = [value for tag in page.root.iter() for name, value in tag.attrib.items() if name in {"src", "href"}]
    assert len(sources) == 5
    assert all(source.startswith("data:") for source in sources)
    policy = page.root.find(".//meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    assert policy.attrib["content"].startswith("default-src 'none'")


def test_no_header_value_is_on_it(tmp_path: Path, cod: Cod) -> None:
    """Of a header there are UIDs, a modality's code and numbers, wherever a name was put; the path is escaped."""
    (tmp_path / "files").mkdir()
    names = dict.fromkeys(
        (
            "PatientName",
            "PatientID",
            "AccessionNumber",
            "StudyDescription",
            "SeriesDescription",
            "InstitutionName",
            "ProtocolName",
            "ImageComments",
            "StationName",
        ),
        "SECRET",
    )
    dataset = image(1, ramp(), PatientBirthDate="19010203", Modality="SECRET NAME", **names)
    store = tmp_path / 'a <b> & "c"'
    store_series(str(store), tmp_path / "files", dataset)
    series = cod("ls", store).out.strip()
    assert cod("info", series, "--html", tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    assert "SECRET" not in page.text
    assert "19010203" not in page.text
    assert page.facts["modality"] == "not recorded (1)"
    assert page.facts["uri"] == series


def test_frames_are_named_and_what_does_not_decode_is_shown_as_that(tmp_path: Path, cod: Cod) -> None:
    """Several frames of an instance are told apart; an instance that nothing decodes has a place without a picture."""
    (tmp_path / "files").mkdir()
    broken = image(2, ramp(), BitsStored=20)
    store_series(str(tmp_path / "store"), tmp_path / "files", image(1, np.stack([ramp()] * 3)), broken, report(3))
    series = cod("ls", tmp_path / "store").out.strip()
    done = cod("info", series, "--html", tmp_path / "page.html")
    assert "3 pictures" in done.out
    page = Page(tmp_path / "page.html")
    assert page.captions == ["1, frame 0", "1, frame 1", "1, frame 2", "2"]
    assert len(page.pictures) == 3
    assert "not decoded" in page.text
    assert [row[5] for row in page.rows] == ["3", "1", "0"]
    assert page.rows[2][4] == ""


def test_a_long_series_gets_a_bounded_page(tmp_path: Path, cod: Cod) -> None:
    """Of many instances the page has the first 1,000 rows and 64 pictures, the first and the last among them."""
    (tmp_path / "files").mkdir()
    series = CtSeries(1030, rows=4, columns=4)
    for number, data in enumerate(series):
        (tmp_path / "files" / f"{number}.dcm").write_bytes(data)
    Datastore(tmp_path / "store").ingest([tmp_path / "files"], workers=1)
    uri = cod("ls", tmp_path / "store").out.strip()
    assert cod("info", uri, "--html", tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    assert (len(page.rows), len(page.pictures)) == (1000, 64)
    assert (page.captions[0], page.captions[-1]) == ("1", "1030")
    assert "The first 1000 of 1030" in page.text
    assert "64 of 1030 frames" in page.text


def test_without_pixel_data_there_is_a_page_too(tmp_path: Path, cod: Cod) -> None:
    """A plan, or a report, has facts and a row; it says that there is nothing to see."""
    cod("ingest", real_file("rtplan.dcm").path, tmp_path / "store")
    uri = cod("ls", tmp_path / "store").out.strip()
    assert cod("info", uri, "--html", tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    assert (page.pictures, len(page.rows)) == ([], 1)
    assert "No instance has pixel data." in page.text
    assert page.rows[0][2] == "RT Plan Storage"


@pytest.mark.parametrize(("absent", "extra"), [("PIL", "thumbnail"), ("jinja2", "cli")])
def test_without_an_extra_it_is_named(tmp_path: Path, absent: str, extra: str) -> None:
    """Without Pillow, or the template engine, the command says what to install, and writes no file."""
    store = str(tmp_path / "store")
    (tmp_path / "files").mkdir()
    append_tiny(Datastore(store).store, tmp_path / "files", 0)
    (key,) = Datastore(store).series()
    script = f"""
import sys
sys.modules[{absent!r}] = None
from cloud_optimized_dicom.cli.main import main
sys.exit(main(["info", {f"{store}/{key.folder}"!r}, "--html", {str(tmp_path / "page.html")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"cloud-optimized-dicom[{extra}]" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_file_that_cannot_be_is_a_usage_error(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A page in no folder, or in place of one, is exit code 2."""
    assert cod("info", one_series, "--html", tmp_path / "nowhere" / "page.html").code == 2
    assert cod("info", one_series, "--html", tmp_path).code == 2
