"""What is exported: by UID, and by conditions on header attributes."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from cloud_optimized_dicom.uids import check_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloud_optimized_dicom.uids import SeriesKey

_CONDITION = re.compile(r"\s*(?P<name>[^=!~<>]+?)\s*(?P<operator>!=|<=|>=|=|~|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)
_TAG = re.compile(r"\(?(?:0x)?([0-9A-Fa-f]{4}),?\s*([0-9A-Fa-f]{4})\)?")
_NUMERIC_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}


@dataclass(frozen=True)
class Condition:
    """A condition on one attribute of an instance's header.

    Parameters
    ----------
    tag
        ``"GGGGEEEE"``, in capitals.
    operator
        ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, or ``~`` for a regular expression found anywhere, in either case.
    value
        What to compare with.

    Notes
    -----
    Of several values one that fits is enough; ``!=`` is the opposite of ``=``.  Attributes with a numeric VR compare as
    numbers (``KVP=120`` is true of 120.0), others as text, of which dates and times sort as they should; a person name
    is each of its representations.  An attribute that is absent or empty has no value: ``PatientID=`` is true of it,
    and every other condition but ``!=`` is false.

    Raises
    ------
    ValueError
        If the operator is none of these, or the value no regular expression, or no number where one is needed.
    """

    tag: str
    operator: str
    value: str

    def __post_init__(self) -> None:
        if self.operator not in {"!=", "~"} and self.operator not in _ORDERINGS:
            raise ValueError(f"{self.operator} is not one of =, !=, <, <=, >, >=, ~")
        if self.operator == "~":
            try:
                _ = self._pattern
            except re.error as error:
                raise ValueError(f"the condition on {self.tag} holds no regular expression: {error.msg}") from None

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return the condition in a text such as ``Modality=CT``, ``(0018,0050)<=2`` or ``SeriesDescription~lung``.

        Raises
        ------
        ValueError
            If it is none, or names no attribute; a sequence cannot be compared.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise ValueError("a condition is ATTRIBUTE, one of = != < <= > >= ~, and a value")
        return cls(_tag_of(match["name"]), match["operator"], match["value"])

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.value, re.IGNORECASE)

    def holds(self, header: Mapping[str, Any]) -> bool:
        """Return whether it is true of a header in DICOM JSON (PS3.18 Annex F)."""
        element = header.get(self.tag)
        values = _values_of(element) if isinstance(element, dict) else []
        if self.operator == "~":
            return any(self._pattern.search(str(value)) for value in values)
        if self.operator == "!=":
            return not self._any(values, operator.eq, element)
        return self._any(values, _ORDERINGS[self.operator], element)

    def _any(self, values: list[Any], compare: Callable[[Any, Any], bool], element: Any) -> bool:
        if not self.value:
            return compare is operator.eq and not values
        if not values or element.get("vr") not in _NUMERIC_VRS:
            return any(compare(str(value), self.value) for value in values)
        wanted = _number(self.value)
        numbers = [_number(value) for value in values]
        return wanted is not None and any(compare(value, wanted) for value in numbers if value is not None)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _tag_of(name: str) -> str:
    match = _TAG.fullmatch(name)
    number = int(match[1] + match[2], 16) if match else tag_for_keyword(name)
    if number is None:
        raise ValueError(f"{name} is neither the keyword of a DICOM attribute nor a tag like 0008,0060")
    if keyword_for_tag(number) and dictionary_VR(number) == "SQ":
        raise ValueError(f"{name} is a sequence, which cannot be compared")
    return f"{number:08X}"


def _values_of(element: Mapping[str, Any]) -> list[Any]:
    """Return the values of an element that can be compared; a person name gives each representation it has."""
    found: list[Any] = []
    values = element.get("Value")
    for value in values if isinstance(values, list) else ():
        found += value.values() if isinstance(value, dict) and element.get("vr") == "PN" else [value]
    return [value for value in found if value is not None and value != "" and not isinstance(value, dict)]


@dataclass(frozen=True)
class Selection:
    """Which instances are exported: those that fit every part that is given.

    Parameters
    ----------
    series
        Only these series; None: all of the datastore.
    uids
        Only what has one of these UIDs, or is in a series or study that has; empty: everything.  They are the UIDs that
        things are stored under (where a store hashes UIDs, the hashes).
    where
        Only instances whose header fits all of these conditions.

    Raises
    ------
    InvalidUidError
        If a UID is not 1 to 64 digits and dots.

    Notes
    -----
    UIDs are looked for among studies and series first, which costs a listing; only where some are left over, as those
    of instances are, the metadata of every series is read.
    """

    series: tuple[SeriesKey, ...] | None = None
    uids: frozenset[str] = field(default_factory=frozenset)
    where: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for uid in self.uids:
            check_uid(uid, "selected")

    def plan_series(self, keys: Iterable[SeriesKey]) -> Iterable[SeriesKey]:
        """Return the series that have to be opened."""
        if not self.uids:
            return keys
        known = list(keys)
        named = [key for key in known if self.names_series(key)]
        found = {uid for key in named for uid in (key.study_uid, key.series_uid)}
        return named if self.uids <= found else known

    def names_series(self, key: SeriesKey) -> bool:
        """Return whether the UIDs take a series as a whole."""
        return not self.uids or key.study_uid in self.uids or key.series_uid in self.uids


def parse_uids(text: str) -> frozenset[str]:
    """Return the UIDs of a list with one a line; blank lines and what follows a ``#`` do not count.

    Raises
    ------
    InvalidUidError
        If a line is no UID.
    """
    lines = (line.partition("#")[0].strip() for line in text.removeprefix("\ufeff").splitlines())
    return frozenset(check_uid(line, "listed") for line in lines if line)
