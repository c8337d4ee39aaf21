"""Pictures as a JPEG file, or as an MP4 video: H.264, four pictures a second."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_optimized_dicom.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

_PICTURES_A_SECOND = 4
_JPEG_QUALITY = 90
_OPTIONS = {"crf": "18", "preset": "fast", "bf": "0", "g": "12"}
"""A key frame every three seconds, so that any picture is found after a few; none that refers to a later one."""


class Encoded(NamedTuple):
    """A file: its bytes, its extension and its media type."""

    data: bytes
    extension: str
    content_type: str


def encode(pictures: Sequence[NDArray[np.uint8]]) -> Encoded:
    """Return one picture as a JPEG file, several as a video.

    Parameters
    ----------
    pictures
        At least one; each of shape (size, size) or (size, size, 3), all of one size.

    Raises
    ------
    MissingDependencyError
        If the extra ``thumbnail`` is not installed.
    """
    if len(pictures) == 1:
        return Encoded(encode_jpeg(pictures[0]), "jpg", "image/jpeg")
    return Encoded(encode_mp4(pictures), "mp4", "video/mp4")


def decode(data: bytes, extension: str, wanted: Collection[int] | None = None) -> NDArray[np.uint8]:
    """Return the pictures of a file, of shape (pictures, rows, columns, 3).

    Parameters
    ----------
    wanted
        The numbers of those to return; None: all.  No others are ever in memory.

    Raises
    ------
    ValueError
        If it is damaged.
    MissingDependencyError
        If the extra ``thumbnail`` is not installed.
    """
    return _decode_mp4(data, wanted) if extension == "mp4" else _decode_jpeg(data)


def encode_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Return a JPEG file (colours not subsampled)."""
    return _saved(picture, "JPEG", quality=_JPEG_QUALITY, subsampling=0)


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Return a PNG file."""
    return _saved(picture, "PNG", optimize=True)


def encode_mp4(pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return an MP4 video that browsers play; the colours of an odd size are kept in full, which not all do."""
    av = require_av()
    rows, columns = pictures[0].shape[:2]
    pixel_format = "yuv444p" if rows % 2 or columns % 2 else "yuv420p"
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_PICTURES_A_SECOND, options=_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = columns, rows, pixel_format
        stream.thread_count = 1  # the same bytes on every machine
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(in_colour(picture)), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def in_colour(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture of shape (rows, columns, 3)."""
    return picture if picture.ndim > 2 else np.repeat(picture[:, :, np.newaxis], 3, axis=2)  # noqa: PLR2004 - a plane


def _decode_mp4(data: bytes, wanted: Collection[int] | None) -> NDArray[np.uint8]:
    av = require_av()
    try:
        with av.open(io.BytesIO(data)) as container:
            numbered = enumerate(container.decode(video=0))
            shown = (frame for number, frame in numbered if wanted is None or number in wanted)
            frames = [frame.to_ndarray(format="rgb24") for frame in shown]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError("the video of a thumbnail is damaged") from error
    if not frames:
        raise ValueError("the video of a thumbnail has no pictures")
    return np.stack(frames)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    image = require_pillow()
    try:
        with image.open(io.BytesIO(data)) as opened:
            return np.asarray(opened.convert("RGB"))[np.newaxis]
    except (OSError, SyntaxError, image.DecompressionBombError) as error:
        raise ValueError("the picture of a thumbnail is damaged") from error


def _saved(picture: NDArray[np.uint8], form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    require_pillow().fromarray(np.ascontiguousarray(picture)).save(target, form, **options)
    return target.getvalue()


def require_pillow() -> ModuleType:
    """Return ``PIL.Image``; `MissingDependencyError` without it."""
    try:
        from PIL import Image  # noqa: PLC0415 - of the extra
    except ImportError:
        raise MissingDependencyError("a thumbnail", "thumbnail") from None
    return Image


def require_av() -> ModuleType:
    """Return ``av``; `MissingDependencyError` without it."""
    try:
        import av  # noqa: PLC0415 - of the extra
    except ImportError:
        raise MissingDependencyError("a thumbnail of several frames", "thumbnail") from None
    return av
