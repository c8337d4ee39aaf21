"""A dataset to the DICOM JSON Model (PS3.18 Annex F), with large binary values left where they are.

Equal to pydicom's `Dataset.to_json_dict`, which is the oracle of the tests, but for these rules:

- A binary value (OB, OD, OF, OL, OV, OW, UN) over 1024 bytes, and Pixel Data always, becomes a ``BulkDataURI``.  The
  range is the value as it lies in the file; of a value of undefined length, from its first item up to and without the
  sequence delimiter.
- What is no value of its VR is kept: DS and IS as text; binary numbers of a wrong length, and elements with a VR that
  does not exist, as UN with their bytes.  Each gets a line in `problems`.
- NaN and infinity become null (FL, FD) or stay text (DS).
- A sequence that nests deeper than `MAX_DEPTH`, and a delimiter without a sequence, are dropped, with a line in
  `problems`.
- A value that the file ends in is kept as far as it goes.

Notes
-----
Uses nothing of pydicom but its dictionaries: no Python warning, no log line with a value, no global setting, so that it
may run in many threads.
"""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.dicom.elements import (
    DatasetWalk,
    Encoding,
    Extent,
    RawElement,
    detect_implicit,
    skip_sequence,
)
from cloud_optimized_dicom.dicom.text import DEFAULT_CHARSET, decode_text, parse_charset
from cloud_optimized_dicom.dicom.values import (
    BINARY_VRS,
    CONVERTED_VRS,
    MEMOIZED_BYTES,
    InvalidValueError,
    dump_element,
    dump_short_element,
    quote,
    value_context,
)
from cloud_optimized_dicom.dicom.vr import (
    AMBIGUOUS_VRS,
    LUT_DESCRIPTORS,
    disambiguate_vr,
    find_public_vr,
    resolve_vr,
)
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.format.offsets.items import SEQUENCE_END, UNDEFINED_LENGTH, parse_item_header
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

MAX_DEPTH = 32
"""Sequences within sequences; real structured reports stay under 20, and each level takes seven Python frames."""

MAX_ELEMENTS = 1 << 21
"""More than any real header has; zeros that are read as elements would go on for gigabytes."""

INLINE_BYTES = 1024
"""The longest binary value that is written into the header."""

PIXEL_DATA_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and plain Pixel Data."""

_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_LUT_DESCRIPTOR = 0x00283002
_MAX_PROBLEMS = 100
_DECIDED_VRS = (CONVERTED_VRS | BINARY_VRS | {"SQ"}) - {"UN"}
_SPECIAL_TAGS = LUT_DESCRIPTORS | {_CHARACTER_SET}
_BULK = "\0"
"""Encloses the number of a BulkDataURI until its text is known; in JSON text it cannot occur otherwise."""


class _Dataset:
    """A dataset that is being read, and what its values are decoded with: by default, as the one it is nested in."""

    __slots__ = ("charset", "depth", "elements", "encoding", "is_signed", "sequences")

    def __init__(self, encoding: Encoding, parent: _Dataset | None = None) -> None:
        self.encoding = encoding
        self.charset: tuple[str, ...] = DEFAULT_CHARSET if parent is None else parent.charset
        self.is_signed: bool = False if parent is None else parent.is_signed
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.elements: dict[int, RawElement] = {}
        self.sequences: dict[int, str | None] = {}  # JSON texts, by position of their value


class HeaderBuilder:
    """Makes the JSON of one file's datasets.

    Attributes
    ----------
    elements
        The elements of the dataset.
    is_truncated
        Whether the file ends within an element of the dataset.
    """

    def __init__(self, reader: PositionedReader, uri: str) -> None:
        self._reader = reader
        self._uri = uri
        self._count = 0
        self._members: dict[int, str] = {}
        self._bulk: list[ByteRange] = []
        self._problems: dict[str, None] = {}
        self._ended_early = False
        self.elements: Mapping[int, RawElement] = {}
        self.is_truncated = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be kept, as ``"GGGGEEEE: reason"``, each once, in order; at most 100."""
        return tuple(self._problems)

    def add_elements(self, elements: dict[int, RawElement], encoding: Encoding) -> None:
        """Add elements that were walked before: the file meta information."""
        dataset = _Dataset(encoding)
        dataset.elements = elements
        self._members |= self._convert(dataset)

    def add_dataset(self, start: int, encoding: Encoding) -> None:
        """Add the dataset from `start` to the end of the file.

        Raises
        ------
        InstanceValidationError
            If it has more than `MAX_ELEMENTS` data elements.
        """
        dataset = _Dataset(encoding)
        self._read_dataset(dataset, Extent(start, self._reader.size))
        last = next(reversed(dataset.elements.values()), None)
        self.is_truncated = last is None or last.is_cut or self._ended_early
        self.elements = dataset.elements
        self._members |= self._convert(dataset)

    def values(self, tag: int) -> list[Any]:
        """Return the values of an element that was added; none if it is missing or empty."""
        member = self._members.get(tag)
        if member is None or _BULK in member:
            return []
        (element,) = json.loads(f"{{{member}}}").values()
        return list(element.get("Value", ()))

    def dump(self, bulk_data_uri: Callable[[ByteRange], str]) -> bytes:
        """Return all that was added as compact JSON, every value that was left out by its URI."""
        parts = ("{" + ",".join(self._members.values()) + "}").split(_BULK)
        parts[1::2] = [quote(bulk_data_uri(self._bulk[int(number)])) for number in parts[1::2]]
        return "".join(parts).encode("utf-8", "backslashreplace")  # a lone surrogate becomes a JSON escape

    # -- reading

    def _problem(self, tag: int, reason: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems[f"{tag:08X}: {reason}"] = None

    def _read_dataset(self, dataset: _Dataset, extent: Extent) -> int:
        """Read the elements of a dataset, converting its sequences of undefined length; return the position behind."""

        def on_sequence(element: RawElement) -> int:
            dataset.sequences[element.value], stop = self._read_sequence(dataset, element, extent.limit)
            return stop

        walk = DatasetWalk(self._reader, dataset.encoding, extent, on_sequence=on_sequence)
        elements = dataset.elements
        tag = 0
        for element in walk:
            tag = element.tag
            elements[tag] = element
            if tag == _CHARACTER_SET:
                dataset.charset = parse_charset(element.read(self._reader))
            elif tag == _PIXEL_REPRESENTATION:
                dataset.is_signed = b"\x01" in element.read(self._reader)
            if element.length != element.declared and element.is_cut:
                self._problem(tag, element.scan.problem if element.scan else "the data ends within the value")
            self._count += 1
            if self._count > MAX_ELEMENTS:
                raise InstanceValidationError(self._uri, f"has more than {MAX_ELEMENTS} data elements")
        if walk.problem:
            self._ended_early = True
            self._problem(tag, f"behind it {walk.problem}")
        return walk.position

    def _read_sequence(self, dataset: _Dataset, element: RawElement, limit: int) -> tuple[str | None, int]:
        """Return the JSON text of a sequence's items (None if it nests too deep) and the position behind it."""
        stop = limit if element.is_undefined_length else min(limit, element.value + element.length)
        if dataset.depth >= MAX_DEPTH:
            self._problem(element.tag, f"is nested deeper than {MAX_DEPTH} sequences and was dropped")
            if element.is_undefined_length:
                return None, skip_sequence(self._reader, element.value, limit, dataset.encoding)
            return None, stop
        items: list[str] = []
        position = element.value
        while position < stop:
            header = self._reader.read(position, 8)
            if len(header) < 8 or position + 8 > stop:  # noqa: PLR2004
                self._problem(element.tag, "the data ends within the sequence")
                return ",".join(items), stop
            tag, length = parse_item_header(header, little_endian=dataset.encoding.little_endian)
            position += 8
            if tag == SEQUENCE_END:
                return ",".join(items), position if element.is_undefined_length else stop
            item, position = self._read_item(dataset, position, stop, length)
            items.append(item)
        if element.is_undefined_length:
            self._problem(element.tag, "the sequence has no end")
        return ",".join(items), stop

    def _read_item(self, parent: _Dataset, start: int, limit: int, length: int) -> tuple[str, int]:
        encoding = parent.encoding
        if detect_implicit(self._reader, start, encoding, is_item=True) is not encoding.implicit:
            encoding = encoding._replace(implicit=not encoding.implicit)
        item = _Dataset(encoding, parent)
        stop = self._read_dataset(item, Extent(start, limit, None if length == UNDEFINED_LENGTH else length))
        return "{" + ",".join(self._convert(item).values()) + "}", stop

    # -- converting

    def _convert(self, dataset: _Dataset) -> dict[int, str]:
        """Return the JSON member of each element by its tag."""
        members: dict[int, str] = {}
        context = value_context(dataset.charset, dataset.encoding.little_endian)
        for tag, element in dataset.elements.items():
            vr, data = element.vr or find_public_vr(tag), element.data
            member: str | None
            if vr in CONVERTED_VRS and data is not None and len(data) <= MEMOIZED_BYTES and tag not in _SPECIAL_TAGS:
                try:
                    member, problem = dump_short_element(tag, vr, data, context)
                except InvalidValueError as error:
                    member, problem = self._unreadable(element, dataset, str(error)), ""
                if problem:
                    self._problem(tag, problem)
            else:
                member = self._convert_element(dataset, element)
            if member is not None:
                members[tag] = member
        return members

    def _convert_element(self, dataset: _Dataset, element: RawElement) -> str | None:
        vr = element.vr
        if vr not in _DECIDED_VRS:
            vr = self._find_vr(dataset, element)
        if vr in CONVERTED_VRS:
            return self._value(vr, element, dataset)
        if vr == "SQ":
            return self._sequence(dataset, element)
        if vr in BINARY_VRS:
            return self._binary(vr, element, dataset.depth)
        if vr == "NONE":
            self._problem(element.tag, "is a delimiter without a sequence and was dropped")
            return None
        return self._unreadable(element, dataset, "has an unknown VR")

    def _value(self, vr: str, element: RawElement, dataset: _Dataset) -> str:
        tag, charset = element.tag, dataset.charset
        context = value_context(DEFAULT_CHARSET if tag == _CHARACTER_SET else charset, dataset.encoding.little_endian)
        try:
            member, problem = dump_element(tag, vr, element.read(self._reader), context)
        except InvalidValueError as error:
            return self._unreadable(element, dataset, str(error))
        if problem:
            self._problem(tag, problem)
        if vr == "SS" and tag in LUT_DESCRIPTORS and element.vr == vr:
            return _with_unsigned_entries(member)
        return member

    def _find_vr(self, dataset: _Dataset, element: RawElement) -> str:
        vr = resolve_vr(element.vr, element.tag, element.length, lambda tag: self._creator(dataset, tag))
        if vr not in AMBIGUOUS_VRS:
            return vr
        return disambiguate_vr(
            vr,
            element.tag,
            is_signed=dataset.is_signed,
            is_undefined_length=element.is_undefined_length,
            lut_entries=self._lut_entries(dataset),
        )

    def _lut_entries(self, dataset: _Dataset) -> int | None:
        element = dataset.elements.get(_LUT_DESCRIPTOR)
        first = element.read(self._reader)[:2] if element else b""
        order = "little" if dataset.encoding.little_endian else "big"
        return int.from_bytes(first, order) if first else None  # type: ignore[arg-type]

    def _creator(self, dataset: _Dataset, tag: int) -> str:
        element = dataset.elements.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF)
        if element is None or element.length > INLINE_BYTES:
            return ""
        return _creator_name(element.read(self._reader), dataset.charset)

    def _sequence(self, dataset: _Dataset, element: RawElement) -> str | None:
        if element.value in dataset.sequences:
            items = dataset.sequences[element.value]
        else:
            items, _ = self._read_sequence(dataset, element, element.value + element.length)
        return None if items is None else f'"{element.tag:08X}":{{"vr":"SQ","Value":[{items}]}}'

    def _binary(self, vr: str, element: RawElement, depth: int) -> str:
        value = ""
        if element.length > INLINE_BYTES or (element.length and depth == 0 and element.tag in PIXEL_DATA_TAGS):
            value = f',"BulkDataURI":{_BULK}{len(self._bulk)}{_BULK}'
            self._bulk.append(ByteRange.of(element.value, element.length))
        elif element.length:
            value = f',"InlineBinary":"{base64.b64encode(element.read(self._reader)).decode("ascii")}"'
        return f'"{element.tag:08X}":{{"vr":"{vr}"{value}}}'

    def _unreadable(self, element: RawElement, dataset: _Dataset, reason: str) -> str:
        self._problem(element.tag, f"{reason}; kept as UN")
        return self._binary("UN", element, dataset.depth)


@lru_cache(maxsize=256)
def _creator_name(data: bytes, charset: tuple[str, ...]) -> str:
    return decode_text(data, charset)[0].rstrip("\0 ")


def _with_unsigned_entries(member: str) -> str:
    """Return a LUT Descriptor whose number of entries is not negative (PS3.3 section C.11.1.1)."""
    ((key, element),) = json.loads(f"{{{member}}}").items()
    values = element.get("Value", ())
    if len(values) > 1 and values[0] < 0:  # a lone value is no descriptor
        values[0] += 1 << 16
    return json.dumps({key: element}, separators=(",", ":"))[1:-1]
