"""Targets, pixel formats and outcomes of a recompression, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.model import DicomFacts


class Target(StrEnum):
    """What to recompress to; the values are those of `append(compress=...)`."""

    HTJ2K = "htj2k"
    JPEG2000 = "jpeg2000"
    JPEGLS = "jpegls"
    RLE = "rle"

    @property
    def transfer_syntax_uid(self) -> str:
        """The lossless-only transfer syntax (PS3.6 table A-1)."""
        return _SYNTAXES[self]

    @property
    def has_colour_transform(self) -> bool:
        """Whether RGB goes through the reversible component transform (PS3.5 sections 8.2.4 and 8.2.14)."""
        return self in {Target.HTJ2K, Target.JPEG2000}


_SYNTAXES = {
    Target.HTJ2K: "1.2.840.10008.1.2.4.201",
    Target.JPEG2000: "1.2.840.10008.1.2.4.90",
    Target.JPEGLS: "1.2.840.10008.1.2.4.80",
    Target.RLE: "1.2.840.10008.1.2.5",
}


class Reason(StrEnum):
    """What became of an instance."""

    RECOMPRESSED = "recompressed"
    NOT_SMALLER = "not smaller"
    LOSSY = "lossy"
    UNSUPPORTED = "unsupported"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The attributes of the Image Pixel module (PS3.3 section C.7.6.3) that a codec needs.

    Parameters
    ----------
    rows, columns, samples_per_pixel, bits_allocated, bits_stored, high_bit
        0 where the header does not say.
    is_signed
        Pixel Representation.
    planar_configuration
        None where the header does not say.
    photometric_interpretation
        As in the header.
    number_of_frames
        1 where the header does not say.
    transfer_syntax_uid
        The syntax that the file can be read with.
    is_little_endian
        Byte order of native pixels.
    is_swapped
        Whether pixels of a byte lie in big endian words (PS3.5 2016b section A.3).
    """

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    planar_configuration: int | None
    photometric_interpretation: str
    number_of_frames: int
    transfer_syntax_uid: str
    is_little_endian: bool = True
    is_swapped: bool = False

    @property
    def frame_bytes(self) -> int:
        """Size of one frame, decoded."""
        return self.rows * self.columns * self.samples_per_pixel * self.bits_allocated // 8

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame's array, colour by pixel."""
        samples = () if self.samples_per_pixel == 1 else (self.samples_per_pixel,)
        return (self.rows, self.columns, *samples)

    @property
    def dtype(self) -> str:
        """NumPy's name for the type of a sample: little endian, as large as Bits Allocated."""
        return f"<{'i' if self.is_signed else 'u'}{self.bits_allocated // 8}"


@dataclass(frozen=True, slots=True)
class TranscodePlan:
    """How an image will be recompressed.

    Parameters
    ----------
    photometric_interpretation
        Of the new file.
    planar_configuration
        Of the new file; None where there is one sample per pixel, and the element stays as it is.
    """

    target: Target
    format: PixelFormat
    photometric_interpretation: str
    planar_configuration: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """The instance stays as it was given.

    Parameters
    ----------
    reason
        Any but `Reason.RECOMPRESSED`.
    detail
        One line for a report, without header values.
    """

    reason: Reason
    detail: str

    saved_bytes: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Recompressed:
    """The instance in fewer bytes.

    Parameters
    ----------
    path
        The new file; whoever asked for it deletes it.
    facts
        What `inspect_dicom` found in the new file.
    source_size_bytes
        Of the file that was given.
    """

    path: Path
    facts: DicomFacts
    target: Target
    source_size_bytes: int

    reason: ClassVar[Reason] = Reason.RECOMPRESSED

    @property
    def saved_bytes(self) -> int:
        """How much smaller the new file is."""
        return self.source_size_bytes - self.facts.size


TranscodeOutcome = Recompressed | Kept
