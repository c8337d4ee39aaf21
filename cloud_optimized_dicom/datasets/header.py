"""A DICOM JSON header by keywords, for filters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydicom.datadict import tag_for_keyword

if TYPE_CHECKING:
    from collections.abc import Mapping

_TAG = re.compile(r"[0-9A-Fa-f]{8}")


class HeaderView:
    """What a filter sees of an instance.

    Parameters
    ----------
    raw
        The DICOM JSON (PS3.18 Annex F), by tags.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value by its keyword (``"Modality"``) or tag (``"00080060"``).

        Returns
        -------
        Any
            A single value as such, several as a list, both as DICOM JSON has them; `default` where there is none.

        Raises
        ------
        KeyError
            If `name` is neither a tag nor a keyword of the DICOM dictionary.
        """
        element = self.raw.get(_tag_of(name))
        values = element.get("Value") if isinstance(element, dict) else None
        if not values:
            return default
        return values[0] if len(values) == 1 else values

    def __contains__(self, name: str) -> bool:
        return _tag_of(name) in self.raw


def _tag_of(name: str) -> str:
    if _TAG.fullmatch(name):
        return name.upper()
    tag = tag_for_keyword(name)
    if tag is None:
        raise KeyError(name)
    return f"{tag:08X}"
