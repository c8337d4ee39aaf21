"""Bytes that do not follow their format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors.base import CODError

if TYPE_CHECKING:
    from collections.abc import Sequence


class FormatError(CODError):
    """Bytes that do not follow the format they claim."""


class MetadataError(FormatError):
    """A metadata.json that cannot be understood; `problems` are JSON paths and what is wrong there, without values."""

    def __init__(self, uri: str, problems: Sequence[str]) -> None:
        super().__init__(f"{uri}: " + "; ".join(problems))
        self.uri = uri
        self.problems = tuple(problems)


class UnsupportedVersionError(FormatError):
    """A format version that this release does not know."""

    def __init__(self, uri: str, version: str) -> None:
        super().__init__(f"{uri}: format version {version} is not supported by this release")
        self.uri = uri
        self.version = version


class FrameTableError(FormatError):
    """A frame table that does not describe the pixel data."""

    def __init__(self, instance: str, reason: str) -> None:
        super().__init__(f"{instance}: {reason}")
        self.instance = instance
        self.reason = reason


class FrameDecodeError(FormatError):
    """A frame (0-based) that does not decode; `reason` says why, without any header value."""

    def __init__(self, instance: str, frame: int, transfer_syntax_uid: str, reason: str) -> None:
        super().__init__(f"frame {frame} of {instance or 'an instance'} ({transfer_syntax_uid}): {reason}")
        self.instance = instance
        self.frame = frame
        self.transfer_syntax_uid = transfer_syntax_uid
        self.reason = reason


class UnsupportedFrameError(FrameDecodeError):
    """A frame that may well be sound, but of a transfer syntax or kind of pixels that nothing here decodes."""
