"""The thumbnails of one open series: the stored one, or one that is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import InstanceNotFoundError, ThumbnailNotFoundError
from cloud_optimized_dicom.series.companion import StagedThumbnail, thumbnail_stem
from cloud_optimized_dicom.series.order import in_reading_order
from cloud_optimized_dicom.thumbnail.generate import Thumbnail, make_thumbnail
from cloud_optimized_dicom.thumbnail.stored import find_thumbnail, find_thumbnail_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.series.commit import Series
    from cloud_optimized_dicom.series.frames import FrameReader

DEFAULT_SIZE = 128


@dataclass
class Thumbnails:
    """The thumbnails of a series as one document describes it.

    Parameters
    ----------
    document
        With what is staged applied to it.
    frames
        Of the instances in the document.
    keep
        Takes a thumbnail that was made, to store it; None where nothing is stored.
    before
        The thumbnails that were asked for before: what they made is not made again while it shows the same instances.
    """

    series: Series
    document: SeriesDocument
    frames: FrameReader
    keep: Callable[[StagedThumbnail], None] | None = None
    before: Thumbnails | None = None

    def __post_init__(self) -> None:
        before, self.before = self.before, None
        self.made: Thumbnail | None = before.made if before is not None else None
        if self.made is not None and not self.made.document.shows(self.document.iter_records()):
            self.made = None

    def get(self, size: int, *, make: bool) -> Thumbnail:
        """Return the thumbnail of the series as it is.

        Parameters
        ----------
        size
            The side of its pictures; one that is not made may have another.

        Raises
        ------
        ThumbnailNotFoundError
            If there is none, and none is to be made.
        SeriesMissingPixelDataError, FrameDecodeError, MissingDependencyError
            As :func:`make_thumbnail`.
        """
        if self.made is not None and (self.made.size == size or not make):
            return self.made
        found = find_thumbnail(self.series.store, self.series.key, self.document)
        if found is not None and (found.size == size or not make):
            self.made = found
            return found
        if not make:
            uri = self.series.store.url_of(self.series.key.folder)
            raise ThumbnailNotFoundError(uri, "no thumbnail of the series as it is")
        return self._make(size)

    def instance_uid(self, index: int) -> str:
        """Return the UID that the instance of a picture is stored under.

        Raises
        ------
        InstanceNotFoundError
            If there is no such picture.
        """
        described = self.made.document if self.made is not None else find_thumbnail_document(self.document)
        frames = (described or self.get(DEFAULT_SIZE, make=True).document).frames
        if not -len(frames) <= index < len(frames):
            raise InstanceNotFoundError(f"at thumbnail index {index}", self.series.store.url_of(self.series.key.folder))
        return frames[index].instance_uid

    def _make(self, size: int) -> Thumbnail:
        store, key = self.series.store, self.series.key
        records = in_reading_order(self.document.iter_records(), strict=False)
        uri = store.url_of(thumbnail_stem(key))
        thumbnail, file = make_thumbnail(self.frames, records, uri, size, tar_uri=self.series.tar_uri)
        if self.keep is not None:
            self.keep(StagedThumbnail(file.data, file.extension, file.content_type, thumbnail.document.dump()))
        self.made = thumbnail
        return thumbnail
