"""A tar with end-of-archive blocks, for tools that append to a tar only if it has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.format.tar import END_OF_ARCHIVE
from cloud_optimized_dicom.storage.payload import BytesPayload, ChainPayload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.storage.payload import Payload

END_BYTES = len(END_OF_ARCHIVE)
HOLD_SECONDS = 1.0
"""How much longer a sealing commit holds its lock.

Version 2.2.0 reads the metadata, and takes the lock after that: what is committed in between it overwrites.  While the
lock is still there it notices.
"""


def sealed(segments: Sequence[Payload]) -> tuple[Payload, ...]:
    """Return the segments that a tar ends in with end-of-archive blocks behind them, and no more segments than before.

    Notes
    -----
    A segment of its own could be one more than a concatenation takes; where there are none it has to be.
    """
    end = BytesPayload(END_OF_ARCHIVE)
    return (*segments[:-1], ChainPayload((segments[-1], end))) if segments else (end,)
