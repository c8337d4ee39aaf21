"""What a redaction changes in the header, and what in it would still show the pixels.

- De-identification (PS3.15 section E.3.1, PS3.3 section C.7.1.1): De-identification Method and its code sequence name
  the Clean Pixel Data Option; Burned In Annotation becomes NO only if the reviewer states it.
- Derivation (PS3.3 sections C.7.6.1.1.2 and C.7.6.1.1.3): the first value of Image Type is DERIVED; Derivation
  Description and Derivation Code Sequence say how.
- History of loss (PS3.3 section C.7.6.1.1.5): what was decoded from a lossy encoding says so from now on.
- Previews: Icon Image Sequence goes; overlay planes are cleared under the boxes.
- Other places of the pixels: Data Set Trailing Padding, the retired Variable Pixel Data and coefficients (PS3.6 table
  6-1) and the address of a Pixel Data Provider go.
- Stale: Smallest and Largest Image Pixel Value, and digital signatures, which no longer hold.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.dicom.source import EXPLICIT_BIG
from cloud_optimized_dicom.dicom.transcode.codestream import is_lossless
from cloud_optimized_dicom.format.dicom_json import first_value
from cloud_optimized_dicom.redaction.dataset import PREVIEWS, Edits, NewElement, NewItem, padded_text
from cloud_optimized_dicom.redaction.image import OVERLAY_GROUPS
from cloud_optimized_dicom.redaction.paint import OverlayPlane, cleared_overlay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_optimized_dicom.bounding_box import BoundingBox
    from cloud_optimized_dicom.redaction.image import OpenImage

METHOD_TEXT = b"Pixel data redacted by cloud-optimized-dicom"
DERIVATION_TEXT = b"Regions of the pixel data overwritten"

_IMAGE_TYPE, _DERIVATION_TEXT, _DERIVATION_CODES = 0x00080008, 0x00082111, 0x00089215
_METHOD_TEXT, _METHOD_CODES, _BURNED_IN = 0x00120063, 0x00120064, 0x00280301
_SMALLEST, _LARGEST = 0x00280106, 0x00280107
_LOSSY, _LOSSY_RATIO, _LOSSY_METHOD = 0x00282110, 0x00282112, 0x00282114
_PHOTOMETRIC, _PLANAR = 0x00280004, 0x00280006
_MAC_PARAMETERS, _SIGNATURES = 0x4FFE0001, 0xFFFAFFFA
_TRAILING_PADDING = 0xFFFCFFFC
_VARIABLE_PIXELS = {
    group << 16 | element for group in range(0x7F00, 0x8000, 2) for element in (0x0010, 0x0020, 0x0030, 0x0040)
}
_DROPPED = PREVIEWS | _VARIABLE_PIXELS | {_SMALLEST, _LARGEST, _MAC_PARAMETERS, _SIGNATURES, _TRAILING_PADDING}

_CLEAN_PIXEL_DATA = ("113101", "Clean Pixel Data Option")
_MASK = ("113047", "Pixel by pixel mask")  # PS3.16 CID 7203, Image Derivation
_MAX_BYTES = {"ST": 1024, "LO": 0xFFFE}  # PS3.5 table 6.2-1; of LO, whose limit is each value's, what a length can say

_LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": b"ISO_10918_1",
    "1.2.840.10008.1.2.4.51": b"ISO_10918_1",
    "1.2.840.10008.1.2.4.81": b"ISO_14495_1",
    "1.2.840.10008.1.2.4.91": b"ISO_15444_1",
    "1.2.840.10008.1.2.4.203": b"ISO_15444_15",
    "1.2.840.10008.1.2.4.112": b"ISO_18181_1",
}
_LOSSLESS_SIBLINGS = {
    "1.2.840.10008.1.2.4.81": "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.91": "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.203": "1.2.840.10008.1.2.4.201",
}


def plan_edits(opened: OpenImage, boxes: Sequence[BoundingBox], photometric: str, *, is_clean: bool) -> Edits:
    """Return what changes around the pixel data.

    Parameters
    ----------
    photometric
        Photometric Interpretation that the new file would have without compression.
    """
    editor = _Header(opened)
    new: dict[int, NewElement] = {}
    image_type = editor.text(_IMAGE_TYPE).split(b"\\")
    if image_type[0]:
        new[_IMAGE_TYPE] = NewElement("CS", padded_text(b"\\".join([b"DERIVED", *image_type[1:]])))
    new |= _appended(editor, _DERIVATION_TEXT, "ST", DERIVATION_TEXT, b"; ")
    new |= _appended(editor, _METHOD_TEXT, "LO", METHOD_TEXT, b"\\")
    if is_clean:
        new[_BURNED_IN] = NewElement("CS", b"NO")
    new |= _colour(editor, photometric)
    new |= _loss(opened, editor)
    overlays, hidden = _overlays(opened, editor, boxes)
    return Edits(new | overlays, _codes(opened.image.header), _DROPPED | hidden)


class _Header:
    """The values of top-level elements, as they lie in the file."""

    def __init__(self, opened: OpenImage) -> None:
        self._reader = opened.source.reader
        self._order = "<" if opened.source.encoding.little_endian else ">"
        self.elements = {element.tag: element for element in opened.elements}

    def raw(self, tag: int) -> bytes:
        element = self.elements.get(tag)
        return element.read(self._reader) if element is not None else b""

    def text(self, tag: int) -> bytes:
        return self.raw(tag).strip(b" \0")

    def word(self, value: int) -> NewElement:
        return NewElement("US", struct.pack(f"{self._order}H", value))


def _appended(header: _Header, tag: int, vr: str, text: bytes, separator: bytes) -> dict[int, NewElement]:
    old = header.text(tag)
    value = old + separator + text if old else text
    if text in (part.strip() for part in old.split(separator)) or len(value) > _MAX_BYTES[vr]:
        return {}
    return {tag: NewElement(vr, padded_text(value))}


def _codes(header: Mapping[str, Any]) -> dict[int, NewItem]:
    """Return the items to add; none that is there already."""
    wanted = {_METHOD_CODES: _CLEAN_PIXEL_DATA, _DERIVATION_CODES: _MASK}
    return {
        tag: NewItem(((0x00080100, "SH", code), (0x00080102, "SH", "DCM"), (0x00080104, "LO", meaning)))
        for tag, (code, meaning) in wanted.items()
        if not any(first_value(item, "00080100") == code for item in _items(header, tag))
    }


def _items(header: Mapping[str, Any], tag: int) -> list[Mapping[str, Any]]:
    element = header.get(f"{tag:08X}")
    items = element.get("Value") if isinstance(element, dict) else None
    return [item for item in items or [] if isinstance(item, dict)]


def _colour(header: _Header, photometric: str) -> dict[int, NewElement]:
    """Return Photometric Interpretation where it changes, and Planar Configuration where it is missing."""
    new = {}
    if header.text(_PHOTOMETRIC) != photometric.encode():
        new[_PHOTOMETRIC] = NewElement("CS", padded_text(photometric.encode()))
    if (photometric == "RGB" or photometric.startswith("YBR")) and not header.raw(_PLANAR):
        new[_PLANAR] = header.word(0)
    return new


def _loss(opened: OpenImage, header: _Header) -> dict[int, NewElement]:
    """Return the attributes of a lossy encoding that the file did not have."""
    image = opened.image
    method = _LOSSY_METHODS.get(image.syntax)
    sibling = _LOSSLESS_SIBLINGS.get(image.syntax)
    if method is None or header.text(_LOSSY) == b"01":
        return {}
    if sibling and all(is_lossless(opened.encoded(frame), sibling) for frame in range(len(image.table))):
        return {}
    ratio = image.pixels.frame_bytes * len(image.table) / max(1, sum(image.table.lengths))
    new = {_LOSSY: NewElement("CS", b"01")}
    if not header.text(_LOSSY_RATIO):
        new[_LOSSY_RATIO] = NewElement("DS", padded_text(f"{ratio:.2f}".encode()))
    if not header.text(_LOSSY_METHOD):
        new[_LOSSY_METHOD] = NewElement("CS", padded_text(method))
    return new


def _overlays(
    opened: OpenImage, header: _Header, boxes: Sequence[BoundingBox]
) -> tuple[dict[int, NewElement], frozenset[int]]:
    """Return overlay data with the boxes cleared, and the planes to drop as nothing says where they lie."""
    new: dict[int, NewElement] = {}
    dropped: set[int] = set()
    for group in OVERLAY_GROUPS:
        tag = group << 16 | 0x3000
        element = header.elements.get(tag)
        if element is None:
            continue
        plane = _plane(opened.image.header, group)
        swapped = opened.image.syntax == EXPLICIT_BIG and element.vr != "OB"
        data = header.raw(tag)
        cleared = None if plane is None else cleared_overlay(data, plane, boxes, swapped=swapped)
        if cleared is None:
            dropped.update(other for other in header.elements if other >> 16 == group)
        elif cleared != data:
            new[tag] = NewElement("OB" if element.vr == "OB" else "OW", cleared)
    return new, frozenset(dropped)


def _plane(header: Mapping[str, Any], group: int) -> OverlayPlane | None:
    def numbers(element: int, default: list[int]) -> list[int]:
        found = header.get(f"{group:04X}{element:04X}", {}).get("Value")
        return found if found and all(isinstance(number, int) for number in found) else default

    rows, columns, frames = (numbers(element, [0])[0] for element in (0x0010, 0x0011, 0x0015))
    origin = numbers(0x0050, [1, 1])
    if rows < 1 or columns < 1 or len(origin) != 2:  # noqa: PLR2004 - row and column
        return None
    return OverlayPlane(rows, columns, max(1, frames), origin[0] - 1, origin[1] - 1)
