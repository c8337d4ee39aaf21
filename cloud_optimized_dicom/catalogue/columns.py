"""The columns of the two tables: what PS3.18 asks a search service to answer, and what only we know."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from cloud_optimized_dicom.catalogue.extras import pyarrow

Kind = Literal["text", "date", "integer"]


class Attribute(NamedTuple):
    """A DICOM attribute that is a column of its keyword.

    Parameters
    ----------
    keyword
        As in PS3.6.
    tag
        ``"GGGGEEEE"``; behind a full stop, one in the first item of that sequence.
    kind
        ``date``: a DA that is one; ``integer``: IS and US; ``text``: all others, several values joined by a backslash.
    identifying
        Whether PS3.15 table E.1-1 has it removed or replaced: no value of it is shown of a series with hashed UIDs.
    """

    keyword: str
    tag: str
    kind: Kind = "text"
    identifying: bool = False


STUDY_ATTRIBUTES = (
    Attribute("StudyDate", "00080020", "date", identifying=True),
    Attribute("StudyTime", "00080030", identifying=True),
    Attribute("AccessionNumber", "00080050", identifying=True),
    Attribute("ReferringPhysicianName", "00080090", identifying=True),
    Attribute("TimezoneOffsetFromUTC", "00080201", identifying=True),
    Attribute("PatientName", "00100010", identifying=True),
    Attribute("PatientID", "00100020", identifying=True),
    Attribute("PatientBirthDate", "00100030", "date", identifying=True),
    Attribute("PatientSex", "00100040", identifying=True),
    Attribute("StudyID", "00200010", identifying=True),
)
"""PS3.18 table 10.6.3-3, but for what is counted (the view `studies` has that) and what only a service can tell."""

SERIES_ATTRIBUTES = (
    Attribute("Modality", "00080060"),
    Attribute("SeriesDescription", "0008103E", identifying=True),
    Attribute("SeriesNumber", "00200011", "integer"),
    Attribute("PerformedProcedureStepStartDate", "00400244", "date", identifying=True),
    Attribute("PerformedProcedureStepStartTime", "00400245", identifying=True),
    Attribute("ScheduledProcedureStepID", "00400275.00400009", identifying=True),
    Attribute("RequestedProcedureID", "00400275.00401001", identifying=True),
)
"""PS3.18 table 10.6.3-4, with the two attributes of its Request Attributes Sequence."""

INSTANCE_ATTRIBUTES = (
    Attribute("SOPClassUID", "00080016"),
    Attribute("InstanceNumber", "00200013", "integer"),
    Attribute("Rows", "00280010", "integer"),
    Attribute("Columns", "00280011", "integer"),
    Attribute("BitsAllocated", "00280100", "integer"),
    Attribute("NumberOfFrames", "00280008", "integer"),
)
"""PS3.18 table 10.6.3-5."""

MORE_ATTRIBUTES = (
    Attribute("StudyDescription", "00081030", identifying=True),
    Attribute("BodyPartExamined", "00180015"),
    Attribute("Manufacturer", "00080070"),
    Attribute("ManufacturerModelName", "00081090"),
)
"""Of the first instance of a series, too: what people select by besides."""

OF_SERIES = STUDY_ATTRIBUTES + SERIES_ATTRIBUTES + MORE_ATTRIBUTES

_UIDS = (("StudyInstanceUID", "string"), ("SeriesInstanceUID", "string"))
_SERIES_OWN = (
    ("NumberOfSeriesRelatedInstances", "int64"),
    ("SOPClassUIDs", "list"),
    ("TransferSyntaxUIDs", "list"),
    ("frames", "int64"),
    ("size_bytes", "int64"),
    ("tar_size_bytes", "int64"),
    ("tar_generation", "string"),
    ("tar_crc32c", "string"),
    ("uri", "string"),
    ("tar_uri", "string"),
    ("hashed_uids", "bool"),
    ("modified", "timestamp"),
    ("metadata_version", "string"),
)
_INSTANCE_OWN = (
    ("TransferSyntaxUID", "string"),
    ("has_pixeldata", "bool"),
    ("frames", "int64"),
    ("size_bytes", "int64"),
    ("crc32c", "string"),
    ("start_byte", "int64"),
    ("end_byte", "int64"),
    ("uri", "string"),
    ("tar_uri", "string"),
    ("original_path", "string"),
    ("modified", "timestamp"),
)
_OF_KIND = {"text": "string", "date": "date32", "integer": "int64"}


def series_columns() -> tuple[tuple[str, str], ...]:
    """Return names and types of the columns of the table of series, in order."""
    return (*_UIDS, *((one.keyword, _OF_KIND[one.kind]) for one in OF_SERIES), *_SERIES_OWN)


def instance_columns() -> tuple[tuple[str, str], ...]:
    """Return names and types of the columns of the table of instances, in order."""
    attributes = ((one.keyword, _OF_KIND[one.kind]) for one in INSTANCE_ATTRIBUTES)
    return (*_UIDS, ("SOPInstanceUID", "string"), *attributes, *_INSTANCE_OWN)


def schema_of(columns: tuple[tuple[str, str], ...]) -> Any:
    """Return the Arrow schema of a table."""
    pa = pyarrow()
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "date32": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "list": pa.list_(pa.string()),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns])
