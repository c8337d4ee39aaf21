"""What every synthetic file shares: UIDs from a seed, a small dataset, its bytes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SECONDARY_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7")
IMPLEMENTATION = UID("2.25.84157620917736112240923018829735910521")


def make_uid(*parts: object) -> str:
    """Return a UID below 2.25 that depends on `parts` only, always 43 characters long."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{10**37 + int.from_bytes(digest[:14], 'big')}"


@dataclass(frozen=True)
class Uids:
    """The three UIDs of an instance."""

    study: str
    series: str
    instance: str

    @classmethod
    def of(cls, *parts: object) -> Uids:
        """Return UIDs that depend on `parts` only."""
        return cls(make_uid("study", *parts), make_uid("series", *parts), make_uid("instance", *parts))


def make_dataset(uids: Uids, sop_class: str = SECONDARY_CAPTURE) -> Dataset:
    """Return a dataset with the modules that every image has."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uids.instance
    dataset.StudyDate = "20240131"
    dataset.StudyTime = "101500"
    dataset.AccessionNumber = "SYNTHETIC"
    dataset.Modality = "OT"
    dataset.Manufacturer = "Synthetic"
    dataset.PatientName = "Synthetic^Case"
    dataset.PatientID = "SYNTHETIC-1"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = uids.study
    dataset.SeriesInstanceUID = uids.series
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    return dataset


def describe_pixels(
    dataset: Dataset, shape: tuple[int, int], *, frames: int | None = None, bits: int = 16, samples: int = 1
) -> None:
    """Write the Image Pixel module; `shape` is (rows, columns), `frames` is left out where None."""
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = "RGB" if samples > 1 else "MONOCHROME2"
    if samples > 1:
        dataset.PlanarConfiguration = 0
    if frames is not None:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated = bits
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0


def to_bytes(
    dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, *, preamble: bytes = b"\0" * 128
) -> bytes:
    """Return the DICOM file of a dataset whose pixel data is encoded for `transfer_syntax` already."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = IMPLEMENTATION
    file = pydicom.FileDataset(io.BytesIO(), dataset, preamble=preamble, file_meta=meta)
    target = io.BytesIO()
    pydicom.dcmwrite(
        target,
        file,
        implicit_vr=transfer_syntax == ImplicitVRLittleEndian,
        little_endian=transfer_syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return target.getvalue()
