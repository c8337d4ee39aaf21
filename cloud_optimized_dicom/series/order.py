"""The order in which people read a series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.format.dicom_json import number, unpack_header

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloud_optimized_dicom.model import InstanceRecord

_INSTANCE_NUMBER = "00200013"
_SLICE_LOCATION = "00201041"


def in_reading_order(records: Iterable[InstanceRecord], *, strict: bool) -> list[InstanceRecord]:
    """Return records by InstanceNumber, or where some have none, by SliceLocation.

    Parameters
    ----------
    strict
        Raise where neither orders them; otherwise the order of the document is kept.

    Raises
    ------
    ValueError
        If `strict` and some instances have neither.
    """
    records = list(records)
    if len(records) < 2:  # noqa: PLR2004 - one is in order
        return records
    keys = [(number(header, _INSTANCE_NUMBER), number(header, _SLICE_LOCATION)) for header in _headers(records)]
    for position in (0, 1):
        values = [key[position] for key in keys]
        if None not in values:
            second = [key[1 - position] if key[1 - position] is not None else 0.0 for key in keys]
            order = sorted(range(len(records)), key=lambda i: (values[i], second[i]))
            return [records[i] for i in order]
    if strict:
        raise ValueError("neither InstanceNumber nor SliceLocation orders all instances; pass strict_sorting=False")
    return records


def _headers(records: list[InstanceRecord]) -> Iterable[dict[str, object]]:
    for record in records:
        try:
            yield unpack_header(record.packed_header)
        except ValueError:
            yield {}
