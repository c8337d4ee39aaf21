"""Cloud-Optimized DICOM: DICOM series on object storage, every frame one range request away."""

from cloud_optimized_dicom.append import AppendResult
from cloud_optimized_dicom.bounding_box import BoundingBox, PixelRedaction
from cloud_optimized_dicom.cod_object import CODObject
from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.report import FileResult, IngestReport
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.series.findings import Finding, VerifyReport

__all__ = [
    "AppendResult",
    "BoundingBox",
    "CODObject",
    "Datastore",
    "FileResult",
    "Finding",
    "Hints",
    "IngestReport",
    "Instance",
    "PixelRedaction",
    "VerifyReport",
]
