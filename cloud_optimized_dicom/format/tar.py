"""Tar members: the blocks around each DICOM file, and where a tar really ends.

The layout is POSIX.1-2017 *pax*, "ustar Interchange Format": a 512-byte header block, the data, zeros up to the next
multiple of 512.  We write no end-of-archive blocks, so that an append is a concatenation.
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.ranges import ByteRange

BLOCK_BYTES = 512
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
"""What :func:`seal` appends for those who want a strict archive."""

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_EXTENSION_TYPES = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})


class Member(NamedTuple):
    """One header block: the member's name, its data's size, and whether it only describes the next member (pax)."""

    name: str
    size: int
    is_extension: bool


def padding_bytes(size: int) -> int:
    """Return how many zeros follow `size` bytes of data."""
    return -size % BLOCK_BYTES


def padded(size: int) -> int:
    """Return `size` rounded up to whole blocks."""
    return size + padding_bytes(size)


def member_header(name: str, size: int) -> bytes:
    """Return the 512-byte header block of a member.

    Notes
    -----
    The same name and size always give the same bytes (no time, no user).  From 8 GiB on, where ustar's octal field
    ends, the size is written in base 256, as GNU tar does and every reader named in the format page understands.
    """
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        return info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return info.tobuf(tarfile.GNU_FORMAT)


def parse_member_header(block: bytes) -> Member | None:
    """Return what a header block says, or None if it is no valid header (zeros, data, a wrong checksum)."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    if info.size < 0:  # base 256 has a sign; whoever walks the members would go back
        return None
    return Member(info.name, info.size, info.type in _EXTENSION_TYPES)


def is_zero_block(block: bytes) -> bool:
    """Return whether this is a block of an end-of-archive marker."""
    return block == _ZERO_BLOCK


def end_of_members(read: Callable[[ByteRange], bytes], start: int, size: int) -> int:
    """Return where the members of a tar end: before its end-of-archive blocks, if it has any.

    Parameters
    ----------
    read
        Reads a range of the tar.
    start
        The end of a member that is known: members behind it are walked, header by header.
    size
        Of the tar in bytes.
    """
    from cloud_optimized_dicom.ranges import ByteRange  # noqa: PLC0415 - the type alone is needed otherwise

    position = start
    while position + BLOCK_BYTES <= size:
        member = parse_member_header(read(ByteRange.of(position, BLOCK_BYTES)))
        if member is None:
            break
        following = position + BLOCK_BYTES + padded(member.size)
        if following > size:
            break  # cut off in the middle: not a member that anybody could read
        position = following
    return position
