"""Redacting a file held in memory, and what is left in it, by our readers and by decoders of other people.

Our readers decode JPEG 2000 by OpenJPEG, HTJ2K by OpenJPH and JPEG-LS by Thomas Richter's libjpeg; we encode JPEG-LS by
CharLS.  pydicom's plugins decode JPEG 2000 by OpenJPEG, too, and JPEG-LS by CharLS, so that `by_other_code` is what
shares no code with either: FFmpeg for JPEG 2000, OpenJPEG for HTJ2K, libjpeg for JPEG-LS (the code of our readers, but
not of our encoder).
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import av
import imagecodecs
import libjpeg
import numpy as np
from pydicom.pixels import get_decoder

from cloud_optimized_dicom.bounding_box import PixelRedaction
from cloud_optimized_dicom.dicom.decode import FrameDecoder
from cloud_optimized_dicom.dicom.decoders_codestream import parse_codestream
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
HTJ2K = "1.2.840.10008.1.2.4.201"
JPEG2000 = {"1.2.840.10008.1.2.4.90", HTJ2K}
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
    """Yield frames by pydicom and its plugins, colours as stored.

    JPEG Lossless by GDCM, JPEG 2000 and HTJ2K by OpenJPEG, JPEG-LS by CharLS.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = oracle.read(data)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        plugin = "gdcm" if syntax in JPEG_LOSSLESS else "pylibjpeg" if syntax in JPEG2000 else ""
        plugin = "pillow" if syntax == JPEG_BASELINE else "pyjpegls" if syntax == JPEGLS else plugin
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
    name = {"1.2.840.10008.1.2.4.90": "jpeg2k", HTJ2K: "htj2k", JPEGLS: "jpegls"}
    for frame in joined(data, table_of(facts)):
        codec = name[facts.transfer_syntax_uid]
        options = {"planar": False} if codec == "htj2k" else {}
        yield getattr(imagecodecs, f"{codec}_decode")(frame, **options)


def by_other_code(data: bytes) -> Iterator[tuple[NDArray[Any], int]]:
    """Yield the frames of a file in JPEG 2000 or JPEG-LS, and their precision in bits; signed ones modulo a power of 2.

    JPEG 2000 by FFmpeg's own decoder, HTJ2K by OpenJPEG, JPEG-LS by libjpeg: none of what they were encoded by.
    """
    facts = inspect(data)
    if facts.transfer_syntax_uid == HTJ2K:
        yield from ((frame, 8 * frame.itemsize) for frame in by_pydicom(data))
        return
    for frame in joined(data, table_of(facts)):
        codestream = parse_codestream(frame)
        assert codestream is not None
        decode = libjpeg.decode if facts.transfer_syntax_uid == JPEGLS else _by_ffmpeg
        yield decode(frame), codestream.precision


def _by_ffmpeg(codestream: bytes) -> NDArray[Any]:
    """Return a JPEG 2000 codestream as FFmpeg decodes it, signed samples modulo a power of 2."""
    claimed = parse_codestream(codestream)
    assert claimed is not None
    context = av.CodecContext.create("jpeg2000", "r")
    (frame,) = [*context.decode(av.Packet(codestream)), *context.decode(None)]
    shown = frame.to_ndarray()
    samples = shown >> (8 * shown.itemsize - claimed.precision)  # it scales samples to a container's whole range ..
    return (
        samples ^ (1 << (claimed.precision - 1)) if claimed.is_signed else samples
    )  # .. and lifts signed ones by half


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
    """Compare every pixel of a file, by several decoders, with what it was, and the boxes with their fill."""
    syntax = inspect(after).transfer_syntax_uid
    ours = by_ours(after)
    for number, (old, new) in enumerate(zip(by_pydicom(before), by_pydicom(after), strict=True)):
        touched = boxes if frames is None or number in frames else []
        expected = painted(old, touched, done.fill)
        np.testing.assert_array_equal(new, expected)
        np.testing.assert_array_equal(next(ours), expected)
    assert next(ours, None) is None
    if syntax in {*JPEG2000, JPEGLS}:
        others = zip(by_pydicom(after), by_imagecodecs(after), by_other_code(after), strict=True)
        for new, again, (other, bits) in others:
            mask = (1 << bits) - 1
            for found in (again, other):
                np.testing.assert_array_equal(found.astype(np.int64) & mask, new.astype(np.int64) & mask)
