"""Where the frames of a file lie, for programs that read it with pydicom."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.dicom.frames import build_frame_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

_KEYS = ("CustomOffsetTable", "CustomOffsetTableLengths")


def get_multiframe_offset_tables(dataset: Dataset) -> dict[str, Any]:
    """Return the place of each frame of a multi-frame dataset; an empty dict for one frame or none.

    Parameters
    ----------
    dataset
        As pydicom read it.  The places are those in the file that it was read from; in what pydicom would write, for a
        dataset that was made in memory.

    Returns
    -------
    dict
        ``"CustomOffsetTable"``: per frame, its first byte in the file.  ``"CustomOffsetTableLengths"``: per frame, the
        bytes up to the end of its last fragment.  A dataset that has both as attributes keeps them.  Empty also for a
        deflated dataset, whose frames have no place in the file.

    Raises
    ------
    FrameTableError
        If the pixel data cannot be described.
    """
    if int(dataset.get("NumberOfFrames") or 1) <= 1:
        return {}
    own = {key: getattr(dataset, key, None) for key in _KEYS}
    if all(value is not None for value in own.values()):
        return own
    name = f"instance {dataset.get('SOPInstanceUID', '')}"
    with _opened(dataset) as stream:
        table = build_frame_table(stream, name)
    if table is None or not table.rangeable:
        return {}
    return dict(zip(_KEYS, (list(table.offsets), list(table.lengths)), strict=True))


@contextmanager
def _opened(dataset: Dataset) -> Iterator[BinaryIO]:
    """Give the dataset's file; one that its reader has open stays so, where it was."""
    filename = getattr(dataset, "filename", None)
    if isinstance(filename, str | Path) and Path(filename).is_file():
        with Path(filename).open("rb") as file:
            yield file
        return
    stream = getattr(dataset, "buffer", None)
    if stream is not None and not stream.closed:
        position = stream.tell()
        try:
            yield stream
        finally:
            stream.seek(position)
        return
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    yield written
