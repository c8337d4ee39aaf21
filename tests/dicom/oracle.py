"""What pydicom says of a file: the header and the frames, computed without any code of ours."""

from __future__ import annotations

import base64
import io
import math
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.encaps import generate_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import DataElement, Dataset

INVALID = "pydicom cannot convert this element"
PIXEL_DATA = ("7FE00008", "7FE00009", "7FE00010")
UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


def read(data: bytes, *, force: bool = True) -> pydicom.FileDataset:
    """Read a file with pydicom, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data), force=force)


def has_uids(dataset: Dataset, *, legal: bool = False) -> bool:
    """Tell whether pydicom finds the three UIDs, and, where asked, only digits and dots in them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = [dataset.get(uid) for uid in UIDS]
    found = all(isinstance(value, str) and value for value in values)
    return found and (not legal or set("".join(values)) <= set("0123456789."))


def inflated(data: bytes, dataset: pydicom.FileDataset) -> bytes:
    """Return the file with its dataset inflated, if it is deflated."""
    if dataset.file_meta.get("TransferSyntaxUID") != "1.2.840.10008.1.2.1.99":
        return data
    start = 132 + 12 + dataset.file_meta.FileMetaInformationGroupLength
    return data[:start] + zlib.decompress(data[start:], -15)


def header(dataset: pydicom.FileDataset) -> dict[str, Any]:
    """Return the DICOM JSON of a file by pydicom, by the rules of the format.

    Large values are ``{"vr", "bytes"}``; elements that pydicom fails on are `INVALID`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _dataset(dataset.file_meta, top=False) | _dataset(dataset, top=True)


def _dataset(dataset: Dataset, *, top: bool) -> dict[str, Any]:
    document = {}
    for tag in dataset.keys():  # noqa: SIM118  (iterating a Dataset gives elements)
        key = f"{tag:08X}"
        try:
            element = dataset[tag]
            document[key] = _element(element, key, top=top)
        except Exception:  # noqa: BLE001
            document[key] = INVALID
    return document


def _element(element: DataElement, key: str, *, top: bool) -> Any:
    if element.VR == "SQ":
        return {"vr": "SQ", "Value": [_dataset(item, top=False) for item in element.value]}
    document = element.to_json_dict(lambda _: "", bulk_data_threshold=0)
    if " or " in document["vr"]:
        document["vr"] = "UN" if document["vr"] == "US or SS" else "OW"  # retired, decided by nothing; no VR of JSON
    if "BulkDataURI" in document:
        value = bytes(element.value)
        if len(value) > 1024 or (top and key in PIXEL_DATA):
            return {"vr": document["vr"], "bytes": value}
        return {"vr": document["vr"], "InlineBinary": base64.b64encode(value).decode()}
    if "Value" in document:
        finite = [None if isinstance(v, float) and not math.isfinite(v) else v for v in document["Value"]]
        if element.VR == "DS" and finite != document["Value"]:
            return INVALID  # JSON has no number for it
        document["Value"] = finite
    return document


def with_bulk_data(document: Any, data: bytes) -> Any:
    """Return our header with every ``start:stop`` BulkDataURI replaced by the bytes of the file there."""
    if isinstance(document, list):
        return [with_bulk_data(item, data) for item in document]
    if not isinstance(document, dict):
        return document
    if "BulkDataURI" in document:
        start, stop = map(int, document["BulkDataURI"].split(":"))
        return {"vr": document["vr"], "bytes": data[start:stop]}
    return {key: with_bulk_data(value, data) for key, value in document.items()}


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which our header is not the oracle's; elements that pydicom fails on are left out."""
    if expected == INVALID:
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if key not in expected or (key not in found and expected[key] != INVALID):
                yield f"{path}/{key}: only {'ours' if key in found else 'pydicom'}"
            elif key in found:
                yield from differences(expected[key], found[key], f"{path}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (left, right) in enumerate(zip(expected, found, strict=True)):
            yield from differences(left, right, f"{path}[{number}]")
    elif expected != found or isinstance(expected, float) is not isinstance(found, float):
        yield f"{path}: {str(expected)[:80]!r} is not {str(found)[:80]!r}"


def encapsulated_frames(dataset: pydicom.Dataset) -> list[bytes]:
    """Return the encoded frames that pydicom cuts from encapsulated Pixel Data."""
    extended = None
    if "ExtendedOffsetTable" in dataset:
        extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        number = int(dataset.get("NumberOfFrames") or 1)
        frames = generate_frames(dataset.PixelData, number_of_frames=number, extended_offsets=extended)
        return list(frames)


def native_frames(dataset: pydicom.Dataset) -> list[bytes]:
    """Return the whole frames of native Pixel Data, cut by arithmetic on the attributes alone."""
    value: bytes = dataset.PixelData
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = str(dataset.get("NumberOfFrames") or 1)
    number = int(text) if text.isdigit() else 1
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    frames = [value[n * bits // 8 : -(-(n + 1) * bits // 8)] for n in range(number)]
    if dataset.BitsAllocated == 8 and bits % 16 and dataset["PixelData"].VR == "OW" and _is_big_endian(dataset):
        frames = [value[n * bits // 16 * 2 : -(-(n + 1) * bits // 16) * 2] for n in range(number)]
    return [frame for n, frame in enumerate(frames) if (n + 1) * bits <= len(value) * 8]


def _is_big_endian(dataset: pydicom.Dataset) -> bool:
    return dataset.original_encoding[1] is False
