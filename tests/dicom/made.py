"""Made-up DICOM files for Hypothesis: every VR, encoding, nesting and oddity, written without any code of ours."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from typing import NamedTuple

from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import private_dictionaries

SYNTAXES = {
    "1.2.840.10008.1.2": "implicit little",
    "1.2.840.10008.1.2.1": "explicit little",
    "1.2.840.10008.1.2.2": "explicit big",
    "1.2.840.10008.1.2.1.99": "explicit little, deflated",
}
CHARSETS = (
    *("", "ISO_IR 6", "ISO_IR 100", "ISO_IR 101", "ISO_IR 110", "ISO_IR 144", "ISO_IR 127", "ISO_IR 126"),
    *("ISO_IR 138", "ISO_IR 148", "ISO_IR 13", "ISO_IR 166", "ISO_IR 192", "GB18030", "GBK", "latin_1", "NO SUCH SET"),
    *("\\ISO 2022 IR 87", "ISO 2022 IR 6\\ISO 2022 IR 149", "\\ISO 2022 IR 58", "ISO 2022 IR 13\\ISO 2022 IR 87"),
    *("ISO 2022 IR 100\\ISO 2022 IR 144", "\\ISO 2022 IR 159", "ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 126"),
    *("ISO_IR 192\\ISO 2022 IR 87", "ISO_IR 100\\ISO_IR 192"),
)
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_OWN_TAGS = frozenset({0x00080005, 0x00080018, 0x0020000D, 0x0020000E, 0x00280103})
_CREATORS = (
    "SIEMENS MR HEADER",
    "SIEMENS CSA HEADER",
    "GEMS_ACQU_01",
    "Philips MR Imaging DD 001",
    "NOBODY KNOWS THIS",
)
_UNDEFINED = 0xFFFFFFFF


def _public_tags() -> dict[str, list[int]]:
    tags: dict[str, list[int]] = {}
    for tag, (vr, *_) in DicomDictionary.items():
        group = tag >> 16
        if 0x0004 < group < 0x7FE0 and tag not in _OWN_TAGS and vr != "OB or OW":
            tags.setdefault(vr, []).append(tag)
    return tags


_TAGS = _public_tags()
_SINGLE_SIZE = {"FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8, "AT": 4}
_SINGLE_SIZE |= {"OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "US or SS": 2, "US or OW": 2, "US or SS or OW": 2}


class Encoding(NamedTuple):
    """How a made dataset is written."""

    implicit: bool
    little: bool

    def pack(self, form: str, *values: int) -> bytes:
        """Pack numbers in this byte order."""
        return struct.pack(("<" if self.little else ">") + form, *values)

    def element(self, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
        """Write one element."""
        head = self.pack("HH", tag >> 16, tag & 0xFFFF)
        size = len(value) if length is None else length
        if self.implicit:
            return head + self.pack("L", size) + value
        if vr in _LONG_VRS:
            return head + vr.encode() + b"\0\0" + self.pack("L", size) + value
        return head + vr.encode() + self.pack("H", size) + value


def _padded(value: bytes, *, even: bool, pad: bytes) -> bytes:
    return value + pad if even and len(value) % 2 else value


_PLAIN = {
    "AE": st.sampled_from(["STORE", " SCU ", "", "A B"]),
    "AS": st.sampled_from(["054Y", "003M", "", "1Y"]),
    "CS": st.sampled_from(["ORIGINAL", "", "A_B", "lower case", "X "]),
    "DA": st.sampled_from(["20240131", "", "2024.01.31", "20240231", "20240101-20240201"]),
    "DT": st.sampled_from(["20240131101530.120000+0100", "", "2024", "junk"]),
    "TM": st.sampled_from(["101530.12", "", "10", "10:15:30", "246060"]),
    "UI": st.sampled_from(["1.2.840.10008.1.2", "1.2", "", "1.2.abc", "01.2"]),
    "IS": st.sampled_from(["1", "-12", "+3", "", " 7 ", "7.0", "1e2", "12 mm", "99999999999", "0x10", "1.5"])
    | st.integers(-(2**31), 2**31 - 1).map(str),
    "DS": st.sampled_from(["1.5", "-2e3", "+.5", "", " 3 ", "1,5", "nan", "INF", "1e400", "12 mm", "1_0"])
    | st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "UR": st.sampled_from(["http://example.org/a?b=c", "", " x ", "a\\b"]),
}
_LETTERS = "Ab ^=\\\"'/\t\néßЛюאשعΩω山田太郎김희중王小东ยｱﾔ"


@st.composite
def _text(draw: st.DrawFn, vr: str, charset: str) -> bytes:
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=20))
    alphabet = _LETTERS if vr in {"LT", "ST", "UT", "PN"} else _LETTERS.replace("\n", "")
    words = draw(st.lists(st.text(alphabet, max_size=8), max_size=4))
    text = ("=" if vr == "PN" else "\\").join(words)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codecs = convert_encodings(charset.split("\\"))
        return encode_string(text, codecs) if codecs else text.encode("latin-1", "replace")


@st.composite
def _value(draw: st.DrawFn, vr: str, charset: str) -> bytes:
    """Return the bytes of a value; of numbers in no particular byte order."""
    if vr in _PLAIN:
        value = "\\".join(draw(st.lists(_PLAIN[vr], max_size=4))).encode("latin-1")
        return _padded(value, even=draw(st.integers(0, 4)) > 0, pad=b"\0" if vr == "UI" else b" ")
    if vr in _SINGLE_SIZE:
        size = _SINGLE_SIZE[vr]
        values = draw(st.lists(st.binary(min_size=size, max_size=size), max_size=3))
        repeats = 600 if vr.startswith("O") and draw(st.integers(0, 5)) == 0 else 1
        return b"".join(values) * repeats + (b"x" if draw(st.integers(0, 15)) == 0 else b"")
    if vr in {"OB", "UN", "OB or OW"}:
        return draw(st.binary(max_size=20)) * draw(st.sampled_from([1, 1, 1, 100]))
    return _padded(draw(_text(vr, charset)), even=draw(st.integers(0, 4)) > 0, pad=b" ")


@st.composite
def _sequence(draw: st.DrawFn, encoding: Encoding, charset: str, depth: int, *, undefined: bool) -> bytes:
    """Return the value of a sequence, with its delimiter where its length is undefined."""
    items = b""
    for _ in range(draw(st.integers(0, 2))):
        item = draw(_elements(encoding, charset, depth + 1))
        if draw(st.booleans()):
            items += encoding.pack("HHL", 0xFFFE, 0xE000, len(item)) + item
        else:
            items += encoding.pack("HHL", 0xFFFE, 0xE000, _UNDEFINED) + item
            items += encoding.pack("HHL", 0xFFFE, 0xE00D, 0)
    return items + (encoding.pack("HHL", 0xFFFE, 0xE0DD, 0) if undefined else b"")


@st.composite
def _public(draw: st.DrawFn, encoding: Encoding, charset: str, depth: int) -> tuple[int, bytes]:
    known = draw(st.sampled_from(sorted(_TAGS)))
    tag = draw(st.sampled_from(_TAGS[known]))
    if known == "SQ" and depth < 3:
        undefined = draw(st.booleans())
        as_unknown = draw(st.integers(0, 3)) == 0
        inner = encoding._replace(implicit=True) if as_unknown else encoding
        value = draw(_sequence(inner, charset, depth, undefined=undefined))
        return tag, encoding.element(tag, "UN" if as_unknown else "SQ", value, _UNDEFINED if undefined else None)
    written = draw(st.sampled_from(known.split(" or "))) if known != "SQ" else "UN"
    if draw(st.integers(0, 9)) == 0:
        written = draw(st.sampled_from([*_PLAIN, "LO", "UT", "OB", "UN", "PN", "AT", "US", "FD", "SV"]))
    value = draw(_value(known if written == "UN" and known != "SQ" else written, charset))
    return tag, encoding.element(tag, written, value)


@st.composite
def _private(draw: st.DrawFn, encoding: Encoding, charset: str, depth: int) -> list[tuple[int, bytes]]:
    """Return a private block: its creator, if it is there, and some elements."""
    creator = draw(st.sampled_from(_CREATORS))
    dictionary = private_dictionaries.get(creator, {"0009xx01": ("LO",), "0009xx02": ("UN",)})
    known = [key for key in sorted(dictionary) if re.fullmatch("[0-9A-F]{4}xx[0-9A-F]{2}", key)]
    group = int(known[0][:4], 16)
    block = draw(st.sampled_from([0x10, 0x11, 0xFF]))
    elements = []
    if draw(st.integers(0, 9)):
        name = _padded(creator.encode(), even=True, pad=b" ")
        elements.append((group << 16 | block, encoding.element(group << 16 | block, "LO", name)))
    for key in draw(st.lists(st.sampled_from(known), max_size=3, unique=True)):
        vr = dictionary[key][0]
        tag = int(key[:4], 16) << 16 | block << 8 | int(key[6:], 16)
        if vr == "SQ" and depth < 3:
            value = draw(_sequence(encoding, charset, depth, undefined=True))
            elements.append((tag, encoding.element(tag, "SQ", value, _UNDEFINED)))
            continue
        vr = "UN" if vr == "SQ" else vr.split(" or ")[-1]
        value = draw(_value(vr, charset))
        elements.append((tag, encoding.element(tag, draw(st.sampled_from([vr, "UN"])), value)))
    return elements


@st.composite
def _elements(draw: st.DrawFn, encoding: Encoding, charset: str, depth: int = 0) -> bytes:
    """Return the elements of a dataset; at the top level with the three UIDs."""
    found: dict[int, bytes] = {}
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        charset = draw(st.sampled_from(CHARSETS))
        found[0x00080005] = encoding.element(0x00080005, "CS", _padded(charset.encode(), even=True, pad=b" "))
    if draw(st.integers(0, 3)) == 0:
        found[0x00280103] = encoding.element(0x00280103, "US", encoding.pack("H", draw(st.integers(0, 1))))
    for _ in range(draw(st.integers(0, 4 if depth else 9))):
        tag, element = draw(_public(encoding, charset, depth))
        found[tag] = element
    for _ in range(draw(st.integers(0, 1 if depth else 2))):
        found.update(draw(_private(encoding, charset, depth)))
    if found and draw(st.integers(0, 4)) == 0:
        tag = draw(st.sampled_from(sorted(found))) & 0xFFFF0000
        found[tag] = encoding.element(tag, "UL", encoding.pack("L", draw(st.integers(0, 2**32 - 1))))
    if depth == 0:
        for number, tag in enumerate((0x00080018, 0x0020000D, 0x0020000E)):
            found[tag] = encoding.element(tag, "UI", b"1.2.826.0.1.%d\0" % number)
    tags = sorted(found) if draw(st.integers(0, 9)) else draw(st.permutations(sorted(found)))
    return b"".join(found[tag] for tag in tags)


@st.composite
def dicom_files(draw: st.DrawFn) -> bytes:
    """Return a DICOM file with the three UIDs and anything else."""
    syntax = draw(st.sampled_from(sorted(SYNTAXES)))
    dataset = draw(_elements(Encoding(syntax == "1.2.840.10008.1.2", syntax != "1.2.840.10008.1.2.2"), ""))
    meta_encoding = Encoding(implicit=False, little=True)
    meta = meta_encoding.element(0x00020010, "UI", _padded(syntax.encode(), even=True, pad=b"\0"))
    meta = meta_encoding.element(0x00020000, "UL", struct.pack("<L", len(meta))) + meta
    if SYNTAXES[syntax].endswith("deflated"):
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        dataset = deflater.compress(dataset) + deflater.flush()
    return bytes(128) + b"DICM" + meta + dataset
