"""The values of an inventory's cells: sizes, UIDs, and CRC32Cs in each of the forms that people write."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.checksum import decode, encode
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Iterable

_BASE64 = re.compile(r"[A-Za-z0-9+/]{6}==")
_HEX = re.compile(r"(?:0x)?[0-9A-Fa-f]{8}")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,9}")
_SIZE = re.compile(r"([0-9]+)(?:\.0*)?")  # a column with gaps becomes floating point on its way through pandas
_CRC_BITS = 32


def text_of_cell(value: Any) -> str | None:
    """Return a cell as text without the blanks around it; None for an empty one."""
    if value is None or value != value:  # noqa: PLR0124 - NaN is how tables say that nothing is there
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip(" \t\r\n\0")
    return text or None


def parse_size(value: Any) -> int | None:
    """Return a size in bytes, or None for an empty cell; `ValueError` for anything else."""
    text = text_of_cell(value)
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("the size is not a number of bytes")
    return int(match[1])


def parse_uid(value: Any, kind: str) -> str | None:
    """Return a UID, or None for an empty cell; `ValueError`, which does not repeat the cell, for anything else."""
    text = text_of_cell(value)
    if text is not None and not is_uid(text):
        raise ValueError(f"the {kind} UID is not 1 to 64 digits and dots")
    return text


def is_true(value: Any) -> bool:
    """Return whether a cell says yes."""
    return (text_of_cell(value) or "").lower() in {"true", "1", "yes"}


def _forms_of(text: str) -> list[str]:
    forms = [
        form for form, pattern in (("base64", _BASE64), ("hex", _HEX), ("integer", _INTEGER)) if pattern.fullmatch(text)
    ]
    if "integer" in forms and int(text) >> _CRC_BITS:
        forms.remove("integer")
    return forms


def common_form(values: Iterable[Any]) -> str | None:
    """Return the form that the values which allow for one form only agree on, or None.

    Notes
    -----
    Eight decimal digits may be hexadecimal or an integer; one value in forty of either kind looks like that.
    """
    proven = set()
    for value in values:
        forms = ["integer"] if isinstance(value, int | float) else _forms_of(text_of_cell(value) or "")
        if len(forms) == 1:
            proven.add(forms[0])
    return proven.pop() if len(proven) == 1 else None


def parse_crc32c(value: Any, form: str | None) -> str | None:
    """Return a CRC32C in base64, or None for an empty cell.

    Parameters
    ----------
    value
        Text in base64, hexadecimal or decimal, a number, or four big-endian bytes.
    form
        Decides where the text allows for two forms; None: that is an error.

    Raises
    ------
    ValueError
        If it is no CRC32C, or could be two.
    """
    if isinstance(value, bytes):
        return encode(decode(base64.b64encode(value).decode("ascii")))
    text = text_of_cell(value)
    if text is None:
        return None
    forms = ["integer"] if isinstance(value, int | float) and _forms_of(text) else _forms_of(text)
    if not forms:
        raise ValueError("the CRC32C is neither base64 of four bytes, nor eight hexadecimal digits, nor an integer")
    if len(forms) > 1 and form not in forms:
        raise ValueError("the CRC32C could be hexadecimal or decimal: map it as crc32c:hex or crc32c:integer")
    chosen = form if form in forms and len(forms) > 1 else forms[0]
    if chosen == "base64":
        return encode(decode(text))
    return encode(int(text, 16 if chosen == "hex" else 10))
