"""The new file: native pixels patched where they lie, or all frames decoded, filled and stored without loss."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from cloud_optimized_dicom.dicom.elements import LONG_VRS
from cloud_optimized_dicom.dicom.frames import find_pixel_data, is_swapped
from cloud_optimized_dicom.dicom.source import EXPLICIT_BIG, EXPLICIT_LITTLE, open_source
from cloud_optimized_dicom.dicom.transcode.assemble import Assembler
from cloud_optimized_dicom.dicom.transcode.codecs import CODECS
from cloud_optimized_dicom.dicom.transcode.dataset import Changes, NotExactError, plan_surroundings
from cloud_optimized_dicom.dicom.transcode.frames import FrameJob, encode_frame
from cloud_optimized_dicom.dicom.transcode.model import Kept, PixelFormat, TranscodePlan
from cloud_optimized_dicom.dicom.transcode.plan import PIXEL_DATA, plan_transcode
from cloud_optimized_dicom.errors import RedactionError
from cloud_optimized_dicom.format.dicom_json import number
from cloud_optimized_dicom.redaction.attributes import plan_edits
from cloud_optimized_dicom.redaction.dataset import DamagedSequenceError, element_header, plan_dataset
from cloud_optimized_dicom.redaction.fill import resolve_fill
from cloud_optimized_dicom.redaction.paint import NativeLayout, fill_frame, fill_native

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from cloud_optimized_dicom.bounding_box import BoundingBox
    from cloud_optimized_dicom.dicom.source import DicomSource
    from cloud_optimized_dicom.dicom.transcode.dataset import Piece, Surroundings
    from cloud_optimized_dicom.dicom.transcode.model import Target
    from cloud_optimized_dicom.format.offsets.reader import PositionedReader
    from cloud_optimized_dicom.redaction.dataset import Frame
    from cloud_optimized_dicom.redaction.image import Image, OpenImage
    from cloud_optimized_dicom.redaction.model import RedactionOptions, Region
    from cloud_optimized_dicom.redaction.paint import Fill

_SPOOLED_BYTES = 8 << 20
_UNLIMITED_BYTES = 1 << 62
_LARGEST_NATIVE_BYTES = 0xFFFFFFFE  # an even number below the length that means "undefined" (PS3.5 section 7.1.1)
_COLOUR_SAMPLES = 3


@dataclass(frozen=True)
class Work:
    """One image, and what is to be done to it."""

    opened: OpenImage
    regions: tuple[Region, ...]
    options: RedactionOptions

    @property
    def image(self) -> Image:
        """The image."""
        return self.opened.image

    def dataset(self, photometric: str) -> Frame:
        """Return what surrounds the pixel data, edited."""
        opened = self.opened
        pixels = find_pixel_data({element.tag: element for element in opened.elements})
        if pixels is None:
            raise RedactionError(self.image.name, "has no pixel data")
        edits = plan_edits(opened, [region.box for region in self.regions], photometric, is_clean=self.options.is_clean)
        try:
            return plan_dataset(opened.source, opened.elements, pixels, edits)
        except DamagedSequenceError as error:
            raise RedactionError(self.image.name, "a sequence that may show the pixels is damaged") from error

    def fill(self, photometric: str) -> Fill:
        """Return what is filled in, one value per sample."""
        return resolve_fill(self.opened, photometric, self.options.fill_value)

    @cached_property
    def boxes(self) -> dict[int, list[BoundingBox]]:
        """The boxes of each frame that has any."""
        found: dict[int, list[BoundingBox]] = {}
        for region in self.regions:
            frames = range(len(self.image.table)) if region.frames is None else region.frames
            for frame in dict.fromkeys(frames):
                found.setdefault(frame, []).append(region.box)
        return found

    @cached_property
    def frames(self) -> _DecodedFrames:
        """The frames as they were."""
        return _DecodedFrames(self.opened)

    def painted(self, frame: int, fill: Fill) -> NDArray[Any]:
        """Return a frame decoded and filled."""
        array = self.frames.take(frame)
        fill_frame(array, self.boxes.get(frame, ()), fill)
        return array


class _DecodedFrames:
    """The frames of an image, decoded when they are taken; the first one, held until then, when it is first looked at.

    Not more than one frame is held here.
    """

    def __init__(self, opened: OpenImage) -> None:
        self._opened = opened
        self._first: NDArray[Any] | None = None

    @cached_property
    def photometric(self) -> str:
        """The photometric interpretation of the first frame decoded, which is to be that of all."""
        self._first, photometric = self._opened.samples(0)
        return photometric

    def take(self, frame: int) -> NDArray[Any]:
        """Return a frame, the caller's own.

        Raises
        ------
        RedactionError
            If it does not decode, or its photometric interpretation is another one.
        """
        photometric = self.photometric
        first, self._first = self._first, None
        if frame == 0 and first is not None:
            return first
        del first  # before another one takes as much
        array, found = self._opened.samples(frame)
        if found != photometric:
            raise RedactionError(self._opened.image.name, "the frames differ in their photometric interpretation")
        return array


def write_redacted(work: Work, file: BinaryIO) -> Fill:
    """Write the redacted file of an image into an empty one; return what the boxes were filled with.

    Raises
    ------
    RedactionError
        If a frame does not decode, or the file cannot be written anew.
    """
    image = work.image
    target = image.target(work.options)
    if target is not None and not (image.is_native and image.has_embedded_overlay):
        fill = _write_encapsulated(work, target, file)
        if fill is not None:
            return fill
        file.seek(0)
        file.truncate()
    if image.is_patched:
        return _write_patched(work, file)
    return _write_native(work, file)


def _write_encapsulated(work: Work, target: Target, file: BinaryIO) -> Fill | None:
    """Write all frames compressed; return None where the codec does not take them."""
    photometric = work.frames.photometric
    plan = plan_transcode(_pixel_format(work.image, photometric), target)
    if isinstance(plan, Kept):
        return None
    changes = Changes(target.transfer_syntax_uid, plan.photometric_interpretation, plan.planar_configuration)
    frames, fill = len(work.image.table), work.fill(photometric)
    try:
        with _surroundings(work.dataset(photometric), work.opened.source, changes) as (surroundings, reader):
            extended = frames * plan.format.frame_bytes >= work.options.basic_table_limit_bytes
            assembler = Assembler(file, reader, frames=frames, extended=extended, limit_bytes=_UNLIMITED_BYTES)
            assembler.begin(surroundings)
            for encoded in _encoded_frames(work, plan, fill):
                if isinstance(encoded, Kept):
                    return None
                assembler.add(encoded)
            assembler.finish()
    except NotExactError:
        return None
    return fill


def _encoded_frames(work: Work, plan: TranscodePlan, fill: Fill) -> Iterator[bytes | Kept]:
    """Yield the frames of the new file; those that no box touches as they were, if they are encoded alike."""
    image = work.image
    alike = (image.syntax, image.pixels.photometric_interpretation) == (
        plan.target.transfer_syntax_uid,
        plan.photometric_interpretation,
    )
    job = FrameJob.of(plan, CODECS[plan.target])
    for frame in range(len(image.table)):
        if alike and frame not in work.boxes:
            yield work.opened.encoded(frame)
        else:
            yield encode_frame(job, np.ascontiguousarray(work.painted(frame, fill), plan.format.dtype))


def _pixel_format(image: Image, photometric: str) -> PixelFormat:
    """Return the format of the decoded frames, as if they lay in a native file."""
    pixels = image.pixels
    high_bit = number(image.header, "00280102")
    return PixelFormat(
        rows=pixels.rows,
        columns=pixels.columns,
        samples_per_pixel=pixels.samples_per_pixel,
        bits_allocated=0 if pixels.is_float else pixels.bits_allocated,
        bits_stored=pixels.bits_stored,
        high_bit=pixels.bits_stored - 1 if high_bit is None else int(high_bit),
        is_signed=pixels.pixel_representation == 1,
        planar_configuration=0 if pixels.samples_per_pixel > 1 else None,
        photometric_interpretation=photometric,
        number_of_frames=len(image.table),
        transfer_syntax_uid=EXPLICIT_LITTLE,
    )


@contextmanager
def _surroundings(
    dataset: Frame, source: DicomSource, changes: Changes
) -> Iterator[tuple[Surroundings, PositionedReader]]:
    """Give an edited dataset in explicit VR little endian, and the reader that its pieces are copied from.

    Raises
    ------
    NotExactError
        If it cannot be written so.
    """
    empty = element_header(PIXEL_DATA, "OW", 0, source.encoding)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as spooled:
        stream = cast("BinaryIO", spooled)
        _copy(source.reader, (*dataset.head, empty, *dataset.tail), stream)
        with open_source(stream, "the redacted file") as edited:
            yield plan_surroundings(edited, list(edited.walk()), changes), edited.reader


def _write_native(work: Work, file: BinaryIO) -> Fill:
    """Write all frames decoded, in explicit VR little endian."""
    image = work.image
    if image.pixels.is_float:
        raise RedactionError(image.name, "deflated floating point pixels are not supported")
    photometric = work.frames.photometric
    pixels, frames, fill = image.pixels, len(image.table), work.fill(photometric)
    size = -(-pixels.samples * pixels.bits_allocated * frames // 8)
    if size > _LARGEST_NATIVE_BYTES:
        raise RedactionError(image.name, "the pixels are too large for a file without compression")
    changes = Changes(EXPLICIT_LITTLE, photometric, 0 if pixels.samples_per_pixel == _COLOUR_SAMPLES else None)
    vr = "OW" if pixels.bits_allocated > 8 else "OB"  # noqa: PLR2004 - bits of a byte (PS3.5 section A.2)
    try:
        with _surroundings(work.dataset(photometric), work.opened.source, changes) as (surroundings, reader):
            encoding = work.opened.source.meta_encoding._replace(implicit=False, little_endian=True)
            header = element_header(PIXEL_DATA, vr, size + size % 2, encoding)
            _copy(reader, (*surroundings.head, header), file)
            painted = (work.painted(frame, fill) for frame in range(frames))
            file.writelines(_packed(painted, pixels.bits_allocated))
            file.write(bytes(size % 2))
            _copy(reader, surroundings.tail, file)
    except NotExactError as error:
        raise RedactionError(image.name, str(error)) from error
    return fill


def _packed(frames: Iterable[NDArray[Any]], bits_allocated: int) -> Iterator[bytes]:
    """Yield native frames in little endian; frames of bits follow each other without a gap (PS3.5 section 8.1.1)."""
    waiting = np.empty(0, np.uint8)
    for frame in frames:
        if bits_allocated > 1:
            yield frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()
            continue
        bits = np.concatenate([waiting, frame.ravel()])
        whole = bits.size // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        waiting = bits[whole:]
    yield np.packbits(waiting, bitorder="little").tobytes()


def _write_patched(work: Work, file: BinaryIO) -> Fill:
    """Write the file as it is, but for what changes in the header and the samples in the boxes."""
    image, source = work.image, work.opened.source
    dataset = work.dataset(image.pixels.photometric_interpretation)
    element = next(element for element in work.opened.elements if element.tag == int(image.pixels.pixel_tag, 16))
    # One that is not there, or that nobody knows, is read as OW, but cannot be written with a length of 32 bits.
    vr = element.vr if element.vr in LONG_VRS else "OW"
    _copy(source.reader, dataset.head, file)
    layout = NativeLayout(
        start=file.tell() + len(element_header(element.tag, vr, 0, source.encoding)),
        frames=len(image.table),
        pixels=image.pixels,
        big_endian=image.syntax == EXPLICIT_BIG,
        swapped=is_swapped(element.vr, image.pixels.bits_allocated, image.syntax),
    )
    size = layout.size_bytes
    if size > element.length:
        raise RedactionError(image.name, "the pixel data is damaged: a frame is not whole")
    file.write(element_header(element.tag, vr, size + size % 2, source.encoding))
    file.writelines(source.reader.iter_chunks(element.value, element.value + size))
    file.write(bytes(size % 2))
    _copy(source.reader, dataset.tail, file)
    file.flush()
    fill = work.fill(image.pixels.photometric_interpretation)
    fill_native(file, layout, work.boxes, fill)
    return fill


def _copy(reader: PositionedReader, pieces: Iterable[Piece], file: BinaryIO) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            file.write(piece)
        else:
            file.writelines(reader.iter_chunks(piece.start, piece.stop))
