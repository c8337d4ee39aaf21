"""New, same or conflict: what becomes of an incoming instance, decided on values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cloud_optimized_dicom import checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.hints import Hints
    from cloud_optimized_dicom.model import DicomFacts, FrameTable, InstanceRecord

Decision = Literal["new", "same", "conflict"]


def known_by_hints(hints: Hints, stored: InstanceRecord | None) -> bool:
    """Return whether the hints alone say that this very file is stored: same UID, CRC32C and (if hinted) size."""
    if stored is None or hints.crc32c is None:
        return False
    crc, size = stored.identity
    if hints.instance_uid is not None and _shares_a_hash(hints.instance_uid, stored):
        return False
    return hints.crc32c == checksum.encode(crc) and hints.size in (None, size)


def plan_instance(
    facts: DicomFacts, stored: InstanceRecord | None, same_pixels: Callable[[DicomFacts, InstanceRecord], bool] | None
) -> Decision:
    """Decide what becomes of one measured file.

    Parameters
    ----------
    stored
        What is stored (or staged) under its UID, if anything.
    same_pixels
        Compares pixel data, where instances that differ only elsewhere count as the same; None: they do not.
    """
    if stored is None:
        return "new"
    if _shares_a_hash(facts.instance_uid, stored):
        return "conflict"
    if (facts.crc32c, facts.size) == stored.identity:
        return "same"
    if same_pixels is not None and same_pixels(facts, stored):
        return "same"
    return "conflict"


def _shares_a_hash(uid: str, stored: InstanceRecord) -> bool:
    """Return whether an instance has been given the name of another one: two UIDs with one hash."""
    return uid not in {stored.instance_uid, stored.name_uid}


def equal_frames(left: FrameTable | None, right: FrameTable | None) -> bool:
    """Return whether two tables describe the same frames, by their checksums; False where one cannot say."""
    if left is None or right is None or left.crc32cs is None or right.crc32cs is None:
        return False
    return bool(left.crc32cs) and (left.crc32cs, left.lengths) == (right.crc32cs, right.lengths)
