"""A payload in pieces: the bytes, their checksums, and what becomes of a file that changes meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_optimized_dicom.checksum import combine_all, crc32c
from cloud_optimized_dicom.errors import StorageError
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.memory import MemoryStore
from cloud_optimized_dicom.storage.payload import BytesPayload, Cut, FilePayload

if TYPE_CHECKING:
    from pathlib import Path


@given(data=st.binary(min_size=1, max_size=3000), piece_bytes=st.integers(1, 4000))
def test_pieces_are_the_whole(data: bytes, piece_bytes: int) -> None:
    """The pieces, each of its own CRC32C, are the bytes in order; all but the last are of one size."""
    pieces = Cut(BytesPayload(data), piece_bytes).pieces
    read = [piece.open().read() for piece in pieces]
    assert b"".join(read) == data
    assert [piece.size for piece in pieces] == [len(part) for part in read]
    assert {piece.size for piece in pieces[:-1]} <= {piece_bytes}
    assert [piece.crc32c for piece in reversed(pieces)] == [crc32c(part) for part in reversed(read)]
    assert combine_all([(piece.crc32c, piece.size) for piece in pieces]) == (crc32c(data), len(data))


@given(data=st.binary(min_size=50, max_size=200), at=st.integers(-60, 60), length=st.integers(0, 60))
def test_a_piece_can_be_read_from_anywhere(data: bytes, at: int, length: int) -> None:
    """A piece seeks and reads as a file of its own bytes, and never shows its neighbours."""
    piece = Cut(BytesPayload(data), 20).pieces[1]
    with piece.open() as stream:
        stream.seek(max(0, at))
        assert stream.read(length) == data[20:40][max(0, at) :][:length]
        assert stream.seek(0, 2) == 20


@pytest.mark.parametrize("byte", [0, 9, 10, 25, 30, 34])
def test_a_file_that_changed_is_refused(tmp_path: Path, byte: int) -> None:
    """Wherever a file changed after it was measured, one of its pieces is refused."""
    data = bytearray(range(35))
    path = tmp_path / "file"
    path.write_bytes(data)
    cut = Cut(FilePayload(path, len(data), crc32c(bytes(data))), 10)
    data[byte] ^= 4
    path.write_bytes(data)
    store = MemoryStore("memory://cut")
    with pytest.raises(StorageError, match="announced"):
        for piece in cut.pieces:
            store.create(new_write_id(), piece, write_id=new_write_id())


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    """A piece whose bytes are gone is an error, not a shorter piece."""
    path = tmp_path / "file"
    path.write_bytes(bytes(35))
    cut = Cut(FilePayload(path, 35, crc32c(bytes(35))), 10)
    path.write_bytes(bytes(25))
    with pytest.raises(OSError, match="end before"):
        cut.pieces[2].open().read()
