"""Encoded values to the values of the DICOM JSON Model (PS3.18 section F.2), one function per kind of VR.

Equal to what pydicom's `Dataset.to_json_dict` gives wherever that gives something.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.dicom.text import decode_text

if TYPE_CHECKING:
    from collections.abc import Callable

BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})

_INTEGERS = {"SL": "l", "SS": "h", "SV": "q", "UL": "L", "US": "H", "UV": "Q"}
_FLOATS = {"FD": "d", "FL": "f"}
_DEFAULT_REPERTOIRE = ("AS", "CS", "DA", "DT", "TM")
_REPLACED = "some bytes are not of its character set and were replaced"


class ValueContext(NamedTuple):
    """What decoding a value takes besides its VR: the Python codecs of its text, and the byte order of its numbers."""

    charset: tuple[str, ...]
    little_endian: bool


class Values(NamedTuple):
    """The JSON values of an element, none if it is empty; `problem` says what could not be kept, or is empty."""

    values: list[Any]
    problem: str = ""


class InvalidValueError(ValueError):
    """Bytes that are no value of the VR."""


def _strings(data: bytes) -> list[str]:
    return data.decode("latin-1").rstrip(" \x00").split("\\")


def _present(values: list[str]) -> list[str]:
    return [] if values == [""] else values


def _plain_strings(data: bytes, _context: ValueContext) -> Values:
    return Values(_present(_strings(data)))


def _application_entities(data: bytes, _context: ValueContext) -> Values:
    return Values(_present([value.strip() for value in data.decode("latin-1").split("\\")]))


def _uids(data: bytes, _context: ValueContext) -> Values:
    return Values(_present([value.strip() for value in _strings(data)]))


def _uri(data: bytes, _context: ValueContext) -> Values:
    return Values(_present([data.decode("latin-1").rstrip()]))


def _texts(data: bytes, context: ValueContext) -> Values:
    decoded = decode_text(data, context.charset)
    values = [value.rstrip("\0 ") for value in decoded.text.split("\\")]
    return Values(_present(values), "" if decoded.is_exact else _REPLACED)


def _single_text(data: bytes, context: ValueContext) -> Values:
    decoded = decode_text(data, context.charset)
    return Values(_present([decoded.text.rstrip("\0 ")]), "" if decoded.is_exact else _REPLACED)


_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")  # PS3.18 section F.2.2


def _person_names(data: bytes, context: ValueContext) -> Values:
    decoded = decode_text(data.rstrip(b"\x00 "), context.charset)
    names = [_person_name(name) for name in decoded.text.split("\\")]
    return Values([] if names == [None] else names, "" if decoded.is_exact else _REPLACED)


def _person_name(name: str) -> dict[str, str] | None:
    groups = name.rstrip("=").split("=")
    return dict(zip(_NAME_GROUPS, groups, strict=False)) if groups != [""] else None


def _decimals(data: bytes, _context: ValueContext) -> Values:
    texts = data.decode("latin-1").strip().rstrip(" \x00").split("\\")
    try:
        numbers = [float(text) if text.strip() else None for text in texts]
    except ValueError:
        return _kept_as_text(texts)
    if not all(number is None or math.isfinite(number) for number in numbers):
        return _kept_as_text(texts)
    return Values([] if numbers == [None] else numbers)


def _integer_strings(data: bytes, _context: ValueContext) -> Values:
    texts = _strings(data)
    try:
        numbers = [_integer(text) if text.strip() else None for text in texts]
    except (ValueError, OverflowError):
        return _kept_as_text(texts)
    return Values([] if numbers == [None] else numbers)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return int(float(text))


def _kept_as_text(texts: list[str]) -> Values:
    return Values(list(texts), "is no number and was kept as text")  # Table F.2.3-1 allows strings for DS and IS


def _tags(data: bytes, context: ValueContext) -> Values:
    whole = len(data) - len(data) % 4
    halves = struct.unpack(f"{'<' if context.little_endian else '>'}{whole // 2}H", data[:whole])
    tags = [f"{group:04X}{element:04X}" for group, element in zip(halves[::2], halves[1::2], strict=True)]
    return Values(tags, "" if whole == len(data) else "ends within a tag, which was dropped")


def _unpack(data: bytes, form: str, context: ValueContext) -> list[Any]:
    size = struct.calcsize(f"={form}")
    if len(data) % size:
        raise InvalidValueError(f"has a length that is not a multiple of {size}")
    return list(struct.unpack(f"{'<' if context.little_endian else '>'}{len(data) // size}{form}", data))


def _integers(form: str) -> Callable[[bytes, ValueContext], Values]:
    return lambda data, context: Values(_unpack(data, form, context))


def _floats(form: str) -> Callable[[bytes, ValueContext], Values]:
    def convert(data: bytes, context: ValueContext) -> Values:
        numbers = _unpack(data, form, context)
        if all(map(math.isfinite, numbers)):
            return Values(numbers)
        finite = [number if math.isfinite(number) else None for number in numbers]
        return Values(finite, "holds NaN or infinity, written as null")

    return convert


_CONVERTERS: dict[str, Callable[[bytes, ValueContext], Values]] = {
    **dict.fromkeys(_DEFAULT_REPERTOIRE, _plain_strings),
    **{vr: _integers(form) for vr, form in _INTEGERS.items()},
    **{vr: _floats(form) for vr, form in _FLOATS.items()},
    **dict.fromkeys(("LO", "SH", "UC"), _texts),
    **dict.fromkeys(("LT", "ST", "UT"), _single_text),
    "AE": _application_entities,
    "AT": _tags,
    "DS": _decimals,
    "IS": _integer_strings,
    "PN": _person_names,
    "UI": _uids,
    "UR": _uri,
}

CONVERTED_VRS = frozenset(_CONVERTERS)
"""Every VR that :func:`convert_value` takes: all but sequences and the binary ones."""


def convert_value(vr: str, data: bytes, context: ValueContext) -> Values:
    """Return the JSON values of an encoded value.

    Parameters
    ----------
    vr
        One of `CONVERTED_VRS`.

    Raises
    ------
    InvalidValueError
        If `data` is no value of the VR and is no text either.
    """
    return _CONVERTERS[vr](data, context)
