"""Thumbnails: a series as one small picture, or as a video of one small picture a frame."""

from cloud_optimized_dicom.errors import SeriesMissingPixelDataError, ThumbnailNotFoundError
from cloud_optimized_dicom.thumbnail.document import ThumbnailDocument
from cloud_optimized_dicom.thumbnail.geometry import Anchors, Position, ThumbnailCoordConverter

__all__ = [
    "Anchors",
    "Position",
    "SeriesMissingPixelDataError",
    "ThumbnailCoordConverter",
    "ThumbnailDocument",
    "ThumbnailNotFoundError",
]
