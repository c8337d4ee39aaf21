"""Redacting a file held in memory, and what is left in it, by decoders that share no code with ours."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from pydicom.pixels import get_decoder

from cloud_optimized_dicom.bounding_box import PixelRedaction
from cloud_optimized_dicom.dicom.decode import FrameDecoder
from cloud_optimized_dicom.redaction.model import RedactedInstance, RedactionOptions, TargetFile
from cloud_optimized_dicom.redaction.redact import redact_files
from tests.dicom import oracle
from tests.dicom.helpers import header_of, inspect, joined, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_optimized_dicom.bounding_box import BoundingBox

WHEN = datetime(2026, 11, 21, 12, tzinfo=UTC)
UID = "1.2.3"
JPEG_LOSSLESS = {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"}
JPEGLS = "1.2.840.10008.1.2.4.80"
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}


def target(path: Path) -> TargetFile:
    """Return a file as what may be redacted."""
    return TargetFile(path, str(oracle.read(path.read_bytes()).get("SOPInstanceUID", "")))


def redacted(
    data: bytes,
    folder: Path,
    boxes: Sequence[BoundingBox | PixelRedaction],
    **options: Any,
) -> tuple[bytes, RedactedInstance]:
    """Redact a file, named `UID`; return the new file, and what was done."""
    path = folder / "instance.dcm"
    path.write_bytes(data)
    redactions = [box if isinstance(box, PixelRedaction) else PixelRedaction(box, [UID]) for box in boxes]
    record = redact_files(redactions, {UID: target(path)}, RedactionOptions("Dr. Test", WHEN, **options))
    assert [item.name for item in folder.iterdir()] == ["instance.dcm"]
    (done,) = record.instances
    return path.read_bytes(), done


def by_pydicom(data: bytes, frames: Sequence[int] | None = None) -> Iterator[NDArray[Any]]:
    """Yield frames by pydicom and its plugins, colours as stored; JPEG Lossless by GDCM, JPEG 2000 by OpenJPEG."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = oracle.read(data)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        plugin = "gdcm" if syntax in JPEG_LOSSLESS else "pylibjpeg" if syntax in JPEG2000 else ""
        plugin = "pillow" if syntax == JPEG_BASELINE else plugin
        numbers = range(int(dataset.get("NumberOfFrames") or 1)) if frames is None else frames
        if dataset.get("BitsAllocated") == 1:  # of bits, pydicom cuts not every frame alone
            whole = decoder.as_array(dataset, raw=True)[0].reshape(-1, dataset.Rows, dataset.Columns)
            yield from (whole[number] for number in numbers)
            return
        for number in numbers:
            yield decoder.as_array(dataset, index=number, raw=True, decoding_plugin=plugin)[0]


def by_imagecodecs(data: bytes) -> Iterator[NDArray[Any]]:
    """Yield the frames of a file in JPEG 2000, HTJ2K or JPEG-LS by OpenJPEG, OpenJPH or CharLS themselves."""
    facts = inspect(data)
    name = {"1.2.840.10008.1.2.4.90": "jpeg2k", "1.2.840.10008.1.2.4.201": "htj2k", JPEGLS: "jpegls"}
    for frame in joined(data, table_of(facts)):
        codec = name[facts.transfer_syntax_uid]
        options = {"planar": False} if codec == "htj2k" else {}
        yield getattr(imagecodecs, f"{codec}_decode")(frame, **options)


def by_ours(data: bytes) -> Iterator[NDArray[Any]]:
    """Yield the frames of a file as our readers decode them, colours as stored."""
    facts = inspect(data)
    decoder = FrameDecoder.of(header_of(facts), facts.transfer_syntax_uid)
    for number, frame in enumerate(joined(oracle.inflated(data, oracle.read(data)), table_of(facts))):
        yield decoder.decode_samples(frame, number)[0]


def painted(frame: NDArray[Any], boxes: Sequence[BoundingBox], fill: Sequence[float]) -> NDArray[Any]:
    """Return a frame with boxes filled, pixel by pixel."""
    expected = np.array(frame)
    for box in boxes:
        for row in range(box.y, box.y + box.height):
            for column in range(box.x, box.x + box.width):
                expected[row, column] = fill if frame.ndim == 3 else fill[0]
    return expected


def assert_redacted(
    before: bytes,
    after: bytes,
    boxes: Sequence[BoundingBox],
    done: RedactedInstance,
    frames: Sequence[int] | None = None,
) -> None:
    """Compare every pixel of a file, by two decoders, with what it was, and the boxes with their fill."""
    syntax = inspect(after).transfer_syntax_uid
    ours = by_ours(after)
    for number, (old, new) in enumerate(zip(by_pydicom(before), by_pydicom(after), strict=True)):
        touched = boxes if frames is None or number in frames else []
        expected = painted(old, touched, done.fill)
        np.testing.assert_array_equal(new, expected)
        np.testing.assert_array_equal(next(ours), expected)
    assert next(ours, None) is None
    if syntax in {*JPEG2000, JPEGLS} and not oracle.read(before).get("PixelRepresentation"):
        for new, again in zip(by_pydicom(after), by_imagecodecs(after), strict=True):
            np.testing.assert_array_equal(again, new)
