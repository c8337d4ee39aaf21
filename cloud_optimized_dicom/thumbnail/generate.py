"""Making a thumbnail: frames read, decoded and drawn as they arrive, many at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.uid import ExplicitVRBigEndian

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.dicom.decode import FrameDecoder
from cloud_optimized_dicom.errors import FormatError, FrameDecodeError, SeriesMissingPixelDataError
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.series.bulk_data import BulkDataPlace, read_bulk_data
from cloud_optimized_dicom.thumbnail.document import ThumbnailDocument, ThumbnailFrame
from cloud_optimized_dicom.thumbnail.encode import decode, encode, require_av, require_pillow
from cloud_optimized_dicom.thumbnail.geometry import Anchors
from cloud_optimized_dicom.thumbnail.lookup import BinaryValues
from cloud_optimized_dicom.thumbnail.render import Renderer, shrink
from cloud_optimized_dicom.uids import member_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.frames import FrameReader
    from cloud_optimized_dicom.thumbnail.encode import Encoded

_BATCH_BYTES = 256 << 20
_BYTES_A_SAMPLE = 8
"""As grey values are windowed in double precision."""


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail as it is stored, or would be.

    Parameters
    ----------
    document
        What the series' document says of it.
    pictures
        As they come out of the file again, of shape (pictures, size, size, 3).
    """

    document: ThumbnailDocument
    pictures: NDArray[np.uint8]

    @property
    def size(self) -> int:
        """The side of each picture, in pixels."""
        return int(self.pictures.shape[1])

    def of(self, instance_uid: str | None) -> NDArray[np.uint8]:
        """Return the pictures of one instance, or all; a single one is of shape (size, size, 3).

        Raises
        ------
        InstanceNotFoundError
            If the thumbnail does not show the instance.
        """
        shown = self.pictures if instance_uid is None else self.pictures[self.document.indexes_of(instance_uid)]
        return shown[0] if len(shown) == 1 else shown


class Made(NamedTuple):
    """A thumbnail that was just made, and its file."""

    thumbnail: Thumbnail
    file: Encoded


class _Place(NamedTuple):
    """One frame to draw: the number of its instance, and which frame of it."""

    number: int
    frame: int


@dataclass(frozen=True)
class _Subject:
    """An instance to draw."""

    decoder: FrameDecoder
    renderer: Renderer
    anchors: Anchors
    frames: int


@dataclass
class _Canvas:
    """What was drawn so far, and what could not be."""

    size: int
    pictures: dict[_Place, NDArray[np.uint8]] = field(default_factory=dict)
    refused: dict[int, FormatError] = field(default_factory=dict)


def make_thumbnail(
    frames: FrameReader, records: Sequence[InstanceRecord], uri: str, size: int, *, tar_uri: str
) -> Made:
    """Draw every frame of a series.

    Parameters
    ----------
    records
        The instances, in the order in which they are shown; those without pixel data are passed over.
    uri
        Where the file will be, without its extension.
    size
        The side of each picture, in pixels.

    Returns
    -------
    Made
        Instances that hold a frame which does not decode are left out, and named as such.

    Raises
    ------
    SeriesMissingPixelDataError
        If no instance has pixel data.
    FrameDecodeError, FrameTableError
        If nothing could be drawn at all: what was wrong with the first instance.
    HashMismatchError
        If stored bytes are damaged.
    MissingDependencyError
        If a codec, or the extra ``thumbnail``, is not installed.
    """
    if size < 1:
        raise ValueError("a thumbnail has at least one pixel")
    require_pillow()
    held = [record for record in records if record.has_pixeldata]
    if not held:
        raise SeriesMissingPixelDataError(tar_uri, "no instance has pixel data")
    canvas = _Canvas(size)
    subjects = [_subject(frames, record, number, tar_uri, canvas) for number, record in enumerate(held)]
    places = [_Place(number, at) for number, s in enumerate(subjects) if s is not None for at in range(s.frames)]
    if len(places) > 1:
        require_av()
    _draw(frames, held, subjects, places, canvas)
    shown = [place for place in places if place.number not in canvas.refused]
    if not shown:
        raise canvas.refused[min(canvas.refused)]
    file = encode([canvas.pictures[place] for place in shown])
    return Made(_described(held, subjects, shown, f"{uri}.{file.extension}", file), file)


def draw_frames(
    frames: FrameReader, wanted: Sequence[tuple[InstanceRecord, int]], size: int, *, tar_uri: str
) -> list[NDArray[np.uint8] | None]:
    """Draw some frames of a series.

    Parameters
    ----------
    wanted
        Instances with pixel data, and 0-based frames of them.
    size
        The side of each picture, in pixels.

    Returns
    -------
    list of (size, size) or (size, size, 3)
        None in place of a frame that is not there, and of all frames of an instance one of which does not decode.

    Raises
    ------
    HashMismatchError, MissingDependencyError
        As :func:`make_thumbnail`.
    """
    require_pillow()
    held = list({record.name_uid: record for record, _ in wanted}.values())
    numbers = {record.name_uid: number for number, record in enumerate(held)}
    canvas = _Canvas(size)
    subjects = [_subject(frames, record, number, tar_uri, canvas) for number, record in enumerate(held)]
    places = [_Place(numbers[record.name_uid], frame) for record, frame in wanted]
    present = [place for place in places if (s := subjects[place.number]) is not None and place.frame < s.frames]
    _draw(frames, held, subjects, present, canvas)
    return [None if place.number in canvas.refused else canvas.pictures.get(place) for place in places]


def _described(
    held: Sequence[InstanceRecord],
    subjects: Sequence[_Subject | None],
    shown: Sequence[_Place],
    uri: str,
    file: Encoded,
) -> Thumbnail:
    drawn = {place.number for place in shown}
    crc32cs = {record.name_uid: record.crc32c for number, record in enumerate(held) if number in drawn}
    left_out = {record.name_uid: record.crc32c for number, record in enumerate(held) if number not in drawn}
    frames = tuple(
        ThumbnailFrame(held[place.number].name_uid, place.frame, subject.anchors)
        for place in shown
        if (subject := subjects[place.number]) is not None
    )
    document = ThumbnailDocument(uri, frames, crc32cs, left_out, len(file.data), crc32c(file.data))
    return Thumbnail(document, decode(file.data, file.extension))


def _subject(
    frames: FrameReader, record: InstanceRecord, number: int, tar_uri: str, canvas: _Canvas
) -> _Subject | None:
    """Return what is needed to draw an instance, or None where it cannot be drawn, which is noted."""

    def read_bulk(uri: str) -> bytes:
        return read_bulk_data(frames.reader, record, BulkDataPlace.parse(uri))

    header = header_of(tar_uri, record)
    syntax = frames.transfer_syntax(record, header)
    name = member_uri(tar_uri, record.name_uid)
    decoder = FrameDecoder.of(header, syntax, name)
    try:
        table = frames.table(record)
        if table is None or len(table) == 0 or min(decoder.pixels.rows, decoder.pixels.columns) < 1:
            raise FrameDecodeError(name, 0, syntax, "the header describes no image")
    except FormatError as error:
        canvas.refused[number] = error
        return None
    renderer = Renderer.of(header, BinaryValues(read_bulk, syntax == ExplicitVRBigEndian))
    anchors = Anchors.fit(decoder.pixels.rows, decoder.pixels.columns, canvas.size)
    return _Subject(decoder, renderer, anchors, len(table))


def _draw(
    frames: FrameReader,
    held: Sequence[InstanceRecord],
    subjects: Sequence[_Subject | None],
    places: Sequence[_Place],
    canvas: _Canvas,
) -> None:
    for batch in _batches(places, subjects):

        def take(position: int, encoded: bytes, batch: Sequence[_Place] = batch) -> None:
            place = batch[position]
            subject = subjects[place.number]
            if subject is None or place.number in canvas.refused:
                return
            try:
                frame = subject.decoder.decode(encoded, place.frame)
            except FrameDecodeError as error:
                canvas.refused.setdefault(place.number, error)
                return
            picture = subject.renderer.render(frame, place.frame)
            canvas.pictures[place] = shrink(picture, subject.anchors, canvas.size)

        frames.read_each([(held[place.number], place.frame) for place in batch], take)


def _batches(places: Sequence[_Place], subjects: Sequence[_Subject | None]) -> Iterator[Sequence[_Place]]:
    """Yield the places in groups whose frames, decoded, may all be in memory at once."""
    batch: list[_Place] = []
    held_bytes = 0
    for place in places:
        subject: Any = subjects[place.number]
        needed = subject.decoder.pixels.samples * _BYTES_A_SAMPLE
        if batch and held_bytes + needed > _BATCH_BYTES:
            yield batch
            batch, held_bytes = [], 0
        batch.append(place)
        held_bytes += needed
    if batch:
        yield batch
