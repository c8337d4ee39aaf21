"""One instance of any size up to 4 GB, written as a stream in constant memory."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from cloud_optimized_dicom.testing.datasets.base import Uids, describe_pixels, make_dataset, to_bytes

MULTI_FRAME_WORD = "1.2.840.10008.5.1.4.1.1.7.3"
_CHUNK_BYTES = 1 << 20
_LARGEST_VALUE = 0xFFFFFFFE


def write_large_instance(
    stream: BinaryIO, size_bytes: int, *, rows: int = 1024, columns: int = 1024, seed: int = 0, uids: Uids | None = None
) -> int:
    """Write a native 16-bit multi-frame instance of at least `size_bytes` of pixels; return the bytes written.

    Parameters
    ----------
    size_bytes
        Rounded up to whole frames.

    Raises
    ------
    ValueError
        If one native value cannot hold so much (PS3.5 section 7.1.1).

    Notes
    -----
    No byte range repeats: every MiB of noise begins with its number, so neither a sparse file system nor a
    deduplicating one can cheat.
    """
    frame_bytes = rows * columns * 2
    frames = max(1, -(-size_bytes // frame_bytes))
    if frames * frame_bytes > _LARGEST_VALUE:
        raise ValueError(f"{size_bytes} bytes do not fit one native value")
    dataset = make_dataset(uids or Uids.of("large", seed, size_bytes), MULTI_FRAME_WORD)
    describe_pixels(dataset, (rows, columns), frames=frames)
    head = to_bytes(dataset) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, frames * frame_bytes)
    stream.write(head)
    noise = np.random.default_rng(seed).bytes(_CHUNK_BYTES)
    left = frames * frame_bytes
    number = 0
    while left:
        chunk = (struct.pack("<Q", number) + noise[8:])[:left]
        stream.write(chunk)
        left -= len(chunk)
        number += 1
    return len(head) + frames * frame_bytes
