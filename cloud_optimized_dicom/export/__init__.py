"""Series as trees of DICOM files: in parallel, in bounded memory, and resumed where an earlier run was cut off."""

from cloud_optimized_dicom.export.report import ExportFailure, ExportReport
from cloud_optimized_dicom.export.run import export_dicom
from cloud_optimized_dicom.export.selection import Condition, Selection, parse_uids

__all__ = ["Condition", "ExportFailure", "ExportReport", "Selection", "export_dicom", "parse_uids"]
