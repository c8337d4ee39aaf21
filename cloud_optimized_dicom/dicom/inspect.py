"""Everything that ingest has to know of one DICOM file, measured in one pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, cast

from cloud_optimized_dicom.dicom.frames import find_pixel_data, plan_frame_table
from cloud_optimized_dicom.dicom.header import HeaderBuilder
from cloud_optimized_dicom.dicom.measure import PrefixStream, measure
from cloud_optimized_dicom.dicom.source import DicomSource, open_source
from cloud_optimized_dicom.errors import FrameTableError, InstanceValidationError, InvalidUidError
from cloud_optimized_dicom.model import DicomFacts, FrameTable
from cloud_optimized_dicom.uids import check_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.ranges import ByteRange

_SOP_CLASSES = (0x00080016, 0x00020002)
_NUMBER_OF_FRAMES = 0x00280008
_DICOMDIR = "1.2.840.10008.1.3.10"
_UIDS = {"instance": 0x00080018, "series": 0x0020000E, "study": 0x0020000D}
_WHOLE_BYTES = 8 << 20
"""Files up to this size are held in memory while they are inspected."""


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
    Damaged files are kept as far as their UIDs can be read; `problems` then says what is missing.  Emits no Python
    warning and logs nothing.

    A file of at most 8 MiB is read once, at once.  Of a larger one memory grows with the header, never with the pixel
    data, and every byte is read once but for those of a window of 16 KiB, large values of text, and item headers.
    """
    counted = PrefixStream(stream)
    with open_source(cast("BinaryIO", counted), uri, whole_bytes=_WHOLE_BYTES) as source:
        builder = HeaderBuilder(source.reader, uri)
        builder.add_elements(source.meta, source.meta_encoding)
        builder.add_elements(source.command, source.meta_encoding._replace(implicit=True))
        builder.add_dataset(source.dataset_start, source.encoding)
        uids = {kind: _uid(builder, kind, uri) for kind in _UIDS}
        table, table_problem = _frame_table(source, builder, uri)
        spans = [] if table is None else [table.span(frame) for frame in range(len(table))]
        whole = measure(source.stored, [] if source.is_inflated else spans, counted.prefix)
        crcs = measure(source.reader, spans).span_crc32cs if source.is_inflated else whole.span_crc32cs
        return DicomFacts(
            instance_uid=uids["instance"],
            series_uid=uids["series"],
            study_uid=uids["study"],
            transfer_syntax_uid=source.transfer_syntax_uid,
            has_pixeldata=find_pixel_data(builder.elements) is not None,
            header=builder.dump(lambda span: bulk_data_uri(uids["instance"], span)),
            frame_table=None if table is None else replace(table, crc32cs=crcs),
            size=whole.size,
            crc32c=whole.crc32c,
            problems=source.problems + builder.problems + table_problem,
        )


def _uid(builder: HeaderBuilder, kind: str, uri: str) -> str:
    tag = _UIDS[kind]
    values = _texts(builder, tag)
    if not values:
        if any(_DICOMDIR in _texts(builder, sop_class) for sop_class in _SOP_CLASSES):
            raise InstanceValidationError(uri, "a DICOMDIR, not an instance")
        cut = "is truncated: " if builder.is_truncated else ""
        raise InstanceValidationError(uri, f"{cut}has no {kind} UID ({tag:08X})")
    if len(values) > 1:
        raise InstanceValidationError(uri, f"has {len(values)} {kind} UIDs")
    try:
        return check_uid(values[0], kind)
    except InvalidUidError as error:
        raise InstanceValidationError(uri, str(error)) from error


def _texts(builder: HeaderBuilder, tag: int) -> list[str]:
    return [value for value in builder.values(tag) if isinstance(value, str)]


def _frame_table(source: DicomSource, builder: HeaderBuilder, uri: str) -> tuple[FrameTable | None, tuple[str, ...]]:
    pixels = find_pixel_data(builder.elements)
    if pixels is None:
        return None, ()
    try:
        table = plan_frame_table(source, builder.elements, uri)
    except FrameTableError as error:
        return None, (f"{pixels.tag:08X}: no frame table: {error.reason}",)
    found, claimed = len(table or ()), _number_of_frames(builder)
    if found < claimed:
        return table, (f"{pixels.tag:08X}: {found} of {claimed} frames are whole",)
    return table, ()


def _number_of_frames(builder: HeaderBuilder) -> int:
    values = builder.values(_NUMBER_OF_FRAMES)
    return values[0] if values and isinstance(values[0], int) else 1
