"""``cod thumbnail``: a series as a picture, a sheet of pictures or a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_optimized_dicom.cli.files import output_path, write_output
from cloud_optimized_dicom.cli.options import (  # noqa: TC001 - typer reads the annotations
    JsonFlag,
    SeriesArgument,
    WaitOption,
)
from cloud_optimized_dicom.cli.output import Output, size_text
from cloud_optimized_dicom.cli.targets import open_series, series_target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = (".jpg", ".jpeg", ".mp4", ".png")


def thumbnail(
    series: SeriesArgument,
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to. *.mp4: a video of all frames. *.jpg, *.png: a sheet of them, of up to 64 evenly chosen.",
        ),
    ],
    size: Annotated[int, typer.Option("--size", metavar="PIXELS", min=8, max=4096, help="Side of each picture.")] = 128,
    store: Annotated[bool, typer.Option("--store", help="Keep it in the series too; takes its lock.")] = False,
    wait: WaitOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Draw every frame of a series as a small picture; the stored thumbnail is used where it is one of this size."""
    if Path(out).suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"{out} is not one of {', '.join('*' + suffix for suffix in _SUFFIXES)}")
    path = output_path(out)
    with open_series(series_target(series), "a" if store else "r", wait) as cod:
        pictures = cod.get_thumbnail(thumbnail_size=size)
    data = _encoded(pictures, path.suffix.lower())
    write_output(data, path)
    output = Output(json=as_json)
    count = len(pictures) if pictures.ndim > 3 else 1  # noqa: PLR2004 - a single one has no axis for them
    output.line(f"{out}: {count} frame{'s' if count > 1 else ''}, {size_text(len(data))}")
    output.document({"path": out, "frames": count, "size": size, "size_bytes": len(data), "stored": store})


def _encoded(pictures: NDArray[np.uint8], suffix: str) -> bytes:
    from cloud_optimized_dicom.thumbnail.encode import encode_jpeg, encode_mp4, encode_png  # noqa: PLC0415 - codecs
    from cloud_optimized_dicom.thumbnail.sheet import contact_sheet  # noqa: PLC0415 - as above

    if suffix == ".mp4":
        return encode_mp4(list(pictures) if pictures.ndim > 3 else [pictures])  # noqa: PLR2004 - as above
    sheet = contact_sheet(pictures)
    return encode_png(sheet) if suffix == ".png" else encode_jpeg(sheet)
