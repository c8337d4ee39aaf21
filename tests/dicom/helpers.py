"""Short ways to inspect a file and to cut its frames, for the tests of this folder."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.format.offsets.items import HEADER_BYTES, join_items
from tests.realfiles import RealFile, real_files

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.model import DicomFacts, FrameTable
    from cloud_optimized_dicom.ranges import ByteRange


def inspect(data: bytes) -> DicomFacts:
    """Inspect a file; the BulkDataURIs are ``start:stop``."""
    return inspect_dicom(io.BytesIO(data), "file.dcm", bulk_data_uri=uri_of)


def header_of(facts: DicomFacts) -> dict[str, Any]:
    """Return the header as a document."""
    return dict(json.loads(facts.header))


def table_of(facts: DicomFacts) -> FrameTable:
    """Return the frame table, which must be there."""
    assert facts.frame_table is not None, facts.problems
    return facts.frame_table


def cut(data: bytes, table: FrameTable) -> list[bytes]:
    """Cut every frame at the table's numbers."""
    return [data[span.start : span.stop] for span in map(table.span, range(len(table)))]


def joined(data: bytes, table: FrameTable) -> list[bytes]:
    """Cut every frame at the table's numbers and join its fragments."""
    counts = table.fragment_counts or (1,) * len(table)
    frames = []
    for frame, fragments in enumerate(counts):
        span = table.span(frame)
        plain = data[span.start : span.stop]
        frames.append(plain if fragments == 1 else join_items(data[span.start - HEADER_BYTES : span.stop], fragments))
    return frames


@cache
def inspected(file: RealFile) -> DicomFacts | str:
    """Inspect a real file once; return the reason where it is refused."""
    try:
        return inspect(file.read())
    except InstanceValidationError as error:
        return error.reason


@cache
def accepted_files() -> tuple[RealFile, ...]:
    """Return the real files that are accepted."""
    return tuple(file for file in real_files() if not isinstance(inspected(file), str))


def facts_of(file: RealFile) -> DicomFacts:
    """Return the facts of an accepted file."""
    facts = inspected(file)
    assert not isinstance(facts, str), facts
    return facts


def uri_of(_: str, span: ByteRange) -> str:
    """Return a bulk data URI."""
    return f"{span.start}:{span.stop}"


def source_in(folder: Path, data: bytes) -> Path:
    """Write a file beside the folder for results; return its path."""
    path = folder.parent / f"{folder.name}.dcm"
    path.write_bytes(data)
    return path
