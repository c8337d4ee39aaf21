"""Whole-slide images with every module that viewers of slides insist on, and pyramids of them."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit

from cloud_optimized_dicom.testing.datasets.base import Uids, make_uid, to_bytes
from cloud_optimized_dicom.testing.datasets.slides import slide_instance

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.datasets.slides import OffsetTable

_PIXEL_MM = 0.0005
_DESCRIPTION: dict[str, Any] = {
    "PositionReferenceIndicator": "SLIDE_CORNER",
    "DimensionOrganizationType": "TILED_FULL",
    "VolumetricProperties": "VOLUME",
    "FocusMethod": "AUTO",
    "ExtendedDepthOfField": "NO",
    "SpecimenLabelInImage": "NO",
    "BurnedInAnnotation": "NO",
    "ImageOrientationSlide": [0, -1, 0, -1, 0, 0],
    "ImagedVolumeDepth": 0.0,
    "TotalPixelMatrixFocalPlanes": 1,
    "NumberOfOpticalPaths": 1,
    "ContainerIdentifier": "SYNTHETIC-1",
    "AcquisitionDateTime": "20240131101500",
    "ContentDate": "20240131",
    "ContentTime": "101500",
    "ManufacturerModelName": "Phantom Slide Scanner",
    "DeviceSerialNumber": "000042",
    "SoftwareVersions": "5.1",
    "ReferringPhysicianName": "",
}


def whole_slide(tiles: int, offset_table: OffsetTable = "basic", *, tile_size: int = 256, level: int = 0) -> bytes:
    """Return one level of a slide: the pixels of `slide_instance`, in a conformant TILED_FULL image (PS3.3 A.32.8).

    Parameters
    ----------
    tiles
        Frames; they fill the matrix, which is as square as their number allows and never wider than high.
    level
        Of the pyramid: each has half the resolution of the one below; all are of one series and one slide.
    """
    made = Uids.of("whole slide", 0)
    uids = Uids(made.study, made.series, make_uid("whole slide", tiles, offset_table, tile_size, level))
    data = slide_instance(tiles, offset_table, tile_size=tile_size, seed=level, uids=uids)
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in _DESCRIPTION.items():
        setattr(dataset, keyword, value)
    across = next(number for number in range(math.isqrt(tiles), 0, -1) if tiles % number == 0)
    dataset.TotalPixelMatrixColumns = across * tile_size
    dataset.TotalPixelMatrixRows = tiles // across * tile_size
    dataset.InstanceNumber = level + 1
    if level:
        dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    dataset.FrameOfReferenceUID = make_uid("whole slide", "frame of reference")
    pixel_mm = _PIXEL_MM * 2**level
    dataset.ImagedVolumeWidth = dataset.TotalPixelMatrixColumns * pixel_mm
    dataset.ImagedVolumeHeight = dataset.TotalPixelMatrixRows * pixel_mm
    _add_sequences(dataset, pixel_mm)
    return to_bytes(dataset, JPEGBaseline8Bit)


def slide_pyramid(
    across: int, levels: int, offset_table: OffsetTable = "empty", *, tile_size: int = 256
) -> list[bytes]:
    """Return the levels of a square slide, the largest first; each has half as many tiles across as the one before."""
    return [
        whole_slide(max(1, across >> level) ** 2, offset_table, tile_size=tile_size, level=level)
        for level in range(levels)
    ]


def _add_sequences(dataset: Dataset, pixel_mm: float) -> None:
    dataset.AcquisitionContextSequence = []
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=make_uid("whole slide", "dimensions"))]
    origin = _item(XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=40.0)
    dataset.TotalPixelMatrixOriginSequence = [origin]
    dataset.OpticalPathSequence = [
        _item(
            OpticalPathIdentifier="1",
            IlluminationTypeCodeSequence=[_code("111744", "DCM", "Brightfield illumination")],
            IlluminationColorCodeSequence=[_code("414298005", "SCT", "Full Spectrum")],
        )
    ]
    shared = _item(
        PixelMeasuresSequence=[_item(PixelSpacing=[pixel_mm, pixel_mm], SliceThickness=0.001)],
        WholeSlideMicroscopyImageFrameTypeSequence=[_item(FrameType=dataset.ImageType)],
    )
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.SpecimenDescriptionSequence = [
        _item(
            SpecimenIdentifier="SYNTHETIC-1",
            SpecimenUID=make_uid("whole slide", "specimen"),
            SpecimenPreparationSequence=[],
        )
    ]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
