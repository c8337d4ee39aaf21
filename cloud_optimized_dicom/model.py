"""Frozen values that the rooms of the package hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import FrameNotFoundError
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Where each frame of one instance lies, counted in bytes from the first byte of the DICOM file.

    Parameters
    ----------
    offsets
        Per frame, its first data byte.  Encapsulated: the byte after the 8-byte header of the frame's first item
        (PS3.5 section A.4).
    lengths
        Per frame, the bytes from there to the end of its last fragment; a frame of several fragments holds the item
        headers in between.
    fragment_counts
        Per frame, its fragments; None where every frame has one (or the data is native).
    crc32cs
        CRC32C of exactly the bytes ``offsets[i] : offsets[i] + lengths[i]``, or None where an older writer left none.
    pixel_data_offset
        First byte of the (Float, Double Float) Pixel Data element's tag.
    rangeable
        False for deflated transfer syntaxes: all positions then count in the file with its dataset inflated, so frames
        need the whole instance.
    trusted
        False for tables of older writers, which must be rebuilt before a byte is served by them.
    """

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    fragment_counts: tuple[int, ...] | None = None
    crc32cs: tuple[int, ...] | None = None
    pixel_data_offset: int | None = None
    rangeable: bool = True
    trusted: bool = True

    def __len__(self) -> int:
        return len(self.offsets)

    def span(self, frame: int, instance_uid: str = "") -> ByteRange:
        """Return the bytes of a 0-based frame within the instance.

        Raises
        ------
        FrameNotFoundError
            If there is no such frame.
        """
        if not 0 <= frame < len(self.offsets):
            raise FrameNotFoundError(instance_uid, frame, len(self.offsets))
        return ByteRange.of(self.offsets[frame], self.lengths[frame])


@dataclass(frozen=True, slots=True)
class DicomFacts:
    """What was measured on one DICOM file.

    Parameters
    ----------
    instance_uid, series_uid, study_uid
        Of the dataset; the file meta information's SOP Instance UID does not count where they differ.
    transfer_syntax_uid
        The syntax that the file could be read with.
    has_pixeldata
        Whether there is a Pixel Data, Float Pixel Data or Double Float Pixel Data element.
    header
        The DICOM JSON (PS3.18 Annex F) of dataset and file meta, UTF-8, without NaN or Infinity.
    frame_table
        None without pixel data, and where the pixel data cannot be described (`problems` says why).
    size, crc32c
        Of the whole file, in bytes.
    problems
        What could not be kept of the header, as ``"GGGGEEEE: reason"`` without values.
    """

    instance_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    has_pixeldata: bool
    header: bytes
    frame_table: FrameTable | None
    size: int
    crc32c: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TarState:
    """The tar that a document describes: its version in the store, its size in bytes, its CRC32C."""

    generation: str
    size: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """What metadata.json knows of one stored instance.

    Parameters
    ----------
    name_uid
        The UID that the instance is stored under: its own, or the caller's hash of it.
    instance_uid, series_uid, study_uid
        As in the DICOM file.
    start
        First byte of the DICOM file within the tar.
    size, crc32c
        Of the stored file.
    source_size, source_crc32c
        Of the file that was given, where the stored bytes differ from it (transcoded); else None.
    packed_header
        The header as stored: zstd and base64 (v2) or the JSON document itself (v1).
    """

    name_uid: str
    instance_uid: str
    series_uid: str
    study_uid: str
    has_pixeldata: bool
    start: int
    size: int
    crc32c: int
    uri: str
    packed_header: str | dict[str, object]
    frame_table: FrameTable | None
    version: str
    original_path: str = ""
    dependencies: tuple[str, ...] = ()
    diff_hash_dupe_paths: tuple[str, ...] = ()
    modified: datetime | None = None
    source_size: int | None = None
    source_crc32c: int | None = None

    @property
    def span(self) -> ByteRange:
        """The DICOM file's bytes within the tar."""
        return ByteRange.of(self.start, self.size)

    @property
    def identity(self) -> tuple[int, int]:
        """What deduplication compares with an incoming file: CRC32C and size of the source."""
        return (
            self.crc32c if self.source_crc32c is None else self.source_crc32c,
            self.size if self.source_size is None else self.source_size,
        )

    def frame_span(self, frame: int) -> ByteRange:
        """Return a frame's bytes within the tar."""
        if self.frame_table is None:
            raise FrameNotFoundError(self.name_uid, frame, 0)
        return self.frame_table.span(frame, self.name_uid).shifted(self.start)
