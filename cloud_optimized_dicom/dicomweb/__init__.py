"""DICOMweb-style GETs: metadata, frames, bulk data and instances of a datastore (PS3.18 section 10.4)."""

from cloud_optimized_dicom.dicomweb.payload import DicomwebResponse, Part
from cloud_optimized_dicom.dicomweb.request import STUDY_LEVEL_TAGS, DicomwebRequest
from cloud_optimized_dicom.dicomweb.service import Dicomweb, handle_request

__all__ = ["STUDY_LEVEL_TAGS", "Dicomweb", "DicomwebRequest", "DicomwebResponse", "Part", "handle_request"]
