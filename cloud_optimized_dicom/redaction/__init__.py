"""Redaction: boxes of pixels overwritten in whole DICOM files, for good.

- `model`: what is asked for, and the record of what was done
- `image`: what has to be known of one file
- `plan`: every check, before a file is touched
- `fill`: what a box is filled with
- `paint`: the filling, in decoded frames, native frames and overlays
- `attributes`: what changes in the header
- `dataset`: the header with those changes, raw, in the file's own encoding
- `write`: the new file
- `redact`: all of it, for the files of a series
"""

from cloud_optimized_dicom.bounding_box import PixelRedaction
from cloud_optimized_dicom.redaction.model import RedactedInstance, RedactionRecord

__all__ = ["PixelRedaction", "RedactedInstance", "RedactionRecord"]
