"""What is asked for, and the record of what was done, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.checksum import encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from cloud_optimized_dicom.bounding_box import BoundingBox
    from cloud_optimized_dicom.dicom.transcode.model import Target

    FillValue = int | float | Sequence[int | float]
    """One value, or one per sample."""

AUDIT_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class RedactionOptions:
    """How a series is redacted.

    Parameters
    ----------
    reviewer
        Who says that these boxes are to go.
    when
        Of the audit record; in UTC.
    fill_value
        None: black as displayed.
    target
        What every instance is encoded to; None: its own transfer syntax, as far as :mod:`.write` can.
    native
        Whether every instance is stored without compression; `target` then does not count.
    is_clean
        Whether the reviewer states that nothing is left in the pixels of these instances that identifies somebody.
    basic_table_limit_bytes
        From this size of all decoded frames on, an Extended Offset Table is written.
    """

    reviewer: str
    when: datetime
    fill_value: FillValue | None = None
    target: Target | None = None
    native: bool = False
    is_clean: bool = False
    basic_table_limit_bytes: int = 3 << 30


class TargetFile(NamedTuple):
    """A local file that may be redacted, and the SOP Instance UID of what is in it."""

    path: Path
    instance_uid: str


@dataclass(frozen=True, slots=True)
class Region:
    """A box of one instance, and its frames; None: all."""

    box: BoundingBox
    frames: tuple[int, ...] | None

    def as_json(self) -> dict[str, Any]:
        """Return the box as the audit record has it."""
        box = self.box
        frames = None if self.frames is None else list(self.frames)
        return {"x": box.x, "y": box.y, "width": box.width, "height": box.height, "frames": frames}


@dataclass(frozen=True, slots=True)
class FileState:
    """What identifies the bytes of a file, without any of them."""

    transfer_syntax_uid: str
    size: int
    crc32c: int

    def as_json(self) -> dict[str, Any]:
        """Return it as the audit record has it."""
        return {
            "transfer_syntax_uid": self.transfer_syntax_uid,
            "size": self.size,
            "crc32c": encode(self.crc32c),
        }


@dataclass(frozen=True, slots=True)
class RedactedInstance:
    """What was done to one instance.

    Parameters
    ----------
    fill
        One value per sample, in the photometric interpretation of the new file (RGB for YBR_RCT).
    before, after
        Of the whole DICOM file.
    """

    instance_uid: str
    regions: tuple[Region, ...]
    fill: tuple[int | float, ...]
    before: FileState
    after: FileState


@dataclass(frozen=True, slots=True)
class RedactionRecord:
    """What one call did: an entry of the custom field ``redactions``."""

    reviewer: str
    when: datetime
    is_clean: bool
    instances: tuple[RedactedInstance, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the entry; docs/how-to/redact.md has its keys."""
        return {
            "version": AUDIT_VERSION,
            "reviewer": self.reviewer,
            "when": self.when.isoformat(),
            "is_clean": self.is_clean,
            "instances": {
                instance.instance_uid: {
                    "boxes": [region.as_json() for region in instance.regions],
                    "fill": list(instance.fill),
                    "before": instance.before.as_json(),
                    "after": instance.after.as_json(),
                }
                for instance in self.instances
            },
        }
