"""JSON objects of any number of members, written and parsed a member at a time.

A document of 100,000 instances is hundreds of megabytes of text; only the values that stay are ever held, not the text.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_CHUNK_BYTES = 256 << 10
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITERS = frozenset(" \t\n\r,:}")
_STREAMED_LEVELS = 3
"""How deep objects are taken apart: ``cod.instances`` is the place with many members."""


def dump_gzip(document: Mapping[str, Any], *, level: int) -> bytes:
    """Return a document as gzip of compact JSON, the same bytes for the same document.

    Raises
    ------
    ValueError
        If it holds NaN or infinity.
    """
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=level, mtime=0) as packed:
        pending: list[str] = []
        size = 0
        for piece in _iter_pieces(document, _STREAMED_LEVELS):
            pending.append(piece)
            size += len(piece)
            if size > _CHUNK_BYTES:
                packed.write(_encoded(pending))
                pending, size = [], 0
        packed.write(_encoded(pending))
    return target.getvalue()


def _encoded(pieces: list[str]) -> bytes:
    return "".join(pieces).encode("utf-8", "backslashreplace")  # a lone surrogate becomes a JSON escape


def _iter_pieces(value: Any, levels: int) -> Iterator[str]:
    if levels == 0 or not isinstance(value, dict):
        yield json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return
    separator = "{"
    for name, member in value.items():
        yield f"{separator}{json.dumps(name, ensure_ascii=False)}:"
        yield from _iter_pieces(member, levels - 1)
        separator = ","
    yield "{}" if separator == "{" else "}"


def iter_text(stream: io.BufferedIOBase) -> Iterator[str]:
    """Yield the text of a stream of UTF-8; `UnicodeDecodeError` if it is none."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    while chunk := stream.read(_CHUNK_BYTES):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def parse_object(chunks: Iterable[str]) -> dict[str, Any]:
    """Return the JSON object that the chunks of a text make up.

    Raises
    ------
    ValueError
        If the text is anything else, or goes on behind it; for NaN and infinity, too.
    RecursionError
        If it is nested too deep.
    """
    text = _Text(iter(chunks))
    document = text.object(_STREAMED_LEVELS)
    if text.peek():
        raise ValueError("text behind the document")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _interned(value: Any) -> Any:
    """Return a value whose names, if it is an object, are shared: the same few come once per instance."""
    return {sys.intern(name): member for name, member in value.items()} if isinstance(value, dict) else value


class _Text:
    """A window on a text, moved along as it is parsed."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self._text, self._position = "", 0
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def object(self, levels: int) -> dict[str, Any]:
        """Parse an object, and the objects in it down to `levels`, member by member."""
        self._expect("{")
        found: dict[str, Any] = {}
        if self.peek() == "}":
            self._position += 1
            return found
        while True:
            if self.peek() != '"':
                raise ValueError("a member has no name")
            name = self._value()
            self._expect(":")
            found[name] = self.object(levels - 1) if levels > 1 and self.peek() == "{" else _interned(self._value())
            if self.peek() == "}":
                self._position += 1
                return found
            self._expect(",")

    def peek(self) -> str:
        """Return the next character that is no white space, or an empty text at the end."""
        while True:
            match = _WHITE_SPACE.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._more():
                return ""

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise ValueError(f"{character} is missing")
        self._position += 1

    def _value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if self._text[end : end + 1] not in _DELIMITERS and self._more():
                continue  # a number may go on in the next chunk
            self._position = end
            return value

    def _more(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._text = self._text[self._position :] + chunk
                self._position = 0
                return True
        return False
