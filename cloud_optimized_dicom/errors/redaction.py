"""What can be wrong with a redaction."""

from __future__ import annotations

from cloud_optimized_dicom.errors.base import CODError


class RedactionError(CODError):
    """A redaction that cannot be applied; nothing was changed.

    Parameters
    ----------
    instance_uid
        Empty where it concerns no instance in particular.
    reason
        Without any header value.
    """

    def __init__(self, instance_uid: str, reason: str) -> None:
        super().__init__(f"instance {instance_uid}: {reason}" if instance_uid else reason)
        self.instance_uid = instance_uid
        self.reason = reason


class RedactionTargetMissingError(RedactionError):
    """A redaction names an instance that the series does not hold."""

    def __init__(self, instance_uid: str, uri: str) -> None:
        super().__init__(instance_uid, f"is not in {uri or 'the series'}")
        self.uri = uri


class RedactionFrameOutOfRangeError(RedactionError):
    """A redaction names a frame (from 0) that the instance does not hold."""

    def __init__(self, instance_uid: str, frame: int, frames: int) -> None:
        super().__init__(instance_uid, f"has frames 0 to {frames - 1}, not {frame}")
        self.frame = frame
        self.frames = frames


class RedactionBoxOutOfBoundsError(RedactionError):
    """A redaction box that leaves the image, or is empty; `box` is (x, y, width, height)."""

    def __init__(self, instance_uid: str, box: tuple[int, int, int, int]) -> None:
        super().__init__(instance_uid, f"the box (x, y, width, height) = {box} is empty or leaves the image")
        self.box = box


class RedactionFillValueError(RedactionError):
    """A fill value that the pixels cannot hold."""
