"""From the rows of a query to series and instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.uids import SeriesKey, check_uid

if TYPE_CHECKING:
    from cloud_optimized_dicom.catalogue.query import Catalogue


class SelectedSeries(NamedTuple):
    """A series, and the instances of it that were selected; None: all."""

    key: SeriesKey
    instance_uids: frozenset[str] | None


def select_uids(catalogue: Catalogue, sql: str) -> tuple[SelectedSeries, ...]:
    """Return the series, or the instances by series, that the rows of a query name.

    Parameters
    ----------
    sql
        Its result has the columns `StudyInstanceUID` and `SeriesInstanceUID`, and `SOPInstanceUID` where single
        instances are meant; others do not count, nor does the case of their names.

    Raises
    ------
    ValueError
        If the columns are not there, or the SQL is wrong.
    InvalidUidError
        If a value is no UID.
    """
    rows = catalogue.query(sql)
    places = {column.name.lower(): number for number, column in enumerate(rows.columns)}
    missing = [name for name in ("StudyInstanceUID", "SeriesInstanceUID") if name.lower() not in places]
    if missing:
        raise ValueError(f"the result has no column {' and no column '.join(missing)}")
    study, series, instance = (places.get(f"{level}instanceuid") for level in ("study", "series", "sop"))
    found: dict[SeriesKey, set[str]] = {}
    for row in rows:
        uids = found.setdefault(SeriesKey(str(row[study or 0]), str(row[series or 0])), set())
        if instance is not None:
            uids.add(check_uid(str(row[instance]), "instance"))
    return tuple(
        SelectedSeries(key, frozenset(uids) if instance is not None else None) for key, uids in sorted(found.items())
    )
