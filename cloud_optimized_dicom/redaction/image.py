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
from cloud_optimized_dicom.format.dicom_json import number
from cloud_optimized_dicom.format.offsets.description import NATIVE_SYNTAXES
from cloud_optimized_dicom.redaction.model import FileState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_optimized_dicom.dicom.elements import RawElement
    from cloud_optimized_dicom.dicom.source import DicomSource
    from cloud_optimized_dicom.model import FrameTable
    from cloud_optimized_dicom.redaction.model import RedactionOptions, TargetFile

_NUMBER_OF_FRAMES = "00280008"
_SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
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
        DICOM JSON; large values are ``start:stop`` in the file (of a deflated one: inflated).
    """

    name: str
    path: Path
    state: FileState
    header: dict[str, Any]
    pixels: ImagePixels
    table: FrameTable

    @property
    def syntax(self) -> str:
        """The transfer syntax that the file can be read with."""
        return self.state.transfer_syntax_uid

    @property
    def is_native(self) -> bool:
        """Whether the pixels lie in the file as a plain array."""
        return self.syntax in NATIVE_SYNTAXES and self.table.rangeable

    @property
    def is_subsampled(self) -> bool:
        """Whether two native pixels share their chrominance (PS3.3 section C.7.6.3.1.2)."""
        subsampled = self.pixels.photometric_interpretation in _SUBSAMPLED and self.pixels.samples_per_pixel > 1
        return subsampled and self.table.lengths[0] < self.pixels.frame_bytes

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
    state = FileState(facts.transfer_syntax_uid, facts.size, facts.crc32c)
    return Image(name, file.path, state, header, pixels, table)


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
        if walk.problem or source.problems or any(element.is_cut for element in last.values()):
            raise RedactionError(image.name, "the file is damaged")
        yield OpenImage(image, source, tuple(sorted(last.values(), key=lambda element: element.start)))
