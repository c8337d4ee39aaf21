"""CRC32C (Castagnoli): of bytes, of a stream, and of a concatenation without its bytes.

A CRC32C is an ``int`` inside the package and, in JSON, base64 of its four big-endian bytes, as Google Cloud Storage
prints it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import importlib
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Buffer = bytes | bytearray | memoryview

_POLYNOMIAL = 0x82F63B78  # reflected Castagnoli polynomial (RFC 3720, appendix B.4)
_READ_BYTES = 1 << 20


class _Extend(Protocol):
    def __call__(self, crc: int, chunk: bytes | memoryview | bytearray, /) -> int: ...


def _crcmod_extend() -> _Extend:
    crcmod = importlib.import_module("crcmod")
    function: Callable[[bytes, int], int] = crcmod.mkCrcFun(0x11EDC6F41, initCrc=0, xorOut=0xFFFFFFFF)
    return lambda crc, chunk: function(chunk, crc)


@cache
def _extend() -> _Extend:
    google_crc32c = importlib.import_module("google_crc32c")
    extend: _Extend = google_crc32c.extend
    if google_crc32c.implementation != "c":
        # crcmod's C extension beats google-crc32c's pure Python where the latter has no wheel.
        with contextlib.suppress(ImportError):
            extend = _crcmod_extend()
    return extend


def crc32c(data: Buffer, crc: int = 0) -> int:
    """Return the CRC32C of `data`, continued from `crc`."""
    if not isinstance(data, bytes):
        data = bytes(data)  # the C extension takes no memoryview, not even a read-only one
    return _extend()(crc, data)


def crc32c_of_stream(stream: BinaryIO, size: int | None = None) -> tuple[int, int]:
    """Return (CRC32C, bytes read) of the next `size` bytes of `stream`, or of all that is left."""
    crc = 0
    done = 0
    while size is None or done < size:
        chunk = stream.read(_READ_BYTES if size is None else min(_READ_BYTES, size - done))
        if not chunk:
            break
        crc = crc32c(chunk, crc)
        done += len(chunk)
    return crc, done


def _times(matrix: tuple[int, ...], vector: int) -> int:
    total = 0
    for row in matrix:
        if vector & 1:
            total ^= row
        vector >>= 1
    return total


@cache
def _zeros(power: int) -> tuple[int, ...]:
    """Return the operator over GF(2) that appends 2**power zero bits to a CRC."""
    if power == 0:
        return (_POLYNOMIAL, *(1 << bit for bit in range(31)))
    half = _zeros(power - 1)
    return tuple(_times(half, row) for row in half)


def combine(crc_a: int, crc_b: int, len_b: int) -> int:
    """Return the CRC32C of A followed by B, given both CRCs and B's length in bytes.

    Notes
    -----
    Costs O(log len_b), whatever the sizes: appending zero bits is a linear map on the CRC register.
    """
    power = 3  # bits per byte
    while len_b:
        if len_b & 1:
            crc_a = _times(_zeros(power), crc_a)
        len_b >>= 1
        power += 1
    return crc_a ^ crc_b


def _zero_bytes_undone(crc: int, length: int) -> int:
    """Return the register before `length` zero bytes were appended: the inverse of what :func:`combine` applies."""
    power = 3
    while length:
        if length & 1:
            crc = _times(_zeros_undone(power), crc)
        length >>= 1
        power += 1
    return crc


@cache
def _zeros_undone(power: int) -> tuple[int, ...]:
    if power == 0:
        # Appending a zero bit shifts right and, if a one fell out, adds the polynomial, whose top bit is set: so the
        # top bit afterwards tells what fell out.
        return (*(1 << (bit + 1) for bit in range(31)), ((1 << 31 ^ _POLYNOMIAL) << 1 & 0xFFFFFFFF) | 1)
    half = _zeros_undone(power - 1)
    return tuple(_times(half, row) for row in half)


def without_tail(crc_whole: int, crc_tail: int, tail_bytes: int) -> int:
    """Return the CRC32C of A, given those of A followed by B and of B, and B's length: :func:`combine` undone."""
    return _zero_bytes_undone(crc_whole ^ crc_tail, tail_bytes)


def combine_all(parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return (CRC32C, size) of the concatenation of parts given as (CRC32C, size)."""
    crc = total = 0
    for part_crc, size in parts:
        crc = combine(crc, part_crc, size)
        total += size
    return crc, total


def encode(crc: int) -> str:
    """Return the base64 form, e.g. ``"AAAAAA=="`` for 0."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode("ascii")


def decode(text: str) -> int:
    """Return the value of a base64 form.

    Raises
    ------
    ValueError
        If `text` is not base64 of four bytes.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("a CRC32C is base64 of four bytes") from error
    if len(raw) != 4:  # noqa: PLR2004
        raise ValueError("a CRC32C is base64 of four bytes")
    return int.from_bytes(raw, "big")
