"""Which study and series a file belongs to, from its first kilobytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.dicom.source import open_source
from cloud_optimized_dicom.errors import InstanceValidationError, InvalidUidError
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from cloud_optimized_dicom.dicom.source import DicomSource

_STUDY = 0x0020000D
_SERIES = 0x0020000E
_LONGEST = 256


def read_series_key(stream: BinaryIO, uri: str) -> SeriesKey:
    """Return the series of a DICOM file; nothing behind its Series Instance UID is read (but of a deflated file, all).

    Raises
    ------
    InstanceValidationError
        If it is no DICOM file, or one without usable UIDs.
    """
    with open_source(stream, uri) as source:
        found = _find(source)
    if _STUDY not in found or _SERIES not in found:
        missing = "study" if _STUDY not in found else "series"
        raise InstanceValidationError(uri, f"has no {missing} UID")
    try:
        return SeriesKey(found[_STUDY], found[_SERIES])
    except InvalidUidError as error:
        raise InstanceValidationError(uri, str(error)) from error


def _find(source: DicomSource) -> dict[int, str]:
    found: dict[int, str] = {}
    for element in source.walk():
        if element.tag in {_STUDY, _SERIES} and 0 < element.length < _LONGEST:
            found[element.tag] = element.read(source.reader).decode("latin-1").strip(" \x00")
        if element.tag >= _SERIES:
            break
    return found
