"""Which VR an element has where the file does not say: implicit VR, UN, private and context-dependent ones."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.valuerep import AMBIGUOUS_VR

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST_SHORT_LENGTH = 0xFFFE
_SIGNED_TAGS = frozenset(
    {
        *(0x00280100 + low for low in (0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x10, 0x11, 0x20, 0x21)),
        *(0x00281101, 0x00281102, 0x00281103, 0x00283002),
        *(0x00189810, 0x00221452, 0x00409211, 0x00409216, 0x00603004, 0x00603006),
    }
)

PIXEL_DATA = 0x7FE00010
LUT_DESCRIPTORS = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00283002})
LUT_DATA = 0x00283006
AMBIGUOUS_VRS = frozenset(str(vr) for vr in AMBIGUOUS_VR)


@lru_cache(maxsize=1 << 13)
def find_public_vr(tag: int) -> str | None:
    """Return the VR of PS3.6 for a tag (repeating groups too), or None."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return None


@lru_cache(maxsize=1 << 13)
def _find_private_vr(tag: int, creator: str) -> str | None:
    try:
        return str(private_dictionary_VR(tag, creator))
    except KeyError:
        return None


def resolve_vr(vr: str | None, tag: int, length: int, creator: Callable[[int], str]) -> str:
    """Return the VR to read an element with.

    Parameters
    ----------
    vr
        As in the file; None where it does not say.
    length
        Of the value, in bytes.
    creator
        Gives the private creator of a private tag, or an empty string.

    Notes
    -----
    May be one of `AMBIGUOUS_VRS`.  UN is undone where the tag is known, as PS3.5 section 6.2.2 asks: a public element
    that is longer was rightly written so.
    """
    if vr is not None and vr != "UN":
        return vr
    group, element = tag >> 16, tag & 0xFFFF
    if group % 2:
        return _private_vr(tag, creator)
    if vr == "UN":
        return (find_public_vr(tag) or vr) if length <= _LAST_SHORT_LENGTH else vr
    return find_public_vr(tag) or ("UL" if element == 0 else "UN")


def _private_vr(tag: int, creator: Callable[[int], str]) -> str:
    element = tag & 0xFFFF
    if 0x0010 <= element <= 0x00FF:  # noqa: PLR2004  (PS3.5 section 7.8.1)
        return "LO"
    name = creator(tag) if element & 0xFF00 else ""
    return (_find_private_vr(tag, name) or "UN") if name else "UN"


def disambiguate_vr(vr: str, tag: int, *, is_signed: bool, is_undefined_length: bool, lut_entries: int | None) -> str:
    """Return the VR that the context gives an element whose VR PS3.6 leaves open.

    Parameters
    ----------
    is_signed
        Whether Pixel Representation says so.
    lut_entries
        First value of LUT Descriptor, if there is one: one entry makes LUT Data US (PS3.3 section C.11.1.1.1).

    Notes
    -----
    Retired elements that no context decides become OW, which is valid JSON and keeps their bytes.
    """
    if tag == PIXEL_DATA:
        return "OB" if is_undefined_length else "OW"
    if tag in _SIGNED_TAGS:
        return "SS" if is_signed else "US"
    if tag == LUT_DATA and lut_entries == 1:
        return "US"
    return "UN" if vr == "US or SS" else "OW"
