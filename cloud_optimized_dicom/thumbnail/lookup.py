"""Lookup tables of a header: modality LUT, VOI LUT, palette (PS3.3 sections C.11.1, C.11.2 and C.7.6.3.1.5)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

_DESCRIPTOR, _DATA = "00283002", "00283006"
_COLOURS = ("Red", "Green", "Blue")
_PALETTE_DESCRIPTORS = ("00281101", "00281102", "00281103")
_PALETTE_DATA = ("00281201", "00281202", "00281203")
_PALETTE_SEGMENTED = ("00281221", "00281222", "00281223")
_WHOLE = 1 << 16  # the number of entries that a descriptor, of 16 bits, says as 0


@dataclass(frozen=True)
class BinaryValues:
    """Values of 16-bit words, wherever a header keeps them.

    Parameters
    ----------
    read_bulk
        Returns the value of a BulkDataURI; `ValueError` where it cannot.
    big_endian
        The order of the bytes that the header holds or names: it keeps those of the file.
    """

    read_bulk: Callable[[str], bytes]
    big_endian: bool = False

    def get(self, element: Any) -> bytes:
        """Return the bytes of an element, in little endian words; none where they cannot be had."""
        if not isinstance(element, dict):
            return b""
        try:
            data = self._stored(element)
        except (binascii.Error, TypeError, ValueError):
            return b""
        if data is None:
            return np.array([value % _WHOLE for value in _integers(element)], "<u2").tobytes()
        words = self.big_endian and element.get("vr") != "OB" and len(data) % 2 == 0
        return np.frombuffer(data, ">u2").astype("<u2").tobytes() if words else data

    def _stored(self, element: Mapping[str, Any]) -> bytes | None:
        if "InlineBinary" in element:
            return base64.b64decode(element["InlineBinary"])
        uri = element.get("BulkDataURI")
        return self.read_bulk(uri) if isinstance(uri, str) else None


@dataclass(frozen=True)
class LookupTable:
    """A table of grey values.

    Parameters
    ----------
    first
        The value that the first entry is for; what lies below gets the first entry, what lies above the last.
    entries
        Of shape (n,).
    top
        The largest value that an entry of its number of bits can have.
    """

    first: int
    entries: NDArray[np.float64]
    top: float

    @classmethod
    def find(cls, item: Mapping[str, Any], values: BinaryValues, *, signed: bool) -> LookupTable | None:
        """Return the table in an item of a LUT sequence, or None where there is none that can be used.

        Parameters
        ----------
        signed
            Whether the values that are looked up can be negative, so that `first` can.
        """
        descriptor = _integers(item.get(_DESCRIPTOR))
        if len(descriptor) != 3:  # noqa: PLR2004 - entries, first value, bits
            return None
        count, first, bits = descriptor[0] % _WHOLE or _WHOLE, descriptor[1], descriptor[2]
        entries = _words(item.get(_DATA), count, values)
        if entries is None or not 1 <= bits <= 16:  # noqa: PLR2004 - as a table's entries are words
            return None
        first = first - _WHOLE if signed and first >= _WHOLE // 2 else first
        return cls(first, entries.astype(np.float64), float((1 << bits) - 1))

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the entries for some values."""
        places = np.clip(np.nan_to_num(values) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[places.astype(np.intp)])


def find_palette(header: Mapping[str, Any], values: BinaryValues) -> Dataset | None:
    """Return the palette of a PALETTE COLOR image, as pydicom takes it, or None where there is none."""
    palette = Dataset()
    palette.file_meta = FileMetaDataset()
    palette.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # as which segmented tables are expanded
    descriptors = [_integers(header.get(tag)) for tag in _PALETTE_DESCRIPTORS]
    if any(len(descriptor) != 3 for descriptor in descriptors):  # noqa: PLR2004 - as above
        return None
    tags, kind = (_PALETTE_DATA, "") if _PALETTE_DATA[0] in header else (_PALETTE_SEGMENTED, "Segmented")
    for colour, (count, first, bits), tag in zip(_COLOURS, descriptors, tags, strict=True):
        data = values.get(header.get(tag))
        if not data or bits not in {8, 16}:
            return None
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [count % _WHOLE, first % _WHOLE, bits])
        setattr(palette, f"{kind}{colour}PaletteColorLookupTableData", data)
    return palette


def apply_palette(indexes: NDArray[Any], palette: Dataset) -> NDArray[np.uint8]:
    """Return the colours of palette indexes, (rows, columns, 3); `ValueError` for a palette that does not serve."""
    try:
        colours = apply_color_lut(indexes, palette)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError):
        raise ValueError("the palette does not serve") from None
    wide = colours.dtype.itemsize > 1
    return np.asarray(colours >> 8 if wide else colours, dtype=np.uint8)


def _integers(element: Any) -> list[int]:
    values = element.get("Value") if isinstance(element, dict) else None
    return [int(value) for value in values] if values and all(isinstance(v, int | float) for v in values) else []


def _words(element: Any, count: int, values: BinaryValues) -> NDArray[Any] | None:
    """Return the entries of a table, given as numbers or as bytes: one an entry, or two."""
    listed = _integers(element)
    if listed:
        return np.array(listed[:count])
    data = values.get(element)
    if len(data) >= 2 * count:
        return np.frombuffer(data, "<u2", count)
    return np.frombuffer(data, "u1", count) if len(data) >= count else None
