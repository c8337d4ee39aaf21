"""Local files that are there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def new_file(directory: Path, suffix: str = "", prefix: str = "") -> Iterator[BinaryIO]:
    """Make a file in `directory` under a name of its own, which the caller deletes some day.

    Notes
    -----
    If anything goes wrong inside the block, or when the last bytes are written behind it, nothing is left of the file.
    """
    path: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=directory, suffix=suffix, prefix=prefix, delete=False) as file:
            path = Path(file.name)
            yield cast("BinaryIO", file)
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `path` once it is whole.

    Notes
    -----
    If anything goes wrong before that, what is at `path` stays as it is, and nothing is left of the new file.  The
    bytes are on the disk before the name is, so that `path` names no part of them even after a power cut.
    """
    part = path.with_name(f".cod-{uuid.uuid4().hex}")
    try:
        with part.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
