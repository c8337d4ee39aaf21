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
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from cloud_optimized_dicom.dicom.values import BINARY_VRS, CONVERTED_VRS, InvalidValueError, ValueContext, convert_value
from cloud_optimized_dicom.dicom.vr import AMBIGUOUS_VRS, LUT_DESCRIPTORS, disambiguate_vr, resolve_vr
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.format.offsets.items import SEQUENCE_END, UNDEFINED_LENGTH, parse_item_header
from cloud_optimized_dicom.ranges import ByteRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_optimized_dicom.format.offsets.reader import PositionedReader

    Json = dict[str, Any]

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
_CHARACTER_SET_CONTEXT = ValueContext(DEFAULT_CHARSET, little_endian=True)


@dataclass(frozen=True)
class Scope:
    """What a dataset inherits from the one it is nested in."""

    encoding: Encoding
    charset: tuple[str, ...] = DEFAULT_CHARSET
    is_signed: bool | None = None
    depth: int = 0

    @cached_property
    def context(self) -> ValueContext:
        """How its values are decoded."""
        return ValueContext(self.charset, self.encoding.little_endian)


@dataclass
class _Dataset:
    scope: Scope
    elements: dict[int, RawElement] = field(default_factory=dict)
    sequences: dict[int, list[Json] | None] = field(default_factory=dict)  # by position of their value


class HeaderBuilder:
    """Makes the JSON of one file's datasets.

    Attributes
    ----------
    problems
        What could not be kept, as ``"GGGGEEEE: reason"``, each once, in order; at most 100.
    elements
        The elements of the dataset that was built last at the top level.
    """

    def __init__(self, reader: PositionedReader, uri: str) -> None:
        self._reader = reader
        self._uri = uri
        self._count = 0
        self._bulk: list[tuple[Json, ByteRange]] = []
        self._problems: dict[str, None] = {}
        self.elements: Mapping[int, RawElement] = {}
        self._ended_early = False
        self._is_truncated = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be kept."""
        return tuple(self._problems)

    @property
    def is_truncated(self) -> bool:
        """Whether the file ends within an element of the dataset."""
        return self._is_truncated

    def build(self, start: int, encoding: Encoding) -> Json:
        """Return the JSON of the dataset from `start` to the end of the file.

        Raises
        ------
        InstanceValidationError
            If it has more than `MAX_ELEMENTS` data elements.
        """
        dataset, _ = self._read_dataset(Scope(encoding), Extent(start, self._reader.size))
        last = next(reversed(dataset.elements.values()), None)
        self._is_truncated = last is None or last.is_cut or self._ended_early
        self.elements = dataset.elements
        return self._convert(dataset)

    def convert(self, elements: dict[int, RawElement], encoding: Encoding) -> Json:
        """Return the JSON of elements that were walked before: the file meta information."""
        return self._convert(_Dataset(Scope(encoding), elements))

    def fill_bulk_data(self, uri: Callable[[ByteRange], str]) -> None:
        """Write the URI of every value that was left out."""
        for element, span in self._bulk:
            element["BulkDataURI"] = uri(span)

    # -- reading

    def _problem(self, tag: int, reason: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems[f"{tag:08X}: {reason}"] = None

    def _count_element(self) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise InstanceValidationError(self._uri, f"has more than {MAX_ELEMENTS} data elements")

    def _read_dataset(self, scope: Scope, extent: Extent) -> tuple[_Dataset, int]:
        """Return a dataset whose sequences of undefined length are converted already, and the position behind it."""
        dataset = _Dataset(scope)

        def on_sequence(element: RawElement) -> int:
            items, stop = self._read_sequence(dataset.scope, element, extent.limit)
            dataset.sequences[element.value] = items
            return stop

        walk = DatasetWalk(self._reader, scope.encoding, extent, on_sequence=on_sequence)
        last = 0
        for element in walk:
            self._count_element()
            dataset.elements[element.tag] = element
            last = element.tag
            if last == _CHARACTER_SET:
                dataset.scope = replace(dataset.scope, charset=parse_charset(element.read(self._reader)))
            elif last == _PIXEL_REPRESENTATION:
                dataset.scope = replace(dataset.scope, is_signed=b"\x01" in element.read(self._reader))
            if element.is_cut:
                self._problem(last, element.scan.problem if element.scan else "the data ends within the value")
        if walk.problem:
            self._ended_early = True
            self._problem(last, f"behind it {walk.problem}")
        return dataset, walk.position

    def _read_sequence(self, scope: Scope, element: RawElement, limit: int) -> tuple[list[Json] | None, int]:
        """Return the items of a sequence (None if it nests too deep) and the position behind it."""
        stop = limit if element.is_undefined_length else min(limit, element.value + element.length)
        if scope.depth >= MAX_DEPTH:
            self._problem(element.tag, f"is nested deeper than {MAX_DEPTH} sequences and was dropped")
            if element.is_undefined_length:
                return None, skip_sequence(self._reader, element.value, limit, scope.encoding)
            return None, stop
        items: list[Json] = []
        position = element.value
        while position < stop:
            header = self._reader.read(position, 8)
            if len(header) < 8 or position + 8 > stop:  # noqa: PLR2004
                self._problem(element.tag, "the data ends within the sequence")
                return items, stop
            tag, length = parse_item_header(header, little_endian=scope.encoding.little_endian)
            position += 8
            if tag == SEQUENCE_END:
                return items, position if element.is_undefined_length else stop
            item, position = self._read_item(scope, position, stop, length)
            items.append(item)
        if element.is_undefined_length:
            self._problem(element.tag, "the sequence has no end")
        return items, stop

    def _read_item(self, scope: Scope, start: int, limit: int, length: int) -> tuple[Json, int]:
        implicit = detect_implicit(self._reader, start, scope.encoding, is_item=True)
        inner = replace(scope, encoding=scope.encoding._replace(implicit=implicit), depth=scope.depth + 1)
        extent = Extent(start, limit, None if length == UNDEFINED_LENGTH else length)
        dataset, stop = self._read_dataset(inner, extent)
        return self._convert(dataset), stop

    # -- converting

    def _convert(self, dataset: _Dataset) -> Json:
        document: Json = {}
        for tag, element in dataset.elements.items():
            converted = self._convert_element(dataset, element)
            if converted is not None:
                document[f"{tag:08X}"] = converted
        return document

    def _convert_element(self, dataset: _Dataset, element: RawElement) -> Json | None:
        vr = element.vr
        if vr not in _DECIDED_VRS:
            vr = self._find_vr(dataset, element)
        if vr in CONVERTED_VRS:
            return self._value(vr, element, dataset) if element.length else {"vr": vr}
        if vr == "SQ":
            return self._sequence(dataset, element)
        if vr in BINARY_VRS:
            return self._binary(vr, element, dataset.scope.depth)
        if vr == "NONE":
            self._problem(element.tag, "is a delimiter without a sequence and was dropped")
            return None
        return self._unreadable(element, dataset, "has an unknown VR")

    def _value(self, vr: str, element: RawElement, dataset: _Dataset) -> Json:
        context = _CHARACTER_SET_CONTEXT if element.tag == _CHARACTER_SET else dataset.scope.context
        try:
            values, problem = convert_value(vr, element.read(self._reader), context)
        except InvalidValueError as error:
            return self._unreadable(element, dataset, str(error))
        if problem:
            self._problem(element.tag, problem)
        if vr == "SS" and element.tag in LUT_DESCRIPTORS and element.vr == vr and values and values[0] < 0:
            values[0] += 1 << 16  # the number of entries is never negative (PS3.3 section C.11.1.1)
        return {"vr": vr, "Value": values} if values else {"vr": vr}

    def _find_vr(self, dataset: _Dataset, element: RawElement) -> str:
        vr = resolve_vr(element.vr, element.tag, element.length, lambda tag: self._creator(dataset, tag))
        if vr not in AMBIGUOUS_VRS:
            return vr
        return disambiguate_vr(
            vr,
            element.tag,
            is_signed=bool(dataset.scope.is_signed),
            is_undefined_length=element.is_undefined_length,
            lut_entries=self._lut_entries(dataset),
        )

    def _lut_entries(self, dataset: _Dataset) -> int | None:
        element = dataset.elements.get(_LUT_DESCRIPTOR)
        first = element.read(self._reader)[:2] if element else b""
        order = "little" if dataset.scope.encoding.little_endian else "big"
        return int.from_bytes(first, order) if first else None  # type: ignore[arg-type]

    def _creator(self, dataset: _Dataset, tag: int) -> str:
        element = dataset.elements.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF)
        if element is None or element.length > INLINE_BYTES:
            return ""
        return decode_text(element.read(self._reader), dataset.scope.charset).text.rstrip("\0 ")

    def _sequence(self, dataset: _Dataset, element: RawElement) -> Json | None:
        if element.value in dataset.sequences:
            items = dataset.sequences[element.value]
        else:
            items, _ = self._read_sequence(dataset.scope, element, element.value + element.length)
        return None if items is None else {"vr": "SQ", "Value": items}

    def _binary(self, vr: str, element: RawElement, depth: int) -> Json:
        document: Json = {"vr": vr}
        if element.length > INLINE_BYTES or (element.length and depth == 0 and element.tag in PIXEL_DATA_TAGS):
            self._bulk.append((document, ByteRange.of(element.value, element.length)))
        elif element.length:
            document["InlineBinary"] = base64.b64encode(element.read(self._reader)).decode("ascii")
        return document

    def _unreadable(self, element: RawElement, dataset: _Dataset, reason: str) -> Json:
        self._problem(element.tag, f"{reason}; kept as UN")
        return self._binary("UN", element, dataset.scope.depth)


def find_text(header: Mapping[str, Any], tag: str) -> Sequence[str]:
    """Return the values of a text element of a DICOM JSON header; empty if it is missing or empty."""
    values = header.get(tag, {}).get("Value", ())
    return [value for value in values if isinstance(value, str)]
