"""CRC32C of concatenations and their parts, against crcmod."""

from __future__ import annotations

from typing import TYPE_CHECKING

import crcmod.predefined
from hypothesis import given
from hypothesis import strategies as st

from cloud_optimized_dicom import checksum

if TYPE_CHECKING:
    from pathlib import Path

crc32c_of_crcmod = crcmod.predefined.mkCrcFun("crc-32c")
data = st.binary(max_size=3000)


@given(data)
def test_the_value_is_crcmods(content: bytes) -> None:
    """Whole, in two parts and from views, the CRC32C is what crcmod says."""
    expected = crc32c_of_crcmod(content)
    assert checksum.crc32c(content) == expected
    assert checksum.crc32c(content[7:], checksum.crc32c(content[:7])) == expected
    assert checksum.crc32c(memoryview(content)) == checksum.crc32c(bytearray(content)) == expected


@given(data, data)
def test_a_concatenation_needs_no_bytes(first: bytes, second: bytes) -> None:
    """Two CRCs combine to that of the concatenation, and taking the tail off undoes it."""
    whole = checksum.combine(checksum.crc32c(first), checksum.crc32c(second), len(second))
    assert whole == crc32c_of_crcmod(first + second)
    assert checksum.without_tail(whole, checksum.crc32c(second), len(second)) == checksum.crc32c(first)


@given(st.lists(data, max_size=6))
def test_many_parts(parts: list[bytes]) -> None:
    """Any number of parts combines, sizes included."""
    combined = checksum.combine_all([(checksum.crc32c(part), len(part)) for part in parts])
    assert combined == (crc32c_of_crcmod(b"".join(parts)), sum(map(len, parts)))


def test_lengths_beyond_memory() -> None:
    """A terabyte of zeros behind a byte combines and comes off again at once."""
    crc, length = checksum.crc32c(b"x"), 1 << 40
    whole = checksum.combine(crc, 0x12345678, length)
    assert checksum.without_tail(whole, 0x12345678, length) == crc


@given(st.integers(0, 2**32 - 1))
def test_the_text_form_round_trips(value: int) -> None:
    """Base64 of four big-endian bytes, as Google Cloud Storage prints it."""
    assert checksum.decode(checksum.encode(value)) == value


def test_other_texts_are_refused() -> None:
    """What is not base64 of four bytes is a ValueError."""
    for text in ("", "AAAA", "AAAAAAAA", "????", "AAAAAA"):
        try:
            checksum.decode(text)
        except ValueError:
            continue
        raise AssertionError(text)


def test_streams_are_read_to_their_end_or_size(tmp_path: Path) -> None:
    """A stream's CRC32C is that of what was read, however much is asked for."""
    path = tmp_path / "file"
    content = bytes(range(256)) * 9000
    path.write_bytes(content)
    with path.open("rb") as stream:
        assert checksum.crc32c_of_stream(stream, 1000) == (checksum.crc32c(content[:1000]), 1000)
        assert checksum.crc32c_of_stream(stream) == (checksum.crc32c(content[1000:]), len(content) - 1000)
