"""The contact sheet of the docs: ``python -m tests.thumbnail.contact_sheets docs/images/contact-sheet.jpg``."""

from __future__ import annotations

import io
import math
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from cloud_optimized_dicom import CODObject, Instance
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.thumbnail.encode import in_colour
from cloud_optimized_dicom.thumbnail.sheet import read_tiles
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from cloud_optimized_dicom.model import InstanceRecord

SIDE, LABEL, ACROSS = 128, 14, 12
_QUALITY = 80


class Drawn(NamedTuple):
    """The picture of one file: of its middle frame, which is given too, as it decodes."""

    name: str
    picture: NDArray[np.uint8]
    frame: NDArray[Any]
    record: InstanceRecord


def iter_drawn(folder: Path, package: str = "") -> Iterator[Drawn]:
    """Yield the picture of every real file that has pixel data and decodes."""
    for file in real_files():
        if not file.name.startswith(package):
            continue
        try:
            instance = Instance(file.path_in(folder))
            uids = instance.study_uid(), instance.series_uid()
        except InstanceValidationError:
            continue
        store = f"memory://{uuid.uuid4().hex}"
        with CODObject(store, None, *uids, "w") as cod:
            cod.append([instance])
        with CODObject(store, None, *uids) as cod:
            drawn = _drawn(cod, file.name)
        if drawn is not None:
            yield drawn


def _drawn(cod: CODObject, name: str) -> Drawn | None:
    (stored,) = cod.get_instances().values()
    record = stored.record
    if record is None or record.frame_table is None or not len(record.frame_table):
        return None
    reader = SeriesReader.open(cod.store, cod.key)
    # Of three pictures the second is the middle one.
    tiles = read_tiles(reader, {record.name_uid: len(record.frame_table)}, 3)
    tile = tiles[len(tiles) // 2]
    if tile.picture is None:
        return None
    return Drawn(name, tile.picture, cod.read_frame_array(record.name_uid, tile.frame), record)


def place(number: int) -> tuple[int, int]:
    """Return the upper left corner of a picture on the sheet: row and column."""
    return number // ACROSS * (SIDE + LABEL), number % ACROSS * SIDE


def make_sheet(drawn: list[Drawn]) -> Image.Image:
    """Return a sheet of pictures with their names below them."""
    down = math.ceil(len(drawn) / ACROSS)
    sheet = Image.new("RGB", (ACROSS * SIDE, down * (SIDE + LABEL)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for number, item in enumerate(drawn):
        row, column = place(number)
        sheet.paste(Image.fromarray(in_colour(item.picture)), (column, row))
        label = item.name.rpartition("/")[2]
        while draw.textlength(label, font=font) > SIDE - 2:
            label = label[:-1]
        draw.text((column + 1, row + SIDE), label, fill="black", font=font)
    return sheet


def main(target: str) -> None:
    """Write the sheet."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = list(iter_drawn(Path(folder)))
    data = io.BytesIO()
    make_sheet(drawn).save(data, "JPEG", quality=_QUALITY, optimize=True)
    Path(target).write_bytes(data.getvalue())
    sys.stdout.write(f"{target}: {len(drawn)} pictures, {len(data.getvalue())} bytes\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
