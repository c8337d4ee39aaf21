"""What is claimed of a file before it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hints:
    """Claims about one DICOM file, all optional.

    They are trusted to *skip* work (a UID and CRC32C equal to a stored record mean "same" without fetching a byte) and
    verified before they can *cause* a write.

    Parameters
    ----------
    size
        In bytes.
    crc32c
        As Google Cloud Storage prints it: base64 of the big-endian value.
    instance_uid, series_uid, study_uid
        Of the dataset.
    """

    size: int | None = None
    crc32c: str | None = None
    instance_uid: str | None = None
    series_uid: str | None = None
    study_uid: str | None = None

    def __bool__(self) -> bool:
        return any(
            claim is not None for claim in (self.size, self.crc32c, self.instance_uid, self.series_uid, self.study_uid)
        )
