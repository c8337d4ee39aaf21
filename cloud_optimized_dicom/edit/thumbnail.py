"""What an edit does to the thumbnail of its series: no picture outlives the pixels that it shows."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.errors import FormatError, MissingDependencyError, SeriesMissingPixelDataError
from cloud_optimized_dicom.format.dicom_json import unpack_header
from cloud_optimized_dicom.ingest.plan import equal_frames
from cloud_optimized_dicom.series.companion import THUMBNAIL
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.packing import NewMember
from cloud_optimized_dicom.series.staged_reads import StagedReader
from cloud_optimized_dicom.storage.payload import FilePayload
from cloud_optimized_dicom.thumbnail.document import ThumbnailDocument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_optimized_dicom.ingest.workshop import Prepared
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.series.transaction import Transaction

_GROUPS = ("0028", "2050", "5200")
_TAGS = frozenset({"00020010", "00200013", "00201041"})
"""What pictures are drawn and ordered by, besides the frames: image pixels and LUTs, presentation, functional groups;
Transfer Syntax UID, Instance Number, Slice Location."""


@dataclass(frozen=True)
class Edited:
    """A stored instance, and the file that comes in its place."""

    record: InstanceRecord
    prepared: Prepared

    @property
    def payload(self) -> FilePayload:
        """The bytes of the file."""
        path, facts = self.prepared.source.local_path, self.prepared.facts
        if path is None:
            raise ValueError("what is edited is a local file")
        return FilePayload(path, facts.size, facts.crc32c)

    @property
    def has_picture(self) -> bool:
        """Whether there is, or was, something to draw."""
        return self.record.has_pixeldata or self.prepared.facts.has_pixeldata

    @property
    def looks_the_same(self) -> bool:
        """Whether its pictures are certain to be those that they were."""
        if not equal_frames(self.record.frame_table, self.prepared.facts.frame_table):
            return False
        before, after = (unpack_header(it.packed_header) for it in (self.record, self.prepared))
        return _drawn_by(before) == _drawn_by(after)


def _drawn_by(header: Mapping[str, Any]) -> dict[str, Any]:
    return {tag: value for tag, value in header.items() if tag.startswith(_GROUPS) or tag in _TAGS}


def settle_thumbnail(transaction: Transaction, reader: SeriesReader, edited: Sequence[Edited]) -> None:
    """Stage what becomes of the thumbnail: it stays where every picture does, else it is drawn anew, or dropped.

    Notes
    -----
    It is dropped where it cannot be drawn: without the extra ``thumbnail`` or a codec, or where nothing decodes.  So is
    an object that no document names: a dead writer left it, and it may show the old pixels.
    """
    field = transaction.document.find_field(THUMBNAIL)
    visible = [one for one in edited if one.has_picture]
    if not visible:
        return
    if field is not None and all(one.looks_the_same for one in visible):
        _keep(transaction, field, visible)
        return
    transaction.drop_thumbnail()
    if field is None:
        return
    with suppress(MissingDependencyError, SeriesMissingPixelDataError, FormatError):
        _draw(transaction, reader, _size(field))


def _keep(transaction: Transaction, field: Any, edited: Sequence[Edited]) -> None:
    """Stage that the thumbnail shows the edited instances, where it says by checksum what it shows."""
    field = copy.deepcopy(field)
    crcs = {one.record.name_uid: encode(one.prepared.facts.crc32c) for one in edited}
    try:
        ThumbnailDocument.parse(field)
    except ValueError:
        return
    for uid, crc in crcs.items():
        if "crc32c" in field["instances"].get(uid, {}):
            field["instances"][uid]["crc32c"] = crc
        if uid in field.get("left_out", {}):
            field["left_out"][uid] = crc
    transaction.keep_thumbnail(field)


def _size(field: Any) -> int:
    """Return the side of the pictures that a field describes."""
    from cloud_optimized_dicom.thumbnail.access import DEFAULT_SIZE  # noqa: PLC0415 - loads codecs

    with suppress(ValueError, IndexError):
        described = ThumbnailDocument.parse(field)
        anchors = described.frames[0].anchors
        if described.size is not None:  # older writers' anchors leave out the last row, or do not
            return max(anchors.bottom, anchors.right)
    return DEFAULT_SIZE


def _draw(transaction: Transaction, reader: SeriesReader, size: int) -> None:
    from cloud_optimized_dicom.thumbnail.access import Thumbnails  # noqa: PLC0415 - loads codecs

    document, at_hand = transaction.document, transaction.at_hand
    staged = {record.name_uid: NewMember(record, at_hand[record.name_uid]) for record in document.iter_records()}
    frames = FrameReader(StagedReader(reader, staged, reader.tar_uri))
    Thumbnails(transaction.series, document, frames, transaction.set_thumbnail).get(size, make=True)
