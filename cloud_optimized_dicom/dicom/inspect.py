"""Everything that ingest has to know of one DICOM file, measured in two passes at most."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.dicom.frames import find_pixel_data, plan_frame_table
from cloud_optimized_dicom.dicom.header import HeaderBuilder, find_text
from cloud_optimized_dicom.dicom.measure import measure
from cloud_optimized_dicom.dicom.source import DicomSource, open_source
from cloud_optimized_dicom.errors import FrameTableError, InstanceValidationError, InvalidUidError
from cloud_optimized_dicom.format.offsets.reader import PositionedReader
from cloud_optimized_dicom.model import DicomFacts, FrameTable
from cloud_optimized_dicom.uids import check_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.ranges import ByteRange

_SOP_CLASS = "00080016"
_NUMBER_OF_FRAMES = "00280008"
_DICOMDIR = "1.2.840.10008.1.3.10"
_UIDS = {"instance": "00080018", "series": "0020000E", "study": "0020000D"}


def inspect_dicom(stream: BinaryIO, uri: str, *, bulk_data_uri: Callable[[str, ByteRange], str]) -> DicomFacts:
    """Measure one DICOM file.

    Parameters
    ----------
    stream
        Seekable; it is left positioned anywhere.
    uri
        Names the file in an error.
    bulk_data_uri
        Makes the URI of a large value from the SOP Instance UID and the value's bytes within the file (of a deflated
        one: within the file with its dataset inflated).

    Raises
    ------
    InstanceValidationError
        If it is no DICOM file, or one without usable UIDs.

    Notes
    -----
    Damaged files are kept as far as their UIDs can be read; `problems` then says what is missing.  Memory grows with
    the header, never with the pixel data.  Emits no Python warning and logs nothing.
    """
    with open_source(stream, uri) as source:
        builder = HeaderBuilder(source.reader, uri)
        header = builder.convert(source.meta, source.meta_encoding)
        header |= builder.convert(source.command, source.meta_encoding._replace(implicit=True))
        header |= builder.build(source.dataset_start, source.encoding)
        uids = {kind: _uid(header, kind, uri, is_truncated=builder.is_truncated) for kind in _UIDS}
        builder.fill_bulk_data(lambda span: bulk_data_uri(uids["instance"], span))
        table, table_problem = _frame_table(source, builder, header, uri)
        whole = measure(PositionedReader(stream), [] if source.is_inflated else _spans(table))
        crcs = measure(source.reader, _spans(table)).span_crc32cs if source.is_inflated else whole.span_crc32cs
        return DicomFacts(
            instance_uid=uids["instance"],
            series_uid=uids["series"],
            study_uid=uids["study"],
            transfer_syntax_uid=source.transfer_syntax_uid,
            has_pixeldata=find_pixel_data(builder.elements) is not None,
            header=dump_header(header),
            frame_table=None if table is None else replace(table, crc32cs=crcs),
            size=whole.size,
            crc32c=whole.crc32c,
            problems=source.problems + builder.problems + table_problem,
        )


def dump_header(header: dict[str, Any]) -> bytes:
    """Return a header as compact JSON.

    Raises
    ------
    ValueError
        If it holds NaN or infinity.
    """
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # what has no UTF-8, a lone surrogate, becomes a JSON escape


def _uid(header: dict[str, Any], kind: str, uri: str, *, is_truncated: bool) -> str:
    values = find_text(header, _UIDS[kind])
    if not values:
        if _DICOMDIR in find_text(header, _SOP_CLASS) or _DICOMDIR in find_text(header, "00020002"):
            raise InstanceValidationError(uri, "a DICOMDIR, not an instance")
        cut = "is truncated: " if is_truncated else ""
        raise InstanceValidationError(uri, f"{cut}has no {kind} UID ({_UIDS[kind]})")
    if len(values) > 1:
        raise InstanceValidationError(uri, f"has {len(values)} {kind} UIDs")
    try:
        return check_uid(values[0], kind)
    except InvalidUidError as error:
        raise InstanceValidationError(uri, str(error)) from error


def _frame_table(
    source: DicomSource, builder: HeaderBuilder, header: dict[str, Any], uri: str
) -> tuple[FrameTable | None, tuple[str, ...]]:
    pixels = find_pixel_data(builder.elements)
    if pixels is None:
        return None, ()
    try:
        table = plan_frame_table(source, builder.elements, uri)
    except FrameTableError as error:
        return None, (f"{pixels.tag:08X}: no frame table: {error.reason}",)
    found, claimed = len(table or ()), _number_of_frames(header)
    if found < claimed:
        return table, (f"{pixels.tag:08X}: {found} of {claimed} frames are whole",)
    return table, ()


def _number_of_frames(header: dict[str, Any]) -> int:
    values = header.get(_NUMBER_OF_FRAMES, {}).get("Value", ())
    return values[0] if values and isinstance(values[0], int) else 1


def _spans(table: FrameTable | None) -> list[ByteRange]:
    return [] if table is None else [table.span(frame) for frame in range(len(table))]
