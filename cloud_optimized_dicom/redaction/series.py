"""Instances of a series that is being edited, redacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.redaction.model import TargetFile
from cloud_optimized_dicom.redaction.redact import redact_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.bounding_box import PixelRedaction
    from cloud_optimized_dicom.edit.series_edit import SeriesEdit
    from cloud_optimized_dicom.redaction.model import RedactionOptions, RedactionRecord

FIELD = "redactions"
"""The custom field with the audit records: a list, the oldest first."""


def redact_edited(
    edit: SeriesEdit, redactions: Sequence[PixelRedaction], options: RedactionOptions, uri: str
) -> RedactionRecord:
    """Redact the local files of a series that is being edited, and stage the audit record beside them.

    Errors are those of :func:`redact_files`; nothing is staged then.
    """
    files = {record.name_uid: TargetFile(edit.path(record.name_uid), record.instance_uid) for record in edit.records()}
    record = redact_files(redactions, files, options, uri)
    field = edit.find_field(FIELD)
    entries = [] if field is None else field if isinstance(field, list) else [field]
    edit.set_field(FIELD, [*entries, record.as_json()])
    return record
