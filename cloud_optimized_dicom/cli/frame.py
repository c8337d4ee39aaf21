"""``cod frame``: one frame as bytes, as an array or as a picture."""

from __future__ import annotations

import importlib
import io
import sys
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cloud_optimized_dicom.cli.files import output_path, write_output
from cloud_optimized_dicom.cli.options import JsonFlag, SeriesArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, size_text
from cloud_optimized_dicom.cli.targets import open_series, series_target
from cloud_optimized_dicom.errors import MissingDependencyError
from cloud_optimized_dicom.format.dicom_json import first_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cloud_optimized_dicom.cod_object import CODObject

_PHOTOMETRIC = "00280004"


def frame(
    series: SeriesArgument,
    uid: Annotated[str, typer.Argument(metavar="UID", help="The instance's UID.")],
    number: Annotated[int, typer.Argument(metavar="FRAME", min=0, help="Which frame; the first is 0.")],
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|-",
            help="Where to. *.png: a picture, grey values stretched to 8 bits. *.npy: the decoded array. "
            "Anything else, and - for stdout: the encoded bytes as stored.",
        ),
    ] = "-",
    as_json: JsonFlag = False,
) -> None:
    """Fetch one frame with one range request; nothing is written unless its checksum is right."""
    if out == "-" and (as_json or sys.stdout.isatty()):
        raise typer.BadParameter("stdout gets no frame together with --json, nor on a terminal: use -o FILE")
    path = None if out == "-" else output_path(out)
    with open_series(series_target(series)) as cod:
        data = _rendered(cod, uid, number, path.suffix.lower() if path else "")
    if path is None:
        sys.stdout.buffer.write(data)
        return
    write_output(data, path)
    output = Output(json=as_json)
    output.line(f"{out}: {size_text(len(data))}")
    output.document({"uid": uid, "frame": number, "path": out, "size_bytes": len(data)})


def _rendered(cod: CODObject, uid: str, number: int, suffix: str) -> bytes:
    if suffix not in {".png", ".npy"}:
        return cod.read_frames(uid, [number])[0]
    pixels = cod.read_frame_array(uid, number)
    if suffix == ".npy":
        target = io.BytesIO()
        np.save(target, pixels, allow_pickle=False)
        return target.getvalue()
    return encode_png(as_picture(pixels, cod.get_instance(uid).metadata))


def as_picture(pixels: NDArray[Any], header: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return 8-bit pixels to look at: grey values from darkest to brightest, colours as they are."""
    if pixels.ndim == 3:  # noqa: PLR2004 - rows, columns, samples
        return np.asarray(pixels if pixels.dtype == np.uint8 else pixels >> (8 * (pixels.dtype.itemsize - 1)), np.uint8)
    values = pixels.astype(np.float64)
    finite = values[np.isfinite(values)]  # float pixels mark what is no value
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    stretched = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    grey = np.rint(stretched).astype(np.uint8)
    return 255 - grey if first_value(header, _PHOTOMETRIC) == "MONOCHROME1" else grey


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Return a PNG file.

    Raises
    ------
    MissingDependencyError
        If the codecs are not installed.
    """
    try:
        imagecodecs = importlib.import_module("imagecodecs")
    except ImportError:
        raise MissingDependencyError("a PNG file", "codecs") from None
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(picture)))
