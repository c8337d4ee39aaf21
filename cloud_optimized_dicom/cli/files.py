"""Stored instances as local files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cloud_optimized_dicom.whole_files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give a hidden folder on the file system of `folder`, gone at the end: files in it move into place by renaming."""
    with tempfile.TemporaryDirectory(prefix=".cod-", dir=folder) as name:
        yield Path(name)


def output_path(out: str) -> Path:
    """Return the path of a file that is to be written; one that cannot be is a usage error."""
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(f"{out} is not a file in an existing folder")
    return path


def write_output(data: bytes, path: Path) -> None:
    """Write a file that appears whole."""
    with replacing(path) as file:
        file.write(data)


def move_whole(part: Path, path: Path) -> None:
    """Move a finished file of the same file system to its place, its bytes on the disk before its name is."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
