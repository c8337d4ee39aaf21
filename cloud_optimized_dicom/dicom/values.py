"""Encoded values to the text of the DICOM JSON Model (PS3.18 section F.2), one function per kind of VR.

Equal to what pydicom's `Dataset.to_json_dict` gives wherever that gives something.  Text rather than Python values,
because nearly all of it is only ever written.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.dicom.text import decode_text

if TYPE_CHECKING:
    from collections.abc import Callable

BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})

MEMOIZED_BYTES = 64
"""The longest value that :func:`dump_short_element` takes; the files of a series repeat most of them."""

_MEMOIZED_ELEMENTS = 1 << 13
_INTEGERS = {"SL": "l", "SS": "h", "SV": "q", "UL": "L", "US": "H", "UV": "Q"}
_FLOATS = {"FD": "d", "FL": "f"}
_DEFAULT_REPERTOIRE = ("AS", "CS", "DA", "DT", "TM")
_REPLACED = "some bytes are not of its character set and were replaced"

_Converted = tuple[str, str]
"""JSON texts of the values with commas between them, empty without values; and what could not be kept, or empty."""

quote = json.JSONEncoder(ensure_ascii=False).encode
"""A string to its JSON text."""


@dataclass(frozen=True, eq=False, slots=True)
class ValueContext:
    """What decoding a value takes besides its VR: the Python codecs of its text, and the byte order of its numbers.

    Notes
    -----
    Comes from :func:`value_context`, and is equal to itself only: hashing one costs nothing.
    """

    charset: tuple[str, ...]
    little_endian: bool


@lru_cache(maxsize=256)
def value_context(charset: tuple[str, ...], little_endian: bool) -> ValueContext:  # noqa: FBT001
    """Return the context of these codecs and byte order."""
    return ValueContext(charset, little_endian)


class InvalidValueError(ValueError):
    """Bytes that are no value of the VR."""


def _quoted(values: list[str]) -> str:
    if len(values) == 1:
        return quote(values[0]) if values[0] else ""
    return ",".join(map(quote, values))


def _plain_strings(data: bytes, _context: ValueContext) -> _Converted:
    return _quoted(data.decode("latin-1").rstrip(" \x00").split("\\")), ""


def _application_entities(data: bytes, _context: ValueContext) -> _Converted:
    return _quoted([value.strip() for value in data.decode("latin-1").split("\\")]), ""


def _uids(data: bytes, _context: ValueContext) -> _Converted:
    return _quoted([value.strip() for value in data.decode("latin-1").rstrip(" \x00").split("\\")]), ""


def _uri(data: bytes, _context: ValueContext) -> _Converted:
    return _quoted([data.decode("latin-1").rstrip()]), ""


def _texts(data: bytes, context: ValueContext) -> _Converted:
    text, is_exact = decode_text(data, context.charset)
    return _quoted([value.rstrip("\0 ") for value in text.split("\\")]), "" if is_exact else _REPLACED


def _single_text(data: bytes, context: ValueContext) -> _Converted:
    text, is_exact = decode_text(data, context.charset)
    return _quoted([text.rstrip("\0 ")]), "" if is_exact else _REPLACED


_NAME_GROUPS = ('"Alphabetic":', '"Ideographic":', '"Phonetic":')  # PS3.18 section F.2.2


def _person_names(data: bytes, context: ValueContext) -> _Converted:
    text, is_exact = decode_text(data.rstrip(b"\x00 "), context.charset)
    names = [_person_name(name) for name in text.split("\\")]
    return "" if names == ["null"] else ",".join(names), "" if is_exact else _REPLACED


def _person_name(name: str) -> str:
    groups = name.rstrip("=").split("=")
    if groups == [""]:
        return "null"
    return "{" + ",".join(key + quote(group) for key, group in zip(_NAME_GROUPS, groups, strict=False)) + "}"


def _decimals(data: bytes, _context: ValueContext) -> _Converted:
    texts = data.decode("latin-1").strip().rstrip(" \x00").split("\\")
    try:
        numbers = list(map(float, texts))
    except ValueError:
        return _numbers_with_gaps(texts, float)
    if not all(map(math.isfinite, numbers)):
        return _kept_as_text(texts)
    return ",".join(map(repr, numbers)), ""


def _integer_strings(data: bytes, _context: ValueContext) -> _Converted:
    texts = data.decode("latin-1").rstrip(" \x00").split("\\")
    try:
        return ",".join(map(repr, map(int, texts))), ""
    except ValueError:
        return _numbers_with_gaps(texts, _integer)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return int(float(text))


def _numbers_with_gaps(texts: list[str], number: Callable[[str], float]) -> _Converted:
    """Return numbers of which some may be empty, which is null, or odd."""
    try:
        numbers = [number(text) if text.strip() else None for text in texts]
    except (ValueError, OverflowError):
        return _kept_as_text(texts)
    if numbers == [None]:
        return "", ""
    if not all(value is None or math.isfinite(value) for value in numbers):
        return _kept_as_text(texts)
    return ",".join(["null" if value is None else repr(value) for value in numbers]), ""


def _kept_as_text(texts: list[str]) -> _Converted:
    # Table F.2.3-1 allows strings for DS and IS.
    return ",".join(map(quote, texts)), "is no number and was kept as text"


def _tags(data: bytes, context: ValueContext) -> _Converted:
    whole = len(data) - len(data) % 4
    halves = struct.unpack(f"{'<' if context.little_endian else '>'}{whole // 2}H", data[:whole])
    tags = [f'"{group:04X}{element:04X}"' for group, element in zip(halves[::2], halves[1::2], strict=True)]
    return ",".join(tags), "" if whole == len(data) else "ends within a tag, which was dropped"


def _unpacker(form: str) -> Callable[[bytes, ValueContext], tuple[Any, ...]]:
    single = {True: struct.Struct(f"<{form}"), False: struct.Struct(f">{form}")}
    size = single[True].size

    def unpack(data: bytes, context: ValueContext) -> tuple[Any, ...]:
        count, rest = divmod(len(data), size)
        if rest:
            raise InvalidValueError(f"has a length that is not a multiple of {size}")
        if count == 1:
            return single[context.little_endian].unpack(data)
        return struct.unpack(f"{'<' if context.little_endian else '>'}{count}{form}", data)

    return unpack


def _integers(form: str) -> Callable[[bytes, ValueContext], _Converted]:
    unpack = _unpacker(form)
    return lambda data, context: (",".join(map(repr, unpack(data, context))), "")


def _floats(form: str) -> Callable[[bytes, ValueContext], _Converted]:
    unpack = _unpacker(form)

    def convert(data: bytes, context: ValueContext) -> _Converted:
        numbers = unpack(data, context)
        if all(map(math.isfinite, numbers)):
            return ",".join(map(repr, numbers)), ""
        finite = [repr(number) if math.isfinite(number) else "null" for number in numbers]
        return ",".join(finite), "holds NaN or infinity, written as null"

    return convert


_CONVERTERS: dict[str, Callable[[bytes, ValueContext], _Converted]] = {
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
"""Every VR that :func:`dump_element` takes: all but sequences and the binary ones."""


@lru_cache(maxsize=_MEMOIZED_ELEMENTS)
def _opening(tag: int, vr: str) -> str:
    return f'"{tag:08X}":{{"vr":"{vr}"'


def dump_element(tag: int, vr: str, data: bytes, context: ValueContext) -> tuple[str, str]:
    """Return the JSON member of an element, tag and all; and what could not be kept of it, or an empty string.

    Parameters
    ----------
    vr
        One of `CONVERTED_VRS`.

    Raises
    ------
    InvalidValueError
        If `data` is no value of the VR and is no text either.
    """
    text, problem = _CONVERTERS[vr](data, context)
    opening = _opening(tag, vr)
    return f'{opening},"Value":[{text}]}}' if text else opening + "}", problem


dump_short_element = lru_cache(maxsize=_MEMOIZED_ELEMENTS)(dump_element)
"""The same for values of at most `MEMOIZED_BYTES`, remembered: the last few thousand distinct elements."""
