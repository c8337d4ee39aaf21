"""What has to be known of one file before anything is decided, and its frames, decoded one by one."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.dicom.decode import FrameDecoder
from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels, PixelError
from cloud_optimized_dicom.dicom.frames import read_frame
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.dicom.source import open_source
from cloud_optimized_dicom.dicom.transcode.model import Target
from cloud_optimized_dicom.dicom.transcode.plan import UNCOMPRESSED_SYNTAXES
from cloud_optimized_dicom.errors import FrameDecodeError, InstanceValidationError, RedactionError
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.format.offsets.description import NATIVE_SYNTAXES, SUBSAMPLED_INTERPRETATIONS
from cloud_optimized_dicom.redaction.model import FileState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_optimized_dicom.dicom.elements import RawElement
    from cloud_optimized_dicom.dicom.source import DicomSource
    from cloud_optimized_dicom.model import FrameTable
    from cloud_optimized_dicom.redaction.model import RedactionOptions, TargetFile

_NUMBER_OF_FRAMES, _HIGH_BIT = "00280008", "00280102"
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
_BYTE_BITS = 8
_ELEMENT_HEADER_BYTES = 8  # the least (PS3.5 section 7.1)
_KEPT_GROUPS = ("0028", *(f"{group:04X}" for group in OVERLAY_GROUPS))
_KEPT_TAGS = frozenset({"00089215", "00120064"})
"""What is read of a header: image pixels and palettes, overlays; Derivation Code and De-identification Method Code
Sequence.  The headers of all images are held before the first is written."""
_FULL = {"YBR_FULL_422": "YBR_FULL", "YBR_RCT": "RGB", "YBR_ICT": "RGB"}
_OWN_TARGETS = {target.transfer_syntax_uid: target for target in Target}


@dataclass(frozen=True)
class Image:
    """One file with pixel data, all frames of which are there.

    Parameters
    ----------
    name
        The UID by which the series knows it.
    header
        What is read of it, as DICOM JSON; large values are ``start:stop`` in the file (of a deflated one: inflated).
    in_items
        Whether the pixels lie in items, as encapsulated ones do; in a native syntax against PS3.5 section A.4.
    """

    name: str
    path: Path
    state: FileState
    header: dict[str, Any]
    pixels: ImagePixels
    table: FrameTable
    in_items: bool

    @property
    def syntax(self) -> str:
        """The transfer syntax that the file can be read with."""
        return self.state.transfer_syntax_uid

    @property
    def is_native(self) -> bool:
        """Whether the pixels lie in the file as a plain array."""
        return self.syntax in NATIVE_SYNTAXES and self.table.rangeable and not self.in_items

    @property
    def is_subsampled(self) -> bool:
        """Whether two native pixels share their chrominance (PS3.3 section C.7.6.3.1.2)."""
        pixels = self.pixels
        subsampled = pixels.photometric_interpretation in SUBSAMPLED_INTERPRETATIONS and pixels.samples_per_pixel > 1
        return subsampled and self.table.lengths[0] < pixels.frame_bytes

    @property
    def is_patched(self) -> bool:
        """Whether the pixels may stay where they lie, every bit outside the boxes as it was."""
        return self.is_native and not self.is_subsampled

    @property
    def has_embedded_overlay(self) -> bool:
        """Whether an overlay lies in unused bits of the pixels (retired; PS3.3 2004 section C.9.2)."""
        return any(
            (first_value(self.header, f"{group:04X}0100") or 1) > 1 and f"{group:04X}3000" not in self.header
            for group in OVERLAY_GROUPS
        )

    def require_lowest_bits(self) -> None:
        """Check that no bit that says something lies where it would be lost, or the fill would not lie with the others.

        Raises
        ------
        RedactionError
            If one does.
        """
        pixels, high_bit = self.pixels, number(self.header, _HIGH_BIT)
        if pixels.is_float or pixels.bits_stored == pixels.bits_allocated:
            return
        is_shifted = high_bit is not None and high_bit != pixels.bits_stored - 1
        if is_shifted or (self.has_embedded_overlay and not self.is_patched):
            raise RedactionError(self.name, "bits outside Bits Stored would be lost")

    def own_target(self) -> Target | None:
        """Return what keeps this file's transfer syntax, or loses nothing; None: no compression."""
        if self.syntax in UNCOMPRESSED_SYNTAXES:
            return None
        return _OWN_TARGETS.get(self.syntax, Target.HTJ2K)

    def target(self, options: RedactionOptions) -> Target | None:
        """Return what to encode to; None: no compression."""
        return None if options.native else options.target or self.own_target()


def read_image(name: str, file: TargetFile) -> Image:
    """Inspect a file.

    Raises
    ------
    RedactionError
        If it holds another instance, has no pixel data or not all that the header announces, or the header does not
        say how they are made.
    """
    try:
        with file.path.open("rb") as stream:
            facts = inspect_dicom(stream, name, bulk_data_uri=lambda _, span: f"{span.start}:{span.stop}")
    except InstanceValidationError as error:
        raise RedactionError(name, error.reason) from error
    if facts.instance_uid != file.instance_uid:
        raise RedactionError(name, f"its file holds {facts.instance_uid} now")
    if not facts.has_pixeldata:
        raise RedactionError(name, "has no pixel data")
    header = json.loads(facts.header)
    pixels = ImagePixels.of(header)
    try:
        pixels.require_sound()
    except PixelError as error:
        raise RedactionError(name, str(error)) from error
    table = facts.frame_table
    if table is None or len(table) == 0 or len(table) < (number(header, _NUMBER_OF_FRAMES) or 1):
        syntax = facts.transfer_syntax_uid
        raise RedactionError(name, f"the frames ({syntax}) cannot be told apart, or some are missing")
    in_items = _are_in_items(name, header[pixels.pixel_tag], table)
    is_odd = pixels.bits_allocated == 1 and pixels.samples % _BYTE_BITS and len(table) > 1
    if in_items and is_odd and facts.transfer_syntax_uid in NATIVE_SYNTAXES:
        raise RedactionError(name, "the frames are bits in items")  # which may begin within a byte, or not
    state = FileState(facts.transfer_syntax_uid, facts.size, facts.crc32c)
    kept = {tag: value for tag, value in header.items() if tag.startswith(_KEPT_GROUPS) or tag in _KEPT_TAGS}
    return Image(name, file.path, state, kept, pixels, table, in_items)


def _are_in_items(name: str, element: dict[str, Any], table: FrameTable) -> bool:
    """Return whether the first frame begins behind the start of the pixel data's value."""
    value = element.get("BulkDataURI")
    if not isinstance(value, str):
        raise RedactionError(name, "the pixel data has the VR of a text")
    return table.span(0).start != int(value.partition(":")[0])


@dataclass(frozen=True)
class OpenImage:
    """The file itself.

    Parameters
    ----------
    elements
        The top-level elements in file order; of those that occur twice the last, which readers take.
    """

    image: Image
    source: DicomSource
    elements: tuple[RawElement, ...]

    def encoded(self, frame: int) -> bytes:
        """Return a frame as it lies in the file, its fragments joined."""
        return read_frame(self.source.reader, self.image.table, frame)

    def samples(self, frame: int) -> tuple[NDArray[Any], str]:
        """Return a frame decoded, colours as stored, and its photometric interpretation.

        Raises
        ------
        RedactionError
            If it does not decode.
        MissingDependencyError
            Without the codec.
        """
        image = self.image
        try:
            array, photometric = FrameDecoder(image.pixels, image.syntax).decode_samples(self.encoded(frame), frame)
        except FrameDecodeError as error:
            raise RedactionError(image.name, f"frame {frame} ({image.syntax}): {error.reason}") from error
        if photometric == "YBR_PARTIAL_422":
            raise RedactionError(image.name, "chrominance of half the columns and a partial range is not supported")
        return array, _FULL.get(photometric, photometric)


@contextmanager
def open_image(image: Image) -> Iterator[OpenImage]:
    """Open the file of an image.

    Raises
    ------
    RedactionError
        If the file is damaged.
    """
    with image.path.open("rb") as stream, open_source(stream, image.name) as source:
        walk = source.walk()
        last = {element.tag: element for element in walk}
        end = max((element.stop for element in last.values()), default=0)
        # The published library's edits leave a byte behind every file, which is no element and not written again.
        is_cut = bool(walk.problem) and walk.limit - end >= _ELEMENT_HEADER_BYTES
        if is_cut or source.problems or any(element.is_cut for element in last.values()):
            raise RedactionError(image.name, "the file is damaged")
        yield OpenImage(image, source, tuple(sorted(last.values(), key=lambda element: element.start)))
