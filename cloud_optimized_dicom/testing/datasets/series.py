"""A CT-like series: many single-frame instances with full headers and pixels that are not constant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset

from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, make_uid, to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"

_TEXT = {
    "SpecificCharacterSet": "ISO_IR 192",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "InstanceCreationDate": "20240131",
    "InstanceCreationTime": "101530.120000",
    "SeriesDate": "20240131",
    "AcquisitionDate": "20240131",
    "ContentDate": "20240131",
    "SeriesTime": "101501",
    "AcquisitionTime": "101525.500000",
    "ContentTime": "101526.250000",
    "Modality": "CT",
    "ConversionType": "",
    "InstitutionName": "Synthetic Hospital München",
    "ReferringPhysicianName": "",
    "StationName": "CT01",
    "StudyDescription": "CT thorax, synthetic",
    "SeriesDescription": "Thorax 1.0 soft",
    "InstitutionalDepartmentName": "Radiology",
    "OperatorsName": "Operator^Synthetic",
    "ManufacturerModelName": "Phantom 64",
    "PatientAge": "054Y",
    "EthnicGroup": "",
    "AdditionalPatientHistory": "None: there is no patient.",
    "ContrastBolusAgent": "IOHEXOL",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "HELIX",
    "DeviceSerialNumber": "000042",
    "SoftwareVersions": ["5.1", "build 20231106"],
    "ProtocolName": "THORAX ROUTINE",
    "FilterType": "BODY",
    "ConvolutionKernel": ["B40f", "2"],
    "PatientPosition": "HFS",
    "GantryMotionCorrected": "",
    "AcquisitionNumber": 2,
    "PositionReferenceIndicator": "SN",
    "ImageComments": "",
    "RescaleType": "HU",
    "WindowCenterWidthExplanation": ["SOFT", "LUNG"],
    "RequestedProcedureDescription": "CT thorax with contrast",
    "PerformedProcedureStepDescription": "CT thorax",
    "PerformedProcedureStepID": "PPS-1",
    "PerformedProcedureStepStartDate": "20240131",
    "PerformedProcedureStepStartTime": "101400",
}
_NUMBERS = {
    "PatientSize": "1.78",
    "PatientWeight": "81.5",
    "SliceThickness": "1.0",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "ReconstructionDiameter": "360",
    "DistanceSourceToDetector": "1085.6",
    "DistanceSourceToPatient": "595",
    "GantryDetectorTilt": "0",
    "TableHeight": "152.5",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "242",
    "Exposure": "112",
    "GeneratorPower": "29",
    "FocalSpots": ["0.7", "1.2"],
    "ContrastBolusVolume": "80",
    "ContrastFlowRate": ["3.5"],
    "RevolutionTime": 0.5,
    "SingleCollimationWidth": 0.6,
    "TotalCollimationWidth": 38.4,
    "TableSpeed": 76.8,
    "TableFeedPerRotation": 38.4,
    "SpiralPitchFactor": 1.0,
    "CTDIvol": 7.56,
    "EstimatedDoseSaving": 18.0,
    "ExposureModulationType": "XYZ_EC",
    "DataCollectionCenterPatient": [0.0, -152.5, 804.0],
    "ReconstructionTargetCenterPatient": [0.0, -152.5, 804.0],
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PixelSpacing": ["0.703125", "0.703125"],
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1200"],
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "SmallestImagePixelValue": 0,
    "LargestImagePixelValue": 4095,
    "PixelPaddingValue": 0,
}
_PRIVATE_ELEMENTS = 48

# What differs between instances: valid values that occur nowhere else, and are as wide as any that replaces them.
_NUMBER_HOLE = b"987654321"
_LOCATION_HOLE = b"987654.32"


@dataclass(frozen=True)
class CtSeries:
    """A series whose instances are made one at a time.

    Parameters
    ----------
    instances
        How many.
    rows, columns
        Of the 16-bit pixels.
    seed
        Decides pixels and UIDs.
    study_uid, series_uid
        Made from `seed` by default.

    Notes
    -----
    pydicom writes the header once; what differs between the instances has a fixed width there and is filled in, so that
    tens of thousands of instances take seconds.
    """

    instances: int
    rows: int = 512
    columns: int = 512
    seed: int = 0
    study_uid: str = ""
    series_uid: str = ""

    @cached_property
    def uids(self) -> Uids:
        """The UIDs of the first instance."""
        made = Uids.of("ct", self.seed)
        return Uids(self.study_uid or made.study, self.series_uid or made.series, made.instance)

    def instance_uid(self, index: int) -> str:
        """Return the SOP Instance UID of an instance; all have one length."""
        return f"2.25.{int(self.uids.instance.removeprefix('2.25.')) + index}"

    def instance(self, index: int) -> bytes:
        """Return the file of the 0-based instance `index`.

        Raises
        ------
        IndexError
            If there is no such instance.
        """
        if not 0 <= index < self.instances:
            raise IndexError(index)
        location = f"{804 - index:.2f}"
        head = self._template.replace(_NUMBER_HOLE, str(index + 1).rjust(len(_NUMBER_HOLE)).encode("ascii"))
        head = head.replace(_LOCATION_HOLE, location.rjust(len(_LOCATION_HOLE)).encode("ascii"))
        head = head.replace(self.uids.instance.encode("ascii"), self.instance_uid(index).encode("ascii"))
        return head + self.pixels(index).tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self.instance(index) for index in range(self.instances))

    def pixels(self, index: int) -> NDArray[np.uint16]:
        """Return the pixels of an instance: a body with organs, noise, and air around it; shape (rows, columns)."""
        generator = np.random.default_rng((self.seed, index))
        y = np.linspace(-1, 1, self.rows, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, self.columns, dtype=np.float32)[None, :]
        radius = np.hypot(x, y * 1.3)
        body = np.where(radius < 0.85, 1064 + 120 * np.sin(7 * x + index / 9) * np.cos(5 * y), 24)
        noise = generator.integers(-12, 13, (self.rows, self.columns), dtype=np.int16)
        return np.clip(body + noise, 0, 4095).astype("<u2")

    @cached_property
    def _template(self) -> bytes:
        dataset = make_dataset(self.uids, CT_IMAGE)
        for keyword, value in (_TEXT | _NUMBERS).items():
            setattr(dataset, keyword, value)
        dataset.InstanceNumber = _NUMBER_HOLE.decode()
        dataset.SliceLocation = _LOCATION_HOLE.decode()
        dataset.ImagePositionPatient = ["-180", "-180", _LOCATION_HOLE.decode()]
        dataset.FrameOfReferenceUID = make_uid("frame of reference", self.seed)
        _add_sequences(dataset, self.seed)
        _add_private(dataset)
        describe_pixels(dataset, (self.rows, self.columns))
        dataset.BitsStored, dataset.HighBit = 12, 11
        size = self.rows * self.columns * 2
        dataset.add_new("PixelData", "OW", bytes(size))
        return to_bytes(dataset)[:-size]


def _add_sequences(dataset: Dataset, seed: int) -> None:
    dataset.ReferencedStudySequence = [_reference("1.2.840.10008.3.1.2.3.1", make_uid("referenced study", seed))]
    dataset.SourceImageSequence = [_reference(CT_IMAGE, make_uid("source", seed, number)) for number in range(2)]
    code = Dataset()
    code.CodeValue = "24627-2"
    code.CodingSchemeDesignator = "LN"
    code.CodeMeaning = "Chest CT"
    dataset.ProcedureCodeSequence = [code]


def _reference(sop_class: str, instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = instance_uid
    return item


def _add_private(dataset: Dataset) -> None:
    block = dataset.private_block(0x0019, "SYNTHETIC ACQUISITION 1.0", create=True)
    for number in range(_PRIVATE_ELEMENTS):
        vr, value = (("DS", f"{number * 1.25:.3f}"), ("LO", f"PARAMETER {number}"), ("SL", number * 1009))[number % 3]
        block.add_new(number, vr, value)
    dataset.private_block(0x0029, "SYNTHETIC HEADER", create=True).add_new(0x10, "OB", bytes(range(256)) * 24)
