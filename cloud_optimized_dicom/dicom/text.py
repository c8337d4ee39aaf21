"""Specific Character Set (PS3.3 section C.12.1.1.2) and the decoding of text (PS3.5 section 6.1.2).

The same results as pydicom's, from its tables of character sets; but pydicom's own functions warn through Python's
process-wide warnings and repeat values in its log, neither of which a library in a threaded pipeline may do.
"""

from __future__ import annotations

import codecs
import re
from functools import cache
from typing import TYPE_CHECKING

from pydicom.charset import (
    CODES_TO_ENCODINGS,
    STAND_ALONE_ENCODINGS,
    default_encoding,
    handled_encodings,
    python_encoding,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPE = b"\x1b"
_FRAGMENTS = re.compile(b"(^[^\x1b]+|[\x1b][^\x1b]*)")
_LONG_ESCAPES = (b"\x1b$(", b"\x1b$)")
_DELIMITERS = re.compile(rb"[\x0d\x0a\x09\x0c]")  # each ends what an escape sequence has switched on

_CODE_PAGES = ("ascii", "big5", "cp1250", "cp1251", "cp1252", "cp1253", "cp932", "cp936", "cp949", "euc_jp")

DEFAULT_CHARSET = (default_encoding,)
"""ISO-IR 6, read as Latin-1 so that no byte is lost."""


def parse_charset(value: bytes) -> tuple[str, ...]:
    """Return the Python codecs that a value of (0008,0005) names; unknown names stand for the default."""
    names = value.decode("latin-1").rstrip(" \x00").split("\\")
    if len(names) > 1 and not names[0]:
        names[0] = "ISO_IR 6"
    found = [_codec(name) for name in names]
    if len(names) == 1:
        return tuple(found)
    if names[0] in STAND_ALONE_ENCODINGS:
        return (found[0],)
    extensions = [c for name, c in zip(names[1:], found[1:], strict=True) if name not in STAND_ALONE_ENCODINGS]
    return (found[0], *extensions)


def _codec(name: str) -> str:
    codec = python_encoding.get(name)
    if codec is not None:
        return codec
    if re.match("^ISO[^_]IR", name):  # two common misspellings
        return python_encoding.get("ISO_IR" + name[6:], default_encoding)
    if re.match("^(?=ISO.2022.IR.)(?!ISO 2022 IR )", name):
        return python_encoding.get("ISO 2022 IR " + name[12:], default_encoding)
    return name if _python_name(name) in _known_python_names() else default_encoding


def _python_name(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        return ""


@cache
def _known_python_names() -> frozenset[str]:
    """Return the codecs that a writer may have named by their Python name; others do more than map bytes to text."""
    names = {_python_name(name) for name in (*python_encoding.values(), *_CODE_PAGES)}
    return frozenset(names - {""})


def decode_text(value: bytes, charset: Sequence[str]) -> tuple[str, bool]:
    """Return the text of `value`, and whether every byte of it was valid in its character set; others become U+FFFD."""
    if _ESCAPE not in value:
        if value.isascii() and _keeps_ascii(charset[0]):
            return value.decode("ascii"), True  # far faster than codecs that are looked up by name
        return _decode(value, charset[0], charset)
    parts = [_decode_fragment(fragment, charset) for fragment in _FRAGMENTS.findall(value)]
    return "".join(text for text, _ in parts), all(is_exact for _, is_exact in parts)


@cache
def _keeps_ascii(codec: str) -> bool:
    """Whether `codec` decodes ASCII to itself, as nearly all do."""
    ascii_bytes = bytes(range(128))
    return ascii_bytes.decode(codec, errors="replace") == ascii_bytes.decode("ascii")


def _decode(value: bytes, codec: str, charset: Sequence[str]) -> tuple[str, bool]:
    try:
        return value.decode(codec), True
    except UnicodeError:
        return value.decode(charset[0], errors="replace"), False


def _decode_fragment(fragment: bytes, charset: Sequence[str]) -> tuple[str, bool]:
    if not fragment.startswith(_ESCAPE):
        return _decode(fragment, charset[0], charset)
    escape_bytes = 4 if fragment.startswith(_LONG_ESCAPES) else 3
    codec = CODES_TO_ENCODINGS.get(fragment[:escape_bytes], "")
    if codec not in charset and codec != default_encoding:
        return fragment.decode(charset[0], errors="replace"), False
    if codec in handled_encodings:  # Python's codec knows the escape sequence itself
        return _decode(fragment, codec, charset)
    return _decode_escaped(fragment, escape_bytes, codec, charset)


def _decode_escaped(fragment: bytes, escape_bytes: int, codec: str, charset: Sequence[str]) -> tuple[str, bool]:
    rest = fragment[escape_bytes:]
    delimiter = _DELIMITERS.search(rest)
    stop = delimiter.start() if delimiter else len(rest)
    try:
        return rest[:stop].decode(codec) + rest[stop:].decode(charset[0]), True
    except UnicodeError:
        return fragment.decode(charset[0], errors="replace"), False
