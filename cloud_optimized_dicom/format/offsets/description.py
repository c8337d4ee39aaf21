"""What has to be known of an image before its frames can be found, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

SUBSAMPLED_INTERPRETATIONS = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
"""Photometric interpretations in which two native pixels share their chrominance (PS3.3 section C.7.6.3.1.2)."""

VIDEO_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109)) | frozenset(
    f"1.2.840.10008.1.2.4.{number}.1" for number in range(100, 107)
)
"""MPEG-2, MPEG-4 and HEVC: all frames share one stream (PS3.5 sections 8.2.5 to 8.2.8 and 8.2.15)."""

ONE_FRAGMENT_SYNTAXES = frozenset({"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.98"})
"""RLE and encapsulated uncompressed: every frame is exactly one fragment (PS3.5 sections A.4.2 and A.4.11)."""

NATIVE_SYNTAXES = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
)


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """The attributes of the Image Pixel module (PS3.3 section C.7.6.3) that decide where frames lie.

    Parameters
    ----------
    rows, columns, samples_per_pixel, bits_allocated
        0 where the header does not say.
    number_of_frames
        None where the header does not say, or says less than one.
    photometric_interpretation
        As in the header.
    transfer_syntax_uid
        The syntax that the file could be read with.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    number_of_frames: int | None
    photometric_interpretation: str
    transfer_syntax_uid: str

    @property
    def frames(self) -> int:
        """Number of Frames, 1 by default (PS3.3 section C.7.6.6)."""
        return self.number_of_frames or 1

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame without chrominance subsampling; 0 where something is not known."""
        return self.rows * self.columns * self.samples_per_pixel * self.bits_allocated

    @property
    def is_subsampled(self) -> bool:
        """Whether two pixels share their chrominance, so that native pixels take 2 samples, not 3 (C.7.6.3.1.2)."""
        return self.photometric_interpretation in SUBSAMPLED_INTERPRETATIONS and self.samples_per_pixel == 3  # noqa: PLR2004
